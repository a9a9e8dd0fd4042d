/**
 * Telling a server that crashed from one that was replaced: after a crash the same postmaster goes on, with statistics
 * that begin anew (PostgreSQL documentation, 27.2: cumulative statistics are reset when the server recovers).
 *
 * @module
 */

import { type Session } from "./session.ts";
import { sql } from "./sql.ts";

/** Which run of which server answers: when its postmaster started, and since when it counts. */
export type ServerIdentity = string;

/** An expression for it, which everybody may ask for. */
export const SERVER_IDENTITY =
  sql`pg_catalog.concat(pg_catalog.pg_postmaster_start_time(), '|', pg_catalog.pg_stat_get_bgwriter_stat_reset_time())`;

/** Asks for it. */
export async function readServerIdentity(session: Session): Promise<ServerIdentity> {
  const [[row] = []] = await session.transaction(sql`SELECT ${SERVER_IDENTITY} AS server;`);
  return String(row!["server"]);
}

/** Whether a server has crashed between two looks, and goes on. */
export function hasCrashed(before: ServerIdentity | undefined, now: ServerIdentity | undefined): boolean {
  if (before === undefined || now === undefined) return false;
  const [startedBefore, countsBefore] = before.split("|");
  const [startedNow, countsNow] = now.split("|");
  return startedBefore === startedNow && countsBefore !== countsNow;
}
