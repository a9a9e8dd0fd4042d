/**
 * Applies pending migrations: each in one message, which is one transaction together with its guard and its row in
 * the history. The messages are sent without waiting for each other; when one fails, the guards of those behind it
 * refuse.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { identifier, sql, type SqlText } from "../database/sql.ts";
import { ConnectionLost, type Row, type Session, StatementError } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { PipeweaveError, type SqlLocation } from "../errors.ts";
import { locate } from "./finding.ts";
import {
  createHistory,
  GUARD,
  guard,
  type History,
  lockKey,
  readHistory,
  recordMigration,
} from "./history.ts";
import { labelOf, type Migration, versionKey } from "./migration.ts";
import { assertApplicable, type MigrationStatus, planMigrations, type Tolerance } from "./plan.ts";
import { parseStatements } from "./statements.ts";

/** Default limit for each lock that a migration waits for: others queue behind it for that long. */
export const MIGRATION_LOCK_TIMEOUT_MS = 5000;
/** Default limit for waiting until another migrator is done. */
export const LOCK_WAIT_MS = 60_000;
/** Pause between two looks while another migrator works; a random part keeps many of them apart. */
const LOCK_POLL_MS = { base: 20, growth: 1.5, most: 500 };
/** Connections that may be lost in a row before it is given up. */
const LOST_CONNECTIONS = 3;

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
export interface ApplyOptions {
  /** Limit for each lock, in milliseconds, unless the migration's own directive sets one. */
  readonly lockTimeoutMs?: number | undefined;
  /** How long to wait for another migrator, in milliseconds. */
  readonly lockWaitMs?: number | undefined;
  /** Limit for each statement, in milliseconds, unless the migration's own directive sets one. */
  readonly statementTimeoutMs?: number | undefined;
  /** What may be overlooked in the history. */
  readonly tolerance?: Tolerance;
  /** Told before each migration. */
  readonly onApplying?: (migration: Migration) => void;
  /** Told after each migration was committed. */
  readonly onApplied?: (applied: AppliedNow) => void;
  /** Told once when it turns out that another migrator is at work. */
  readonly onLockWait?: (holder: string) => void;
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
  let announced: Migration | undefined;
  let lost = 0;

  for (;;) {
    const status = planMigrations(migrations, history.rows);
    assertApplicable(status, options.tolerance);
    const { pending } = status;
    // Known only now: committed just before the connection broke.
    if (announced && !pending.includes(announced)) {
      applied.push({ migration: announced, executionTimeMs: executionTime(status, announced) });
      options.onApplied?.(applied.at(-1)!);
      announced = undefined;
    }
    if (pending.length === 0) return { applied, failed: null, status };

    // Every message is on its way before the first answer; an unanswered one is awaited below or by the session.
    const outcomes = pending.map((migration, index) => {
      const before = predecessorOf(migration, migrations, index === 0 ? history : undefined);
      const message = messageFor(session, key, migration, before, index === 0 && !history.exists, options);
      return { migration, message, outcome: outcomeOf(session.send(message.text)) };
    });
    for (const { migration, message, outcome: promised } of outcomes) {
      if (announced !== migration && !lock.waiting) options.onApplying?.(announced = migration);
      const outcome = await promised;
      if (outcome.kind === "applied") {
        if (announced !== migration) options.onApplying?.(migration);
        announced = undefined;
        lost = 0;
        lock.done();
        applied.push({ migration, executionTimeMs: outcome.row["execution_time_ms"] as number });
        options.onApplied?.(applied.at(-1)!);
        continue;
      }
      // Those behind it refuse by their guards; their answers are due all the same.
      await Promise.all(outcomes.map(({ outcome }) => outcome));
      const { error } = outcome;
      if (isTakenByAnother(error)) {
        announced = undefined;
        if (sqlstateOf(error) === GUARD.locked) await lock.wait();
      } else if (!(error instanceof ConnectionLost) || ++lost > LOST_CONNECTIONS || options.signal?.aborted) {
        return await failure(error, migration, message);
      }
      break;
    }
    // What became of a message that a lost connection left unanswered, only the history tells.
    history = await readHistory(session);
  }

