/**
 * Deletes rows of one table in batches that are transactions of their own, so that none is long and no lock is held for
 * long.
 *
 * Many rows go by place: stretches of the table's blocks, one after the other, which costs what one DELETE of them all
 * costs. Few rows in a large table go by row: picked from the index. So do rows of a stretch in which somebody has locked
 * one, since picking passes locked rows over; and of one in which a row cannot go, since a foreign key refers to it or a
 * trigger objects: that row stays, and is counted.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { type Session, transactionMessage } from "../database/session.ts";
import { assertTrusted } from "../database/trust.ts";
import { sleep } from "../database/sleep.ts";
import { interrupted, PipeweaveError } from "../errors.ts";
import { type Leaf, ROWS_WORTH_A_BLOCK, type Target, triggersOf } from "./leaves.ts";

/** A batch aims at this long, in milliseconds, so that no lock of it is held for 200 ms; its size follows. */
const BATCH_MS = 80;
/** Rows of the first batch, before it is known how long they take. */
const FIRST_BATCH = 1000;
/** Rows of a batch at most that goes row by row, to find those that cannot go. */
const ONE_BY_ONE = 64;
/** Stretches that are sent at once, so that a distant server does not wait for us between them. */
const STRETCHES_AT_ONCE = 8;
/** How long a stretch of blocks waits for a row that somebody has locked, in milliseconds. */
const ROW_LOCK_MS = 20;
/** How long another cleanup is waited for, and the pause between two tries, in milliseconds. */
const TURN_WAIT_MS = 10_000;
const TURN_PAUSE_MS = 50;
/** Rows that a block of 8 kB holds at most (MaxHeapTuplesPerPage in access/htup_details.h). */
const ROWS_OF_A_BLOCK = 291;

/** Why a row stays that nothing objects to. */
const KEPT = "a trigger or a rule keeps it";

/** The table is none of the target's any more. */
export class LeafGone extends Error {
  override readonly name = "LeafGone";
}

/** How far it is with one table. */
export interface CleanupProgress {
  /** Its name. */
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

/** What a {@linkcode BatchedDelete} has done so far. */
export interface Removed {
  readonly rows: number;
  /** Rows that could not go, by the reason. */
  readonly kept: ReadonlyMap<string, number>;
}

/** What is sent as one transaction. */
interface Batch {
  readonly statements: SqlText;
  /** How much of the table is done after it, from 0 to 1; undefined where that goes by the rows. */
  readonly reaches: number | undefined;
}

/** How a batch ended. */
interface BatchEnd {
  /** Whether the table is none of the target's any more: dropped, detached, another one of its name. */
  readonly gone: boolean;
  /** Whether its triggers are not those that were looked at; nothing was done then. */
  readonly changed: boolean;
  /** Whether it had the turn; otherwise another cleanup was at work, and nothing was done. */
  readonly turn: boolean;
  /** Rows that a stretch holds, or that were picked; null where not all of them could go at once. */
  readonly found: number | null;
  readonly removed: number;
  /** The last time that was picked, where any was. */
  readonly time: string | null;
  /** Places of rows that cannot go, each with its reason. */
  readonly kept: readonly { readonly place: string; readonly reason: string }[];
  /** What it took, in milliseconds. */
  readonly ms: number;
}

/** Whether stretches of blocks would be within a batch's size, whatever they hold. */
export function holdsAnyBlock(batchSize: number): boolean {
  return batchSize >= ROWS_OF_A_BLOCK;
}

/** Removes a target's rows from one table. */
export class BatchedDelete {
  readonly #since = Date.now();
  readonly #kept = new Map<string, number>();
  #removed = 0;
  #size: number;
  /** Whether every batch looks at all that it may run, and not only whether the triggers are those of the first look. */
  #looksAtAll: boolean;

  readonly session: Session;
  readonly target: Target;
  readonly leaf: Leaf;
  readonly options: BatchOptions;

  constructor(
    session: Session,
    target: Target,
    leaf: Leaf,
    options: BatchOptions,
  ) {
    this.session = session;
    this.target = target;
    this.leaf = leaf;
    this.options = options;
    this.#size = Math.min(options.batchSize, FIRST_BATCH);
    this.#looksAtAll = leaf.isReferredTo;
  }

