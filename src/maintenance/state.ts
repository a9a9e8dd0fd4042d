/**
 * `orchestrator_state`: reading it together with the active tasks, and changing it under a lock of its row.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { type Row, type Session, StatementError } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { type Actor, UNKNOWN_ACTOR } from "../config/actor.ts";
import { sqlstateOf } from "../database/conflict.ts";
import { ATTEMPT_MS, type GateLockOptions, heldBy, tryForGateLock } from "./gate_lock.ts";
import {
  effectiveModeSql,
  type Intent,
  nextMode,
  nextModeSql,
  type OrchestratorMode,
} from "./transitions.ts";

/** Which tasks a drain waits for: all that are active, or the running ones, while the pending stay queued. */
export type Drain = "all" | "running";

/** The row `singleton` of `orchestrator_state`, and the tasks that were active when it was read. */
export interface OrchestratorState {
  /** What the orchestrator does with tasks. */
  readonly mode: OrchestratorMode;
  /** When the mode last changed. */
  readonly modeChangedAt: Date;
  /** Rows of `task_runs` with status `pending`. */
  readonly pendingTasksCount: number;
  /** Rows of `task_runs` with status `running`. */
  readonly runningTasksCount: number;
  /** Active tasks of which nothing has been heard for too long: see `activeTasks`. */
  readonly staleTasksCount: number;
  /** Active tasks that the drain waits for: without those that it leaves queued or was told to ignore. */
  readonly blockingTasksCount: number;
  /** When maintenance was asked for, which tells this request from a later one; null while the mode is running. */
  readonly requestedAt: Date | null;
  /** Who asked for maintenance; null where nobody did, or did not say. */
  readonly owner: string | null;
  /** Why; null where nobody said. */
  readonly reason: string | null;
  /** Which tasks the drain waits for. */
  readonly drain: Drain;
  /** When a wait goes back to running by itself; null for never. */
  readonly waitExpiresAt: Date | null;
  /** Ids of tasks that the drain does not wait for while they give no sign of life, since they were stale at the request. */
  readonly ignoredTasks: readonly string[];
  /** What others keep in the row. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** When the row was last written. */
  readonly updatedAt: Date;
  /** The server process that answered. */
  readonly serverProcess: number;
}

/** Who changes the mode, and how. */
export interface ChangeOptions extends GateLockOptions {
  /** Who acts, for the log. Default: nobody in particular */
  readonly actor?: Actor | undefined;
  /** Whose maintenance it is. Default: the actor's user and host */
  readonly owner?: string | undefined;
  /** Why; kept in the state and in the log. */
  readonly reason?: string | undefined;
  /** Milliseconds after which a wait that is neither renewed nor over goes back to running. Default: never */
  readonly ttlMs?: number | undefined;
  /** Which tasks to wait for. Default: "all" */
  readonly drain?: Drain | undefined;
  /** Leave tasks out that are stale now. */
  readonly ignoreStale?: boolean | undefined;
  /** End somebody else's maintenance. */
  readonly force?: boolean | undefined;
  /** End the request that was made at this time, and no later one. Default: whichever there is */
  readonly requestedAt?: Date | null | undefined;
}

/** What {@linkcode changeMode} found and left. */
export interface ModeChange {
  /** The mode that counted before. */
  readonly before: OrchestratorMode;
  /** Whose maintenance it was before. */
  readonly ownerBefore: string | null;
  readonly state: OrchestratorState;
}

const stateTable = (schema: string) => sql`${identifier(schema)}.orchestrator_state`;

/**
 * The active tasks, each with whether it is stale: running, and silent for longer than its heartbeat may take (three
 * times the task's interval where the run does not say); or pending for an hour longer than it should be. The index on
 * `status` serves it, whatever has finished.
 */
