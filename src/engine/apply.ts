/**
 * Applies pending migrations: each in one message, which is one transaction together with its guard and its row in
 * the history. The messages are sent without waiting for each other; when one fails, the guards of those behind it
 * refuse.
 *
 * @module
 */

import { UNKNOWN_ACTOR } from "../config/actor.ts";
import { formatDuration } from "../config/duration.ts";
import {
  CommittedLocally,
  ConnectionLost,
  type Row,
  type Session,
  StatementError,
} from "../database/session.ts";
import { LONGEST_TIMER_MS, pauseBefore, sleep } from "../database/sleep.ts";
import { hasCrashed } from "../database/server_identity.ts";
import { PipeweaveError } from "../errors.ts";
import { Watch } from "./activity.ts";
import { crashed, explainFailure, isRefusedByGuard, wasEndedOnPurpose } from "./explain.ts";
import { GUARD, type GuardTerms, type History, lockKey, predecessorOf, readHistory } from "./history.ts";
import { Lease, LEASE_MS } from "./lease.ts";
import { LOCK_WAIT_MS, LockWait } from "./lock_wait.ts";
import { logFailure } from "./failure_log.ts";
import { limitsOf, type Message, messageFor } from "./message.ts";
import { EMBEDDED, type Migration, setOf, versionKey } from "../migrations/migration.ts";
import {
  assertApplicable,
  type HistoryRow,
  isOf,
  type MigrationStatus,
  planMigrations,
  upTo,
} from "../migrations/plan.ts";
import { isLockConflict, sqlstateOf } from "../database/conflict.ts";
import { describeConflict, LOCK_RETRIES, LOST_CONNECTIONS } from "./retry.ts";
import { statementsOf } from "../sql/statements.ts";
import { outOfTime, rolledBack, withOutcome } from "./run_outcome.ts";
import { UntransactedFailure } from "./aftermath.ts";
import type { AppliedNow, ApplyResult, ConditionalOptions } from "./apply_types.ts";
import { runUntransacted } from "./untransacted.ts";

/** How a pass ended: all of it was applied, another look at the history is worth while, or it is over. */
type PassResult = "applied" | "look again" | ApplyResult;

/** Of a migration whose row was not sent. */
const NOTHING_KNOWN: Row = { execution_time_ms: null, applied_at: null };

/** Messages that are built before the event loop gets its turn. */
const SENT_PER_TURN = 16;

/** How one message of the pipeline ended. */
type Outcome =
  | { readonly kind: "applied"; readonly row: Row }
  | { readonly kind: "failed"; readonly error: unknown };

/**
 * Applies what is pending.
 *
 * @param history as it was just read
 * @throws {PipeweaveError} when nothing can be said of a single migration: integrity, the lock of all migrators, the
 *   connection, an interruption. It tells what was applied before, and what is unknown.
 */
export async function applyMigrations(
  session: Session,
  migrations: readonly Migration[],
  history: History,
  options: ConditionalOptions = {},
): Promise<ApplyResult> {
  const key = lockKey(session.settings.schema);
  return await new Migrator(session, migrations, history, key, options).run();
}

/** One run: what it has done so far, and what it does about each way in which a message can end. */
class Migrator {
  readonly #applied: AppliedNow[] = [];
  /** Sent over a connection that was lost; the server may have gone on with them. */
  readonly #unanswered = new Set<Migration>();
  readonly #lock: LockWait;
  readonly #deadline: number;
  /** The migration that was last said to be applied now, until it is known how that ended. */
  #announced: Migration | undefined;
  #history: History;
  #lost = 0;
  #retries = 0;

  readonly session: Session;
  readonly migrations: readonly Migration[];
  readonly key: bigint;
  readonly options: ConditionalOptions;

  constructor(
    session: Session,
    migrations: readonly Migration[],
    history: History,
    key: bigint,
    options: ConditionalOptions,
  ) {
    this.session = session;
    this.migrations = migrations;
    this.key = key;
    this.options = options;
    this.#history = history;
    this.#lock = new LockWait(session, key, options);
    this.#deadline = options.timeoutMs === undefined ? Infinity : Date.now() + options.timeoutMs;
  }

