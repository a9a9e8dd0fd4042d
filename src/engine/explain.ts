/**
 * What a failed message means for its migration, and whether it is worth a second look.
 *
 * @module
 */

import { ConnectionLost, type Session, StatementError } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { locateFailure, type Message } from "./message.ts";
import { adviceAbout } from "./advice.ts";
import { EMBEDDED, labelOf, type Migration } from "../migrations/migration.ts";
import { isLockConflict, sqlstateOf } from "../database/conflict.ts";

/** What the server says when it ends a session for a reason: an administrator, a crash, a limit. */
const REASONS: Readonly<Record<string, string>> = {
  "57P01": "An administrator ended the session",
  "57P02": "The server ended the session, since another one of its processes crashed",
  "57P05": "The server ended the session: idle_session_timeout",
  "25P03": "The server ended the session: idle_in_transaction_session_timeout",
  "25P04": "The server ended the session: transaction_timeout",
};

/**
 * Whether a session was ended for a reason that the server gave: no fault of the network, and no reason to start again
 * behind somebody's back.
 */
export function wasEndedOnPurpose(error: unknown): boolean {
  return error instanceof ConnectionLost && (sqlstateOf(error) ?? "") in REASONS;
}

/** The error of a server that crashed while a migration ran, and goes on: once more it might crash again. */
export function crashed(migration: Migration, cause: PipeweaveError): PipeweaveError {
  return new PipeweaveError("database", "crashed", `The server crashed while ${labelOf(migration)} ran`, {
    ...cause.details,
    hint: "See the server's log for the reason before you run db:migrate again.",
  });
}

/** Whether the guard refused, and not the migration itself with a SQLSTATE of the same name. */
export function isRefusedByGuard(
  error: unknown,
  { statementsBeforeGuard }: Pick<Message, "statementsBeforeGuard">,
  refusals: Readonly<Record<string, string>>,
): error is StatementError {
  return error instanceof StatementError && error.completed === statementsBeforeGuard &&
    Object.values<string | undefined>(refusals).includes(error.details.sqlstate);
}

/**
 * The error of a migration that failed, with its place in the file.
 *
 * @param message absent where the file's own text was not sent yet
 * @param isFirst whether none of the user's migrations was applied before
 * @param again the command to run then
 * @returns undefined for what is not about one migration
 */
export async function explainFailure(
  error: unknown,
  migration: Migration,
  message: Pick<Message, "text" | "body" | "bodyStart" | "statementsBefore"> | undefined,
  { session, heldBy, isFirst, again }: {
    readonly session: Session;
    readonly heldBy: string | undefined;
    readonly isFirst: boolean;
    readonly again: string;
  },
): Promise<PipeweaveError | undefined> {
  if (error instanceof ConnectionLost && wasEndedOnPurpose(error)) {
    const sqlstate = sqlstateOf(error)!;
    return new PipeweaveError(
      "database",
      sqlstate === "25P04" ? "transaction_timeout" : "terminated",
      `${REASONS[sqlstate]}; the server rolled it back`,
      {
        ...error.details,
        hint: sqlstate === "25P04"
          ? `Raise transaction_timeout for this role or database, or split the file; then run ${again} again.`
          : `Find out why before you run ${again} again.`,
      },
    );
  }
  if (!(error instanceof StatementError)) return undefined;
  const location = message && await locateFailure(error, migration, message);
  const { hint, context, ...details } = error.details;
  const advice = error.kind === "interrupted"
    // Whoever ended it knows why.
    ? undefined
    : isLockConflict(error)
    ? heldBy ? `The lock was held by ${heldBy}. Wait for it or end it, and run ${again} again.` : hint
    : await adviceAbout(error, { session, migration, isInFile: location !== undefined, isFirst, again });
  return new PipeweaveError(error.kind, error.code, error.message, {
    ...details,
    // A page of our own SQL says nothing to anybody.
    ...(context && location && migration.source !== EMBEDDED ? { context } : {}),
    ...(location ? { location } : {}),
    ...(advice ? { hint: advice } : {}),
  });
}
