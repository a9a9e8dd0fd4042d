/**
 * `schema_migrations`: reading it, making it and what the engine keeps beside it, and the statements that guard and
 * record a migration.
 *
 * @module
 */

import { identifier, sequence, sql, SqlText } from "../database/sql.ts";
import { notTrusted } from "../database/failures.ts";
import { SERVER_IDENTITY, type ServerIdentity } from "../database/server_identity.ts";
import { assertTrusted, reportTrust } from "../database/trust.ts";
import { ConnectionLost, OWN_SQL, type Row, type Session, StatementError } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { checksumOf } from "../migrations/checksum.ts";
import { embeddedFile } from "../migrations/discover.ts";
import { type LogEntry, writeLog } from "./log.ts";
import { type Migration, setOf, versionKey } from "../migrations/migration.ts";
import type { HistoryFacts, HistoryRow, PartialMigration } from "../migrations/plan.ts";

const TABLE = "schema_migrations";
/** The migration that makes the log, the journal and the lease; safe to repeat. */
const BOOKKEEPING = "90003_migration_bookkeeping.sql";

/** Errors of the guard, in a class of SQLSTATEs that PostgreSQL leaves to applications. */
export const GUARD = {
  ...{ locked: "PW001", applied: "PW002", predecessorMissing: "PW003" },
  /** Some of it was done outside a transaction, and it was to be applied in one. */
  halfDone: "PW008",
} as const;

/** SQLSTATE of a look at a schema in which a table of one of our names is somebody else's. */
const FOREIGN_TABLE = "PW302";

/** Columns by which the engine's tables are told from others of their names. */
const COLUMNS: Readonly<Record<string, readonly string[]>> = {
  migration_log: ["action", "version", "outcome", "details"],
  migration_journal: ["version", "statement", "hash", "finished_at"],
  migration_lease: ["fence", "holder", "version", "expires_at"],
};

/** The history, as one message reads it. */
export interface History extends HistoryFacts {
  /** Whether the table exists. */
  readonly exists: boolean;
  /** Whether the log, the journal and the lease exist too; PipeWeave 1.x and releases without them made the table alone. */
  readonly complete: boolean;
  readonly rows: readonly HistoryRow[];
  readonly partial: readonly PartialMigration[];
  /** Whether database or role set standard_conforming_strings off: psql reads backslashes in strings as escapes there. */
  readonly escapes?: boolean;
  /** The server that told. */
  readonly server?: ServerIdentity;
  /** What was found of {@linkcode reportOwnership}: objects that others have made. */
  readonly foreign?: {
    /** The history itself; undefined where it can be relied upon. */
    readonly history: string | undefined;
    /** Anything that a migration makes, replaces or calls. */
    readonly any: string | undefined;
  };
}

/** A statement that lets {@linkcode readHistory} tell whose objects there are. To be sent alongside. */
export function reportOwnership(schema: string): SqlText {
  return sequence([
    reportTrust(schema, [TABLE], "change", "foreign_history"),
    reportTrust(schema, [], "own", "foreign_any"),
  ]);
}

/** The error of what a history tells of others' objects. */
export function foreignOwner({ settings }: Session, report: string): PipeweaveError {
  const { message, details } = notTrusted(report, settings);
  return new PipeweaveError("database", "foreign_owner", message, details);
}

/** The migration that has to be in the history before this one: its version as the history writes it. */
export function predecessorOf(
  migration: Migration,
  migrations: readonly Migration[],
  history: History,
): string | undefined {
  const before = migrations[migrations.indexOf(migration) - 1];
  if (!before) return undefined;
  const row = history.rows.find(({ version }) => versionKey(version) === versionKey(before.version));
  return row?.version ?? before.version;
}

/** `"schema"."schema_migrations"`. */
export function historyTable(schema: string): SqlText {
  return sql`${identifier(schema)}.${identifier(TABLE)}`;
}

/** `"schema"."migration_lease"`. */
export function leaseTable(schema: string): SqlText {
  return sql`${identifier(schema)}.migration_lease`;
}