  async run(): Promise<ApplyResult> {
    const { session } = this;
    session.limit(this.#deadline);
    const timer = this.#deadline === Infinity ? undefined : setTimeout(
      () => session.endWhatRuns("the end of --timeout"),
      Math.min(this.#deadline - Date.now(), LONGEST_TIMER_MS),
    );
    try {
      for (;;) {
        const status = planMigrations(this.migrations, this.#history);
        assertApplicable(this.migrations, status, this.options.tolerance);
        this.#settleUnanswered(status);
        const pending = upTo(this.options.to, this.migrations, status.pending);
        if (pending.length === 0) return { applied: this.#inOrder(), failed: null, status };
        const result = pending[0]!.directives.noTransaction
          ? await this.#passUntransacted(pending[0]!)
          : await this.#pass(sentTogether(pending));
        if (result === "look again") this.#history = await readHistory(this.session);
        else if (result === "applied") this.#history = this.#historyNow();
        else return result;
      }
    } catch (error) {
      if (!(error instanceof PipeweaveError)) throw error;
      if (this.options.signal?.aborted) await this.#settleAfterInterruption(error);
      throw withOutcome(error, this.#applied, this.#unanswered);
    } finally {
      clearTimeout(timer);
      session.limit(Infinity);
    }
  }

  /** An interruption may have cut the connection off: the history is read once more, in a session of its own. */
  async #settleAfterInterruption(error: PipeweaveError): Promise<void> {
    if (this.#unanswered.size === 0) return;
    await using beside = this.session.beside({});
    const history = await readHistory(beside).catch(() => undefined);
    if (!history) return;
    this.#settleUnanswered(planMigrations(this.migrations, history));
    // A server process that has ended by itself begins nothing more. One that we left may.
    if (error instanceof CommittedLocally || error instanceof ConnectionLost && error.lastWord) {
      this.#unanswered.clear();
    }
  }

  /** Of what a lost connection left unanswered, only the history tells what became. */
  #settleUnanswered({ pending, applied }: MigrationStatus): void {
    for (const migration of this.migrations) {
      if (!this.#unanswered.has(migration) || pending.includes(migration)) continue;
      const row = applied.find(({ version }) => versionKey(version) === versionKey(migration.version));
      this.#succeeded(migration, {
        execution_time_ms: row?.executionTimeMs ?? null,
        applied_at: row?.appliedAt ?? null,
      });
    }
  }

  /** Sends migrations, the next before the last is answered; ends at the first that is not applied. */
  async #pass(pending: readonly Migration[]): Promise<PassResult> {
    const { schema, applicationName } = this.session.settings;
    const statements = await Promise.all(
      // PipeWeave's own are short, and parsing them would take longer than most of them.
      pending.map((migration) => migration.source === EMBEDDED ? undefined : statementsOf(migration)),
    );
    const sent: { migration: Migration; message: Message; outcome: Promise<Outcome> }[] = [];
    for (const [index, migration] of pending.entries()) {
      const message = messageFor(migration, {
        schema,
        applicationName,
        terms: this.#termsFor(migration, index),
        condition: this.options.conditionOf?.(migration)?.statement,
        limits: this.options,
        statements: statements[index],
        actor: this.options.actor ?? UNKNOWN_ACTOR,
        details: this.options.detailsOf?.(migration),
      });
      sent.push({ migration, message, outcome: outcomeOf(this.session.send(message.text)) });
      // What is queued goes out between turns of the event loop: the server is not to wait for the last of a thousand.
      if (index % SENT_PER_TURN === 0) await new Promise((resolve) => setTimeout(resolve));
    }
    for (const [index, { migration, message, outcome: promised }] of sent.entries()) {
      if (!this.#lock.waiting) this.#announce(migration);
      await using watch = new Watch(this.session, migration, this.options.onActivity);
      const outcome = await promised;
      if (outcome.kind === "applied") {
        this.#succeeded(migration, outcome.row);
        continue;
      }
      await this.#settleBehind(sent.slice(index + 1));
      // Only now, since the history is read again before anything is said of it.
      if (isRefusedByGuard(outcome.error, message, GUARD) && sqlstateOf(outcome.error) !== GUARD.locked) {
        this.#taken(migration);
      }
      return await this.#goOnOrFail(outcome.error, migration, message, watch.lastBlockers);
    }
    return "applied";
  }

  /** Takes the turn, and runs one migration outside a transaction. */
  async #passUntransacted(migration: Migration): Promise<PassResult> {
    const { session, options } = this;
    const limits = limitsOf(migration, options);
    const terms = { ...this.#termsFor(migration, 0), version: migration.version, limits };
    const actor = options.actor ?? UNKNOWN_ACTOR;
    const holder = `${session.settings.applicationName}${actor.host ? ` on ${actor.host}` : ""}${
      actor.osUser ? ` by ${actor.osUser}` : ""
    }`;
    if (!this.#lock.waiting) this.#announce(migration);
    let lease: Lease;
    try {
      lease = await Lease.acquire(session, terms, { holder, leaseMs: options.leaseMs ?? LEASE_MS });
    } catch (error) {
      const guardAt = { statementsBeforeGuard: Lease.statementsBeforeGuard(session.settings.schema, terms) };
      if (isRefusedByGuard(error, guardAt, GUARD) && sqlstateOf(error) !== GUARD.locked) {
        this.#taken(migration);
      }
      return await this.#goOnOrFail(error, migration, guardAt, undefined);
    }
    await using _turn = lease;
    if (this.#lock.waiting) this.#announce(migration);
    const onNote = (text: string) => options.onNote?.(migration, text);
    if (lease.tookOverFrom) onNote(`takes over from ${lease.tookOverFrom}, whose lease ran out`);
    try {
      const row = await runUntransacted(session, migration, lease, {
        limits,
        condition: options.conditionOf?.(migration)?.statement,
        actor,
        details: options.detailsOf?.(migration),
        lockRetries: options.lockRetries ?? LOCK_RETRIES,
        waitMs: options.lockWaitMs ?? LOCK_WAIT_MS,
        deadline: this.#deadline,
        isFirst: this.#isFirst(),
        signal: options.signal,
        onNote,
        onActivity: options.onActivity,
      });
      this.#succeeded(migration, row);
      return "applied";
    } catch (error) {
      this.#assertCondition(error instanceof UntransactedFailure ? error.cause : error, migration);
      if (error instanceof UntransactedFailure) {
        const isLate = Date.now() >= this.#deadline && isEndedInTime(error.cause);
        const cause = isLate ? outOfTime(migration, undefined, "ran") : error.cause;
        return await this.#failed(migration, cause, error.left);
      }
      if (error instanceof ConnectionLost && ++this.#lost <= LOST_CONNECTIONS && !options.signal?.aborted) {
        this.#unanswered.add(migration);
        return "look again";
      }
      throw error;
    }
  }

  /** @param index in the pass: what is sent behind another finds what that one made */
  #termsFor(
    migration: Migration,
    index: number,
  ): Pick<GuardTerms, "key" | "predecessor" | "complete" | "outside"> {
    return {
      key: this.key,
      predecessor: predecessorOf(migration, this.migrations, this.#history),
      complete: index > 0 || this.#history.complete,
      outside: migration.directives.noTransaction,
    };
  }

  /**
   * Takes the answers to those behind one that was not applied. Most refuse by their guards; but where another migrator
   * applied that one meanwhile, the next of ours may have been applied.
   */
  async #settleBehind(sent: readonly { migration: Migration; outcome: Promise<Outcome> }[]): Promise<void> {
    for (const { migration, outcome: promised } of sent) {
      const outcome = await promised;
      if (outcome.kind === "applied") this.#succeeded(migration, outcome.row);
      else if (outcome.error instanceof ConnectionLost) this.#unanswered.add(migration);
    }
  }

  #taken(migration: Migration): void {
    if (this.#announced !== migration || this.#unanswered.has(migration)) return;
    this.options.onTaken?.(migration);
    this.#announced = undefined;
  }

  #announce(migration: Migration): void {
    if (this.#announced !== migration) this.options.onApplying?.(migration);
    this.#announced = migration;
  }

  #succeeded(migration: Migration, row: Row): void {
    this.#announce(migration);
    this.#announced = undefined;
    this.#unanswered.delete(migration);
    this.#lost = 0;
    this.#retries = 0;
    this.#lock.done();
    this.#applied.push({
      migration,
      executionTimeMs: row["execution_time_ms"] as number | null,
      appliedAt: row["applied_at"] as Date | null,
    });
    this.options.onApplied?.(this.#applied.at(-1)!);
  }

  /** What to do about a migration that was not applied. */
  async #goOnOrFail(
    error: unknown,
    migration: Migration,
    message: Message | Pick<Message, "statementsBeforeGuard">,
    heldBy: string | undefined,
  ): Promise<PassResult> {
    const { options } = this;
    const isOver = Date.now() >= this.#deadline;
    const mayGoOn = !options.signal?.aborted && !isOver;
    if (error instanceof CommittedLocally) {
      this.#succeeded(migration, error.rows.at(-1)?.[0] ?? NOTHING_KNOWN);
      throw error;
    }
    if (error instanceof ConnectionLost) this.#unanswered.add(migration);
    if (error instanceof ConnectionLost && options.signal?.aborted) throw error;
    if (isOver && isEndedInTime(error)) throw outOfTime(migration, heldBy, "ran");
    if (isOver && isLockConflict(error)) throw outOfTime(migration, heldBy, "waited for a lock");
    if (isRefusedByGuard(error, message, GUARD)) {
      if (error.details.sqlstate === GUARD.locked) await this.#lock.wait();
      return "look again";
    }
    this.#assertCondition(error, migration);
    if (isMadeTwice(error, message) && mayGoOn && this.#retries++ < (options.lockRetries ?? LOCK_RETRIES)) {
      return "look again";
    }
    if (isLockConflict(error) && mayGoOn && this.#retries < (options.lockRetries ?? LOCK_RETRIES)) {
      const pause = pauseBefore(++this.#retries);
      if (Date.now() + pause > this.#deadline) throw outOfTime(migration, heldBy, "waited for a lock");
      options.onRetry?.(
        migration,
        `${describeConflict(error, heldBy)}; attempt ${this.#retries + 1} in ${formatDuration(pause)}`,
      );
      await sleep(pause, options.signal);
      return "look again";
    }
    if (wasEndedOnPurpose(error) || isRecordedTwice(error)) {
      // By now the history knows: our own commit just before the end, or somebody else's row.
      this.#history = await readHistory(this.session);
      this.#unanswered.delete(migration);
      const recorded = this.#history.rows.some(({ version }) =>
        versionKey(version) === versionKey(migration.version)
      );
      return recorded ? "look again" : await this.#failure(error, migration, message, heldBy);
    }
    if (
      error instanceof ConnectionLost && mayGoOn && !error.isUnreachable && ++this.#lost <= LOST_CONNECTIONS
    ) {
      options.onRetry?.(migration, `${error.message}; connecting again to see what became of it`);
      const { server } = this.#history;
      this.#history = await readHistory(this.session);
      const isRecorded = this.#history.rows.some((row) => isOf(row, migration));
      if (isRecorded || !hasCrashed(server, this.#history.server)) return "look again";
      this.#unanswered.delete(migration);
      return await this.#failed(migration, crashed(migration, error), rolledBack(migration));
    }
    return await this.#failure(error, migration, message, heldBy);
  }

  /** Whether none of the user's migrations was applied before. */
  #isFirst(): boolean {
    return !this.#history.rows.some(({ set }) => set === "user") &&
      !this.#applied.some(({ migration }) => setOf(migration) === "user");
  }

  /** Throws the condition's own error where it is what failed. */
  #assertCondition(error: unknown, migration: Migration): void {
    const condition = this.options.conditionOf?.(migration);
    const sqlstate = sqlstateOf(error);
    if (condition && sqlstate && condition.sqlstates.includes(sqlstate)) {
      throw condition.error(migration, sqlstate);
    }
  }

  /** The result of a run that a migration ended. Rethrows what is not about one migration. */
  async #failure(
    error: unknown,
    migration: Migration,
    message: Message | Pick<Message, "statementsBeforeGuard">,
    heldBy: string | undefined,
  ): Promise<ApplyResult> {
    const explained = await explainFailure(error, migration, "text" in message ? message : undefined, {
      ...{ session: this.session, isFirst: this.#isFirst() },
      heldBy,
      again: "db:migrate",
    });
    if (!explained) throw error;
    return await this.#failed(
      migration,
      explained,
      rolledBack(migration),
    );
  }

