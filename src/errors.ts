/**
 * What can go wrong, in the terms that scripts rely on.
 *
 * Everything that fails in an expected way throws a {@linkcode PipeweaveError}. Its `kind` decides the exit
 * code; only `main.ts` ends the process.
 *
 * @module
 */

/** The families of failure; one exit code each (docs/cli.md, "Exit codes"). */
export type ErrorKind =
  | "database"
  | "usage"
  | "condition"
  | "timeout"
  | "integrity"
  | "connection"
  | "interrupted";

/** Exit code of each kind. An interruption adds 128 + the signal's number instead (129, 130, 143). */
export const EXIT_CODES: Readonly<Record<ErrorKind, number>> = {
  database: 1,
  usage: 2,
  condition: 3,
  timeout: 4,
  integrity: 5,
  connection: 6,
  interrupted: 130,
};

/** Where in a SQL file a statement failed. */
export interface SqlLocation {
  /** The file, as it was named when it was discovered. */
  readonly file: string;
  /** Counted from 1. */
  readonly line: number;
  /** In characters, counted from 1. */
  readonly column: number;
  /** The statement's first lines with a caret under the place, ready to print. */
  readonly excerpt: string;
}

/** What an error carries besides its message; everything in it may be printed, so no secrets. */
export interface ErrorDetails {
  /** What to do next, one sentence. */
  readonly hint?: string;
  /** PostgreSQL's SQLSTATE, where the server reported one. */
  readonly sqlstate?: string;
  /** The server's DETAIL. */
  readonly detail?: string;
  /** The server's HINT. */
  readonly serverHint?: string;
  /** The server's CONTEXT. */
  readonly context?: string;
  /** The place in a SQL file that it is about. */
  readonly location?: SqlLocation;
  /** Several findings behind one failure, each a line. */
  readonly problems?: readonly string[];
  /** Further facts for `--json`, camelCase. */
  readonly data?: Readonly<Record<string, unknown>>;
  /** What this follows from; shown under `--verbose` alone. */
  readonly cause?: unknown;
}

/** An expected failure: says what failed, on what, the state things are in now, and what to do next. */
export class PipeweaveError extends Error {
  /** Always `PipeweaveError`; tells it from other errors across module boundaries. */
  override readonly name = "PipeweaveError";

  /** The family, which decides the exit code. */
  readonly kind: ErrorKind;
  /** A stable identifier in snake_case, for programs. */
  readonly code: string;
  /** What else is known. */
  details: ErrorDetails;

  /**
   * Describes a failure.
   *
   * @param kind the family, which decides the exit code
   * @param code a stable identifier in snake_case, for scripts that read `--json`
   * @param message for people; starts with a capital and names what failed and on what
   * @param details what else is known
   */
  constructor(
    kind: ErrorKind,
    code: string,
    message: string,
    details: ErrorDetails = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.kind = kind;
    this.code = code;
    this.details = details;
  }

  /** Replaces the hint: what to do next. */
  hint(text: string): void {
    this.details = { ...this.details, hint: text };
  }

  /**
   * Adds the state that things are in now, where that is known only after the failure was seen to.
   *
   * @param problem a line
   * @param more in place of the hint that there is, and beside its data
   */
  add(problem: string, more: Pick<ErrorDetails, "hint" | "data"> = {}): void {
    const { problems = [], data } = this.details;
    this.details = {
      ...this.details,
      ...more,
      problems: [...problems, problem],
      ...(data || more.data ? { data: { ...data, ...more.data } } : {}),
    };
  }
}

/** The error of work that a signal (or an AbortSignal of the library's user) ended. */
export function interrupted(message: string, details: ErrorDetails = {}): PipeweaveError {
  return new PipeweaveError("interrupted", "interrupted", message, details);
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
