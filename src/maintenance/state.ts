/**
 * `orchestrator_state`: reading it together with the active tasks, and changing it under a lock of its row.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { type Row, type Session, StatementError } from "../database/session.ts";
import { assertTrusted } from "../database/trust.ts";
import { PipeweaveError } from "../errors.ts";
import { type Actor, UNKNOWN_ACTOR } from "../config/actor.ts";
import { sqlstateOf } from "../database/conflict.ts";
import { BLOCKS, GATE_FITS, inSchema, IS_ACTIVE, RUNS, SETTLES_IN_MS, SIGN_OF_LIFE } from "./definitions.ts";
import { ATTEMPT_MS, type GateLockOptions, heldBy, tryForGateLock } from "./gate_lock.ts";
import { bounded } from "../printable.ts";
import { shellQuoted } from "../shell.ts";
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
  /** Rows of `task_runs` with status `pending`; NaN where an exit was not allowed to count them. */
  readonly pendingTasksCount: number;
  /** Rows of `task_runs` with status `running`; NaN where an exit was not allowed to count them. */
  readonly runningTasksCount: number;
  /** Active tasks of which nothing has been heard for too long: see `activeTasks`. */
  readonly staleTasksCount: number;
  /** Active tasks that the drain waits for: without those that it leaves queued or was told to ignore. */
  readonly blockingTasksCount: number;
  /** Tasks of accepted work that came during maintenance: they are queued by the exit. */
  readonly heldTasksCount: number;
  /** Milliseconds until it is sure that nothing follows from tasks that have ended; 0 where nothing can. */
  readonly settlesInMs: number;
  /** Whether the triggers that refuse tasks are there and on, as the mode needs them; in `running`, whether none are. */
  readonly gateFits: boolean;
  /** When maintenance was asked for, which tells this request from a later one; null while the mode is running. */
  readonly requestedAt: Date | null;
  /** Owner of the request; null if there is none or it is unknown. */
  readonly owner: string | null;
  /** Reason of the request; null if none was given. */
  readonly reason: string | null;
  /** The run of a deployment that asked for it; null where it was no deployment. */
  readonly deployment: string | null;
  /** Which tasks the drain waits for. */
  readonly drain: Drain;
  /** How long the drain waits for what may follow from a task that has ended, in milliseconds. */
  readonly settleMs: number;
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

/** Options of a change of the mode. */
export interface ChangeOptions extends GateLockOptions {
  /** Who acts, for the log. Default: nobody in particular */
  readonly actor?: Actor | undefined;
  /** Whose maintenance it is. Default: the actor's user and host */
  readonly owner?: string | undefined;
  /** Why; kept in the state and in the log. */
  readonly reason?: string | undefined;
  /** The run of a deployment that asks. Only it may renew its request. Default: none */
  readonly deployment?: string | undefined;
  /** Milliseconds after which a wait that is neither renewed nor over goes back to running. Default: never */
  readonly ttlMs?: number | undefined;
  /** Which tasks to wait for. Default: "all" */
  readonly drain?: Drain | undefined;
  /**
   * How long to wait for what may follow from a task that has ended: the next step of its pipeline run, or its retry. In
   * milliseconds. Default: 2000
   */
  readonly settleMs?: number | undefined;
  /** Leave tasks out that are stale now. */
  readonly ignoreStale?: boolean | undefined;
  /** End somebody else's maintenance. */
  readonly force?: boolean | undefined;
  /** End the request that was made at this time, and no later one. Default: whichever there is */
  readonly requestedAt?: Date | null | undefined;
}

/** Result of {@linkcode changeMode}. */
export interface ModeChange {
  /** The mode that counted before. */
  readonly before: OrchestratorMode;
  /** Whose maintenance it was before. */
  readonly ownerBefore: string | null;
  /** The deployment whose it was before. */
  readonly deploymentBefore: string | null;
  readonly state: OrchestratorState;
}

/** How long a drain waits for what may follow unless told otherwise, in milliseconds. As the column's default. */
export const SETTLE_MS = 2000;