export function activeTasks(schema: string): SqlText {
  const name = identifier(schema);
  return sql`
    SELECT r.id, r.task_id, r.status, r.attempt, r.created_at, r.started_at, r.heartbeat_at, r.scheduled_for,
           CASE r.status
             WHEN 'running' THEN coalesce(r.heartbeat_at, r.started_at, r.created_at) < pg_catalog.clock_timestamp() -
               pg_catalog.make_interval(secs => coalesce(r.heartbeat_timeout_ms, 3 * t.heartbeat_interval_ms) / 1000.0)
             ELSE coalesce(r.scheduled_for, r.created_at) < pg_catalog.clock_timestamp() - interval '1 hour'
           END AS stale
      FROM ${name}.task_runs r JOIN ${name}.tasks t ON t.id = r.task_id
     WHERE r.status IN ('pending', 'running')`;
}

/** Counts of the active tasks, for a drain and the tasks that it ignores. */
function counts(schema: string, drain: SqlText, ignored: SqlText): SqlText {
  return sql`
    SELECT pg_catalog.count(*) FILTER (WHERE status = 'pending')::integer AS pending,
           pg_catalog.count(*) FILTER (WHERE status = 'running')::integer AS running,
           pg_catalog.count(*) FILTER (WHERE stale)::integer AS stale,
           pg_catalog.count(*) FILTER (
             WHERE (status = 'running' OR ${drain} = 'all')
               AND CASE WHEN i.key IS NULL THEN true ELSE i.value <> ${
    signOfLife(schema)
  } END)::integer AS blocking
      FROM (${activeTasks(schema)}) active LEFT JOIN pg_catalog.jsonb_each_text(${ignored}) i ON i.key = id`;
}

const signOfLife = (schema: string) =>
  sql`${identifier(schema)}.maintenance_sign_of_life(status, attempt, started_at, heartbeat_at)`;

const expired = (row: SqlText) =>
  sql`coalesce(${row}.wait_expires_at <= pg_catalog.clock_timestamp(), false)`;
const REPORTED =
  sql`o.mode_changed_at, o.metadata, o.updated_at, o.requested_at, o.owner, o.reason, o.drain, o.wait_expires_at,
  (SELECT coalesce(pg_catalog.jsonb_agg(k ORDER BY k), '[]') FROM pg_catalog.jsonb_object_keys(o.ignored_tasks) k)
    AS ignored_tasks, pg_catalog.pg_backend_pid() AS server_process, a.pending, a.running, a.stale, a.blocking`;

/** The statement that reads the state. */
function readStatement(schema: string): SqlText {
  return sql`
      SELECT ${effectiveModeSql(sql`o.mode`, expired(sql`o`))} AS mode,
             o.mode <> ${effectiveModeSql(sql`o.mode`, expired(sql`o`))} AS has_expired,
             o.mode = 'running' AND ${
    identifier(schema)
  }.maintenance_gate_is_on(${schema}) AS gate_is_left, ${REPORTED}
        FROM ${stateTable(schema)} o, LATERAL (${counts(schema, sql`o.drain`, sql`o.ignored_tasks`)}) a
       WHERE o.id = 'singleton';`;
}

/**
 * Reads the state in one round trip, and changes nothing.
 *
 * @throws {PipeweaveError} of kind `database` that names `db:migrate` when the table or the row is missing
 */
export async function readState(session: Session): Promise<OrchestratorState> {
  return (await read(session)).state;
}

async function read(
  session: Session,
  statements = sql``,
): Promise<{ state: OrchestratorState; isUntidy: boolean; more: readonly Row[][] }> {
  const [[row] = [], ...others] = await explained(
    session,
    session.transaction(sql`${readStatement(session.settings.schema)}${statements}`),
  );
  const state = stateOf(row, session);
  const hasExpired = row!["has_expired"] as boolean;
  return {
    // What belonged to the request has ended with it, although nobody has recorded that yet.
    state: hasExpired ? { ...state, ...NO_REQUEST } : state,
    isUntidy: hasExpired || row!["gate_is_left"] as boolean,
    more: others,
  };
}

const NO_REQUEST: Partial<OrchestratorState> = {
  ...{ requestedAt: null, owner: null, reason: null, drain: "all", waitExpiresAt: null, ignoredTasks: [] },
};

