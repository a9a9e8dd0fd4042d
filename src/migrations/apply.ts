/**
 * Applies pending migrations: each in one message, which is one transaction together with its guard and its row in
 * the history. The messages are sent without waiting for each other; when one fails, the guards of those behind it
 * refuse.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { ConnectionLost, type Row, type Session, StatementError } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { PipeweaveError } from "../errors.ts";
import { Blockers } from "./blockers.ts";
import { GUARD, type History, lockKey, readHistory } from "./history.ts";
import { LockWait, type LockWaitOptions } from "./lock_wait.ts";
import { type Limits, locateFailure, type Message, messageFor } from "./message.ts";
import { labelOf, type Migration, versionKey } from "./migration.ts";
import { assertApplicable, type MigrationStatus, planMigrations, type Tolerance } from "./plan.ts";

/** Connections that may be lost in a row before it is given up. */
const LOST_CONNECTIONS = 3;
const LOCK_NOT_AVAILABLE = "55P03";
const DEADLOCK = "40P01";
/** SQLSTATE of a session that somebody ended, by pg_terminate_backend or a shutdown. */
const ADMIN_SHUTDOWN = "57P01";
/** How often a migration is tried again when a lock was not free or a deadlock ended it. */
export const LOCK_RETRIES = 20;
/** Pause before a migration is tried again; it grows, and a random part keeps others' rhythms apart. */
const RETRY_PAUSE_MS = { base: 100, growth: 1.6, most: 10_000 };

/** A migration that was applied by this run. */
export interface AppliedNow {
  /** What was applied. */
  readonly migration: Migration;
  /** Milliseconds, as the server measured and recorded them; null when only the history told that it is applied. */
  readonly executionTimeMs: number | null;
}

/** What happened: what is applied stays applied, whether or not something failed after it. */
export interface ApplyResult {
  /** In the order in which they were applied. */
  readonly applied: readonly AppliedNow[];
  /** The migration that failed, and why; everything of it was rolled back. */
  readonly failed: { readonly migration: Migration; readonly error: PipeweaveError } | null;
  /** Where the database stands now. */
  readonly status: MigrationStatus;
}

