/**
 * What a failed message means for its migration, and whether it is worth a second look.
 *
 * @module
 */

import { ConnectionLost, StatementError } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { locateFailure, type Message } from "./message.ts";
import type { Migration } from "../migrations/migration.ts";
import { isLockConflict, sqlstateOf } from "../database/conflict.ts";

/** SQLSTATE of a session that somebody ended, by pg_terminate_backend or a shutdown. */
const ADMIN_SHUTDOWN = "57P01";

/** A session that somebody ended on purpose, which is no reason to start again behind his back. */
export function wasEndedByAdministrator(error: unknown): boolean {
  return error instanceof ConnectionLost && sqlstateOf(error) === ADMIN_SHUTDOWN;
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
 * @param again the command to run then
 * @returns undefined for what is not about one migration
 */
export async function explainFailure(
  error: unknown,
  migration: Migration,
  message: Pick<Message, "text" | "body" | "bodyStart" | "statementsBefore"> | undefined,
  { heldBy, again }: { readonly heldBy: string | undefined; readonly again: string },
): Promise<PipeweaveError | undefined> {
  if (error instanceof ConnectionLost && wasEndedByAdministrator(error)) {
    return new PipeweaveError(
      "database",
      "terminated",
      "An administrator ended the session; the server rolled it back",
      { ...error.details, hint: `Find out why before you run ${again} again.` },
    );
  }
  if (!(error instanceof StatementError)) return undefined;
  const location = message && await locateFailure(error, migration, message);
  return new PipeweaveError(error.kind, error.code, error.message, {
    ...error.details,
    ...(location ? { location } : {}),
    ...(isLockConflict(error) && heldBy
      ? { hint: `The lock was held by ${heldBy}. Wait for it or end it, and run ${again} again.` }
      : {}),
  });
}
