/**
 * What is worth another attempt, and when.
 *
 * @module
 */

import { DEADLOCK, sqlstateOf } from "../database/conflict.ts";

/** How often a migration is tried again when a lock was not free or a deadlock ended it. */
export const LOCK_RETRIES = 20;
/** Connections that may be lost in a row before it is given up. */
export const LOST_CONNECTIONS = 3;
/** Pause before a migration is tried again; it grows, and a random part keeps others' rhythms apart. */
const RETRY_PAUSE_MS = { base: 100, growth: 1.6, most: 10_000 };

/** What happened, for people. */
export function describeConflict(error: unknown, heldBy: string | undefined): string {
  return sqlstateOf(error) === DEADLOCK
    ? "a deadlock ended it"
    : `a lock was not free in time${heldBy ? `, held by ${heldBy}` : ""}`;
}

/** Milliseconds to wait before an attempt. @param attempt counted from 1 */
export function pauseBefore(attempt: number): number {
  const { base, growth, most } = RETRY_PAUSE_MS;
  return Math.min(base * growth ** (attempt - 1), most) * (0.5 + Math.random());
}