  /** What is done by now, also after a failure. */
  get removed(): Removed {
    return { rows: this.#removed, kept: this.#kept };
  }

  /**
   * Removes the rows that there are, but for those that somebody has locked or is changing, and those that cannot go.
   *
   * @throws {PipeweaveError} of kind `timeout` when another cleanup does not end; `interrupted` when the signal ends it
   *   between batches. What was removed until then stays removed, and {@linkcode removed} tells it.
   */
  async run(): Promise<void> {
    const { leaf: { rows, blocks }, options: { batchSize } } = this;
    if (rows === 0) return;
    const isWorthAllBlocks = rows >= ROWS_WORTH_A_BLOCK * blocks;
    await (isWorthAllBlocks && holdsAnyBlock(batchSize) ? this.#byPlace() : this.#byRow(sql`true`));
  }

  async #byPlace(): Promise<void> {
    const { leaf: { name, blocks, mayKeep }, target: { condition }, options: { batchSize } } = this;
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
            DELETE FROM ONLY ${name} WHERE ${rows} AND ${condition};
            GET DIAGNOSTICS batch_found = ROW_COUNT;
            IF batch_found > ${batchSize} THEN
              RAISE SQLSTATE 'PW201';
            END IF;
            batch_removed := batch_found;
            ${
          mayKeep
            ? sql`IF EXISTS (SELECT FROM ONLY ${name} WHERE ${rows} AND ${condition}) THEN batch_found := NULL; END IF;`
            : sql``
        }
          EXCEPTION
            -- Nothing of the stretch is removed then: it holds too many rows, or one that is locked or cannot go.
            WHEN OTHERS THEN
              IF SQLSTATE <> 'PW201' THEN
                batch_found := NULL;
              END IF;
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
    const { leaf: { name }, target: { time, condition } } = this;
    const timeColumn = identifier(time);
    // Where the last batch ended: none reads again what those before have removed or passed over. In the order of the
    // index alone, since rows of one time may be many, and to sort them for every batch is more than the batch.
    let after = sql`true`;
    let last: string | null = null;
    // Rows of that time that cannot go.
    let passed: string[] = [];
    let most = Infinity;
    for (;;) {
      const size = Math.min(this.#size, most);
      const statements = sql`
          SET LOCAL enable_seqscan = off;
          SELECT array_agg(place), max(picked.time)::text INTO places, last_time FROM (
            SELECT ctid AS place, ${timeColumn} AS time FROM ONLY ${name}
             WHERE ${condition} AND ${part} AND ${after} AND NOT ctid = ANY (${`{${
        passed.map((place) => `"${place}"`).join(",")
      }}`}::tid[])
             ORDER BY ${timeColumn} LIMIT ${size} FOR UPDATE SKIP LOCKED
          ) picked;
          batch_found := coalesce(cardinality(places), 0);
          BEGIN
            DELETE FROM ONLY ${name} WHERE ctid = ANY (places) AND ${condition};
            GET DIAGNOSTICS batch_removed = ROW_COUNT;
          EXCEPTION WHEN OTHERS THEN
            batch_found := NULL;
          END;
          IF batch_found IS NULL AND cardinality(places) <= ${ONE_BY_ONE} THEN
            FOREACH one IN ARRAY places LOOP
              BEGIN
                DELETE FROM ONLY ${name} WHERE ctid = one AND ${condition};
                IF FOUND THEN batch_removed := batch_removed + 1; END IF;
              EXCEPTION WHEN OTHERS THEN
                kept := kept || jsonb_build_object('place', one, 'reason', SQLERRM);
              END;
            END LOOP;
            batch_found := cardinality(places);
          END IF;
          IF batch_removed + jsonb_array_length(kept) < batch_found THEN
            kept := kept || coalesce((SELECT jsonb_agg(jsonb_build_object('place', ctid, 'reason', ${KEPT}::text))
              FROM ONLY ${name} WHERE ctid = ANY (places) AND ${condition}
               AND NOT EXISTS (SELECT FROM jsonb_array_elements(kept) k WHERE k->>'place' = ctid::text)), '[]');
          END IF;`;
      const [end] = await this.#send([{ statements, reaches }]);
      if (end!.time === null) return;
      for (const { reason } of end!.kept) this.#kept.set(reason, (this.#kept.get(reason) ?? 0) + 1);
      if (end!.found === null) {
        // Few enough to find out which of them cannot go.
        most = ONE_BY_ONE;
        continue;
      }
      // A trigger may keep a row by changing it, and then it is another one.
      const changed = Math.max(0, end!.found - end!.removed - end!.kept.length);
      if (changed > 0) this.#kept.set(KEPT, (this.#kept.get(KEPT) ?? 0) + changed);
      if (end!.removed === 0 && end!.kept.length === 0 && last === end!.time) return;
      // A batch in which everything went is followed by a larger one.
      most = end!.kept.length === 0 ? most * 2 : ONE_BY_ONE;
      // Those with the same time are not all gone; what was picked is, or is passed over, and what is locked is not picked.
      if (end!.time !== last) passed = [];
      passed.push(...end!.kept.map(({ place }) => place));
      last = end!.time;
      after = sql`${timeColumn} >= ${last}::timestamptz`;
    }
  }

  /** Sends batches together, and those again that did nothing, as another cleanup had the turn or triggers have changed. */
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
          if (end.gone) throw new LeafGone(this.leaf.name.text);
          if (end.changed) this.#looksAtAll = true;
          if (end.turn && !end.changed) this.#account(ends[index] = end, batches[index]!);
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
    const { leaf, target: { table }, session: { settings: { schema } } } = this;
    const root = sql`${identifier(schema)}.${identifier(table)}`.text;
    const block = sql`
      DECLARE
        turn boolean := pg_try_advisory_xact_lock(
          hashtextextended(${`pipeweave cleanup ${schema}`}, 0));
        batch_found bigint;
        batch_removed bigint := 0;
        last_time text;
        places tid[];
        one tid;
        kept jsonb := '[]';
        gone boolean := to_regclass(${leaf.name.text})::oid IS DISTINCT FROM ${leaf.oid}::oid;
        changed boolean := false;
      BEGIN
        IF turn AND NOT gone THEN
          -- From here on it stays what it is until the end.
          BEGIN
            LOCK TABLE ONLY ${leaf.name} IN ROW EXCLUSIVE MODE;
          EXCEPTION WHEN undefined_table THEN
            NULL;
          END;
          gone := to_regclass(${leaf.name.text})::oid IS DISTINCT FROM ${leaf.oid}::oid;
          IF NOT gone AND to_regclass(${root})::oid IS DISTINCT FROM ${leaf.oid}::oid THEN
            WITH RECURSIVE tree (relation) AS (
              SELECT ${leaf.oid}::oid UNION SELECT i.inhparent FROM pg_inherits i JOIN tree t ON i.inhrelid = t.relation
            ) SELECT NOT EXISTS (SELECT FROM tree WHERE relation = to_regclass(${root})) INTO gone;
          END IF;
          ${
      this.#looksAtAll ? sql`` : sql`changed := ${triggersOf(sql`${leaf.oid}::oid`)} <> ${leaf.triggers};`
    }
        END IF;
        IF turn AND NOT gone AND NOT changed THEN ${statements}
        END IF;
        PERFORM set_config('pipeweave.batch', json_build_object(
          'turn', turn, 'gone', gone, 'changed', changed, 'found', batch_found, 'removed', batch_removed, 'time', last_time, 'kept', kept,
          'ms', extract(epoch FROM clock_timestamp() - transaction_timestamp()) * 1000)::text, true);
      END`;
    const look = this.#looksAtAll ? assertTrusted(schema, [table], "change", { writes: [table] }) : sql``;
    return transactionMessage(
      // What is checked at the commit would fail there, where it is too late to leave the row.
      sql`
      ${look}
      SET CONSTRAINTS ALL IMMEDIATE;
      DO ${block.text};
      SELECT pg_catalog.current_setting('pipeweave.batch'::text) AS batch;`,
      ROW_LOCK_MS,
    );
  }

  #account({ removed, ms }: BatchEnd, { reaches }: Batch): void {
    const { target: { table }, leaf: { rows }, options: { batchSize, onBatch } } = this;
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