/**
 * Does what an intent leads to. The table is locked against writers, then the row, and the tasks are counted after that,
 * in the transaction that changes the mode: two commands at once cannot disagree, and no task slips past. An exit has
 * nobody to wait for, and locks the row alone.
 *
 * @throws {PipeweaveError} as {@linkcode readState}; of kind `timeout` when others hold the locks for too long
 */
export async function changeMode(
  session: Session,
  intent: Intent,
  options: ChangeOptions = {},
): Promise<ModeChange> {
  const { schema } = session.settings;
  const [row] = await tryForGateLock(session, async (lockTimeoutMs) => {
    const statements = changeStatements(schema, intent, options);
    return (await explained(session, session.transaction(statements, lockTimeoutMs))).at(-1) ?? [];
  }, options);
  return {
    state: stateOf(row, session),
    before: row!["before"] as OrchestratorMode,
    ownerBefore: row!["owner_before"] as string | null,
  };
}

function changeStatements(schema: string, intent: Intent, options: ChangeOptions): SqlText {
  const { actor = UNKNOWN_ACTOR, reason = null, ttlMs, drain = null, ignoreStale = false, force = false } =
    options;
  const owner = options.owner ?? ownerOf(actor);
  const isRequest = intent === "request";
  const details = {
    ...actor,
    ...(intent === "look" ? {} : { action: intent }),
    ...(reason === null ? {} : { reason }),
    ...(force ? { forced: true } : {}),
    ...(options.owner === undefined ? {} : { owner: options.owner }),
  };
  const expires = ttlMs === undefined
    ? sql`NULL`
    : sql`pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => ${ttlMs / 1000})`;
  // A request says how to drain, and whoever made one may renew it; everything else leaves that as it is, and the database
  // forgets it with the end.
  const [given, fresh, mine] = [
    sql`${drain}::text`,
    sql`(b.mode = 'running')`,
    sql`(${isRequest} AND (b.mode = 'running' OR b.owner IS NOT DISTINCT FROM ${owner}))`,
  ];
  // Once maintenance is reached the drain is over, and how it was done stays.
  const drains = sql`(${mine} AND b.mode <> 'maintenance')`;
  const stale = sql`(SELECT coalesce(pg_catalog.jsonb_object_agg(id, ${signOfLife(schema)}), '{}')
                       FROM (${activeTasks(schema)}) active WHERE stale)`;
  const requestedAt = options.requestedAt?.toISOString() ?? null;
  const mayEnd = sql`(${force} OR b.owner IS NULL OR b.owner = ${owner ?? ""})
                 AND (${requestedAt}::timestamptz IS NULL OR b.requested_at = ${requestedAt}::timestamptz)`;
  const mode = intent === "exit"
    ? sql`CASE WHEN b.mode <> 'running' AND NOT (${mayEnd}) THEN b.mode ELSE n.mode END`
    : sql`n.mode`;
  const lockTable = intent === "exit"
    ? sql``
    : sql`LOCK TABLE ${identifier(schema)}.task_runs IN SHARE ROW EXCLUSIVE MODE;`;
  return sql`
    SELECT pg_catalog.set_config('pipeweave.actor', ${JSON.stringify(details)}, true);
    ${lockTable}
    SELECT FROM ${stateTable(schema)} WHERE id = 'singleton' FOR UPDATE;
    UPDATE ${stateTable(schema)} o SET mode = 'running'
     WHERE id = 'singleton' AND mode = 'waiting_for_maintenance' AND ${expired(sql`o`)};
    WITH b AS (SELECT * FROM ${stateTable(schema)} WHERE id = 'singleton'), p AS (
      SELECT CASE WHEN ${drains} THEN coalesce(${given}, CASE WHEN ${fresh} THEN 'all' ELSE b.drain END)
                  ELSE b.drain END AS drain,
             CASE WHEN ${drains} AND ${ignoreStale} THEN ${stale}
                  WHEN ${isRequest} AND ${fresh} THEN '{}' ELSE b.ignored_tasks END AS ignored
        FROM b
    ), a AS (
      SELECT counted.* FROM p, LATERAL (${counts(schema, sql`p.drain`, sql`p.ignored`)}) counted
    ), n AS (
      SELECT ${nextModeSql(intent, sql`b.mode`, sql`a.blocking`)} AS mode FROM b, a
    ), m AS (SELECT ${mode} AS mode FROM b, n)
    UPDATE ${stateTable(schema)} o
       SET mode = m.mode, pending_tasks_count = a.pending, running_tasks_count = a.running,
           owner = CASE WHEN ${isRequest} AND ${fresh} THEN ${owner} ELSE b.owner END,
           reason = CASE WHEN ${isRequest} AND ${fresh} THEN ${reason}
                         WHEN ${mine} THEN coalesce(${reason}, b.reason) ELSE b.reason END,
           drain = p.drain, ignored_tasks = p.ignored,
           wait_expires_at = CASE WHEN ${isRequest} AND ${fresh} THEN ${expires}
                                  WHEN ${mine} THEN coalesce(${expires}, b.wait_expires_at)
                                  ELSE b.wait_expires_at END
      FROM a, b, p, m
     WHERE o.id = 'singleton'
    RETURNING o.mode, b.mode AS before, b.owner AS owner_before, ${REPORTED};`;
}

