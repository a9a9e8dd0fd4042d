/**
 * Removes what has expired, in batches, so that no transaction is long and no lock is held for long.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { type Session, StatementError } from "../database/session.ts";
import { interrupted } from "../errors.ts";
import { notMigrated } from "../maintenance/state.ts";

/** Rows of one batch unless told otherwise. */
export const BATCH_SIZE = 5000;
/** Days that entries of the dead letter queue are kept unless told otherwise. */
export const DLQ_RETENTION_DAYS = 30;
/** Days after its file was deleted that an upload's record is kept (PipeWeave 1.1). */
const UPLOAD_ARCHIVE_DAYS = 30;

/** What to remove. */
export interface CleanupOptions {
  /** Entries of `dlq` older than this many days go. */
  readonly dlqRetentionDays?: number | undefined;
  /** Rows per transaction. */
  readonly batchSize?: number | undefined;
  /** Count, and remove nothing. */
  readonly dryRun?: boolean | undefined;
  /** Told after each batch. */
  readonly onBatch?: (table: string, deleted: number) => void;
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
  const { dlqRetentionDays = DLQ_RETENTION_DAYS, batchSize = BATCH_SIZE, dryRun = false } = options;
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
    dryRun ? counted : deleteInBatches(session, target, batchSize, options);
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
  batchSize: number,
  { onBatch, signal }: CleanupOptions,
): Promise<number> {
  const name = sql`${identifier(session.settings.schema)}.${identifier(table)}`;
  let total = 0;
  for (;;) {
    if (signal?.aborted) {
      throw interrupted(
        `Interrupted: ${total} rows of ${table} were removed, the rest stays for the next run`,
      );
    }
    // Rows that somebody has locked are left to the next run.
    const [[row] = []] = await session.transaction(sql`
      WITH batch AS (
        SELECT ${identifier(key)} AS key FROM ${name} WHERE ${condition} ORDER BY ${
      identifier(order)
    } LIMIT ${batchSize}
        FOR UPDATE SKIP LOCKED
      ), deleted AS (
        DELETE FROM ${name} t USING batch WHERE t.${identifier(key)} = batch.key RETURNING 1
      ) SELECT pg_catalog.count(*)::integer AS n FROM deleted;`);
    const deleted = row!["n"] as number;
    total += deleted;
    if (deleted > 0) onBatch?.(table, total);
    if (deleted < batchSize) return total;
  }
}
