/**
 * Removes what has expired: what that is, and how much of it there is.
 *
 * @module
 */

import { identifier, sql } from "../database/sql.ts";
import { type Session, StatementError } from "../database/session.ts";
import { assertTrusted } from "../database/trust.ts";
import { PipeweaveError } from "../errors.ts";
import { notMigrated } from "../maintenance/state.ts";
import { bounded } from "../printable.ts";
import { BatchedDelete, type CleanupProgress, holdsAnyBlock, LeafGone } from "./batches.ts";
import { findLeaves, type Target } from "./leaves.ts";

/** Rows of one batch unless told otherwise; the text of `--batch-size` in cli/database_commands.ts says it too. */
export const BATCH_SIZE = 10_000;
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
  /** Told after each batch. */
  readonly onBatch?: ((progress: CleanupProgress) => void) | undefined;
  /** Ends it between two batches. */
  readonly signal?: AbortSignal | undefined;
}

/** Rows that have expired and could not go. */
export interface KeptRows {
  /** Its name. */
  readonly table: string;
  /** How many stay. */
  readonly rows: number;
  /** As PostgreSQL said it. */
  readonly reason: string;
}

/** Rows removed, or that would be. */
export interface CleanupResult {
  /** Whether nothing was removed. */
  readonly dryRun: boolean;
  /** Rows of `idempotency_cache`. */
  readonly idempotencyCache: number;
  /** Rows of `dlq`. */
  readonly dlq: number;
  /** Null where the table does not exist (PipeWeave before 1.1). */
  readonly tempUploads: {
    /** Expired and neither claimed nor deleted: their files are the orchestrator's to delete, so they stay. */
    readonly expired: number;
    /** Records removed, whose files were deleted long ago. */
    readonly archived: number;
  } | null;
  /** Present where rows could not go: a foreign key refers to them, or a trigger keeps them. */
  readonly kept?: readonly KeptRows[];
  /** Present where something that holds such rows was left alone: a view, a foreign table. */
  readonly leftAlone?: readonly string[];
}

/** How long a reason may be, in characters. */
const LONGEST_REASON = 200;

/**
 * Counts what has expired, and removes it unless it is a dry run. What cannot go, or a table that may not be touched, does
 * not stop the rest.
 *
 * @throws {PipeweaveError} of kind `database` that names `db:migrate` when a table is missing; `interrupted` when the
 *   signal ends it between batches. What was removed until then stays removed, and the error says how many.
 */
export async function cleanup(session: Session, options: CleanupOptions = {}): Promise<CleanupResult> {
  return await new Cleanup(session, options).run();
}

class Cleanup {
  readonly #removed = new Map<string, number>();
  readonly #kept: KeptRows[] = [];
  readonly #leftAlone: string[] = [];
  readonly #failures: { readonly table: string; readonly error: PipeweaveError }[] = [];

  readonly session: Session;
  readonly options: CleanupOptions;

  constructor(session: Session, options: CleanupOptions) {
    this.session = session;
    this.options = options;
  }

