/**
 * `db:wait`: until a database can be used.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { sleep } from "../database/sleep.ts";
import { type Session } from "../database/session.ts";
import { sql } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import type { MigrationSources } from "../migrations/discover.ts";
import { listOf } from "../migrations/migration.ts";
import { type MigrationStatus, refuse } from "../migrations/plan.ts";
import { migrationStatus } from "./status.ts";

/** Options of a wait for the database. */
export interface WaitOptions extends MigrationSources {
  /** When to give up, in milliseconds of the epoch. */
  readonly deadline: number;
  /** Until nothing is pending. */
  readonly migrated: boolean;
  /** Pause between two looks at the history, in milliseconds. */
  readonly intervalMs: number;
  readonly onWait?: (reason: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Waits until the database answers, and on request until all migrations are applied.
 *
 * @param session one that goes on trying to connect until the deadline
 * @returns the status, where migrations were waited for
 * @throws {PipeweaveError} of kind `timeout`; `integrity` when files and history contradict each other, which no waiting
 *   mends
 */
export async function wait(session: Session, options: WaitOptions): Promise<MigrationStatus | undefined> {
  session.limit(options.deadline);
  if (!options.migrated) {
    await session.transaction(sql`SELECT 1 AS one;`);
    return undefined;
  }
  const since = Date.now();
  for (;;) {
    const status = await migrationStatus(session, options);
    // Rows without a file are a newer release's: it has applied all of ours too.
    refuse(status.contradictions, { missing: true, outOfOrder: true });
    if (status.pending.length === 0) return status;
    const what = `${status.pending.length} migration(s) are pending: ${listOf(status.pending)}`;
    const left = options.deadline - Date.now();
    if (left <= 0) {
      throw new PipeweaveError(
        "timeout",
        "not_migrated_in_time",
        `Nobody migrated the database within ${formatDuration(Date.now() - since)}: ${what}`,
        { hint: "Run: pipeweave db:migrate, or see why what should have run it did not." },
      );
    }
    options.onWait?.(what);
    await sleep(Math.min(options.intervalMs, left), options.signal);
  }
}