const stateTable = (schema: string) => sql`${identifier(schema)}.orchestrator_state`;
/** What a look reads, and a change of the mode writes or reads. */
const READ = [
  ...["orchestrator_state", "task_runs", "tasks", "pipeline_runs"],
  ...["maintenance_recent_ends", "maintenance_held_tasks"],
];
const CHANGED = [...READ, "maintenance_log", "maintenance_accepted_runs"];
/** How long an owner's name and a reason may be, in characters. As in migration 90004. */
const LONGEST = { owner: 200, reason: 500 };

/** A run is stale: see {@linkcode activeTasks}. */
const STALE = `CASE r.status
             WHEN 'running' THEN coalesce(r.heartbeat_at, r.started_at, r.created_at) < clock_timestamp() -
               make_interval(secs => coalesce(r.heartbeat_timeout_ms, 3 * t.heartbeat_interval_ms) / 1000.0)
             ELSE coalesce(r.scheduled_for, r.created_at) < clock_timestamp() - interval '1 hour'
           END`;

/**
 * The active tasks, each with whether it is stale: running, and silent for longer than its heartbeat may take (three
 * times the task's interval where the run does not say); or pending for an hour longer than it should be. The index on
 * `status` serves it, whatever has finished.
 */
export function activeTasks(schema: string): SqlText {
  return inSchema(
    schema,
    `
    SELECT r.id, r.task_id, r.status, r.attempt, r.created_at, r.started_at, r.heartbeat_at, r.scheduled_for,
           ${STALE} AS stale
      FROM %1$I.task_runs r LEFT JOIN %1$I.tasks t ON t.id = r.task_id
     ${IS_ACTIVE}`,
  );
}

/** Counts of the active tasks, for the drain of a row `o` and the tasks that it ignores. */
function counts(schema: string): SqlText {
  return inSchema(
    schema,
    `
    SELECT count(*) FILTER (WHERE r.status = 'pending')::integer AS pending,
           count(*) FILTER (WHERE r.status = 'running')::integer AS running,
           count(*) FILTER (WHERE ${STALE})::integer AS stale,
           count(*) FILTER (WHERE ${BLOCKS})::integer AS blocking
      ${RUNS} LEFT JOIN %1$I.tasks t ON t.id = r.task_id ${IS_ACTIVE}`,
  );
}

const expired = (row: SqlText) => sql`coalesce(${row}.wait_expires_at <= clock_timestamp(), false)`;

/** The statement that reads the state. */
function readStatement(schema: string): SqlText {
  const effective = effectiveModeSql(sql`o.mode`, expired(sql`o`));
  return sql`
      SELECT ${effective} AS mode, o.mode <> ${effective} AS has_expired, o.mode AS stored_mode,
             ${inSchema(schema, GATE_FITS)} AS gate_fits,
             CASE WHEN a.blocking = 0 AND o.mode = 'waiting_for_maintenance'
               THEN ${inSchema(schema, SETTLES_IN_MS)} ELSE 0 END AS settles_in_ms,
             (SELECT count(*) FROM ${identifier(schema)}.maintenance_held_tasks)::integer AS held,
             a.pending, a.running, a.stale, a.blocking, ${ROW}
        FROM ${stateTable(schema)} o, LATERAL (${counts(schema)}) a
       WHERE o.id = 'singleton';`;
}

const ROW =
  sql`o.mode_changed_at, o.metadata, o.updated_at, o.requested_at, o.owner, o.reason, o.deployment, o.drain,
             o.settle_ms, o.wait_expires_at, pg_backend_pid() AS server_process,
             (SELECT coalesce(jsonb_agg(k ORDER BY k), '[]') FROM jsonb_object_keys(o.ignored_tasks) k) AS ignored_tasks`;

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
  const { schema } = session.settings;
  const [[row] = [], ...others] = await explained(
    session,
    session.transaction(
      // pg_stat_activity shows the first kilobyte of a message.
      sql`-- the state: mode, has_expired, gate_fits
        ${assertTrusted(schema, READ, "read")} ${readStatement(schema)}${statements}`,
    ),
  );
  const state = stateOf(row, session);
  const hasExpired = row!["has_expired"] as boolean;
  return {
    // What belonged to the request has ended with it, although nobody has recorded that yet.
    state: hasExpired ? { ...state, ...NO_REQUEST } : state,
    isUntidy: hasExpired || !state.gateFits,
    more: others,
  };
}

