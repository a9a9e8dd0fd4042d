/**
 * Deletes rows in batches that are transactions of their own, so that none is long and no lock is held for long.
 *
 * Many rows go by place: stretches of the table's blocks, one after the other, which costs what one DELETE of them all
 * costs. Few rows in a large table go by row: picked from the index. So do rows of a stretch in which somebody has locked
 * one, since picking passes locked rows over.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { type Session, transactionMessage } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { interrupted, PipeweaveError } from "../errors.ts";

/** A batch aims at this long, in milliseconds, so that no lock of it is held for 200 ms; its size follows. */
const BATCH_MS = 80;
/** Rows of the first batch, before it is known how long they take. */
const FIRST_BATCH = 1000;
/** Stretches that are sent at once, so that a distant server does not wait for us between them. */
const STRETCHES_AT_ONCE = 8;
/** How long a stretch of blocks waits for a row that somebody has locked, in milliseconds. */
const ROW_LOCK_MS = 20;
/** How long another cleanup is waited for, and the pause between two tries, in milliseconds. */
const TURN_WAIT_MS = 10_000;
const TURN_PAUSE_MS = 50;
/** From so many rows in a block on, reading every block is cheaper than finding them by the index (measured: 4 to 16, by how they lie). */
const ROWS_WORTH_A_BLOCK = 8;
/** Rows that a block of 8 kB holds at most (MaxHeapTuplesPerPage in access/htup_details.h). */
const ROWS_OF_A_BLOCK = 291;

/** Rows of one table that have to go. */
export interface Target {
  readonly table: string;
  /** The column of time that `condition` is about and an index is on. */
  readonly time: string;
  readonly condition: SqlText;
}

/** How many rows of a target there are, and how large its table is. */
export interface Extent {
  /** Counted only as far as it decides how they go, unless all of them were to be counted. */
  readonly rows: number;
  readonly blocks: number;
}

/** How far it is with one table. */
export interface CleanupProgress {
  readonly table: string;
  /** Rows so far. */
  readonly removed: number;
  /** How much of the table, or of the rows where they are few, is done: from 0 to 1. */
  readonly fraction: number;
  /** Milliseconds that the rest takes at this rate. */
  readonly leftMs: number;
}

