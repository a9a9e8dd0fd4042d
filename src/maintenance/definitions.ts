/**
 * What the words of the drain mean, as SQL. migration 90004 has the same texts in its functions (a test compares them): a
 * look may run with the rights of somebody who does not trust the schema's functions, so it cannot call them.
 *
 * The texts are about a row `o` with the columns of `orchestrator_state`; `%1$I` stands for the schema and `%2$L` for the
 * name of `task_runs`, as in PostgreSQL's `format()`.
 *
 * @module
 */

import { identifier, sql, SqlText } from "../database/sql.ts";

/** Runs, each with the sign of life at which the drain ignores it. */
export const RUNS = `FROM %1$I.task_runs r LEFT JOIN jsonb_each_text(o.ignored_tasks) i ON i.key = r.id`;

/** A run is active. */
export const IS_ACTIVE = `WHERE r.status IN ('pending', 'running')`;

/** What changes when a task gives a sign of life: a task that a drain ignores is ignored for as long as this stays. */
export const SIGN_OF_LIFE =
  `r.status || ' ' || r.attempt || ' ' || coalesce(extract(epoch FROM greatest(r.started_at, r.heartbeat_at))::text, '')`;

/** The drain waits for an active run. */
export const BLOCKS = `(r.status = 'running' OR o.drain = 'all') AND i.value IS DISTINCT FROM
  ${SIGN_OF_LIFE}`;

/**
 * Milliseconds until it is sure that nothing follows from tasks that have ended: PipeWeave ends a task in one
 * transaction, and queues its next step or its retry in a later one.
 */
export const SETTLES_IN_MS =
  `(SELECT coalesce(greatest(ceil(extract(epoch FROM max(until) - clock_timestamp()) * 1000), 0), 0)::integer FROM (
  SELECT e.ended_at + o.settle_ms * interval '1 millisecond' AS until
    FROM %1$I.maintenance_recent_ends e
   WHERE e.ended_at > clock_timestamp() - o.settle_ms * interval '1 millisecond'
     AND (EXISTS (SELECT FROM %1$I.pipeline_runs p
                   WHERE p.id = e.pipeline_run_id AND p.status IN ('pending', 'running'))
       OR EXISTS (SELECT FROM %1$I.task_runs r
                   WHERE r.id = e.task_run_id AND r.status IN ('failed', 'timeout') AND r.attempt < r.max_retries))
  UNION ALL
  SELECT o.requested_at + o.settle_ms * interval '1 millisecond'
   WHERE o.requested_at > clock_timestamp() - o.settle_ms * interval '1 millisecond'
     AND (EXISTS (SELECT FROM %1$I.pipeline_runs p WHERE p.status IN ('pending', 'running'))
       OR EXISTS (SELECT FROM %1$I.task_runs r
                   WHERE r.status IN ('failed', 'timeout') AND r.attempt < r.max_retries
                     AND r.completed_at > o.requested_at - o.settle_ms * interval '1 millisecond' - interval '1 minute'))
) settling)`;

/**
 * Whether the triggers are those that the mode needs, and are on, on `task_runs` and on every partition and child of it;
 * in the mode `running`, whether there is nothing left to tidy up.
 */
export const GATE_FITS = `(WITH RECURSIVE tables (relation) AS (
  SELECT to_regclass(%2$L)::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tables t ON i.inhparent = t.relation
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
), gates AS (
  SELECT g.tgrelid, g.tgname, g.tgenabled FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
   WHERE g.tgrelid IN (SELECT relation FROM tables) AND p.proname IN ('maintenance_gate', 'maintenance_task_ended')
)
SELECT CASE o.mode WHEN 'running'
  THEN NOT EXISTS (SELECT FROM gates WHERE tgenabled <> 'D') AND NOT EXISTS (SELECT FROM %1$I.maintenance_held_tasks)
  ELSE NOT EXISTS (SELECT FROM tables, unnest(CASE
      WHEN o.mode = 'maintenance' THEN '{closed_insert,closed_update}'
      WHEN o.drain = 'running' THEN '{new,ended,deleted,start,start_new}'
      ELSE '{new,ended,deleted}' END::text[]) AS needed (name)
    WHERE NOT EXISTS (SELECT FROM gates g
      WHERE g.tgrelid = tables.relation AND g.tgname = 'maintenance_gate_' || needed.name AND g.tgenabled = 'A')) END)`;

/** One of these texts for a schema. */
export function inSchema(schema: string, text: string): SqlText {
  const name = identifier(schema).text;
  const taskRuns = sql`${`${name}.task_runs`}`.text;
  return new SqlText(text.replaceAll("%1$I", () => name).replaceAll("%2$L", () => taskRuns));
}