const NO_REQUEST: Partial<OrchestratorState> = {
  ...{ requestedAt: null, owner: null, reason: null, deployment: null, drain: "all", waitExpiresAt: null },
  ...{ ignoredTasks: [], settlesInMs: 0, settleMs: SETTLE_MS },
};

/** The SQLSTATE of a change of the mode after which the gate would not be as the mode needs it. */
const GATE_DOES_NOT_FOLLOW = "PW105";

/**
 * Does what an intent leads to. The table is locked against writers, then the row, and the tasks are counted after that,
 * in the transaction that changes the mode: two commands at once cannot disagree, and no task slips past. An exit has
 * nobody to wait for, counts nothing, and locks the row alone.
 *
 * @throws {PipeweaveError} as {@linkcode readState}; of kind `timeout` when others hold the locks for too long; of kind
 *   `database` when the gate cannot be closed, and then the mode is as it was
 */
export async function changeMode(
  session: Session,
  intent: Intent,
  options: ChangeOptions = {},
): Promise<ModeChange> {
  const { schema } = session.settings;
  const [[changed] = [], [row] = []] = await tryForGateLock(session, async (lockTimeoutMs) => {
    const statements = changeStatements(schema, intent, options);
    try {
      return (await explained(session, session.transaction(statements, lockTimeoutMs))).slice(-2);
    } catch (error) {
      if (sqlstateOf(error) !== GATE_DOES_NOT_FOLLOW) throw error;
      throw gateDoesNotFollow(session, error as PipeweaveError);
    }
  }, options);
  if (!changed) throw noRow(session);
  return {
    state: intent === "exit" ? await stateAfterExit(session, row) : stateOf(row, session),
    before: changed["before"] as OrchestratorMode,
    ownerBefore: changed["owner_before"] as string | null,
    deploymentBefore: changed["deployment_before"] as string | null,
  };
}

/** The state as it is read after an exit; what the row alone tells, where no more may be read. */
async function stateAfterExit(session: Session, row: Row | undefined): Promise<OrchestratorState> {
  const unknown = { pending: NaN, running: NaN, stale: NaN, blocking: NaN, held: NaN, settles_in_ms: 0 };
  const told = stateOf(row && { ...row, ...unknown, gate_fits: false }, session);
  const read = await readState(session).catch(() => undefined);
  return read && read.mode === told.mode ? read : told;
}

function gateDoesNotFollow({ settings: { schema } }: Session, error: PipeweaveError): PipeweaveError {
  const table = stateTable(schema).text;
  return new PipeweaveError(
    "database",
    "gate_does_not_follow",
    `The mode stays as it was: the gate on task_runs would not have been closed, since the trigger ` +
      `maintenance_follow_mode of ${table} is missing or off`,
    {
      ...error.details,
      hint:
        `As the owner of the table, switch it on: ALTER TABLE ${table} ENABLE TRIGGER maintenance_follow_mode; ` +
        "where it is missing, db:migrate makes it again.",
    },
  );
}

