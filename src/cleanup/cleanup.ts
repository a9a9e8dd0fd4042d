/**
 * Removes what has expired: what that is, and how much of it there is.
 *
 * @module
 */

import { identifier, sql, SqlText } from "../database/sql.ts";
import { type Session, StatementError } from "../database/session.ts";
import { notMigrated } from "../maintenance/state.ts";
import {
  BatchedDelete,
  type CleanupProgress,
  type Extent,
  extentQuery,
  holdsAnyBlock,
  type Target,
} from "./batches.ts";

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
  /** Rows per transaction at most; fewer where they take long. */
  readonly batchSize?: number | undefined;
  /** Count, and remove nothing. */
  readonly dryRun?: boolean | undefined;
  /** Told after each batch. */
  readonly onBatch?: ((progress: CleanupProgress) => void) | undefined;
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

/**
 * Counts what has expired, and removes it unless it is a dry run.
 *
 * @throws {PipeweaveError} of kind `database` that names `db:migrate` when a table is missing; `interrupted` when the
 *   signal ends it between batches, and what was removed until then stays removed
 */
export async function cleanup(session: Session, options: CleanupOptions = {}): Promise<CleanupResult> {
  const { schema } = session.settings;
  const { dlqRetentionDays = DLQ_RETENTION_DAYS, batchSize = BATCH_SIZE, dryRun = false } = options;
  const uploadsTable = sql`${identifier(schema)}.temp_uploads`;
  // Cut-offs for all batches, so that rows which expire meanwhile cannot keep it going; worked out here, since PostgreSQL
  // would take the days off the time again for every row.
  const before = (days: number) => sql`(pg_catalog.now() - pg_catalog.make_interval(days => ${days}))::text`;
  const [[facts] = []] = await session.transaction(sql`
      SELECT ${before(0)} AS now, ${before(dlqRetentionDays)} AS dlq, ${
    before(UPLOAD_ARCHIVE_DAYS)
  } AS archive,
             pg_catalog.to_regclass(${uploadsTable.text}) IS NOT NULL AS uploads;`);
  const cutOff = (name: string) => sql`${String(facts![name])}::timestamptz`;
  const cache: Target = {
    table: "idempotency_cache",
    time: "expires_at",
    condition: sql`expires_at < ${cutOff("now")}`,
  };
  const dlq: Target = {
    table: "dlq",
    time: "failed_at",
    condition: sql`failed_at < ${cutOff("dlq")}`,
  };
  const uploads: Target = {
    table: "temp_uploads",
    time: "deleted_at",
    condition: sql`deleted_at < ${cutOff("archive")}`,
  };
  const targets = facts!["uploads"] ? [cache, dlq, uploads] : [cache, dlq];
  const expiredUploads = sql`
      SELECT pg_catalog.count(*)::integer AS rows FROM ${uploadsTable}
       WHERE expires_at < ${cutOff("now")} AND claimed_by_run_id IS NULL AND deleted_at IS NULL;`;
  const countAll = dryRun || !holdsAnyBlock(batchSize);
  const queries = targets.map((target) => extentQuery(schema, target, countAll).text);
  if (facts!["uploads"]) queries.push(expiredUploads.text);
  let sets;
  try {
    sets = await session.transaction(new SqlText(queries.join("")));
  } catch (error) {
    if (error instanceof StatementError && error.details.sqlstate === "42P01") {
      throw notMigrated(session, `is not migrated (${error.message})`);
    }
    throw error;
  }
  const removed: number[] = [];
  for (const [index, target] of targets.entries()) {
    const extent = sets[index]![0] as unknown as Extent;
    const batches = new BatchedDelete(session, target, extent, { ...options, batchSize });
    removed.push(dryRun ? extent.rows : await batches.run());
  }
  const [idempotencyCache, removedDlq, archived] = removed as [number, number, number?];
  const tempUploads = archived === undefined
    ? null
    : { expired: sets.at(-1)![0]!["rows"] as number, archived };
  return { dryRun, idempotencyCache, dlq: removedDlq, tempUploads };
}
