/**
 * The active tasks, one by one.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { sql, type SqlText } from "../database/sql.ts";
import type { Row, Session } from "../database/session.ts";
import { assertTrusted } from "../database/trust.ts";
import { activeTasks, explained } from "./state.ts";

/** A task that is pending or running. */
export interface ActiveTask {
  /** Of the run. */
  readonly id: string;
  /** Of the task that is run. */
  readonly taskId: string;
  /** Queued, or at work. */
  readonly status: "pending" | "running";
  /** Counted from 1. */
  readonly attempt: number;
  /** When it was queued. */
  readonly createdAt: Date;
  /** When a worker began it; null while none has. */
  readonly startedAt: Date | null;
  /** When it was last heard of; null where it never was. */
  readonly heartbeatAt: Date | null;
  /** When it is due; null for at once. */
  readonly scheduledFor: Date | null;
  /** Milliseconds since it was started, or else since it was due or queued; negative for one that is due later. */
  readonly ageMs: number;
  /** Milliseconds since it was last heard of; null where it never was. */
  readonly silentMs: number | null;
  /** Whether nothing has been heard of it for too long. */
  readonly stale: boolean;
}

/** The statement that lists active tasks, the running ones first, the oldest of each first. */
export function listStatement(schema: string, { stale = false, limit }: TaskFilter): SqlText {
  return sql`
    ${assertTrusted(schema, ["task_runs", "tasks"], "read")}
    SELECT active.*, pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp()
             - coalesce(started_at, scheduled_for, created_at)) * 1000)::float8 AS age,
           pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - heartbeat_at) * 1000)::float8 AS silent
      FROM (${activeTasks(schema)}) active WHERE stale OR NOT ${stale}
     ORDER BY status DESC, coalesce(started_at, scheduled_for, created_at), id LIMIT ${limit};`;
}

/** Which tasks are asked for. */
export interface TaskFilter {
  /** Only those of which nothing has been heard for too long. */
  readonly stale?: boolean;
  /** At most. */
  readonly limit: number;
}

/**
 * Lists active tasks.
 *
 * @throws {PipeweaveError} of kind `database` when the schema is not migrated
 */
export async function listTasks(session: Session, filter: TaskFilter): Promise<readonly ActiveTask[]> {
  const [rows = []] = await explained(
    session,
    session.transaction(listStatement(session.settings.schema, filter)),
  );
  return rows.map(taskOf);
}

/** A row of {@linkcode listStatement}. */
export function taskOf(row: Row): ActiveTask {
  return {
    id: row["id"] as string,
    taskId: row["task_id"] as string,
    status: row["status"] as "pending" | "running",
    attempt: row["attempt"] as number,
    createdAt: row["created_at"] as Date,
    startedAt: row["started_at"] as Date | null,
    heartbeatAt: row["heartbeat_at"] as Date | null,
    scheduledFor: row["scheduled_for"] as Date | null,
    ageMs: row["age"] as number,
    silentMs: row["silent"] as number | null,
    stale: row["stale"] as boolean,
  };
}

/** `for 12s`, `waits for 3m`, `due in 2h`. */
export function describeAge({ status, ageMs }: ActiveTask): string {
  if (status === "running") return `for ${formatDuration(Math.max(0, ageMs))}`;
  return ageMs < 0 ? `due in ${formatDuration(-ageMs)}` : `waits for ${formatDuration(ageMs)}`;
}
