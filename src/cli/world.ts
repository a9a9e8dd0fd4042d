/**
 * The outside world, injected.
 *
 * @module
 */

import type { FoundFile } from "../config/connection.ts";
import type { Environment } from "../config/environment.ts";

/** What a run of the program touches besides the database. */
export interface World {
  readonly env: Environment;
  /** Writes to stdout; what is written is a report. */
  readonly out: (text: string) => void;
  /** Writes to stderr; progress, prompts, warnings and errors. */
  readonly err: (text: string) => void;
  readonly outIsTerminal: boolean;
  readonly errIsTerminal: boolean;
  /** Asks for a line on the terminal; undefined where nobody can be asked. */
  readonly ask: ((question: string) => Promise<string>) | undefined;
  /** Columns and rows of the terminal as it is now; 80 and 24 where there is none. */
  readonly size: () => { readonly columns: number; readonly rows: number };
  /** Calls back for every key that is pressed, until the returned function is called; undefined where there are no keys. */
  readonly keys: ((onKey: (key: string) => void) => () => void) | undefined;
  readonly readFile: (path: string) => FoundFile | undefined;
  /** Number of the user that runs this; undefined where the system has none. */
  readonly user?: number | undefined;
  /** Aborted by SIGINT, SIGTERM or SIGHUP. */
  readonly signal: AbortSignal;
}