  async #failed(migration: Migration, error: PipeweaveError, left: string): Promise<ApplyResult> {
    const { version, name } = migration;
    await logFailure(this.session, { action: "apply", version, name }, error, this.options.actor);
    const status = planMigrations(this.migrations, this.#historyNow());
    return { applied: this.#inOrder(), failed: { migration, error, left }, status };
  }

  /** The history as it was read, and what this run has added since. */
  #historyNow(): History {
    const known = new Set(this.#history.rows.map(({ version }) => versionKey(version)));
    const added = this.#applied.filter(({ migration }) => !known.has(versionKey(migration.version)));
    const rows = added.map((
      { migration: { version, name, checksum, source }, executionTimeMs, appliedAt },
    ): HistoryRow => ({
      ...{ version, name, checksum, executionTimeMs, set: setOf({ source }) },
      appliedAt: appliedAt ?? new Date(),
    }));
    const made = rows.length > 0;
    return {
      exists: this.#history.exists || made,
      complete: this.#history.complete || made,
      rows: [...this.#history.rows, ...rows],
      partial: this.#history.partial.filter(({ version }) => !rows.some((row) => row.version === version)),
    };
  }

  /** What was applied, in the order of the migrations: some may have been found out about late. */
  #inOrder(): readonly AppliedNow[] {
    const place = ({ migration }: AppliedNow) => this.migrations.indexOf(migration);
    return this.#applied.toSorted((a, b) => place(a) - place(b));
  }
}

/** UTF-16 units of the texts that are sent before the first of them is answered. */
const SENT_AHEAD = 8 * 1024 * 1024;

/** The first of them that can be sent in one go: they run in transactions, and fit into memory. */
function sentTogether(pending: readonly Migration[]): readonly Migration[] {
  let units = 0;
  const index = pending.findIndex(({ directives, size }, place) => {
    units += size;
    return directives.noTransaction || place > 0 && units > SENT_AHEAD;
  });
  return index === -1 ? pending : pending.slice(0, index);
}

function outcomeOf(answer: Promise<Row[][]>): Promise<Outcome> {
  return answer.then(
    (sets) => ({ kind: "applied", row: sets.at(-1)![0]! }),
    (error) => ({ kind: "failed", error }),
  );
}

/** Whether a statement was cancelled, as it is when --timeout is over. */
function isEndedInTime(error: unknown): boolean {
  return sqlstateOf(error) === "57014";
}

/** Schema, table, object, function that is there already; a row of a catalog that is. */
const MADE_TWICE: ReadonlySet<string> = new Set(["42P06", "42P07", "42710", "42723", "23505"]);

/**
 * Whether the schema of the books was made by somebody else while we made it: what a server process remembers of the
 * catalog may be older than the lock that it has just taken.
 */
function isMadeTwice(error: unknown, message: Message | Pick<Message, "statementsBeforeGuard">): boolean {
  const state = sqlstateOf(error);
  return error instanceof StatementError && "statementsBefore" in message &&
    error.completed < message.statementsBefore && MADE_TWICE.has(state ?? "");
}

/** Whether a migrator without our lock, such as the Node tool, may have recorded the same version just now. */
function isRecordedTwice(error: unknown): boolean {
  const state = sqlstateOf(error);
  const cause = error instanceof PipeweaveError
    ? error.details.cause as { table_name?: string } | undefined
    : undefined;
  return state === "23505" && cause?.table_name === "schema_migrations";
}
