/**
 * The message that applies a migration: what goes to PostgreSQL before and after the file's own text, and where in the
 * file an error is.
 *
 * @module
 */

import type { Actor } from "../config/actor.ts";
import { OWN_SQL, type StatementError } from "../database/session.ts";
import { sequence, sql, SqlText } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";
import type { SqlLocation } from "../errors.ts";
import { locate } from "../migrations/finding.ts";
import {
  guard,
  type GuardTerms,
  recordMigration,
  schemaAlone,
  SINCE_MESSAGE_MS,
  withOwnershipCheck,
} from "./history.ts";
import { EMBEDDED, labelOf, type Migration } from "../migrations/migration.ts";
import { type Statement, statementsOf } from "../sql/statements.ts";
import { unitsBefore } from "../sql/offsets.ts";
import { unwoven, weave, type Woven } from "../sql/weave.ts";

/** How the message of a migration starts: pg_stat_activity shows it, so there one sees what is running. */
export function messageHead(migration: Migration): string {
  return `-- pipeweave: ${labelOf(migration)}\n`;
}

/** A message, and where in it the migration's own text stands. */
export interface Message {
  readonly text: string;
  /** UTF-16 units before the migration's text. */
  readonly bodyStart: number;
  /** The migration's text as it was sent. */
  readonly body: Woven;
  /** Statements before the migration's own. */
  readonly statementsBefore: number;
  /** Statements before the guard. */
  readonly statementsBeforeGuard: number;
}

/** What every message of a migration has to know besides it. */
export interface MessageContext {
  readonly schema: string;
  /** `application_name` of the session: while a file of several statements runs, the one that runs is added to it. */
  readonly applicationName: string;
  readonly limits: Limits;
  /** The file's statements, where they are known: each is announced before it runs. */
  readonly statements: readonly Statement[] | undefined;
}

