/**
 * Who acts: what the log of migrations keeps beside the database user.
 *
 * @module
 */

import { hostname as nameOfHost } from "node:os";
import { getuid } from "node:process";
import { type Environment, osUserOf } from "./environment.ts";
import { VERSION } from "./version.ts";

/** The user, machine and program that act, for the log. */
export interface Actor {
  /** The operating system's user; null where nothing tells it. */
  readonly osUser: string | null;
  /** The machine's name; null where the system does not tell it. */
  readonly host: string | null;
  /** `pipeweave/<version>`. */
  readonly tool: string;
}

/** Returns the actor of this process. */
export function currentActor(env: Environment): Actor {
  return { osUser: osUserOf(env) ?? userId(), host: hostname(), tool: `pipeweave/${VERSION}` };
}

/** An actor of whom nothing is known but the tool: a library's user who did not say. */
export const UNKNOWN_ACTOR: Actor = { osUser: null, host: null, tool: `pipeweave/${VERSION}` };

function userId(): string | null {
  try {
    // Windows has no such number.
    return getuid ? `uid ${getuid()}` : null;
  } catch {
    return null;
  }
}

function hostname(): string | null {
  try {
    return nameOfHost();
  } catch {
    return null;
  }
}
