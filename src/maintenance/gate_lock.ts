/**
 * Trying for the lock on `task_runs` that a change of the mode needs. It waits for every transaction that has written to
 * the table, and writers queue up behind it meanwhile: so an attempt is short, and the pauses between them are long.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { isLockConflict } from "../database/conflict.ts";
import type { Session } from "../database/session.ts";
import { pauseBefore, sleep } from "../database/sleep.ts";
import { identifier, sql } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { bounded, printable } from "../printable.ts";

/** How long one attempt may hold up writers of `task_runs`, in milliseconds. */
export const ATTEMPT_MS = 200;
/** How long it is tried unless told otherwise, in milliseconds. */
const WAIT_MS = 10_000;
/** The pause between two attempts grows up to this long, in milliseconds. */
const PAUSE_MS = 2000;
/** What an attempt waits beyond `deadlock_timeout` for an autovacuum to go, in milliseconds. */
const VACUUM_LEAVES_MS = 300;

/** What a session calls itself is cut to this many characters. */
const LONGEST_NAME = 100;

/** How long to try. */
export interface GateLockOptions {
  /** How long to try for the locks, in milliseconds. Default: 10 s */
  readonly lockWaitMs?: number | undefined;
  /** Told why it takes a while. */
  readonly onLockWait?: ((reason: string) => void) | undefined;
  /** Ends the attempts. */
  readonly signal?: AbortSignal | undefined;
}

/** Who holds what the lock has to wait for. */
interface Holders {
  /** For people. */
  readonly names: string;
  /**
   * Present where an autovacuum alone is in the way: PostgreSQL ends one for whoever has waited for `deadlock_timeout`,
   * so an attempt of this long, in milliseconds, gets through.
   */
  readonly vacuumGoesAfterMs: number | undefined;
}

/**
 * Makes attempts until one has the lock.
 *
 * @param attempt does the work with `lock_timeout` at the given milliseconds
 * @throws {PipeweaveError} of kind `timeout`, naming who holds the lock; whatever else an attempt fails with
 */
export async function tryForGateLock<T>(
  session: Session,
  attempt: (lockTimeoutMs: number) => Promise<T>,
  { lockWaitMs = WAIT_MS, onLockWait, signal }: GateLockOptions,
): Promise<T> {
  const deadline = Date.now() + lockWaitMs;
  let lockTimeoutMs = Math.max(1, Math.min(ATTEMPT_MS, lockWaitMs));
  for (let attempts = 1;; attempts++) {
    try {
      return await attempt(lockTimeoutMs);
    } catch (error) {
      if (!isLockConflict(error)) throw error;
      const { names, vacuumGoesAfterMs } = await lockHolders(session);
      if (vacuumGoesAfterMs !== undefined && lockTimeoutMs < vacuumGoesAfterMs) {
        lockTimeoutMs = vacuumGoesAfterMs;
        continue;
      }
      lockTimeoutMs = ATTEMPT_MS;
      const left = deadline - Date.now();
      if (left <= 0) throw lockedError(error as PipeweaveError, names);
      onLockWait?.(`waiting for what holds task_runs: ${names}`);
      await sleep(Math.min(pauseBefore(attempts, PAUSE_MS), left), signal).catch((error: PipeweaveError) => {
        error.add("The mode stays as it was");
        throw error;
      });
    }
  }
}

/** Who held the lock, by the error of {@linkcode tryForGateLock}; undefined where it failed for another reason. */
export function heldBy(error: unknown): string | undefined {
  return isLockConflict(error) ? String((error as PipeweaveError).details.data?.["heldBy"]) : undefined;
}

async function lockHolders(session: Session): Promise<Holders> {
  const { schema } = session.settings;
  const [tasks, state] = ["task_runs", "orchestrator_state"].map((name) =>
    sql`${identifier(schema)}.${identifier(name)}`.text
  );
  // Who is nobody's session is an autovacuum worker: of others' sessions that is all that everybody may see.
  const [rows = []] = await session.transaction(sql`
    SELECT DISTINCT ON (a.xact_start, l.pid, x.gid) l.pid, x.gid, a.usename, a.application_name AS application, a.state,
           pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start) * 1000)::float8 AS age,
           l.pid IS NOT NULL AND a.usesysid IS NULL AND coalesce(a.query !~ 'prevent wraparound', true) AS goes,
           (SELECT setting::integer FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout') AS deadlock_timeout
      FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a USING (pid)
      LEFT JOIN pg_catalog.pg_prepared_xacts x ON l.pid IS NULL AND l.virtualtransaction = '-1/' || x.transaction
     WHERE l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
       AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
       AND (l.relation = pg_catalog.to_regclass(${tasks!}) AND l.mode ~ 'RowExclusive|^Share|^Exclusive|AccessExclusive'
         OR l.relation = pg_catalog.to_regclass(${state!}) AND l.mode ~ 'Row')
     ORDER BY a.xact_start, l.pid, x.gid LIMIT 3;`);
  const names = rows.map((row) => {
    if (row["pid"] === null) {
      return `the prepared transaction ${
        row["gid"] === null ? "of pg_prepared_xacts" : printable(`'${row["gid"]}'`)
      }`;
    }
    const facts = [row["usename"] ?? "autovacuum", row["application"], row["state"]].filter(Boolean)
      .map((fact) => bounded(String(fact), LONGEST_NAME));
    const age = row["age"] === null ? [] : [`for ${formatDuration(Number(row["age"]))}`];
    return `pid ${row["pid"]} (${[...facts, ...age].join(", ")})`;
  });
  const leaves = rows.length > 0 && rows.every((row) => row["goes"]);
  return {
    names: names.join(", ") || "transactions that have ended by now",
    vacuumGoesAfterMs: leaves ? Number(rows[0]!["deadlock_timeout"]) + VACUUM_LEAVES_MS : undefined,
  };
}

function lockedError(error: PipeweaveError, names: string): PipeweaveError {
  return new PipeweaveError(
    "timeout",
    "lock_timeout",
    `The mode could not be changed in time, and stays as it was: it has to wait for ${names}`,
    {
      ...error.details,
      hint: "Wait for them or end them, and run the command again.",
      data: { heldBy: names },
    },
  );
}
