/**
 * `migration_log`: append-only, what was done to the history, by whom, and how it ended.
 *
 * @module
 */

import type { Actor } from "../config/actor.ts";
import { identifier, sql, type SqlText } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";
import { type Row, type Session, StatementError } from "../database/session.ts";

/** What can be done to the history. */
export type LogAction = "apply" | "rollback" | "repair" | "baseline";

/** What a line of the log is made of; PostgreSQL adds who is connected and when. */
export interface LogEntry {
  readonly action: LogAction;
  readonly version: string;
  readonly name: string;
  readonly outcome: "done" | "failed";
  readonly actor: Actor;
  readonly reason?: string | undefined;
  /** What else is worth knowing, camelCase. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
}

/** Which lines of the log. */
export interface LogFilter {
  /** Lines at most. */
  readonly limit: number;
  readonly version?: string | undefined;
  readonly action?: LogAction | undefined;
  readonly outcome?: "done" | "failed" | undefined;
}

/** A line of the log. */
export interface LogRow {
  /** Counts up; gaps mean nothing. */
  readonly id: number;
  /** When it ended. */
  readonly loggedAt: Date;
  /** What was done. */
  readonly action: LogAction;
  /** Of the migration. */
  readonly version: string;
  /** Of the migration. */
  readonly name: string;
  /** How it ended. */
  readonly outcome: "done" | "failed";
  /** Milliseconds; null where nothing ran. */
  readonly durationMs: number | null;
  /** Who was connected to the database. */
  readonly databaseUser: string;
  /** The operating system's user. */
  readonly osUser: string | null;
  /** The machine's name. */
  readonly host: string | null;
  /** `pipeweave/<version>`. */
  readonly tool: string;
  /** Why, where somebody had to say. */
  readonly reason: string | null;
  /** What else is known, camelCase. */
  readonly details: Readonly<Record<string, unknown>>;
}

const logTable = (schema: string) => sql`${identifier(schema)}.migration_log`;

/** Adds a line: a statement without its semicolon, so that it can stand in a WITH. */
export function writeLog(schema: string, entry: LogEntry, durationMs: SqlText = sql`NULL`): SqlText {
  const { action, version, name, outcome, actor, reason, details = {} } = entry;
  return sql`INSERT INTO ${logTable(schema)}
    (action, version, name, outcome, duration_ms, os_user, host, tool, reason, details)
    VALUES (${action}, ${version}, ${name}, ${outcome}, ${durationMs}, ${actor.osUser}, ${actor.host}, ${actor.tool},
            ${reason ?? null}, ${JSON.stringify(details)})`;
}

/**
 * The last lines of the log, newest first. A database that has no log yet has no lines.
 *
 * @param limit lines at most
 */
export async function readLog(
  session: Session,
  { limit, version, action, outcome }: LogFilter,
): Promise<readonly LogRow[]> {
  try {
    const [rows = []] = await session.transaction(sql`
      ${assertTrusted(session.settings.schema, ["migration_log"], "read")}
      SELECT id::float8 AS id, logged_at, action, version, name, outcome, duration_ms, database_user, os_user, host,
             tool, reason, details
        FROM ${logTable(session.settings.schema)}
       WHERE (${version ?? null}::text IS NULL OR ltrim(version, '0') = ltrim(${version ?? null}::text, '0'))
         AND (${action ?? null}::text IS NULL OR action = ${action ?? null}::text)
         AND (${outcome ?? null}::text IS NULL OR outcome = ${outcome ?? null}::text)
       ORDER BY migration_log.id DESC LIMIT ${limit};`);
    return rows.map(logRow);
  } catch (error) {
    if (error instanceof StatementError && error.details.sqlstate === "42P01") return [];
    throw error;
  }
}

function logRow(row: Row): LogRow {
  return {
    id: row["id"] as number,
    loggedAt: row["logged_at"] as Date,
    action: row["action"] as LogAction,
    version: row["version"] as string,
    name: row["name"] as string,
    outcome: row["outcome"] as "done" | "failed",
    durationMs: row["duration_ms"] as number | null,
    databaseUser: row["database_user"] as string,
    osUser: row["os_user"] as string | null,
    host: row["host"] as string | null,
    tool: row["tool"] as string,
    reason: row["reason"] as string | null,
    details: row["details"] as Record<string, unknown>,
  };
}
