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
 *   connection, an interruption. What was applied before is applied; the history tells.
 */
export async function applyMigrations(
  session: Session,
  migrations: readonly Migration[],
  history: History,
  options: ApplyOptions = {},
): Promise<ApplyResult> {
  const applied: AppliedNow[] = [];
  const key = await lockKey(session.settings.schema);
  const lock = new LockWait(session, key, options);
  const deadline = options.timeoutMs === undefined ? Infinity : Date.now() + options.timeoutMs;
  const unanswered = new Set<Migration>();
  let announced: Migration | undefined;
  let lost = 0;
  let retries = 0;

  try {
    return await run();
  } catch (error) {
    throw error instanceof PipeweaveError ? withOutcome(error, applied, unanswered) : error;
  }

  async function run(): Promise<ApplyResult> {
    for (;;) {
      const status = planMigrations(migrations, history.rows);
      assertApplicable(status, options.tolerance);
      const { pending } = status;
      // A lost connection left these unanswered, and the server went on with them: known only now.
      for (const migration of unanswered) {
        if (pending.includes(migration)) continue;
        unanswered.delete(migration);
        if (announced !== migration) options.onApplying?.(migration);
        announced = undefined;
        applied.push({ migration, executionTimeMs: executionTime(status, migration) });
        options.onApplied?.(applied.at(-1)!);
      }
      if (pending.length === 0) return { applied, failed: null, status };

      // Every message is on its way before the first answer; an unanswered one is awaited below or by the session.
      const outcomes = pending.map((migration, index) => {
        const message = messageFor(migration, {
          schema: session.settings.schema,
          key,
          predecessor: predecessorOf(migration, migrations, index === 0 ? history : undefined),
          historyIsMissing: index === 0 && !history.exists,
          limits: options,
        });
        return { migration, message, outcome: outcomeOf(session.send(message.text)) };
      });
      for (const { migration, message, outcome: promised } of outcomes) {
        if (announced !== migration && !lock.waiting) options.onApplying?.(announced = migration);
        await using blockers = new Blockers(session, migration, options.onBlocked);
        const outcome = await promised;
        if (outcome.kind === "applied") {
          if (announced !== migration) options.onApplying?.(migration);
          announced = undefined;
          unanswered.delete(migration);
          lost = 0;
          retries = 0;
          lock.done();
          applied.push({ migration, executionTimeMs: outcome.row["execution_time_ms"] as number });
          options.onApplied?.(applied.at(-1)!);
          continue;
        }
        // Those behind it refuse by their guards; their answers are due all the same.
        await Promise.all(outcomes.map(({ outcome }) => outcome));
        const { error } = outcome;
        if (isRefusedByGuard(error, message)) {
          if (announced === migration && !unanswered.has(migration)) {
            options.onTaken?.(migration);
            announced = undefined;
          }
          if (error.details.sqlstate === GUARD.locked) await lock.wait();
        } else if (
          isLockConflict(error) && retries < (options.lockRetries ?? LOCK_RETRIES) && !options.signal?.aborted
        ) {
          const pause = pauseBefore(++retries);
          if (Date.now() + pause > deadline) throw outOfTime(migration, blockers.last);
          const held = blockers.last ? `, held by ${blockers.last}` : "";
          const what = sqlstateOf(error) === "40P01"
            ? "a deadlock ended it"
            : `a lock was not free in time${held}`;
          options.onRetry?.(migration, `${what}; attempt ${retries + 1} in ${formatDuration(pause)}`);
          await sleep(pause, options.signal);
        } else if (
          error instanceof ConnectionLost && sqlstateOf(error) !== ADMIN_SHUTDOWN &&
          ++lost <= LOST_CONNECTIONS &&
          !options.signal?.aborted
        ) {
          options.onRetry?.(migration, `${error.message}; connecting again to see what became of it`);
          for (const sent of pending.slice(pending.indexOf(migration))) unanswered.add(sent);
        } else if (isRecordedTwice(error) || sqlstateOf(error) === ADMIN_SHUTDOWN) {
          // By now the history knows: somebody else's row, or our own commit just before the end.
          history = await readHistory(session);
          if (history.rows.some(({ version }) => versionKey(version) === versionKey(migration.version))) {
            break;
          }
          return await failure(error, migration, message);
        } else {
          return await failure(error, migration, message, blockers.last);
        }
        break;
      }
      // What became of a message that a lost connection left unanswered, only the history tells.
      history = await readHistory(session);
    }
  }

  async function failure(
    error: unknown,
    migration: Migration,
    message: Message,
    heldBy?: string,
  ): Promise<ApplyResult> {
    if (error instanceof ConnectionLost && sqlstateOf(error) === ADMIN_SHUTDOWN) {
      const ended = new PipeweaveError(
        "database",
        "terminated",
        "An administrator ended the session; the server rolled it back",
        {
          ...error.details,
          hint: "Find out why before you run db:migrate again.",
        },
      );
      return {
        applied,
        failed: { migration, error: ended },
        status: planMigrations(migrations, history.rows),
      };
    }
    if (!(error instanceof StatementError)) throw error;
    const location = await locateFailure(error, migration, message);
    const explained = new PipeweaveError(error.kind, error.code, error.message, {
      ...error.details,
      ...(location ? { location } : {}),
      ...(isLockConflict(error) && heldBy
        ? { hint: `The lock was held by ${heldBy}. Wait for it or end it, and run db:migrate again.` }
        : {}),
    });
    const status = planMigrations(migrations, [
      ...history.rows,
      ...applied.map(({ migration, executionTimeMs }) => ({
        ...migration,
        appliedAt: new Date(),
        executionTimeMs,
      })),
    ]);
    return { applied, failed: { migration, error: explained }, status };
  }
}

/** Whether a lock was not free in time, or a deadlock had to end somebody: to be tried again. */
function isLockConflict(error: unknown): boolean {
  return sqlstateOf(error) === "55P03" || sqlstateOf(error) === "40P01";
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

function executionTime(status: MigrationStatus, { version }: Migration): number | null {
  return status.applied.find((row) => versionKey(row.version) === versionKey(version))?.executionTimeMs ??
    null;
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