/** `alice@build-7`: whose maintenance it is, unless somebody says otherwise; null where nothing is known. */
export function ownerOf({ osUser, host }: Actor): string | null {
  return osUser === null && host === null ? null : `${osUser ?? "unknown"}@${host ?? "unknown"}`;
}

/** Who looks, for the log: a look may complete a transition. Default: nobody in particular */
export type LookOptions = Pick<ChangeOptions, "actor">;

/** Reads the state, and completes a transition that is due. Where it may not be changed it stays due. */
export async function lookAtState(session: Session, options: LookOptions = {}): Promise<OrchestratorState> {
  return (await lookWith(session, options)).state;
}

/** What {@linkcode lookWith} saw. */
export interface LookResult {
  readonly state: OrchestratorState;
  /** The rows of what else was read, a set for each statement. */
  readonly more: readonly (readonly Row[])[];
  /** Who keeps a transition that is due from being completed: it has to wait for their transactions. */
  readonly heldUpBy?: string;
}

/**
 * {@linkcode lookAtState}, with more to read in the same round trip.
 *
 * @param statements more to read
 */
export async function lookWith(
  session: Session,
  { actor }: LookOptions,
  statements = sql``,
): Promise<LookResult> {
  const { state, isUntidy, more } = await read(session, statements);
  const isDue = isUntidy ||
    nextMode("look", { mode: state.mode, blockers: state.blockingTasksCount, expired: false }) !== state.mode;
  if (!isDue) return { state, more };
  try {
    return { state: (await changeMode(session, "look", { actor, lockWaitMs: ATTEMPT_MS })).state, more };
  } catch (error) {
    // Somebody writes just now: the next look finds it due again.
    const heldUpBy = heldBy(error);
    if (heldUpBy !== undefined) return { state, more, heldUpBy };
    // Read-only, or not allowed.
    if (["25006", "42501"].includes(sqlstateOf(error) ?? "")) return { state, more };
    throw error;
  }
}

/**
 * The mode and the number of active tasks, as PipeWeave 1.0 has them already; undefined where there is no task queue.
 */
export async function readQueue(
  session: Session,
): Promise<{ readonly mode: OrchestratorMode; readonly activeTasks: number } | undefined> {
  const { schema } = session.settings;
  try {
    const [[row] = []] = await session.transaction(sql`
      SELECT mode, (SELECT pg_catalog.count(*) FROM ${identifier(schema)}.task_runs
                     WHERE status IN ('pending', 'running'))::integer AS active
        FROM ${stateTable(schema)} WHERE id = 'singleton';`);
    return row && { mode: row["mode"] as OrchestratorMode, activeTasks: row["active"] as number };
  } catch (error) {
    if (["42P01", "3F000"].includes(sqlstateOf(error) ?? "")) return undefined;
    throw error;
  }
}

/** How many tasks are active. */
export function activeCount({ pendingTasksCount, runningTasksCount }: OrchestratorState): number {
  return pendingTasksCount + runningTasksCount;
}