function changeStatements(schema: string, intent: Intent, options: ChangeOptions): SqlText {
  const { actor = UNKNOWN_ACTOR, force = false } = options;
  const reason = options.reason === undefined ? null : bounded(options.reason, LONGEST.reason);
  const details = {
    ...actor,
    ...(intent === "look" ? {} : { action: intent }),
    ...(reason === null ? {} : { reason }),
    ...(force ? { forced: true } : {}),
    ...(options.owner === undefined ? {} : { owner: bounded(options.owner, LONGEST.owner) }),
  };
  return sql`
    ${
    intent === "exit" ? sql`` : sql`LOCK TABLE ${identifier(schema)}.task_runs IN SHARE ROW EXCLUSIVE MODE;`
  }
    ${
    assertTrusted(schema, intent === "exit" ? ["orchestrator_state"] : CHANGED, "change", {
      writes: ["orchestrator_state"],
    })
  }
    SELECT set_config('pipeweave.actor', ${JSON.stringify(details)}, true) AS actor;
    SELECT FROM ${stateTable(schema)} WHERE id = 'singleton' FOR UPDATE;
    UPDATE ${stateTable(schema)} o SET mode = 'running'
     WHERE id = 'singleton' AND mode = 'waiting_for_maintenance' AND ${expired(sql`o`)};
    ${intent === "exit" ? exitStatements(schema, options) : requestStatements(schema, intent, options)}`;
}

/** Two sets of rows: what was before, and the row as it is. */
function exitStatements(schema: string, options: ChangeOptions): SqlText {
  const owner = ownerIn(options) ?? "";
  const requestedAt = options.requestedAt?.toISOString() ?? null;
  const mayEnd = sql`(${options.force === true} OR b.owner IS NULL OR b.owner = ${owner})
                 AND (${requestedAt}::timestamptz IS NULL OR b.requested_at = ${requestedAt}::timestamptz)`;
  return sql`
    WITH b AS (SELECT * FROM ${stateTable(schema)} WHERE id = 'singleton')
    UPDATE ${stateTable(schema)} o SET mode = CASE WHEN ${mayEnd} THEN 'running' ELSE b.mode END
      FROM b WHERE o.id = 'singleton'
    RETURNING b.mode AS before, b.owner AS owner_before, b.deployment AS deployment_before;
    SET CONSTRAINTS ALL IMMEDIATE;
    SELECT o.mode, ${ROW} FROM ${stateTable(schema)} o WHERE id = 'singleton';`;
}

/** Two sets of rows: what was before, and the state as it is. */
function requestStatements(schema: string, intent: Intent, options: ChangeOptions): SqlText {
  const { ttlMs, drain = null, settleMs = null, ignoreStale = false, deployment = null } = options;
  const owner = ownerIn(options);
  const reason = options.reason === undefined ? null : bounded(options.reason, LONGEST.reason);
  const isRequest = intent === "request";
  const expires = ttlMs === undefined
    ? sql`NULL`
    : sql`clock_timestamp() + make_interval(secs => ${ttlMs / 1000})`;
  // A request says how to drain, and whoever made one may renew it; everything else leaves that as it is, and the database
  // forgets it with the end.
  const fresh = sql`(${isRequest} AND b.mode = 'running')`;
  const mine = sql`(${isRequest} AND (b.mode = 'running'
    OR b.owner IS NOT DISTINCT FROM ${owner} AND b.deployment IS NOT DISTINCT FROM ${deployment}))`;
  // Once maintenance is reached the drain is over, and how it was done stays.
  const drains = sql`(${mine} AND b.mode <> 'maintenance')`;
  const stale = sql`(SELECT coalesce(jsonb_object_agg(r.id, ${inSchema(schema, SIGN_OF_LIFE)}), '{}')
                       FROM (${activeTasks(schema)}) r WHERE stale)`;
  return sql`
    WITH b AS (SELECT * FROM ${stateTable(schema)} WHERE id = 'singleton'), o AS (
      SELECT CASE WHEN ${drains} THEN coalesce(${drain}::text, CASE WHEN ${fresh} THEN 'all' ELSE b.drain END)
                  ELSE b.drain END AS drain,
             CASE WHEN ${drains} THEN coalesce(${settleMs}::integer, CASE WHEN ${fresh} THEN ${SETTLE_MS} ELSE b.settle_ms END)
                  ELSE b.settle_ms END AS settle_ms,
             CASE WHEN ${drains} AND ${ignoreStale} THEN ${stale}
                  WHEN ${fresh} THEN '{}' ELSE b.ignored_tasks END AS ignored_tasks,
             CASE WHEN ${fresh} THEN clock_timestamp() ELSE b.requested_at END AS requested_at
        FROM b
    ), a AS (
      SELECT counted.* FROM o, LATERAL (${counts(schema)}) counted
    ), s AS (
      SELECT CASE WHEN a.blocking = 0 AND (${fresh} OR b.mode = 'waiting_for_maintenance')
               THEN ${inSchema(schema, SETTLES_IN_MS)} ELSE 0 END AS settles_in_ms
        FROM a, b, o
    ), n AS (
      SELECT ${nextModeSql(intent, sql`b.mode`, sql`(a.blocking + s.settles_in_ms)`)} AS mode FROM a, b, s
    )
    UPDATE ${stateTable(schema)} t
       SET mode = n.mode, pending_tasks_count = a.pending, running_tasks_count = a.running,
           owner = CASE WHEN ${fresh} THEN ${owner} ELSE b.owner END,
           deployment = CASE WHEN ${fresh} THEN ${deployment} ELSE b.deployment END,
           reason = CASE WHEN ${fresh} THEN ${reason}
                         WHEN ${mine} THEN coalesce(${reason}, b.reason) ELSE b.reason END,
           drain = o.drain, settle_ms = o.settle_ms, ignored_tasks = o.ignored_tasks,
           wait_expires_at = CASE WHEN ${fresh} THEN ${expires}
                                  WHEN ${mine} THEN coalesce(${expires}, b.wait_expires_at)
                                  ELSE b.wait_expires_at END
      FROM a, b, o, n
     WHERE t.id = 'singleton'
    RETURNING b.mode AS before, b.owner AS owner_before, b.deployment AS deployment_before;
    SET CONSTRAINTS ALL IMMEDIATE;
    ${assertGate(schema)}
    ${readStatement(schema)}`;
}