/** What to heed, and whom to tell. */
export interface ApplyOptions extends Limits, LockWaitOptions {
  /** How often a migration is tried again when a lock was not free in time. Default: 20 */
  readonly lockRetries?: number | undefined;
  /** Limit for all of it, in milliseconds: no attempt starts after that. Default: none */
  readonly timeoutMs?: number | undefined;
  /** What may be overlooked in the history. */
  readonly tolerance?: Tolerance;
  /** Told before each migration. */
  readonly onApplying?: (migration: Migration) => void;
  /** Told after each migration was committed. */
  readonly onApplied?: (applied: AppliedNow) => void;
  /** Told while a migration waits for a lock: who holds it. */
  readonly onBlocked?: (migration: Migration, blockers: string) => void;
  /** Told when another migrator turns out to apply what was announced. */
  readonly onTaken?: (migration: Migration) => void;
  /** Told before a migration is tried again. */
  readonly onRetry?: (migration: Migration, reason: string) => void;
  /** Ends what runs: the server rolls it back. */
  readonly signal?: AbortSignal | undefined;
}

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
  options: ApplyOptions = {},
): Promise<ApplyResult> {
  const key = await lockKey(session.settings.schema);
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

  constructor(
    readonly session: Session,
    readonly migrations: readonly Migration[],
    history: History,
    readonly key: bigint,
    readonly options: ApplyOptions,
  ) {
    this.#history = history;
    this.#lock = new LockWait(session, key, options);
    this.#deadline = options.timeoutMs === undefined ? Infinity : Date.now() + options.timeoutMs;
  }

  async run(): Promise<ApplyResult> {
    try {
      for (;;) {
        const status = planMigrations(this.migrations, this.#history.rows);
        assertApplicable(status, this.options.tolerance);
        this.#settleUnanswered(status);
        if (status.pending.length === 0) return { applied: this.#inOrder(), failed: null, status };
        const failed = await this.#pass(status.pending);
        if (failed) return failed;
        this.#history = await readHistory(this.session);
      }
    } catch (error) {
      throw error instanceof PipeweaveError ? withOutcome(error, this.#applied, this.#unanswered) : error;
    }
  }

  /** Of what a lost connection left unanswered, only the history tells what became. */
  #settleUnanswered({ pending, applied }: MigrationStatus): void {
    for (const migration of this.migrations) {
      if (!this.#unanswered.has(migration) || pending.includes(migration)) continue;
      const row = applied.find(({ version }) => versionKey(version) === versionKey(migration.version));
      this.#succeeded(migration, row?.executionTimeMs ?? null);
    }
  }

  /** Sends every pending migration, the next before the last is answered; ends at the first that is not applied. */
  async #pass(pending: readonly Migration[]): Promise<ApplyResult | undefined> {
    const sent = pending.map((migration, index) => {
      const message = messageFor(migration, {
        schema: this.session.settings.schema,
        key: this.key,
        predecessor: predecessorOf(migration, this.migrations, index === 0 ? this.#history : undefined),
        historyIsMissing: index === 0 && !this.#history.exists,
        limits: this.options,
      });
      return { migration, message, outcome: outcomeOf(this.session.send(message.text)) };
    });
    for (const [index, { migration, message, outcome: promised }] of sent.entries()) {
      if (!this.#lock.waiting) this.#announce(migration);
      await using blockers = new Blockers(this.session, migration, this.options.onBlocked);
      const outcome = await promised;
      if (outcome.kind === "applied") {
        this.#succeeded(migration, outcome.row["execution_time_ms"] as number);
        continue;
      }
      if (isRefusedByGuard(outcome.error, message)) this.#taken(migration);
      await this.#settleBehind(sent.slice(index + 1));
      return await this.#goOnOrFail(outcome.error, migration, message, blockers.last);
    }
    return undefined;
  }

  /**
   * Takes the answers to those behind one that was not applied. Most refuse by their guards; but where another migrator
   * applied that one meanwhile, the next of ours may have been applied.
   */
  async #settleBehind(sent: readonly { migration: Migration; outcome: Promise<Outcome> }[]): Promise<void> {
    for (const { migration, outcome: promised } of sent) {
      const outcome = await promised;
      if (outcome.kind === "applied") this.#succeeded(migration, outcome.row["execution_time_ms"] as number);
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

  #succeeded(migration: Migration, executionTimeMs: number | null): void {
    this.#announce(migration);
    this.#announced = undefined;
    this.#unanswered.delete(migration);
    this.#lost = 0;
    this.#retries = 0;
    this.#lock.done();
    this.#applied.push({ migration, executionTimeMs });
    this.options.onApplied?.(this.#applied.at(-1)!);
  }

  /** Returns nothing when it is worth another look at the history and another pass. */
  async #goOnOrFail(
    error: unknown,
    migration: Migration,
    message: Message,
    heldBy: string | undefined,
  ): Promise<ApplyResult | undefined> {
    const { options } = this;
    const mayGoOn = !options.signal?.aborted;
    if (isRefusedByGuard(error, message)) {
      if (error.details.sqlstate === GUARD.locked) await this.#lock.wait();
      return undefined;
    }
    if (isLockConflict(error) && mayGoOn && this.#retries < (options.lockRetries ?? LOCK_RETRIES)) {
      const pause = pauseBefore(++this.#retries);
      if (Date.now() + pause > this.#deadline) throw outOfTime(migration, heldBy);
      const deadlock = sqlstateOf(error) === DEADLOCK;
      const what = deadlock
        ? "a deadlock ended it"
        : `a lock was not free in time${heldBy ? `, held by ${heldBy}` : ""}`;
      options.onRetry?.(migration, `${what}; attempt ${this.#retries + 1} in ${formatDuration(pause)}`);
      await sleep(pause, options.signal);
      return undefined;
    }
    if (wasEndedByAdministrator(error) || isRecordedTwice(error)) {
      // By now the history knows: our own commit just before the end, or somebody else's row.
      this.#history = await readHistory(this.session);
      const recorded = this.#history.rows.some(({ version }) =>
        versionKey(version) === versionKey(migration.version)
      );
      return recorded ? undefined : await this.#failure(error, migration, message, heldBy);
    }
    if (error instanceof ConnectionLost && mayGoOn && ++this.#lost <= LOST_CONNECTIONS) {
      options.onRetry?.(migration, `${error.message}; connecting again to see what became of it`);
      this.#unanswered.add(migration);
      return undefined;
    }
    return await this.#failure(error, migration, message, heldBy);
  }

  /** The result of a run that a migration ended. Rethrows what is not about one migration. */
  async #failure(
    error: unknown,
    migration: Migration,
    message: Message,
    heldBy: string | undefined,
  ): Promise<ApplyResult> {
    let explained: PipeweaveError;
    if (wasEndedByAdministrator(error)) {
      explained = new PipeweaveError(
        "database",
        "terminated",
        "An administrator ended the session; the server rolled it back",
        {
          ...error.details,
          hint: "Find out why before you run db:migrate again.",
        },
      );
    } else if (error instanceof StatementError) {
      const location = await locateFailure(error, migration, message);
      explained = new PipeweaveError(error.kind, error.code, error.message, {
        ...error.details,
        ...(location ? { location } : {}),
        ...(isLockConflict(error) && heldBy
          ? { hint: `The lock was held by ${heldBy}. Wait for it or end it, and run db:migrate again.` }
          : {}),
      });
    } else throw error;
    const known = new Set(this.#history.rows.map(({ version }) => versionKey(version)));
    const since = this.#applied.filter((now) => !known.has(versionKey(now.migration.version)));
    const rows = since.map(({ migration, executionTimeMs }) => ({
      ...migration,
      appliedAt: new Date(),
      executionTimeMs,
    }));
    const status = planMigrations(this.migrations, [...this.#history.rows, ...rows]);
    return { applied: this.#inOrder(), failed: { migration, error: explained }, status };
  }

  /** What was applied, in the order of the migrations: some may have been found out about late. */
  #inOrder(): readonly AppliedNow[] {
    const place = ({ migration }: AppliedNow) => this.migrations.indexOf(migration);
    return this.#applied.toSorted((a, b) => place(a) - place(b));
  }
}

/** A session that somebody ended on purpose, which is no reason to start again behind his back. */
function wasEndedByAdministrator(error: unknown): error is ConnectionLost {
  return error instanceof ConnectionLost && sqlstateOf(error) === ADMIN_SHUTDOWN;
}

/** Whether a lock was not free in time, or a deadlock had to end somebody: to be tried again. */
function isLockConflict(error: unknown): boolean {
  return sqlstateOf(error) === LOCK_NOT_AVAILABLE || sqlstateOf(error) === DEADLOCK;
}

function pauseBefore(attempt: number): number {
  const { base, growth, most } = RETRY_PAUSE_MS;
  return Math.min(base * growth ** (attempt - 1), most) * (0.5 + Math.random());
}

function outcomeOf(answer: Promise<Row[][]>): Promise<Outcome> {
  return answer.then(
    (sets) => ({ kind: "applied", row: sets.at(-1)![0]! }),
    (error) => ({ kind: "failed", error }),
  );
}

function sqlstateOf(error: unknown): string | undefined {
  return error instanceof PipeweaveError ? error.details.sqlstate : undefined;
}

/** Whether the guard refused, and not the migration itself with a SQLSTATE of the same name. */
function isRefusedByGuard(error: unknown, message: Message): error is StatementError {
  return error instanceof StatementError && error.completed === message.statementsBeforeGuard &&
    Object.values<string | undefined>(GUARD).includes(error.details.sqlstate);
}

/** Whether a migrator without our lock, such as the Node tool, may have recorded the same version just now. */
function isRecordedTwice(error: unknown): boolean {
  const state = sqlstateOf(error);
  const cause = error instanceof PipeweaveError
    ? error.details.cause as { table_name?: string } | undefined
    : undefined;
  return state === "23505" && cause?.table_name === "schema_migrations";
}

/** The migration that has to be in the history before this one: its version as the history writes it. */
function predecessorOf(
  migration: Migration,
  migrations: readonly Migration[],
  history: History | undefined,
): string | undefined {
  const before = migrations[migrations.indexOf(migration) - 1];
  if (!before) return undefined;
  const row = history?.rows.find(({ version }) => versionKey(version) === versionKey(before.version));
  return row?.version ?? before.version;
}

/** What happened before an error that is not about one migration. */
function withOutcome(
  error: PipeweaveError,
  applied: readonly AppliedNow[],
  unanswered: Set<Migration>,
): PipeweaveError {
  if (applied.length === 0 && unanswered.size === 0) return error;
  const names = applied.map(({ migration }) => labelOf(migration));
  const unknown = [...unanswered].map(labelOf);
  return new PipeweaveError(error.kind, error.code, error.message, {
    ...error.details,
    problems: [
      ...(error.details.problems ?? []),
      names.length === 0
        ? "this run applied nothing that it knows of"
        : `applied by this run: ${names.join(", ")}`,
      ...(unknown.length === 0
        ? []
        : [`sent, and not known to be applied or not: ${unknown.join(", ")}; db:status tells`]),
    ],
    data: { ...error.details.data, applied: names, unanswered: unknown },
    cause: error,
  });
}

function outOfTime(migration: Migration, heldBy: string | undefined): PipeweaveError {
  return new PipeweaveError(
    "timeout",
    "timeout",
    `The time for applying ran out while ${labelOf(migration)} waited for a lock: nothing of it was applied`,
    {
      hint: `${
        heldBy ? `The lock was held by ${heldBy}. ` : ""
      }Run db:migrate again, with a longer --timeout.`,
    },
  );
}
