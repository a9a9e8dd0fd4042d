/**
 * Removes what has expired, in batches, so that no transaction is long and no lock is held for long.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { isLockConflict } from "../database/conflict.ts";
import { type Row, type Session, StatementError } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { interrupted, PipeweaveError } from "../errors.ts";
import { notMigrated } from "../maintenance/state.ts";

/** Rows of one batch unless told otherwise. */
export const BATCH_SIZE = 5000;
/** Days that entries of the dead letter queue are kept unless told otherwise. */
export const DLQ_RETENTION_DAYS = 30;
/** Days after its file was deleted that an upload's record is kept (PipeWeave 1.1). */
const UPLOAD_ARCHIVE_DAYS = 30;

/** A batch aims at this long, in milliseconds, so that no lock of it is held for 200 ms; its size follows. */
const BATCH_MS = 80;
/** Rows of the first batch, before it is known how long they take. */
const FIRST_BATCH = 1000;
/** How long a batch waits for a row that somebody has locked, in milliseconds. */
const ROW_LOCK_MS = 20;
/** How long another cleanup is waited for, and the pause between two tries, in milliseconds. */
const TURN_WAIT_MS = 10_000;
const TURN_PAUSE_MS = 50;

/** How far it is with one table. */
export interface CleanupProgress {
  readonly table: string;
  /** Rows so far. */
  readonly removed: number;
  /** Rows that were counted at the start. */
  readonly expected: number;
  /** Milliseconds that the rest takes at this rate. */
  readonly leftMs: number;
}