/**
 * Reads the history in one round trip.
 *
 * @param alongside further statements for the same message; they must not return rows
 * @throws {PipeweaveError} of kind `integrity` when a table of that name is another tool's
 */
export async function readHistory(session: Session, alongside: SqlText = sql``): Promise<History> {
  // Reading twice does no harm, so a lost connection is no reason to leave anybody without an answer.
  for (let attempt = 1;; attempt++) {
    try {
      return await readOnce(session, alongside);
    } catch (error) {
      if (!(error instanceof ConnectionLost) || error.isUnreachable || attempt === READ_ATTEMPTS) throw error;
    }
  }
}

const READ_ATTEMPTS = 3;

async function readOnce(session: Session, alongside: SqlText): Promise<History> {
  const { schema } = session.settings;
  try {
    const [[facts] = [], rows = []] = await session.transaction(sql`
      ${lookAround(schema)}
      ${alongside}
      ${assertTrusted(schema, [TABLE], "read")}
      SELECT EXISTS (SELECT FROM pg_db_role_setting s WHERE 'standard_conforming_strings=off' = ANY (s.setconfig)
               AND s.setrole IN (0, current_user::regrole)
               AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))) AS escapes,
             ${SERVER_IDENTITY} AS server, pg_catalog.current_setting('pipeweave.partial', true) AS partial,
             ${isComplete(schema)} AS complete,
             nullif(pg_catalog.current_setting('pipeweave.foreign_history', true), '') AS foreign_history,
             nullif(pg_catalog.current_setting('pipeweave.foreign_any', true), '') AS foreign_any;
      SELECT version, name, checksum, applied_at, execution_time_ms, to_jsonb(h) ->> 'migration_set' AS migration_set FROM ONLY ${
      historyTable(schema)
    } h ORDER BY id;`);
    return {
      exists: true,
      complete: facts!["complete"] === true,
      rows: rows.map(historyRow),
      partial: JSON.parse((facts!["partial"] as string | null) || "[]") as PartialMigration[],
      server: String(facts!["server"]),
      escapes: facts!["escapes"] === true,
      foreign: {
        history: facts!["foreign_history"] as string | null ?? undefined,
        any: facts!["foreign_any"] as string | null ?? undefined,
      },
    };
  } catch (error) {
    if (!(error instanceof StatementError)) throw error;
    if (error.details.sqlstate === "42P01") return { exists: false, complete: false, rows: [], partial: [] };
    if (error.details.sqlstate === "42703") {
      throw new PipeweaveError(
        "integrity",
        "foreign_history",
        `The table ${schema}.${TABLE} is not PipeWeave's: ${error.message}`,
        {
          hint:
            "Another migration tool uses this name. Take its folder and history over: pipeweave db:import <that tool's folder> --output <a new folder>. Or leave it, and give PipeWeave's tables a schema of their own: pipeweave db:baseline <the last version applied> --dir <your folder> --schema pipeweave, then pipeweave db:migrate --dir <your folder> --schema pipeweave.",
          cause: error,
        },
      );
    }
    if (error.details.sqlstate === FOREIGN_TABLE) {
      throw new PipeweaveError(
        "integrity",
        "foreign_table",
        `The table ${error.message} is not PipeWeave's, and PipeWeave has one of that name`,
        {
          hint:
            "Give PipeWeave's tables a schema of their own: --schema pipeweave; or rename that table. Nothing was written.",
          cause: error,
        },
      );
    }
    throw error;
  }
}

function historyRow(row: Row): HistoryRow {
  return {
    version: String(row["version"]),
    name: String(row["name"]),
    checksum: String(row["checksum"]),
    appliedAt: row["applied_at"] as Date,
    executionTimeMs: row["execution_time_ms"] as number | null,
    set: row["migration_set"] as HistoryRow["set"],
  };
}

