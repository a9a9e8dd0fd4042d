/**
 * The message that applies a migration: what goes to PostgreSQL before and after the file's own text, and where in the
 * file an error is.
 *
 * @module
 */

import type { StatementError } from "../database/session.ts";
import { identifier, sql, type SqlText } from "../database/sql.ts";
import type { SqlLocation } from "../errors.ts";
import { locate } from "./finding.ts";
import { createHistory, guard, recordMigration } from "./history.ts";
import { labelOf, type Migration } from "./migration.ts";
import { parseStatements } from "./statements.ts";

/** How the message of a migration starts: pg_stat_activity shows it, so there one sees what is running. */
export function messageHead(migration: Migration): string {
  return `-- pipeweave: ${labelOf(migration)}\n`;
}

/** A message, and where in it the migration's own text stands. */
export interface Message {
  readonly text: string;
  /** UTF-16 units before the migration's text. */
  readonly bodyStart: number;
  /** Statements before the migration's own. */
  readonly statementsBefore: number;
  /** Statements before the guard. */
  readonly statementsBeforeGuard: number;
}

/** What a message has to know besides its migration. */
export interface MessageContext {
  readonly schema: string;
  /** Key of the migrators' advisory lock. */
  readonly key: bigint;
  /** Version that has to be in the history before; undefined for the first migration. */
  readonly predecessor: string | undefined;
  /** Whether the history has to be made first. */
  readonly historyIsMissing: boolean;
  readonly limits: Limits;
}

/** Limits of a migration, in milliseconds; its own directives go before them. */
export interface Limits {
  /** For each lock that it waits for. */
  readonly lockTimeoutMs?: number | undefined;
  /** For each statement, 0 for none; undefined for the role's. */
  readonly statementTimeoutMs?: number | undefined;
}

/** Default limit for each lock that a migration waits for: others queue behind it for that long. */
export const MIGRATION_LOCK_TIMEOUT_MS = 5000;

/** How often the server looks whether the client of a running statement is still there. */
const CONNECTION_CHECK_MS = 1000;

/** Builds the message of a migration. */
export function messageFor(migration: Migration, context: MessageContext): Message {
  const { schema, key, predecessor, historyIsMissing, limits } = context;
  const { directives } = migration;
  const lockTimeoutMs = directives.lockTimeoutMs ?? limits.lockTimeoutMs ?? MIGRATION_LOCK_TIMEOUT_MS;
  const statementTimeoutMs = directives.statementTimeoutMs ?? limits.statementTimeoutMs;
  const before: SqlText[] = [
    // The guard has to see what the last holder of its lock committed, whatever the role's default is.
    sql`SET TRANSACTION ISOLATION LEVEL READ COMMITTED;`,
    // A pooled session may carry what others set in it.
    ...RESET_IDENTITY,
    RESET_SETTINGS,
    sql`SET LOCAL lock_timeout = ${lockTimeoutMs};`,
    // So that the transaction of a client that died ends soon, where the server can tell (PostgreSQL 14, not Windows).
    sql`SELECT pg_catalog.set_config(name, ${String(CONNECTION_CHECK_MS)}, true) FROM pg_catalog.pg_settings
      WHERE name = 'client_connection_check_interval' AND pg_catalog.version() !~ 'mingw|Visual C';`,
    ...(statementTimeoutMs === undefined ? [] : [sql`SET LOCAL statement_timeout = ${statementTimeoutMs};`]),
    sql`SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', ${identifier(schema).text},
      nullif(pg_catalog.current_setting('search_path'), '')), true);`,
    guard(schema, key, migration, predecessor),
  ];
  const statementsBeforeGuard = before.length - 1;
  if (historyIsMissing) before.push(createHistory(schema));
  const head = `${messageHead(migration)}${before.map(({ text }) => text).join("\n")}\n`;
  const reset = RESET_IDENTITY.map(({ text }) => text).join("\n");
  return {
    text: `${head}${migration.sql}\n;\n${reset}${
      recordMigration(schema, migration).text
    }\n${RESET_SETTINGS.text}\n${DISCARD_TEMPORARY.text}`,
    bodyStart: head.length,
    statementsBeforeGuard,
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
/** What else a migration may leave in the session. */
const DISCARD_TEMPORARY = sql`DISCARD TEMP;`;
/** Statements in what {@linkcode createHistory} returns. */
const CREATE_HISTORY_STATEMENTS = 3;

/** The place in the file that an error is about: PostgreSQL's position, or else the statement that was running. */
export async function locateFailure(
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
