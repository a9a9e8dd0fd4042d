/**
 * `maintenance_log`: append-only, every change of the mode, written by a trigger whoever makes it.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import type { Row, Session } from "../database/session.ts";
import { assertTrusted } from "../database/trust.ts";
import { explained } from "./state.ts";
import type { OrchestratorMode } from "./transitions.ts";

/** A line of the log. */
export interface MaintenanceLogRow {
  /** Counts up; gaps mean nothing. */
  readonly id: number;
  readonly loggedAt: Date;
  /** `request`, `enter`, `exit`; `expire`: a wait ran out; `restore`: the state's row had been removed, and was put back. */
  readonly action: string;
  readonly modeBefore: OrchestratorMode;
  readonly modeAfter: OrchestratorMode;
  /** Who was connected to the database. */
  readonly databaseUser: string;
  /** The operating system's user. */
  readonly osUser: string | null;
  readonly host: string | null;
  /** `pipeweave/<version>`, or how another client calls itself. */
  readonly tool: string | null;
  /** Whose maintenance it is or was. */
  readonly owner: string | null;
  readonly reason: string | null;
  /**
   * `drain`, `waitExpiresAt`, `ignoredTasks`, `forced`, and `as`: who the actor said to be (`--owner`), where there is
   * something to say.
   */
  readonly details: Readonly<Record<string, unknown>>;
}

/** The statement that reads the last lines, newest first. @param limit lines at most */
export function logStatement(schema: string, limit: number): SqlText {
  return sql`
    ${assertTrusted(schema, ["maintenance_log"], "read")}
    SELECT id::float8 AS id, logged_at, action, mode_before, mode_after, database_user, os_user, host, tool, owner,
           reason, details
      FROM ${identifier(schema)}.maintenance_log m ORDER BY m.id DESC LIMIT ${limit};`;
}

/**
 * The last lines of the log, newest first.
 *
 * @param limit lines at most
 * @throws {PipeweaveError} of kind `database` when the schema is not migrated
 */
export async function readMaintenanceLog(
  session: Session,
  limit: number,
): Promise<readonly MaintenanceLogRow[]> {
  const [rows = []] = await explained(
    session,
    session.transaction(logStatement(session.settings.schema, limit)),
  );
  return rows.map(logRowOf);
}

/** A row of {@linkcode logStatement}. */
export function logRowOf(row: Row): MaintenanceLogRow {
  return {
    id: row["id"] as number,
    loggedAt: row["logged_at"] as Date,
    action: row["action"] as string,
    modeBefore: row["mode_before"] as OrchestratorMode,
    modeAfter: row["mode_after"] as OrchestratorMode,
    databaseUser: row["database_user"] as string,
    osUser: row["os_user"] as string | null,
    host: row["host"] as string | null,
    tool: row["tool"] as string | null,
    owner: row["owner"] as string | null,
    reason: row["reason"] as string | null,
    details: row["details"] as Record<string, unknown>,
  };
}