/** A statement that fails where the gate is not as the mode needs it. */
function assertGate(schema: string): SqlText {
  const body = sql`
BEGIN
  PERFORM FROM ${stateTable(schema)} o WHERE id = 'singleton' AND mode <> 'running' AND NOT ${
    inSchema(schema, GATE_FITS)
  };
  IF FOUND THEN
    RAISE EXCEPTION 'the gate does not follow the mode' USING ERRCODE = ${GATE_DOES_NOT_FOLLOW};
  END IF;
END`;
  return sql`DO ${body.text};`;
}

/** Returns the owner of a request, as it is stored. */
export function ownerIn({ owner, actor = UNKNOWN_ACTOR }: ChangeOptions): string | null {
  const name = owner ?? ownerOf(actor);
  return name === null ? null : bounded(name, LONGEST.owner);
}

/**
 * Makes a standing request that of another deployment, if it still is the one's that left it.
 *
 * @param from the deployment whose it was
 */
export async function adoptRequest(
  session: Session,
  from: string,
  { id, owner, actor = UNKNOWN_ACTOR }: {
    readonly id: string;
    readonly owner: string | null;
    readonly actor?: Actor | undefined;
  },
): Promise<void> {
  const { schema } = session.settings;
  const details = { ...actor, action: "take over" };
  await session.transaction(sql`
    ${assertTrusted(schema, CHANGED, "change", { writes: ["orchestrator_state"] })}
    SELECT set_config('pipeweave.actor', ${JSON.stringify(details)}, true);
    UPDATE ${stateTable(schema)} SET deployment = ${id}, owner = ${owner}
     WHERE id = 'singleton' AND mode <> 'running' AND deployment = ${from};`);
}

/** `alice@build-7`: whose maintenance it is, unless somebody says otherwise; null where nothing is known. */
export function ownerOf({ osUser, host }: Actor): string | null {
  return osUser === null && host === null ? null : `${osUser ?? "unknown"}@${host ?? "unknown"}`;
}

/** Who looks, for the log: a look may complete a transition. Default: nobody in particular */
export type LookOptions = Pick<ChangeOptions, "actor">;

/**
 * Reads the state, and completes a transition that is due, or repairs a gate that does not follow the mode. Where it may
 * not be changed it stays so, and the state says it.
 */
export async function lookAtState(session: Session, options: LookOptions = {}): Promise<OrchestratorState> {
  return (await lookWith(session, options)).state;
}

