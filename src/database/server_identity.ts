/**
 * Telling a server that crashed from one that was replaced: after a crash the same postmaster goes on, with statistics
 * that begin anew (PostgreSQL documentation, 27.2: cumulative statistics are reset when the server recovers).
 *
 * @module
 */

import { type Session } from "./session.ts";
import { sql } from "./sql.ts";

/** Identifies a run of a server: the start of its postmaster, and of its statistics. */
export type ServerIdentity = string;

/** SQL expression for it, which needs no privilege. */
export const SERVER_IDENTITY =
  sql`pg_catalog.concat(pg_catalog.pg_postmaster_start_time(), '|', pg_catalog.pg_stat_get_bgwriter_stat_reset_time())`;

/** Reads the identity of the server. */
export async function readServerIdentity(session: Session): Promise<ServerIdentity> {
  const [[row] = []] = await session.transaction(sql`SELECT ${SERVER_IDENTITY} AS server;`);
  return String(row!["server"]);
}

/** Whether the same server crashed and recovered between two looks. */
export function hasCrashed(before: ServerIdentity | undefined, now: ServerIdentity | undefined): boolean {
  if (before === undefined || now === undefined) return false;
  const [startedBefore, countsBefore] = before.split("|");
  const [startedNow, countsNow] = now.split("|");
  return startedBefore === startedNow && countsBefore !== countsNow;
}