  async function failure(error: unknown, migration: Migration, message: Message): Promise<ApplyResult> {
    if (!(error instanceof StatementError)) throw error;
    const location = await locateFailure(error, migration, message);
    const explained = new PipeweaveError(error.kind, error.code, error.message, {
      ...error.details,
      ...(location ? { location } : {}),
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

function outcomeOf(answer: Promise<Row[][]>): Promise<Outcome> {
  return answer.then(
    (sets) => ({ kind: "applied", row: sets.at(-1)![0]! }),
    (error) => ({ kind: "failed", error }),
  );
}

function sqlstateOf(error: unknown): string | undefined {
  return error instanceof PipeweaveError ? error.details.sqlstate : undefined;
}

/** Whether another migrator, ours or the Node tool's, was there first: what is left is to be found out anew. */
function isTakenByAnother(error: unknown): boolean {
  const state = sqlstateOf(error);
  if (state === GUARD.locked || state === GUARD.applied || state === GUARD.predecessorMissing) return true;
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

/** A message, and where in it the migration's own text stands. */
interface Message {
  readonly text: string;
  /** UTF-16 units before the migration's text. */
  readonly bodyStart: number;
  /** Statements before the migration's own. */
  readonly statementsBefore: number;
}

function messageFor(
  session: Session,
  key: bigint,
  migration: Migration,
  predecessor: string | undefined,
  historyIsMissing: boolean,
  options: ApplyOptions,
): Message {
  const { schema } = session.settings;
  const lockTimeoutMs = migration.directives.lockTimeoutMs ?? options.lockTimeoutMs ??
    MIGRATION_LOCK_TIMEOUT_MS;
  const statementTimeoutMs = migration.directives.statementTimeoutMs ?? options.statementTimeoutMs;
  const before: SqlText[] = [
    // The guard has to see what the last holder of its lock committed, whatever the role's default is.
    sql`SET TRANSACTION ISOLATION LEVEL READ COMMITTED;`,
    // A pooled session may carry what others set in it.
    ...RESET_IDENTITY,
    RESET_SETTINGS,
    sql`SET LOCAL lock_timeout = ${lockTimeoutMs};`,
    ...(statementTimeoutMs === undefined ? [] : [sql`SET LOCAL statement_timeout = ${statementTimeoutMs};`]),
    sql`SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', ${identifier(schema).text},
      nullif(pg_catalog.current_setting('search_path'), '')), true);`,
    guard(schema, key, migration, predecessor),
  ];
  if (historyIsMissing) before.push(createHistory(schema));
  // pg_stat_activity shows the start of a message: there it says what is running.
  const head = `-- pipeweave: ${labelOf(migration)}\n${before.map(({ text }) => text).join("\n")}\n`;
  const reset = RESET_IDENTITY.map(({ text }) => text).join("\n");
  return {
    text: `${head}${migration.sql}\n;\n${reset}${
      recordMigration(schema, migration).text
    }\n${RESET_SETTINGS.text}`,
    bodyStart: head.length,
    statementsBefore: before.length + (historyIsMissing ? CREATE_HISTORY_STATEMENTS - 1 : 0),
  };
}

/** Back to the role that connected, for the next migration and for the row in the history. */
const RESET_IDENTITY = [sql`RESET SESSION AUTHORIZATION;`, sql`RESET ROLE;`];
/**
 * Back to the settings of the connection. It has to end a message: what a migration sets (pg_dump's output empties
 * search_path) holds for the next one otherwise, and PostgreSQL reads a whole message, by the then value of
 * standard_conforming_strings, before it runs the first statement of it.
 */
const RESET_SETTINGS = sql`RESET ALL;`;
/** Statements in what {@linkcode createHistory} returns. */
const CREATE_HISTORY_STATEMENTS = 3;

/** The place in the file that an error is about: PostgreSQL's position, or else the statement that was running. */
async function locateFailure(
  error: StatementError,
  migration: Migration,
  message: Message,
): Promise<SqlLocation | undefined> {
  const { file, sql: text } = migration;
  const statements = await parseStatements(text).catch(() => []);
  const position = Number((error.details.cause as { position?: string } | undefined)?.position ?? 0);
  // PostgreSQL counts characters, from 1.
  const offset = position === 0
    ? -1
    : [...message.text].slice(0, position - 1).join("").length - message.bodyStart;
  if (offset >= 0 && offset <= text.length) {
    const statement = statements.findLast(({ start }) => start <= offset);
    return locate(file, text, offset, statement?.start ?? offset);
  }
  const running = statements[error.completed - message.statementsBefore];
  return running && locate(file, text, running.start, running.start);
}

/** Waiting for another migrator: by asking again, never by standing in the lock's queue, where one can deadlock. */
class LockWait {
  #since: number | undefined;
  #pauseMs = LOCK_POLL_MS.base;

  constructor(readonly session: Session, readonly key: bigint, readonly options: ApplyOptions) {}

  get waiting(): boolean {
    return this.#since !== undefined;
  }

  done(): void {
    this.#since = undefined;
    this.#pauseMs = LOCK_POLL_MS.base;
  }

  /** @throws {PipeweaveError} of kind `timeout` when the wait has been long enough */
  async wait(): Promise<void> {
    const limit = this.options.lockWaitMs ?? LOCK_WAIT_MS;
    if (this.#since === undefined) {
      this.#since = Date.now();
    } else if (Date.now() - this.#since >= limit) {
      throw new PipeweaveError(
        "timeout",
        "migration_lock",
        `Another migrator was at work for more than ${formatDuration(limit)}: ${await this.#holder()}`,
        {
          hint:
            "Wait for it with a longer --lock-wait, or find out whether it is stuck; run the command again then.",
        },
      );
    }
    if (this.#pauseMs > LOCK_POLL_MS.most && this.options.onLockWait) {
      this.options.onLockWait(await this.#holder());
    }
    await sleep(this.#pauseMs * (0.5 + Math.random()), this.options.signal);
    this.#pauseMs = Math.min(this.#pauseMs * LOCK_POLL_MS.growth, LOCK_POLL_MS.most + 1);
  }

  async #holder(): Promise<string> {
    const [[row] = []] = await this.session.transaction(sql`
      SELECT a.pid, a.usename, coalesce(a.client_addr::text, 'local') AS host, a.application_name AS application,
             a.xact_start AS since, pg_catalog.regexp_replace(pg_catalog.left(a.query, 60), '\\s+', ' ', 'g') AS query
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
       WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
         AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
         AND (l.classid::bigint << 32) | l.objid::bigint = ${String(this.key)}::bigint;`);
    if (!row) return "it has just finished";
    const since = row["since"] instanceof Date ? `, since ${row["since"].toISOString()}` : "";
    return `pid ${row["pid"]}, user ${row["usename"]}, host ${row["host"]}, application ${
      row["application"]
    }${since}`;
  }
}