/** What applying has to know besides. */
export interface ApplyContext extends MessageContext {
  readonly terms: Omit<GuardTerms, "version">;
  /** Fails where a condition of the run does not hold any more. */
  readonly condition?: SqlText | undefined;
  readonly actor: Actor;
  /** For the log. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
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

/** The message that applies a migration. */
export function messageFor(migration: Migration, context: ApplyContext): Message {
  const { schema, terms, condition, actor, details } = context;
  const { version } = migration;
  return wrap(migration, context, {
    checks: ownershipChecks(schema, terms),
    guarded: [
      guard(schema, { ...terms, version }),
      ...(condition ? [condition] : []),
    ],
    after: recordMigration(schema, migration, SINCE_MESSAGE_MS, {
      ...{ action: "apply", actor, details },
    }),
  });
}

/** What stands around a file's text. */
export interface Surroundings {
  /** Statements before the guard. Default: none */
  readonly checks?: readonly SqlText[] | undefined;
  /** The guard, and what it is in front of. */
  readonly guarded: readonly SqlText[];
  /** Records what was done. */
  readonly after: SqlText;
}

/**
 * The check of ownership that goes before whatever makes, replaces or calls objects of the engine. Where the engine found
 * all of them, their owners were looked at with the history, and nobody else can replace them.
 */
export function ownershipChecks(
  schema: string,
  { complete }: Pick<GuardTerms, "complete">,
): readonly SqlText[] {
  return complete ? [] : [assertTrusted(schema, [], "own")];
}

/** Puts what guards and what records around a file's text. */
export function wrap(
  migration: Migration,
  { schema, applicationName, limits, statements }: MessageContext,
  { checks = [], guarded, after }: Surroundings,
): Message {
  const fresh = [...freshSession(limitsOf(migration, limits)), ...checks];
  const before = [...fresh, ...guarded, ...settingsOf(migration, schema)];
  const body = statements && statements.length > 1
    ? weave(migration.sql, statements, announcement(migration, applicationName, statements.length))
    : unwoven(migration.source === EMBEDDED ? withOwnershipCheck(schema, migration.sql) : migration.sql);
  const head = `${messageHead(migration)}${sequence(before).text}\n`;
  return {
    text: `${head}${body.text}\n;\n${endOfBody().text}${after.text}\n${END_OF_MESSAGE.text}`,
    bodyStart: head.length,
    body,
    statementsBeforeGuard: fresh.length,
    statementsBefore: before.length,
  };
}

/** The limits that hold for a migration: its own, the command's, the default. */
export function limitsOf({ directives }: Migration, limits: Limits): EffectiveLimits {
  return {
    lockTimeoutMs: directives.lockTimeoutMs ?? limits.lockTimeoutMs ?? MIGRATION_LOCK_TIMEOUT_MS,
    statementTimeoutMs: directives.statementTimeoutMs ?? limits.statementTimeoutMs,
  };
}

/** {@linkcode Limits} after all defaults. */
export interface EffectiveLimits {
  readonly lockTimeoutMs: number;
  /** Undefined for the role's. */
  readonly statementTimeoutMs: number | undefined;
}

/** What a migration's transaction starts with: settings that do not depend on what the session was used for before. */
export function freshSession(limits: EffectiveLimits): readonly SqlText[] {
  return [
    // The guard has to see what the last holder of its lock committed, whatever the role's default is.
    sql`SET TRANSACTION ISOLATION LEVEL READ COMMITTED;`,
    // A pooled session may carry what others set in it.
    ...RESET_IDENTITY,
    RESET_SETTINGS,
    ...KEEP_SETTINGS,
    sql`SELECT ${limitSettings(limits, "transaction")};`,
  ];
}

/** How long settings hold. */
type Scope = "transaction" | "session";

/** Sets a parameter, under the settings of our own SQL. */
const setting = (name: string, value: SqlText, scope: Scope) =>
  sql`set_config(${name}, ${value}, ${scope === "transaction"})`.text;

function limitSettings({ lockTimeoutMs, statementTimeoutMs }: EffectiveLimits, scope: Scope): SqlText {
  const limits = [
    setting("lock_timeout", sql`${String(lockTimeoutMs)}`, scope),
    ...(statementTimeoutMs === undefined
      ? []
      : [setting("statement_timeout", sql`${String(statementTimeoutMs)}`, scope)]),
    // So that the transaction of a client that died ends soon, where the server can tell: PostgreSQL 14 on Linux alone.
    setting(
      "client_connection_check_interval",
      sql`CASE WHEN version() ~ 'linux' THEN ${String(CONNECTION_CHECK_MS)} ELSE '0' END`,
      scope,
    ),
  ];
  return new SqlText(limits.join(", "));
}

/**
 * Keeps the search_path that role, database or URL set, for {@linkcode userSettings}, and goes over to the settings of our
 * own SQL. To follow {@linkcode RESET_SETTINGS}. As short as the first kilobyte of a message asks for, which
 * pg_stat_activity shows: the migration's own text should begin in it.
 */
export const KEEP_SETTINGS: readonly SqlText[] = [
  sql`SELECT pg_catalog.set_config('pipeweave.path', pg_catalog.current_setting('search_path'), true);`,
  ...OWN_SQL,
];

/** Settings under which a user's text runs: names lead where the search_path of role, database or URL leads, as in psql. */
export function userSettings(scope: Scope, limits?: EffectiveLimits): readonly SqlText[] {
  const settings = [
    ...(limits ? [limitSettings(limits, scope).text] : []),
    setting("search_path", sql`current_setting('pipeweave.path')`, scope),
  ];
  return [
    scope === "transaction" ? sql`SET LOCAL row_security TO DEFAULT;` : sql`SET row_security TO DEFAULT;`,
    sql`SELECT ${new SqlText(settings.join(", "))};`,
  ];
}

/** The settings of a file's text: PipeWeave's own sees its schema alone. */
export function settingsOf(
  { source }: Migration,
  schema: string,
  limits?: EffectiveLimits,
): readonly SqlText[] {
  return source === EMBEDDED ? [schemaAlone(schema)] : userSettings("transaction", limits);
}

/** What follows a migration's own text: the role that connected is back for the row in the history. */
export function endOfBody(): SqlText {
  return new SqlText(`${sequence([...RESET_IDENTITY, ...OWN_SQL]).text}\n`);
}

/** Returns SQL that shows the running statement in pg_stat_activity, which can be read from behind a pooler, too. */
function announcement(migration: Migration, applicationName: string, count: number): (k: number) => string {
  return (k) =>
    sql`SET LOCAL application_name = ${`${applicationName} ${migration.version} ${k}/${count}`}; `.text;
}

/** Reads an {@linkcode announcement}: the statement that runs, counted from 1. */
export function announcedStatement(applicationName: string): number | undefined {
  const found = / (\d+)\/\d+$/.exec(applicationName)?.[1];
  return found === undefined ? undefined : Number(found);
}

/** Back to the role that connected, for the next migration and for the row in the history. */
const RESET_IDENTITY = [sql`RESET SESSION AUTHORIZATION;`, sql`RESET ROLE;`];
/**
 * Back to the settings of the connection. It has to end a message: what a migration sets (pg_dump's output empties
 * search_path) holds for the next one otherwise, and PostgreSQL reads a whole message, by the then value of
 * standard_conforming_strings, before it runs the first statement of it.
 */
export const RESET_SETTINGS = sql`RESET ALL;`;
/** What else a migration may leave in the session; what it has deferred is checked first, as at a commit. */
const DISCARD_STATE: readonly SqlText[] = [
  sql`CLOSE ALL;`,
  sql`SET CONSTRAINTS ALL IMMEDIATE;`,
  sql`DISCARD TEMP;`,
  sql`DEALLOCATE ALL;`,
  sql`UNLISTEN *;`,
  // In a block, since what it returns would be taken for the migration's answer; an engine may have none.
  sql`DO ${"BEGIN PERFORM pg_catalog.pg_advisory_unlock_all(); EXCEPTION WHEN feature_not_supported OR undefined_function OR insufficient_privilege THEN NULL; END"};`,
];
/** What ends a message: nothing of it holds for the next one. */
export const END_OF_MESSAGE = sequence([RESET_SETTINGS, ...DISCARD_STATE]);
/** Statements in {@linkcode endOfBody} and in {@linkcode END_OF_MESSAGE}. */
export const STATEMENTS_AT_END = { body: 2 + OWN_SQL.length, message: 1 + DISCARD_STATE.length } as const;

/** The character that an error says the database's encoding has not. */
export function unknownCharacter({ details: { sqlstate }, message }: StatementError): string | undefined {
  const bytes = sqlstate === "22P05" ? /byte sequence ((?:0x[0-9a-f]{2} ?)+)/.exec(message)?.[1] : undefined;
  return bytes && new TextDecoder().decode(Uint8Array.from(bytes.trim().split(" "), Number));
}

/** The place in the file that an error is about: PostgreSQL's position, or else the statement that was running. */
export async function locateFailure(
  error: StatementError,
  migration: Migration,
  message: Pick<Message, "text" | "body" | "bodyStart" | "statementsBefore">,
): Promise<SqlLocation | undefined> {
  const { file, sql: text } = migration;
  const statements = await statementsOf(migration).catch(() => []);
  const odd = unknownCharacter(error);
  if (odd && text.includes(odd)) return locate(file, text, text.indexOf(odd), text.indexOf(odd));
  const position = Number((error.details.cause as { position?: string } | undefined)?.position ?? 0);
  // PostgreSQL counts characters, from 1.
  const inBody = position === 0 ? -1 : unitsBefore(message.text, position - 1) - message.bodyStart;
  if (inBody >= 0 && inBody <= message.body.text.length) {
    const offset = message.body.toFile(inBody);
    const statement = statements.findLast(({ start }) => start <= offset);
    return locate(file, text, offset, statement?.start ?? offset);
  }
  const index = Math.floor((error.completed - message.statementsBefore) / (1 + message.body.each));
  const running = statements[index];
  return running && locate(file, text, running.start, running.start);
}
