/**
 * Rolls migrations back, the last applied first: each down file in one message, which is one transaction together with
 * its guard, the row that leaves the history, and its line in the log.
 *
 * @module
 */

import { type Actor, UNKNOWN_ACTOR } from "../config/actor.ts";
import { formatDuration } from "../config/duration.ts";
import { ConnectionLost, type Session } from "../database/session.ts";
import { pauseBefore, sleep } from "../database/sleep.ts";
import { sql } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";
import { PipeweaveError } from "../errors.ts";
import { type Activity, Watch } from "./activity.ts";
import { explainFailure, isRefusedByGuard, wasEndedOnPurpose } from "./explain.ts";
import {
  createBookkeeping,
  guardRollback,
  type History,
  lockKey,
  readHistory,
  ROLLBACK_GUARD,
  unrecordMigration,
} from "./history.ts";
import { LockWait, type LockWaitOptions } from "./lock_wait.ts";
import { logFailure } from "./failure_log.ts";
import { type Limits, type Message, wrap } from "./message.ts";
import { labelOf, type Migration, versionKey } from "../migrations/migration.ts";
import { type HistoryRow, isOf, noSuchVersion, planMigrations } from "../migrations/plan.ts";
import { isLockConflict } from "../database/conflict.ts";
import { describeConflict, LOCK_RETRIES, LOST_CONNECTIONS } from "./retry.ts";
import { statementsOf } from "../sql/statements.ts";

/** How far back. */
export interface RollbackRange {
  /** How many migrations. Default: 1 */
  readonly steps?: number | undefined;
  /** The version to go back to: it stays, and what was applied after it goes. */
  readonly to?: string | undefined;
}

/** One migration to undo. */
export interface RollbackStep {
  /** Applied, as its file has it. */
  readonly migration: Migration;
  /** The file that undoes it. */
  readonly down: Migration;
  /** Its version as the history has it. */
  readonly version: string;
}

/** What to heed, and whom to tell. */
export interface RollbackOptions extends Limits, LockWaitOptions {
  /** How often a roll-back is tried again when a lock was not free in time. Default: 20 */
  readonly lockRetries?: number | undefined;
  /** Who does it, for the log. */
  readonly actor?: Actor | undefined;
  /** What the log notes beside it. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  /** Told before each. */
  readonly onRollingBack?: (migration: Migration) => void;
  /** Told after each, with its milliseconds. */
  readonly onRolledBack?: (migration: Migration, executionTimeMs: number | null) => void;
  /** Told once a second what a roll-back is at, when it takes longer than that. */
  readonly onActivity?: (migration: Migration, activity: Activity) => void;
  /** Told before it is tried again. */
  readonly onRetry?: (migration: Migration, reason: string) => void;
}

/** What was rolled back, and what failed. */
export interface RollbackResult {
  /** In the order in which it was done. */
  readonly rolledBack: readonly {
    readonly migration: Migration;
    /** Milliseconds; null when only the history told. */
    readonly executionTimeMs: number | null;
  }[];
  /** Null where none failed. */
  readonly failed: { readonly migration: Migration; readonly error: PipeweaveError } | null;
}

/**
 * Finds out what there is to undo.
 *
 * @throws {PipeweaveError} of kind `integrity` when something of it cannot be undone; `usage` when the version to go back
 *   to is not applied
 */
export function planRollback(
  migrations: readonly Migration[],
  history: History,
  { steps = 1, to }: RollbackRange,
): readonly RollbackStep[] {
  const { rows } = history;
  const { applied } = planMigrations(migrations, history);
  const drifted = new Set(applied.filter(({ drift }) => drift).map(({ version }) => version));
  const problems: string[] = [];
  const planned = lastRows(rows, steps, to).flatMap((row): RollbackStep[] => {
    const migration = migrations.find((one) => isOf(row, one));
    const label = labelOf(row);
    if (!migration) problems.push(`${label} has no file`);
    else if (drifted.has(row.version)) problems.push(`${label} was changed after it was applied`);
    else if (!migration.down) problems.push(`${label} has no down file (${label}.down.sql)`);
    else return [{ migration, down: migration.down, version: row.version }];
    return [];
  });
  if (problems.length === 0) return planned;
  throw new PipeweaveError(
    "integrity",
    "not_reversible",
    "This cannot be rolled back. Nothing was changed.",
    {
      problems,
      hint:
        "Write a new migration that undoes the change, or add the down files; restore changed files first.",
    },
  );
}

/** Newest first, as they were applied. */
function lastRows(rows: readonly HistoryRow[], steps: number, to: string | undefined): readonly HistoryRow[] {
  const newestFirst = rows.toReversed();
  if (to === undefined) return newestFirst.slice(0, steps);
  const index = newestFirst.findIndex(({ version }) => versionKey(version) === versionKey(to));
  if (index === -1) throw noSuchVersion(to);
  return newestFirst.slice(0, index);
}

/**
 * Rolls back what was planned, up to the first that fails.
 *
 * @throws {PipeweaveError} when nothing can be said of a single migration: the lock of all migrators, the connection, or
 *   a history that another migrator has changed meanwhile
 */