/** The SQLSTATE of {@linkcode stillInMaintenance}. */
export const NOT_IN_MAINTENANCE = "PW104";

/**
 * A statement that fails where the mode is not maintenance, and that keeps it from ending before the transaction has ended.
 *
 * @param requestedAt when it was asked for; undefined for whichever there is
 */
export function stillInMaintenance(schema: string, requestedAt: Date | null | undefined): SqlText {
  const isTheOne = requestedAt === undefined
    ? sql``
    : sql`AND requested_at IS NOT DISTINCT FROM ${requestedAt?.toISOString() ?? null}::timestamptz`;
  const body = sql`
BEGIN
  PERFORM FROM ${stateTable(schema)} WHERE id = 'singleton' AND mode = 'maintenance' ${isTheOne} FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the maintenance was ended' USING ERRCODE = ${NOT_IN_MAINTENANCE};
  END IF;
END`;
  return sql`DO ${body.text};`;
}

/**
 * A DO statement that puts the state back where somebody removed it, and warns that it did: the row, or the whole table
 * of a database whose history says that it was made.
 *
 * @param history the history's table
 * @param create the migration that makes the table, safe to repeat
 */
export function restoreState(schema: string, history: SqlText, create: string): SqlText {
  const table = stateTable(schema);
  const warn = (what: string) =>
    sql`RAISE WARNING ${`${what} of orchestrator_state was missing; restored, with mode running`};`;
  // By EXECUTE, since a database without PipeWeave's own migrations has no such tables.
  const body = sql`
DECLARE found boolean := false;
BEGIN
  IF pg_catalog.to_regclass(${table.text}) IS NOT NULL THEN
    EXECUTE ${sql`SELECT EXISTS (SELECT FROM ${table} WHERE id = 'singleton')`.text} INTO found;
    IF NOT found THEN
      EXECUTE ${sql`INSERT INTO ${table} (id) VALUES ('singleton') ON CONFLICT DO NOTHING`.text};
      ${warn("the row")}
    END IF;
  ELSIF pg_catalog.to_regclass(${history.text}) IS NOT NULL THEN
    EXECUTE ${sql`SELECT EXISTS (SELECT FROM ${history} WHERE version::text ~ '^0+$')`.text} INTO found;
    IF found THEN
      PERFORM pg_catalog.set_config('search_path', ${identifier(schema).text}, true);
      EXECUTE ${create};
      ${warn("the table")}
    END IF;
  END IF;
END`;
  return sql`DO ${body.text};`;
}

function stateOf(row: Row | undefined, session: Session): OrchestratorState {
  if (!row) throw notMigrated(session, "has no row in orchestrator_state");
  return {
    mode: row["mode"] as OrchestratorMode,
    modeChangedAt: row["mode_changed_at"] as Date,
    pendingTasksCount: row["pending"] as number,
    runningTasksCount: row["running"] as number,
    metadata: (row["metadata"] ?? {}) as Record<string, unknown>,
    updatedAt: row["updated_at"] as Date,
    requestedAt: row["requested_at"] as Date | null,
    staleTasksCount: row["stale"] as number,
    blockingTasksCount: row["blocking"] as number,
    owner: row["owner"] as string | null,
    reason: row["reason"] as string | null,
    drain: row["drain"] as Drain,
    waitExpiresAt: row["wait_expires_at"] as Date | null,
    ignoredTasks: row["ignored_tasks"] as string[],
    serverProcess: row["server_process"] as number,
  };
}

/** Says what to run where the schema is not there, or not whole. */
export async function explained<T>(session: Session, answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof StatementError && ["42P01", "42703", "3F000"].includes(error.details.sqlstate!)) {
      throw notMigrated(session, `is not migrated (${error.message})`);
    }
    throw error;
  }
}

/** The schema is not there yet, or not whole. */
export function notMigrated({ settings, target }: Session, what: string): PipeweaveError {
  const option = settings.schema === "public" ? "" : ` --schema ${settings.schema}`;
  return new PipeweaveError("database", "not_migrated", `Schema "${settings.schema}" of ${target} ${what}`, {
    hint: `Run: pipeweave db:migrate${option}`,
  });
}