/** Result of {@linkcode lookWith}. */
export interface LookResult {
  readonly state: OrchestratorState;
  /** Whether this look completed the transition to `maintenance`. */
  readonly entered: boolean;
  /** The rows of what else was read, a set for each statement. */
  readonly more: readonly (readonly Row[])[];
  /** Who keeps a transition that is due from being completed: it has to wait for their transactions. */
  readonly heldUpBy?: string;
}

/** What keeps a look from changing anything: read only, no right to it, objects of others, a gate that does not follow. */
const LOOKS_ALONE = ["25006", "42501", "PW301", GATE_DOES_NOT_FOLLOW];

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
  const blockers = state.blockingTasksCount + state.settlesInMs;
  const isDue = isUntidy || nextMode("look", { mode: state.mode, blockers, expired: false }) !== state.mode;
  if (!isDue) return { state, entered: false, more };
  try {
    const change = await changeMode(session, "look", { actor, lockWaitMs: ATTEMPT_MS });
    const entered = change.before !== "maintenance" && change.state.mode === "maintenance";
    return { state: change.state, entered, more };
  } catch (error) {
    // Somebody writes just now: the next look finds it due again.
    const heldUpBy = heldBy(error);
    if (heldUpBy !== undefined) return { state, entered: false, more, heldUpBy };
    if (LOOKS_ALONE.includes(sqlstateOf(error) ?? "")) return { state, entered: false, more };
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
      ${assertTrusted(schema, ["orchestrator_state", "task_runs"], "read")}
      SELECT mode, (SELECT count(*) FROM ${identifier(schema)}.task_runs
                     WHERE status IN ('pending', 'running'))::integer AS active
        FROM ${stateTable(schema)} WHERE id = 'singleton';`);
    return row && { mode: row["mode"] as OrchestratorMode, activeTasks: row["active"] as number };
  } catch (error) {
    if (["42P01", "3F000"].includes(sqlstateOf(error) ?? "")) return undefined;
    throw error;
  }
}

/** Counts the active tasks. */
export function activeCount({ pendingTasksCount, runningTasksCount }: OrchestratorState): number {
  return pendingTasksCount + runningTasksCount;
}

/** Whether maintenance is actually on: by the mode, by the gate, and by the tasks. */
export function isSafe({ mode, gateFits, blockingTasksCount }: OrchestratorState): boolean {
  return mode === "maintenance" && gateFits && blockingTasksCount === 0;
}

/** The SQLSTATE of {@linkcode stillNothingActive}. */
export const TASKS_ACTIVE = "PW106";

/**
 * A statement that fails where a task is active, and keeps new ones from coming until the transaction has ended: for what
 * needs maintenance and is applied without it, since there was nothing to drain.
 */
export function stillNothingActive(schema: string): SqlText {
  const table = sql`${identifier(schema)}.task_runs`;
  const body = sql`
BEGIN
  LOCK TABLE ${table} IN SHARE ROW EXCLUSIVE MODE;
  IF EXISTS (SELECT FROM ${table} WHERE status IN ('pending', 'running')) THEN
    RAISE EXCEPTION 'tasks are active' USING ERRCODE = ${TASKS_ACTIVE};
  END IF;
END`;
  return sql`DO ${body.text};`;
}

/** The SQLSTATEs of {@linkcode stillInMaintenance}: the mode is another, or it is not so in fact. */
export const NOT_IN_MAINTENANCE = { mode: "PW104", gate: GATE_DOES_NOT_FOLLOW } as const;

/**
 * A statement that fails where the mode is not maintenance, the gate is open all the same, or a task is active; and that
 * keeps the mode from ending before the transaction has ended.
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
    RAISE EXCEPTION 'the maintenance was ended' USING ERRCODE = ${NOT_IN_MAINTENANCE.mode};
  END IF;
  PERFORM FROM ${stateTable(schema)} o, LATERAL (${counts(schema)}) a
    WHERE o.id = 'singleton' AND (a.blocking > 0 OR NOT ${inSchema(schema, GATE_FITS)});
  IF FOUND THEN
    RAISE EXCEPTION 'the gate is open' USING ERRCODE = ${NOT_IN_MAINTENANCE.gate};
  END IF;
END`;
  return sql`DO ${body.text};`;
}