/** What to remove. */
export interface CleanupOptions {
  /** Entries of `dlq` older than this many days go. */
  readonly dlqRetentionDays?: number | undefined;
  /** Rows per transaction at most; fewer where they take long. */
  readonly batchSize?: number | undefined;
  /** Count, and remove nothing. */
  readonly dryRun?: boolean | undefined;
  /** Told after each batch. */
  readonly onBatch?: (progress: CleanupProgress) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Rows removed, or that would be. */
export interface CleanupResult {
  readonly dryRun: boolean;
  readonly idempotencyCache: number;
  readonly dlq: number;
  /** Null where the table does not exist (PipeWeave before 1.1). */
  readonly tempUploads: {
    /** Expired and neither claimed nor deleted: their files are the orchestrator's to delete, so they stay. */
    readonly expired: number;
    /** Records removed, whose files were deleted long ago. */
    readonly archived: number;
  } | null;
}

/** Rows of one table that have to go: its key, and the condition. */
interface Target {
  readonly table: string;
  readonly key: string;
  readonly condition: SqlText;
  readonly order: string;
}

/**
 * Counts what has expired, and removes it unless it is a dry run.
 *
 * @throws {PipeweaveError} of kind `database` that names `db:migrate` when a table is missing; `interrupted` when the
 *   signal ends it between batches, and what was removed until then stays removed
 */
export async function cleanup(session: Session, options: CleanupOptions = {}): Promise<CleanupResult> {
  const { schema } = session.settings;
  const { dlqRetentionDays = DLQ_RETENTION_DAYS, dryRun = false } = options;
  const count = async (): Promise<[number, number, string, boolean]> => {
    const sets = await session.transaction(sql`
      SELECT pg_catalog.now()::text AS now, pg_catalog.to_regclass(${
      sql`${identifier(schema)}.temp_uploads`.text
    }) IS NOT NULL AS uploads;
      SELECT pg_catalog.count(*)::integer AS n FROM ${
      identifier(schema)
    }.idempotency_cache WHERE expires_at < pg_catalog.now();
      SELECT pg_catalog.count(*)::integer AS n FROM ${identifier(schema)}.dlq
       WHERE failed_at < pg_catalog.now() - pg_catalog.make_interval(days => ${dlqRetentionDays});`);
    const [facts, cache, dlq] = sets.map((rows) => rows[0]!);
    return [cache!["n"] as number, dlq!["n"] as number, String(facts!["now"]), facts!["uploads"] as boolean];
  };
  let counted;
  try {
    counted = await count();
  } catch (error) {
    if (error instanceof StatementError && error.details.sqlstate === "42P01") {
      throw notMigrated(session, `is not migrated (${error.message})`);
    }
    throw error;
  }
  const [cacheCount, dlqCount, now, hasUploads] = counted;
  // One cut-off for all batches, so that rows which expire meanwhile cannot keep it going.
  const cutOff = (days: number) => sql`${now}::timestamptz - pg_catalog.make_interval(days => ${days})`;
  const cache: Target = {
    table: "idempotency_cache",
    key: "idempotency_key",
    condition: sql`expires_at < ${cutOff(0)}`,
    order: "expires_at",
  };
  const dlq: Target = {
    table: "dlq",
    key: "id",
    condition: sql`failed_at < ${cutOff(dlqRetentionDays)}`,
    order: "failed_at",
  };
  const uploads: Target = {
    table: "temp_uploads",
    key: "id",
    condition: sql`deleted_at < ${cutOff(UPLOAD_ARCHIVE_DAYS)}`,
    order: "deleted_at",
  };

  const remove = (target: Target, counted: number) =>
    dryRun ? counted : deleteInBatches(session, target, counted, options);
  const idempotencyCache = await remove(cache, cacheCount);
  const removedDlq = await remove(dlq, dlqCount);
  if (!hasUploads) return { dryRun, idempotencyCache, dlq: removedDlq, tempUploads: null };
  const table = sql`${identifier(schema)}.temp_uploads`;
  const [[row] = []] = await session.transaction(sql`
    SELECT pg_catalog.count(*) FILTER (WHERE expires_at < ${
    cutOff(0)
  } AND claimed_by_run_id IS NULL AND deleted_at IS NULL)::integer AS expired,
           pg_catalog.count(*) FILTER (WHERE ${uploads.condition})::integer AS archived FROM ${table};`);
  const archived = await remove(uploads, row!["archived"] as number);
  return {
    dryRun,
    idempotencyCache,
    dlq: removedDlq,
    tempUploads: { expired: row!["expired"] as number, archived },
  };
}

async function deleteInBatches(
  session: Session,
  { table, key, condition, order }: Target,
  expected: number,
  options: CleanupOptions,
): Promise<number> {
  const { onBatch, signal, batchSize = BATCH_SIZE } = options;
  const { schema } = session.settings;
  const name = sql`${identifier(schema)}.${identifier(table)}`;
  const [keyColumn, orderColumn] = [identifier(key), identifier(order)];
  const since = Date.now();
  let size = Math.min(batchSize, FIRST_BATCH);
  let total = 0;
  // Where the last batch ended: no batch reads again what the one before has removed.
  let after = sql`true`;
  let busySince: number | undefined;
  let isContested = false;
  for (;;) {
    if (signal?.aborted) {
      throw interrupted(
        `Interrupted: ${total} rows of ${table} were removed, the rest stays for the next run`,
      );
    }
    // A range of the index, without locking its rows first; where somebody has locked one of them, row by row, and those
    // are passed over and left to the next run.
    const removal = isContested
      ? sql`batch AS MATERIALIZED (
          SELECT ctid AS place, ${keyColumn} AS key, ${orderColumn} AS at FROM ${name}
           WHERE (SELECT mine FROM turn) AND ${condition} AND ${after}
           ORDER BY ${orderColumn}, ${keyColumn} LIMIT ${size} FOR UPDATE SKIP LOCKED
        ), deleted AS (
          DELETE FROM ${name} WHERE ctid = ANY (ARRAY(SELECT place FROM batch)) RETURNING 1
        ), bound AS (SELECT at::text, key FROM batch ORDER BY batch.at DESC, key DESC LIMIT 1)`
      : sql`next AS MATERIALIZED (
          SELECT ${orderColumn} AS at FROM ${name}
           WHERE (SELECT mine FROM turn) AND ${condition} AND ${after}
           ORDER BY ${orderColumn} OFFSET ${size} LIMIT 1
        ), deleted AS (
          DELETE FROM ${name}
           WHERE (SELECT mine FROM turn) AND ${condition} AND ${after}
             AND ${orderColumn} < coalesce((SELECT at FROM next), 'infinity') RETURNING 1
        ), bound AS (SELECT at::text, NULL AS key FROM next)`;
    let row: Row;
    try {
      const sets = await session.transaction(
        sql`
      SET LOCAL enable_seqscan = off;
      WITH turn AS MATERIALIZED (
        SELECT pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended(${`pipeweave cleanup ${schema}`}, 0)) AS mine
      ), ${removal}
      SELECT (SELECT mine FROM turn) AS mine, (SELECT pg_catalog.count(*) FROM deleted)::integer AS n, bound.at, bound.key,
             extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp())::float8 * 1000 AS ms
        FROM (SELECT 1) one LEFT JOIN bound ON true;`,
        ROW_LOCK_MS,
      );
      row = sets[0]![0]!;
    } catch (error) {
      if (isContested || !isLockConflict(error)) throw error;
      isContested = true;
      continue;
    }
    if (!row["mine"]) {
      busySince ??= Date.now();
      if (Date.now() - busySince > TURN_WAIT_MS) throw anotherAtWork(total, table);
      await sleep(TURN_PAUSE_MS * (0.5 + Math.random()), signal);
      continue;
    }
    busySince = undefined;
    const [deleted, ms] = [row["n"] as number, row["ms"] as number];
    total += deleted;
    if (deleted > 0) {
      const leftMs = total >= expected ? 0 : (Date.now() - since) / total * (expected - total);
      onBatch?.({ table, removed: total, expected, leftMs });
    }
    if (row["at"] === null) return total;
    after = row["key"] === null
      ? sql`${orderColumn} >= ${String(row["at"])}`
      : sql`(${orderColumn}, ${keyColumn}) > (${String(row["at"])}, ${String(row["key"])})`;
    // More rows of one instant than a batch has: no range divides them.
    isContested = !isContested && deleted === 0;
    // As large as the limit allows, growing slowly and shrinking at once.
    size = Math.max(1, Math.min(batchSize, Math.floor(size * Math.min(2, BATCH_MS / Math.max(ms, 1)))));
  }
}

function anotherAtWork(total: number, table: string): PipeweaveError {
  return new PipeweaveError(
    "timeout",
    "cleanup_at_work",
    `Another db:cleanup is at work; this one removed ${total} rows of ${table} and stops`,
    { hint: "Let the other end; what is left then goes with the next run." },
  );
}
