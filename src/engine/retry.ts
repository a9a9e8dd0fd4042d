/**
 * What is worth another attempt, and how often.
 *
 * @module
 */

import { DEADLOCK, sqlstateOf } from "../database/conflict.ts";

/** How often a migration is tried again when a lock was not free or a deadlock ended it. */
export const LOCK_RETRIES = 20;
/** Connections that may be lost in a row before it is given up. */
export const LOST_CONNECTIONS = 3;

/** What happened, for people. */
export function describeConflict(error: unknown, heldBy: string | undefined): string {
  return sqlstateOf(error) === DEADLOCK
    ? "a deadlock ended it"
    : `a lock was not free in time${heldBy ? `, held by ${heldBy}` : ""}`;
}