/**
 * A DO statement that puts the state back where somebody removed it, and warns that it did: the row, the whole table
 * of a database whose history says that it was made, or the trigger that follows the mode. It does nothing where
 * {@linkcode "../engine/history.ts".reportOwnership} has found objects of others.
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
  IF current_setting('pipeweave.foreign_any', true) <> '' THEN
    RETURN;
  END IF;
  IF to_regclass(${table.text}) IS NOT NULL THEN
    EXECUTE ${sql`SELECT EXISTS (SELECT FROM ${table} WHERE id = 'singleton')`.text} INTO found;
    IF NOT found THEN
      EXECUTE ${sql`INSERT INTO ${table} (id) VALUES ('singleton') ON CONFLICT DO NOTHING`.text};
      ${warn("the row")}
    END IF;
  ELSIF to_regclass(${history.text}) IS NOT NULL THEN
    EXECUTE ${sql`SELECT EXISTS (SELECT FROM ${history} WHERE version::text ~ '^0+$')`.text} INTO found;
    IF found THEN
      PERFORM set_config('search_path', ${`${identifier(schema).text}, pg_temp`}, true);
      EXECUTE ${create};
      PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
      ${warn("the table")}
    END IF;
  END IF;
  IF to_regprocedure(${
    sql`${identifier(schema)}.maintenance_follow_mode()`.text
  }) IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = to_regclass(${table.text}) AND tgname = 'maintenance_follow_mode' AND tgenabled <> 'D'
  ) THEN
    EXECUTE ${sql`DROP TRIGGER IF EXISTS maintenance_follow_mode ON ${table}`.text};
    EXECUTE ${followTrigger(schema).text};
    RAISE WARNING 'the trigger maintenance_follow_mode of orchestrator_state was missing or off; restored';
  END IF;
END`;
  return sql`DO ${body.text};`;
}

/** As migration 90004 makes it. */
function followTrigger(schema: string): SqlText {
  return sql`CREATE CONSTRAINT TRIGGER maintenance_follow_mode
    AFTER INSERT OR UPDATE ON ${stateTable(schema)} DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ${identifier(schema)}.maintenance_follow_mode()`;
}

function stateOf(row: Row | undefined, session: Session): OrchestratorState {
  if (!row) throw noRow(session);
  return {
    mode: row["mode"] as OrchestratorMode,
    modeChangedAt: row["mode_changed_at"] as Date,
    pendingTasksCount: row["pending"] as number,
    runningTasksCount: row["running"] as number,
    staleTasksCount: row["stale"] as number,
    blockingTasksCount: row["blocking"] as number,
    heldTasksCount: row["held"] as number,
    settlesInMs: row["settles_in_ms"] as number,
    gateFits: row["gate_fits"] as boolean,
    metadata: (row["metadata"] ?? {}) as Record<string, unknown>,
    updatedAt: row["updated_at"] as Date,
    requestedAt: row["requested_at"] as Date | null,
    owner: row["owner"] as string | null,
    reason: row["reason"] as string | null,
    deployment: row["deployment"] as string | null,
    drain: row["drain"] as Drain,
    settleMs: row["settle_ms"] as number,
    waitExpiresAt: row["wait_expires_at"] as Date | null,
    ignoredTasks: row["ignored_tasks"] as string[],
    serverProcess: row["server_process"] as number,
  };
}

const noRow = (session: Session) => notMigrated(session, "has no row in orchestrator_state");

/** Returns the hint for a schema that is missing or incomplete. */
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
  const option = settings.schema === "public" ? "" : ` --schema ${shellQuoted(settings.schema)}`;
  return new PipeweaveError("database", "not_migrated", `Schema "${settings.schema}" of ${target} ${what}`, {
    hint: `PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded${option}`,
  });
}