/** Makes sure that the engine's tables are the engine's, and keeps what the journal has for the rest of the transaction. */
function lookAround(schema: string): SqlText {
  const journal = sql`${identifier(schema)}.migration_journal`;
  const needs = Object.entries(COLUMNS).map(([name, columns]) =>
    sql`(${name}, ${`{${columns.join(",")}}`}::text[])`.text
  );
  const read = sql`
    SELECT jsonb_agg(p ORDER BY version)::text FROM (
      SELECT version, max(name) AS name, count(finished_at) AS done,
             min(statement) FILTER (WHERE finished_at IS NULL) AS begun FROM ${journal} GROUP BY version) p`;
  const body = sql`
DECLARE
  odd text;
  partial text;
BEGIN
  SELECT format('%I.%I', n.nspname, c.relname) INTO odd
    FROM (VALUES ${new SqlText(needs.join(", "))}) need(name, columns)
    JOIN pg_namespace n ON n.nspname = ${schema}
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = need.name
   WHERE EXISTS (SELECT FROM unnest(need.columns) u(name) WHERE NOT EXISTS (
     SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = u.name AND NOT a.attisdropped));
  IF FOUND THEN
    RAISE EXCEPTION '%', odd USING ERRCODE = ${FOREIGN_TABLE};
  END IF;
  IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass(${journal.text}) AND attname = 'name') THEN
    EXECUTE ${assertTrusted(schema, ["migration_journal"], "read").text};
    EXECUTE ${read.text} INTO partial;
    PERFORM set_config('pipeweave.partial', coalesce(partial, ''), true);
  END IF;
END`;
  return sql`DO ${body.text};`;
}

/** The key of the advisory lock that migrators of one schema hold; PostgreSQL keeps such keys per database. */
export function lockKey(schema: string): bigint {
  return BigInt.asIntN(64, BigInt(`0x${checksumOf(`pipeweave migrations ${schema}`).slice(0, 16)}`));
}

/**
 * Makes the schema, the history, and what the engine keeps beside it, where they are missing: one statement. To follow
 * the check of ownership.
 */
export function createBookkeeping(schema: string): SqlText {
  const table = historyTable(schema);
  const tables = sql`
CREATE TABLE IF NOT EXISTS ${table} (id serial PRIMARY KEY, version text NOT NULL UNIQUE, name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT pg_catalog.now(), checksum text NOT NULL, execution_time_ms integer);
CREATE INDEX IF NOT EXISTS idx_schema_migrations_applied_at ON ${table} (applied_at DESC);
${new SqlText(withOwnershipCheck(schema, embeddedFile(BOOKKEEPING)))}`;
  // The schema is asked for first, since even CREATE SCHEMA IF NOT EXISTS needs the right to create one.
  const create = sql`
BEGIN
  IF pg_catalog.to_regnamespace(${identifier(schema).text}) IS NULL THEN CREATE SCHEMA ${
    identifier(schema)
  }; END IF;
  PERFORM pg_catalog.set_config('search_path', ${schemaPath(schema)}, true);
  EXECUTE ${tables.text};
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
END`;
  return sql`DO ${create.text};`;
}

const schemaPath = (schema: string): string => `${identifier(schema).text}, pg_temp`;

/** The search_path of PipeWeave's own migrations: PostgreSQL's names, and those of its schema. */
export function schemaAlone(schema: string): SqlText {
  return sql`SET LOCAL search_path = ${identifier(schema)}, pg_temp;`;
}

/** Stands in PipeWeave's own migrations in front of the first statement that runs triggers. */
const OWNERSHIP_CHECK = /^-- pipeweave: ownership is checked here.*$/m;

/**
 * One of PipeWeave's own migrations, with the check of ownership where the file says so: \`IF NOT EXISTS\` may have left
 * alone what somebody made after the check in front of the migration.
 */
export function withOwnershipCheck(schema: string, text: string): string {
  const check = sequence([
    ...OWN_SQL,
    assertTrusted(schema, [], "own"),
    schemaAlone(schema),
  ]);
  return text.replace(OWNERSHIP_CHECK, () => check.text);
}