export async function rollBack(
  session: Session,
  steps: readonly RollbackStep[],
  history: History,
  options: RollbackOptions = {},
): Promise<RollbackResult> {
  const key = lockKey(session.settings.schema);
  const rolledBack: { migration: Migration; executionTimeMs: number | null }[] = [];
  if (!history.complete) {
    await session.transaction(
      sql`${assertTrusted(session.settings.schema, [], "own")} ${createBookkeeping(session.settings.schema)}`,
    );
  }
  for (const step of steps) {
    const { migration } = step;
    options.onRollingBack?.(migration);
    try {
      const executionTimeMs = await new OneRollback(session, step, key, options).run();
      rolledBack.push({ migration, executionTimeMs });
      options.onRolledBack?.(migration, executionTimeMs);
    } catch (error) {
      if (error instanceof RollbackFailure) {
        const { version, migration: { name } } = step;
        await logFailure(session, { action: "rollback", version, name }, error.cause, options.actor);
        return { rolledBack, failed: { migration, error: error.cause } };
      }
      throw error instanceof PipeweaveError
        ? withOutcome(error, rolledBack.map((one) => one.migration))
        : error;
    }
  }
  return { rolledBack, failed: null };
}

/** A down file failed; what it had done is undone. */
class RollbackFailure extends Error {
  override readonly cause: PipeweaveError;

  constructor(cause: PipeweaveError) {
    super(cause.message, { cause });
    this.cause = cause;
  }
}

/** One migration's way back, with what to do about each way in which its message can end. */
class OneRollback {
  #retries = 0;
  #lost = 0;
  /** Whether a message of ours may have been done without our knowing. */
  #unanswered = false;
  readonly #lock: LockWait;

  readonly session: Session;
  readonly step: RollbackStep;
  readonly key: bigint;
  readonly options: RollbackOptions;

  constructor(
    session: Session,
    step: RollbackStep,
    key: bigint,
    options: RollbackOptions,
  ) {
    this.session = session;
    this.step = step;
    this.key = key;
    this.options = options;
    this.#lock = new LockWait(session, key, options);
  }

  /** @returns milliseconds; null when only the history told that it is done */
  async run(): Promise<number | null> {
    const { session, options, step: { migration, down, version } } = this;
    const message = await this.#message();
    for (;;) {
      await using watch = new Watch(
        session,
        down,
        (_, activity) => options.onActivity?.(migration, activity),
      );
      try {
        const sets = await session.send(message.text);
        return sets.at(-1)![0]!["duration_ms"] as number | null;
      } catch (error) {
        if (this.#unanswered || wasEndedOnPurpose(error)) {
          const { rows } = await readHistory(session);
          if (!rows.some((row) => row.version === version)) return null;
        }
        await this.#goOnOrFail(error, message, watch.lastBlockers);
      }
    }
  }

  async #message(): Promise<Message> {
    const { session: { settings }, options, key, step: { migration, down, version } } = this;
    return wrap(down, {
      schema: settings.schema,
      applicationName: settings.applicationName,
      limits: options,
      statements: await statementsOf(down),
    }, {
      checks: [assertTrusted(settings.schema, [], "own")],
      guarded: [guardRollback(settings.schema, key, version)],
      after: unrecordMigration(settings.schema, version, {
        ...{ action: "rollback", version, name: migration.name, outcome: "done" },
        ...{ actor: options.actor ?? UNKNOWN_ACTOR, details: options.details },
      }),
    });
  }

  /** Returns when another attempt is worth while. */
  async #goOnOrFail(error: unknown, message: Message, heldBy: string | undefined): Promise<void> {
    const { options, step: { migration, down } } = this;
    const mayGoOn = !options.signal?.aborted;
    if (isRefusedByGuard(error, message, ROLLBACK_GUARD)) {
      if (error.details.sqlstate === ROLLBACK_GUARD.locked) return await this.#lock.wait();
      throw new PipeweaveError(
        "condition",
        "history_moved",
        `${labelOf(migration)} is no longer the last applied migration: another migrator was at work`,
        { hint: "Look with db:status, and plan the roll-back anew." },
      );
    }
    if (isLockConflict(error) && mayGoOn && this.#retries < (options.lockRetries ?? LOCK_RETRIES)) {
      const pause = pauseBefore(++this.#retries);
      const conflict = describeConflict(error, heldBy);
      options.onRetry?.(
        migration,
        `${conflict}; attempt ${this.#retries + 1} in ${formatDuration(pause)}`,
      );
      return await sleep(pause, options.signal);
    }
    const lost = error instanceof ConnectionLost && !error.isUnreachable && !wasEndedOnPurpose(error);
    if (lost && mayGoOn && ++this.#lost <= LOST_CONNECTIONS) {
      options.onRetry?.(migration, `${error.message}; connecting again to see what became of it`);
      this.#unanswered = true;
      return;
    }
    const explained = await explainFailure(error, down, message, {
      ...{ session: this.session, heldBy, isFirst: false, again: "db:rollback" },
    });
    throw explained ? new RollbackFailure(explained) : error;
  }
}

function withOutcome(error: PipeweaveError, rolledBack: readonly Migration[]): PipeweaveError {
  if (rolledBack.length === 0) return error;
  const names = rolledBack.map(labelOf);
  return new PipeweaveError(error.kind, error.code, error.message, {
    ...error.details,
    problems: [...(error.details.problems ?? []), `rolled back by this run: ${names.join(", ")}`],
    data: { ...error.details.data, rolledBack: names },
    cause: error,
  });
}
