/**
 * `orchestrator_state`: reading it together with the active tasks, and changing it under a lock of its row.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { type Row, type Session, StatementError } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { type Intent, nextMode, nextModeSql, type OrchestratorMode } from "./transitions.ts";

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
  /** What others keep in the row. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** When the row was last written. */
  readonly updatedAt: Date;
}

/** What {@linkcode changeMode} found and left. */
export interface ModeChange {
  readonly before: OrchestratorMode;
  readonly state: OrchestratorState;
}

const stateTable = (schema: string) => sql`${identifier(schema)}.orchestrator_state`;

/** Counts of the active tasks, by the index on `status`. */
function activeTasks(schema: string): SqlText {
  return sql`
    SELECT pg_catalog.count(*) FILTER (WHERE status = 'pending')::integer AS pending,
           pg_catalog.count(*) FILTER (WHERE status = 'running')::integer AS running
      FROM ${identifier(schema)}.task_runs WHERE status IN ('pending', 'running')`;
}

/**
 * Reads the state in one round trip, and changes nothing.
 *
 * @throws {PipeweaveError} of kind `database` that names `db:migrate` when the table or the row is missing
 */
export async function readState(session: Session): Promise<OrchestratorState> {
  const { schema } = session.settings;
  const [[row] = []] = await explained(
    session,
    session.transaction(sql`
      SELECT o.mode, o.mode_changed_at, o.metadata, o.updated_at, a.pending, a.running
        FROM ${stateTable(schema)} o, (${activeTasks(schema)}) a WHERE o.id = 'singleton';`),
  );
  return stateOf(row, session);
}

/**
 * Does what an intent leads to. The row is locked first and the tasks are counted after that, in the transaction that
 * changes the mode, so two commands at once cannot disagree.
 *
 * @throws {PipeweaveError} as {@linkcode readState}; of kind `timeout` when another holds the row for too long
 */
export async function changeMode(session: Session, intent: Intent): Promise<ModeChange> {
  const { schema } = session.settings;
  const next = nextModeSql(intent, sql`b.mode`, sql`(a.pending + a.running)`);
  const sets = await explained(
    session,
    session.transaction(sql`
      SELECT mode AS before FROM ${stateTable(schema)} WHERE id = 'singleton' FOR UPDATE;
      UPDATE ${stateTable(schema)} o
         SET mode = ${next}, pending_tasks_count = a.pending, running_tasks_count = a.running
        FROM (${activeTasks(schema)}) a, (SELECT mode FROM ${stateTable(schema)} WHERE id = 'singleton') b
       WHERE o.id = 'singleton'
      RETURNING o.mode, o.mode_changed_at, o.metadata, o.updated_at, a.pending, a.running;`),
  );
  const state = stateOf(sets[1]?.[0], session);
  return { before: sets[0]![0]!["before"] as OrchestratorMode, state };
}

/** Reads the state, and completes a transition that is due. Where it may not be changed it stays due. */
export async function lookAtState(session: Session): Promise<OrchestratorState> {
  const state = await readState(session);
  if (nextMode("look", state.mode, activeCount(state)) === state.mode) return state;
  try {
    return (await changeMode(session, "look")).state;
  } catch (error) {
    if (error instanceof StatementError && ["25006", "42501"].includes(error.details.sqlstate!)) return state;
    throw error;
  }
}

/** How many tasks keep a drain from ending. */
export function activeCount({ pendingTasksCount, runningTasksCount }: OrchestratorState): number {
  return pendingTasksCount + runningTasksCount;
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
  };
}

async function explained<T>(session: Session, answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof StatementError && ["42P01", "3F000"].includes(error.details.sqlstate!)) {
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