/** What a guard makes sure of. */
export interface GuardTerms {
  /** Key of the migrators' advisory lock. */
  readonly key: bigint;
  /** Must not be in the history. */
  readonly version: string;
  /** Must be in the history; undefined for the first migration. */
  readonly predecessor: string | undefined;
  /** Whether the history, and what is beside it, was there when it was read. */
  readonly complete: boolean;
  /** Whether it is to run outside a transaction; otherwise none of it may have run already. */
  readonly outside: boolean;
}

/**
 * The guard: makes what the engine keeps where it is missing, takes the turn of all migrators until the transaction
 * ends, without waiting for it, and then makes sure that nobody holds the lease and that this migration is the next one.
 * Raises one of {@linkcode GUARD} otherwise. Since it runs in the migration's own transaction, nothing is left behind
 * when the client dies.
 */
export function guard(
  schema: string,
  { key, version, predecessor, complete, outside }: GuardTerms,
): SqlText {
  const call = sql`${identifier(schema)}.migration_guard(${schema}::text, ${
    String(key)
  }::bigint, ${version}::text, ${predecessor ?? null}::text, ${outside})`;
  if (complete) return sql`SELECT ${call};`;
  // Something was missing, but by now another migrator may have made it.
  const table = historyTable(schema);
  const needsOne = sql`${predecessor !== undefined}`;
  const missing = predecessor === undefined
    ? sql`false`
    : sql`NOT EXISTS (SELECT FROM ${table} WHERE pg_catalog.ltrim(version, '0') = pg_catalog.ltrim(${predecessor}, '0'))`;
  // The call at the end is the guard itself: without advisory locks it is to make the tables that another migrator is
  // waited for, and what was looked at before that is past.
  const body = sql`
DECLARE refusal text;
BEGIN
  ${takeAdvisoryLock(key)}
  IF refusal IS NOT NULL THEN NULL;
  ELSIF pg_catalog.to_regclass(${table.text}) IS NULL THEN
    IF ${needsOne} THEN refusal := ${GUARD.predecessorMissing}; END IF;
  ELSIF EXISTS (SELECT FROM ${table} WHERE pg_catalog.ltrim(version, '0') = pg_catalog.ltrim(${version}, '0')) THEN refusal := ${GUARD.applied};
  ELSIF ${missing} THEN refusal := ${GUARD.predecessorMissing}; END IF;
  IF refusal IS NOT NULL THEN RAISE EXCEPTION 'refused by the guard' USING ERRCODE = refusal; END IF;
  IF pg_catalog.to_regclass(${table.text}) IS NULL OR NOT ${isComplete(schema)} THEN
    EXECUTE ${createBookkeeping(schema).text};
  END IF;
  PERFORM ${call};
END`;
  return sql`DO ${body.text};`;
}

/** Whether all that the engine keeps is there: its functions are made last. An earlier build of 2.0.0 had not all of them. */
function isComplete(schema: string): SqlText {
  const guard = `${identifier(schema).text}.migration_guard(text,bigint,text,text,boolean)`;
  return sql`(pg_catalog.to_regprocedure(${guard}) IS NOT NULL AND pg_catalog.to_regprocedure(${
    turnSignature(schema)
  }) IS NOT NULL)`;
}

function turnSignature(schema: string): string {
  return `${identifier(schema).text}.migration_take_turn(text,bigint,boolean)`;
}

/**
 * Statements of a block with a variable `refusal` that take the advisory lock of all migrators, before there is a lease
 * to lock. Where an engine has none, those who make the same tables wait for each other.
 */
function takeAdvisoryLock(key: bigint): SqlText {
  return sql`
  BEGIN
    IF NOT pg_catalog.pg_try_advisory_xact_lock(${
    String(key)
  }::bigint) THEN refusal := ${GUARD.locked}; END IF;
  EXCEPTION WHEN feature_not_supported OR undefined_function OR insufficient_privilege THEN NULL;
  END;`;
}