  async run(): Promise<CleanupResult> {
    const { targets, expired } = await this.#targets();
    for (const target of targets) await this.#cleanUp(target);
    const uploads = targets.find(({ table }) => table === "temp_uploads");
    const result: CleanupResult = {
      dryRun: this.options.dryRun === true,
      idempotencyCache: this.#removed.get("idempotency_cache") ?? 0,
      dlq: this.#removed.get("dlq") ?? 0,
      tempUploads: uploads ? { expired, archived: this.#removed.get("temp_uploads") ?? 0 } : null,
      ...(this.#kept.length > 0 ? { kept: this.#kept } : {}),
      ...(this.#leftAlone.length > 0 ? { leftAlone: this.#leftAlone } : {}),
    };
    const [first, ...others] = this.#failures;
    if (!first) return result;
    const error = new PipeweaveError(
      first.error.kind,
      first.error.code,
      `${first.table}: ${first.error.message}`,
      { ...first.error.details, cause: first.error },
    );
    for (const other of others) error.add(`${other.table}: ${other.error.message}`);
    this.#tellRemoved(error);
    throw error;
  }

  /** What has to go, by cut-offs of the start: rows that expire meanwhile cannot keep it going. */
  async #targets(): Promise<{ targets: readonly Target[]; expired: number }> {
    const { schema } = this.session.settings;
    const uploads = sql`${identifier(schema)}.temp_uploads`;
    // Worked out here, since PostgreSQL would take the days off the time again for every row.
    const before = (days: number) => sql`(now() - make_interval(days => ${days}))::text`;
    const [[facts] = []] = await this.session.transaction(sql`
      SELECT ${before(0)} AS now, ${before(this.options.dlqRetentionDays ?? DLQ_RETENTION_DAYS)} AS dlq,
             ${
      before(UPLOAD_ARCHIVE_DAYS)
    } AS archive, to_regclass(${uploads.text}) IS NOT NULL AS uploads;`);
    const cutOff = (name: string) => sql`${String(facts![name])}::timestamptz`;
    const target = (table: string, time: string, cut: string): Target => ({
      ...{ table, time, condition: sql`${identifier(time)} < ${cutOff(cut)}` },
    });
    const targets = [target("idempotency_cache", "expires_at", "now"), target("dlq", "failed_at", "dlq")];
    if (!facts!["uploads"]) return { targets, expired: 0 };
    const counting = this.session.transaction(sql`
      ${assertTrusted(schema, ["temp_uploads"], "read")}
      SELECT count(*)::integer AS rows FROM ${uploads}
       WHERE expires_at < ${cutOff("now")} AND claimed_by_run_id IS NULL AND deleted_at IS NULL;`);
    const counted = await counting.catch((error) => this.#failed("temp_uploads", error));
    const expired = (counted?.[0]?.[0]?.["rows"] ?? 0) as number;
    return { targets: [...targets, target("temp_uploads", "deleted_at", "archive")], expired };
  }

  async #cleanUp(target: Target): Promise<void> {
    const { session, options } = this;
    const { table } = target;
    const { batchSize = BATCH_SIZE, dryRun = false } = options;
    let removed = 0;
    try {
      // Without a block's worth of rows in a batch they go one by one anyway, and how far it is goes by their number.
      const { leaves, leftAlone } = await findLeaves(
        session,
        target,
        dryRun ? "read" : "change",
        dryRun || !holdsAnyBlock(batchSize),
      );
      this.#leftAlone.push(...leftAlone);
      for (const leaf of leaves) {
        if (dryRun) {
          removed += leaf.rows;
          continue;
        }
        const before = removed;
        const batches = new BatchedDelete(session, target, leaf, {
          ...options,
          batchSize,
          onBatch: (progress) => options.onBatch?.({ ...progress, removed: before + progress.removed }),
        });
        const running = batches.run().catch((error) => {
          if (!(error instanceof LeafGone)) throw error;
          this.#leftAlone.push(`${error.message} is no part of ${table} any more`);
        });
        await running.finally(() => {
          removed += batches.removed.rows;
          this.#keep(table, batches.removed.kept);
        });
      }
    } catch (error) {
      this.#failed(table, error);
    } finally {
      this.#removed.set(table, removed);
    }
  }

  #keep(table: string, kept: ReadonlyMap<string, number>): void {
    for (const [reason, rows] of kept) {
      this.#kept.push({ table, rows, reason: bounded(reason, LONGEST_REASON) });
    }
  }

  /** Keeps a failure that is about one table; throws what ends it all, with what was removed. */
  #failed(table: string, error: unknown): undefined {
    if (error instanceof StatementError && error.details.sqlstate === "42P01") {
      throw notMigrated(this.session, `is not migrated (${error.message})`);
    }
    const isOfTable = error instanceof StatementError && error.kind === "database";
    if (isOfTable) return void this.#failures.push({ table, error });
    if (error instanceof PipeweaveError) this.#tellRemoved(error, table);
    throw error;
  }

  /** Describes what was removed and stays removed. @param current a table that the error describes already */
  #tellRemoved(error: PipeweaveError, current?: string): void {
    const told = [...this.#removed].filter(([table]) => table !== current);
    const names = told.map(([table, rows]) => `${rows} of ${table}`).join(", ");
    if (!this.options.dryRun && told.length > 0) error.add(`Removed until then: ${names}`);
    for (const { table, rows, reason } of this.#kept) error.add(`Kept: ${rows} of ${table}: ${reason}`);
  }
}
