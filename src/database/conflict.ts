/**
 * Conflicts over locks: nothing is wrong with the statement, it only came at a bad time.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";

const LOCK_NOT_AVAILABLE = "55P03";
/** A deadlock was found, and this transaction ended for it. */
export const DEADLOCK = "40P01";

/** The SQLSTATE behind an error, where there is one. */
export function sqlstateOf(error: unknown): string | undefined {
  return error instanceof PipeweaveError ? error.details.sqlstate : undefined;
}

/** Whether a lock was not free in time, or a deadlock had to end somebody: to be tried again. */
export function isLockConflict(error: unknown): boolean {
  return sqlstateOf(error) === LOCK_NOT_AVAILABLE || sqlstateOf(error) === DEADLOCK;
}