/** Limits of a {@linkcode BatchedDelete}, and who is told. */
export interface BatchOptions {
  /** Rows per transaction at most. */
  readonly batchSize: number;
  /** Told after each batch that removed something. */
  readonly onBatch?: ((progress: CleanupProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What is sent as one transaction. */
interface Batch {
  readonly statements: SqlText;
  /** How much of the table is done after it, from 0 to 1; undefined where that goes by the rows. */
  readonly reaches: number | undefined;
}

/** How a batch ended. */
interface BatchEnd {
  /** Whether it had the turn; otherwise another cleanup was at work, and nothing was done. */
  readonly turn: boolean;
  /** Rows that a stretch holds; null where a lock was in the way. */
  readonly found: number | null;
  readonly removed: number;
  /** The last time that was picked, where any was. */
  readonly time: string | null;
  /** What it took, in milliseconds. */
  readonly ms: number;
}

/**
 * The query that finds a target's {@linkcode Extent}.
 *
 * @param countAll count every row; otherwise as many as make it worth to read every block, since to count a table costs a
 *   fifth of what it costs to empty it
 */
export function extentQuery(schema: string, { table, condition }: Target, countAll: boolean): SqlText {
  const name = sql`${identifier(schema)}.${identifier(table)}`;
  const blocks = sql`(pg_catalog.pg_relation_size(${name.text}::regclass)
                     / pg_catalog.current_setting('block_size')::bigint)`;
  const some =
    sql`(SELECT FROM ${name} WHERE ${condition} LIMIT ${ROWS_WORTH_A_BLOCK} * ${blocks}) AS counted`;
  return sql`
      SELECT pg_catalog.count(*)::integer AS rows, (SELECT ${blocks}::integer) AS blocks
        FROM ${countAll ? sql`${name} WHERE ${condition}` : some};`;
}

/** Whether stretches of blocks would be within a batch's size, whatever they hold. */
export function holdsAnyBlock(batchSize: number): boolean {
  return batchSize >= ROWS_OF_A_BLOCK;
}

/** Removes one target. */
export class BatchedDelete {
  readonly #name: SqlText;
  readonly #since = Date.now();
  #removed = 0;
  #size: number;

  constructor(
    readonly session: Session,
    readonly target: Target,
    readonly extent: Extent,
    readonly options: BatchOptions,
  ) {
    this.#name = sql`${identifier(session.settings.schema)}.${identifier(target.table)}`;
    this.#size = Math.min(options.batchSize, FIRST_BATCH);
  }

  /**
   * Removes the rows that there are, but for those that somebody has locked or is changing.
   *
   * @returns how many were removed
   * @throws {PipeweaveError} of kind `timeout` when another cleanup does not end; `interrupted` when the signal ends it
   *   between batches. What was removed until then stays removed.
   */
  async run(): Promise<number> {
    const { extent: { rows, blocks }, options: { batchSize } } = this;
    if (rows === 0) return 0;
    const isWorthAllBlocks = rows >= ROWS_WORTH_A_BLOCK * blocks;
    await (isWorthAllBlocks && holdsAnyBlock(batchSize) ? this.#byPlace() : this.#byRow(sql`true`));
    return this.#removed;
  }

  async #byPlace(): Promise<void> {
    const { extent: { blocks }, target: { condition }, options: { batchSize } } = this;
    // Rows in a block of the fullest stretch so far: what keeps a batch within its size.
    let density: number | undefined;
    for (let next = 0; next < blocks;) {
      const width = Math.max(1, Math.floor(this.#size / (density ?? ROWS_OF_A_BLOCK)));
      const stretches: { readonly rows: SqlText; readonly reaches: number }[] = [];
      for (; next < blocks && stretches.length < STRETCHES_AT_ONCE; next += width) {
        const rows = sql`ctid >= ${`(${next},0)`} AND ctid < ${`(${next + width},0)`}`;
        stretches.push({ rows, reaches: Math.min(1, (next + width) / blocks) });
      }
      const batches = stretches.map(({ rows, reaches }) => ({
        reaches,
        statements: sql`
          BEGIN
            DELETE FROM ${this.#name} WHERE ${rows} AND ${condition};
            GET DIAGNOSTICS batch_found = ROW_COUNT;
            IF batch_found > ${batchSize} THEN
              RAISE SQLSTATE 'PW201';
            END IF;
            batch_removed := batch_found;
          EXCEPTION
            -- Nothing of the stretch is removed then: it holds too many rows, or one that somebody has locked.
            WHEN SQLSTATE 'PW201' OR lock_not_available OR deadlock_detected THEN NULL;
          END;`,
      }));
      for (const [index, { found, removed }] of (await this.#send(batches)).entries()) {
        density = Math.max(density ?? ROWS_WORTH_A_BLOCK, (found ?? 0) / width);
        const { rows, reaches } = stretches[index]!;
        if (found === null || found > removed) await this.#byRow(rows, reaches);
      }
    }
  }

  async #byRow(part: SqlText, reaches?: number): Promise<void> {
    const { target: { time, condition } } = this;
    const timeColumn = identifier(time);
    // Where the last batch ended: none reads again what those before have removed or passed over. In the order of the
    // index alone, since rows of one time may be many, and to sort them for every batch is more than the batch.
    let after = sql`true`;
    for (;;) {
      const statements = sql`
          SET LOCAL enable_seqscan = off;
          WITH batch AS MATERIALIZED (
            SELECT ctid AS place, ${timeColumn} AS time FROM ${this.#name}
             WHERE ${condition} AND ${part} AND ${after}
             ORDER BY ${timeColumn} LIMIT ${this.#size} FOR UPDATE SKIP LOCKED
          ), deleted AS (
            DELETE FROM ${this.#name} WHERE ctid = ANY (ARRAY(SELECT place FROM batch)) RETURNING 1
          )
          SELECT (SELECT pg_catalog.count(*) FROM deleted), (SELECT pg_catalog.max(batch.time) FROM batch)::text
            INTO batch_removed, last_time;`;
      const [end] = await this.#send([{ statements, reaches }]);
      // What was picked and stays is kept by a trigger of somebody's own.
      if (end!.time === null || end!.removed === 0) return;
      // Those with the same time are not all gone; what was picked is, and what is locked is not picked.
      after = sql`${timeColumn} >= ${end!.time}::timestamptz`;
    }
  }

  /** Sends batches together, and those again at whose time another cleanup had the turn; tells how each ended. */
  async #send(batches: readonly Batch[]): Promise<BatchEnd[]> {
    const { session, target: { table }, options: { signal } } = this;
    const ends: BatchEnd[] = [];
    let waiting = [...batches.keys()];
    let busySince = Date.now();
    for (;;) {
      this.#checkSignal();
      const answers = await session.sendTogether(
        waiting.map((index) => this.#inTurn(batches[index]!.statements)),
      );
      const later: number[] = [];
      const failures: unknown[] = [];
      for (const [at, index] of waiting.entries()) {
        const answer = answers[at]!;
        if (answer.status === "rejected") failures.push(answer.reason);
        else {
          const end = JSON.parse(String(answer.value[0]![0]!["batch"])) as BatchEnd;
          if (end.turn) this.#account(ends[index] = end, batches[index]!);
          else later.push(index);
        }
      }
      if (failures.length > 0) {
        this.#checkSignal();
        throw failures[0];
      }
      if (later.length === 0) return ends;
      if (later.length < waiting.length) busySince = Date.now();
      if (Date.now() - busySince > TURN_WAIT_MS) throw anotherAtWork(this.#removed, table);
      waiting = later;
      await sleep(TURN_PAUSE_MS * (0.5 + Math.random()), signal);
    }
  }

  /** The message of a batch: a transaction that does it if no other cleanup is at work, and tells how it ended. */
  #inTurn(statements: SqlText): string {
    const block = sql`
      DECLARE
        turn boolean := pg_catalog.pg_try_advisory_xact_lock(
          pg_catalog.hashtextextended(${`pipeweave cleanup ${this.session.settings.schema}`}, 0));
        batch_found bigint;
        batch_removed bigint := 0;
        last_time text;
      BEGIN
        IF turn THEN ${statements}
        END IF;
        PERFORM pg_catalog.set_config('pipeweave.batch', pg_catalog.json_build_object(
          'turn', turn, 'found', batch_found, 'removed', batch_removed, 'time', last_time,
          'ms', extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp()) * 1000)::text, true);
      END`;
    return transactionMessage(
      sql`
      DO ${block.text};
      SELECT pg_catalog.current_setting('pipeweave.batch') AS batch;`,
      ROW_LOCK_MS,
    );
  }

  #account({ removed, ms }: BatchEnd, { reaches }: Batch): void {
    const { target: { table }, extent: { rows }, options: { batchSize, onBatch } } = this;
    // As large as the limit allows, growing slowly and shrinking at once.
    const room = Math.min(2, BATCH_MS / Math.max(ms, 1));
    this.#size = Math.max(1, Math.min(batchSize, Math.floor(this.#size * room)));
    if (removed === 0) return;
    this.#removed += removed;
    const fraction = reaches ?? Math.min(1, this.#removed / rows);
    const leftMs = (Date.now() - this.#since) / fraction * (1 - fraction);
    onBatch?.({ table, removed: this.#removed, fraction, leftMs });
  }

  #checkSignal(): void {
    if (!this.options.signal?.aborted) return;
    throw interrupted(
      `Interrupted: ${this.#removed} rows of ${this.target.table} were removed, the rest stays for the next run`,
    );
  }
}

function anotherAtWork(removed: number, table: string): PipeweaveError {
  return new PipeweaveError(
    "timeout",
    "cleanup_at_work",
    `Another db:cleanup is at work; this one removed ${removed} rows of ${table} and stops`,
    { hint: "Let the other end; what is left then goes with the next run." },
  );
}