/** Records a migration and logs it, in its own transaction; returns the row. */
export function recordMigration(
  schema: string,
  migration: Pick<Migration, "version" | "name" | "checksum" | "source">,
  executionTimeMs: SqlText,
  { action, actor, reason, details = {} }: Omit<LogEntry, "version" | "name" | "outcome">,
): SqlText {
  const { version, name, checksum } = migration;
  return sql`
SELECT applied_at, execution_time_ms FROM ${identifier(schema)}.record_migration(
  ${schema}::text, ${
    setOf(migration)
  }::text, ${version}::text, ${name}::text, ${checksum}::text, ${executionTimeMs}::integer, ${action}::text,
  ${actor.osUser}::text, ${actor.host}::text, ${actor.tool}::text, ${reason ?? null}::text,
  ${JSON.stringify(details)}::jsonb);`;
}

/** Tables that the engine writes to beside a migration's own work. */
export const ENGINE_TABLES: readonly string[] = [
  ...[TABLE, "migration_log", "migration_journal", "migration_lease"],
];

/**
 * An expression that keeps others from adding triggers and foreign keys to {@linkcode ENGINE_TABLES} until the transaction
 * ends, and fails where a role that is not trusted has some there.
 */
export function lockEngineTables(schema: string): SqlText {
  return sql`${identifier(schema)}.migration_lock_tables(${schema}::text)`;
}

/** Errors of {@linkcode guardRollback}. */
export const ROLLBACK_GUARD = { locked: GUARD.locked, notLast: "PW006" } as const;

/** The guard of a roll-back: as {@linkcode guard}, for the migration that was applied last. */
export function guardRollback(schema: string, key: bigint, version: string): SqlText {
  const body = sql`
DECLARE refusal text;
BEGIN
  PERFORM ${lockEngineTables(schema)};
  IF NOT ${identifier(schema)}.migration_take_turn(${schema}::text, ${String(key)}::bigint, false) THEN
    refusal := ${GUARD.locked};
  ELSIF ${version} IS DISTINCT FROM (SELECT version FROM ${
    historyTable(schema)
  } ORDER BY id DESC LIMIT 1) THEN refusal := ${ROLLBACK_GUARD.notLast};
  ELSIF EXISTS (SELECT FROM ${
    leaseTable(schema)
  } WHERE expires_at > pg_catalog.clock_timestamp()) THEN refusal := ${GUARD.locked}; END IF;
  IF refusal IS NOT NULL THEN RAISE EXCEPTION 'refused by the guard' USING ERRCODE = refusal; END IF;
END`;
  return sql`DO ${body.text};`;
}

/** Takes a migration out of the history and logs it, in the transaction that undoes it. */
export function unrecordMigration(schema: string, version: string, entry: LogEntry): SqlText {
  return sql`
DELETE FROM ${historyTable(schema)} WHERE version = ${version};
${writeLog(schema, entry, SINCE_MESSAGE_MS)} RETURNING duration_ms;`;
}

/** Milliseconds since the message came in, which is when the migration began. */
export const SINCE_MESSAGE_MS =
  sql`pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp()) * 1000)::integer`;

/**
 * Takes the lock of all migrators for a change of the history by hand; waits for it as for any lock, since nobody waits
 * behind it who could not. Fails where somebody holds the lease.
 */
export function lockForHistory(schema: string): SqlText {
  const lease = leaseTable(schema);
  const key = lockKey(schema);
  const body = sql`
DECLARE refusal text;
BEGIN
  IF pg_catalog.to_regprocedure(${turnSignature(schema)}) IS NOT NULL THEN
    PERFORM ${identifier(schema)}.migration_take_turn(${schema}::text, ${String(key)}::bigint, true);
  ELSE
    ${takeAdvisoryLock(key)}
    IF refusal IS NOT NULL THEN
      RAISE EXCEPTION 'a migration is under way' USING ERRCODE = refusal, HINT = 'Wait until it is done.';
    END IF;
  END IF;
  IF pg_catalog.to_regclass(${lease.text}) IS NOT NULL THEN
    IF EXISTS (SELECT FROM ${lease} WHERE expires_at > pg_catalog.clock_timestamp()) THEN
      RAISE EXCEPTION 'a migration is under way' USING ERRCODE = ${GUARD.locked}, HINT = 'Wait until it is done.';
    END IF;
  END IF;
END`;
  return sql`DO ${body.text};`;
}
