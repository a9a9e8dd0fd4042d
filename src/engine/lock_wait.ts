/**
 * Waiting until another migrator is done.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { type Session, StatementError } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { sql } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { leaseTable } from "./history.ts";
import { readLease } from "./lease.ts";

/** Default limit for waiting until another migrator is done. */
export const LOCK_WAIT_MS = 60_000;
/** Pause between two looks while another migrator works; a random part keeps many of them apart. */
const LOCK_POLL_MS = { base: 20, growth: 1.5, most: 500 };

/** How long to wait for another migrator, and whom to tell. */
export interface LockWaitOptions {
  /** Milliseconds. Default: 60 000 */
  readonly lockWaitMs?: number | undefined;
  /** Told who is at work, when it takes long. */
  readonly onLockWait?: (holder: string) => void;
  /** Ends the wait. */
  readonly signal?: AbortSignal | undefined;
}

/** Waiting for another migrator: by asking again, never by standing in the lock's queue, where one can deadlock. */
export class LockWait {
  #since: number | undefined;
  #pauseMs = LOCK_POLL_MS.base;

  readonly session: Session;
  readonly key: bigint;
  readonly options: LockWaitOptions;

  constructor(session: Session, key: bigint, options: LockWaitOptions) {
    this.session = session;
    this.key = key;
    this.options = options;
  }

  get waiting(): boolean {
    return this.#since !== undefined;
  }

  done(): void {
    this.#since = undefined;
    this.#pauseMs = LOCK_POLL_MS.base;
  }

  /** @throws {PipeweaveError} of kind `timeout` when the wait has been long enough */
  async wait(): Promise<void> {
    const limit = this.options.lockWaitMs ?? LOCK_WAIT_MS;
    if (this.#since === undefined) {
      this.#since = Date.now();
    } else if (Date.now() - this.#since >= limit) {
      throw new PipeweaveError(
        "timeout",
        "migration_lock",
        `Another migrator was at work for more than ${formatDuration(limit)}: ${await this.#holder()}`,
        {
          hint:
            "Wait for it with a longer --lock-wait, or find out whether it is stuck; run the command again then.",
        },
      );
    }
    if (this.#pauseMs > LOCK_POLL_MS.most && this.options.onLockWait) {
      this.options.onLockWait(await this.#holder());
    }
    await sleep(this.#pauseMs * (0.5 + Math.random()), this.options.signal);
    this.#pauseMs = Math.min(this.#pauseMs * LOCK_POLL_MS.growth, LOCK_POLL_MS.most + 1);
  }

  async #holder(): Promise<string> {
    // Only a turn locks rows of the lease.
    const lease = leaseTable(this.session.settings.schema);
    const looked = await this.session.transaction(sql`
      SELECT a.pid, a.usename, coalesce(a.client_addr::text, 'local') AS host, a.application_name AS application,
             a.xact_start AS since, pg_catalog.regexp_replace(pg_catalog.left(a.query, 60), '\\s+', ' ', 'g') AS query
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
       WHERE l.granted AND a.pid <> pg_catalog.pg_backend_pid()
         AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
         AND (l.locktype = 'advisory' AND l.objsubid = 1
              AND (l.classid::bigint << 32) | l.objid::bigint = ${String(this.key)}::bigint
           OR l.relation = pg_catalog.to_regclass(${lease.text}) AND l.mode = 'RowShareLock')
       LIMIT 1;`).catch(untold);
    if (!looked) return "this server does not tell who";
    const [[row] = []] = looked;
    if (!row) return await this.#leaseHolder();
    const since = row["since"] instanceof Date ? `, since ${row["since"].toISOString()}` : "";
    return `pid ${row["pid"]}, user ${row["usename"]}, host ${row["host"]}, application ${
      row["application"]
    }${since}, runs: ${row["query"]}`;
  }

  /** Who runs a migration outside a transaction. */
  async #leaseHolder(): Promise<string> {
    const holder = await readLease(this.session);
    if (!holder) return "it has just finished";
    return `${holder.holder}, since ${holder.acquiredAt.toISOString()}, runs ${holder.version} outside a transaction ` +
      `(last sign of life ${holder.heartbeatAt.toISOString()}, its lease ends ${holder.expiresAt.toISOString()})`;
  }
}

/** An engine that is not PostgreSQL may not tell who holds what. */
function untold(error: unknown): undefined {
  if (error instanceof StatementError && /^(?:42|0A)/.test(error.details.sqlstate ?? "")) return undefined;
  throw error;
}
