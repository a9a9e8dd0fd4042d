/**
 * `schema_migrations`: reading it, making it, and the statements that guard and record a migration.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { ConnectionLost, type Row, type Session, StatementError } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { checksumOf } from "./checksum.ts";
import type { Migration } from "./migration.ts";
import type { HistoryRow } from "./plan.ts";

const TABLE = "schema_migrations";

/** Errors of the guard, in a class of SQLSTATEs that PostgreSQL leaves to applications. */
export const GUARD = { locked: "PW001", applied: "PW002", predecessorMissing: "PW003" } as const;

/** The history, as one message reads it. */
export interface History {
  /** Whether the table exists. */
  readonly exists: boolean;
  readonly rows: readonly HistoryRow[];
}

/** `"schema"."schema_migrations"`. */
export function historyTable(schema: string): SqlText {
  return sql`${identifier(schema)}.${identifier(TABLE)}`;
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
      if (!(error instanceof ConnectionLost) || attempt === READ_ATTEMPTS) throw error;
    }
  }
}

const READ_ATTEMPTS = 3;

async function readOnce(session: Session, alongside: SqlText): Promise<History> {
  const { schema } = session.settings;
  try {
    const [rows = []] = await session.transaction(sql`${alongside}
      SELECT version, name, checksum, applied_at, execution_time_ms FROM ${
      historyTable(schema)
    } ORDER BY id;`);
    return { exists: true, rows: rows.map(historyRow) };
  } catch (error) {
    if (!(error instanceof StatementError)) throw error;
    if (error.details.sqlstate === "42P01") return { exists: false, rows: [] };
    if (error.details.sqlstate === "42703") {
      throw new PipeweaveError(
        "integrity",
        "foreign_history",
        `The table ${schema}.${TABLE} is not PipeWeave's: ${error.message}`,
        {
          hint:
            "Another migration tool uses this name; give PipeWeave a schema of its own with --schema <name>.",
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
  };
}

/** The key of the advisory lock that migrators of one schema hold; PostgreSQL keeps such keys per database. */
export async function lockKey(schema: string): Promise<bigint> {
  return BigInt.asIntN(64, BigInt(`0x${(await checksumOf(`pipeweave migrations ${schema}`)).slice(0, 16)}`));
}

/** Makes the schema and the history where they are missing, as migration 000 does. */
export function createHistory(schema: string): SqlText {
  const table = historyTable(schema);
  // Asked first, since even CREATE SCHEMA IF NOT EXISTS needs the right to create one.
  const create = sql`
BEGIN
  IF pg_catalog.to_regnamespace(${identifier(schema).text}) IS NULL THEN CREATE SCHEMA ${
    identifier(schema)
  }; END IF;
END`;
  return sql`
DO ${create.text};
CREATE TABLE IF NOT EXISTS ${table} (id serial PRIMARY KEY, version text NOT NULL UNIQUE, name text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(), checksum text NOT NULL, execution_time_ms integer);
CREATE INDEX IF NOT EXISTS idx_schema_migrations_applied_at ON ${table} (applied_at DESC);
`;
}

/**
 * The guard: takes the lock of all migrators until the transaction ends, without waiting for it, and then makes sure
 * that this migration is the next one. Raises one of {@linkcode GUARD} otherwise. Since it runs in the migration's own
 * transaction, nothing is left behind when the client dies.
 */
export function guard(
  schema: string,
  key: bigint,
  migration: Migration,
  predecessor: string | undefined,
): SqlText {
  const table = historyTable(schema);
  const refuse = (message: string, version: string, code: string) =>
    sql`RAISE EXCEPTION ${message}, ${version} USING ERRCODE = ${code};`;
  const notYet = predecessor === undefined
    ? sql`RETURN;`
    : refuse("migration % has to be applied first", predecessor, GUARD.predecessorMissing);
  const body = sql`
BEGIN
  IF NOT pg_catalog.pg_try_advisory_xact_lock(${String(key)}) THEN
    RAISE EXCEPTION 'another migrator is at work' USING ERRCODE = ${GUARD.locked};
  END IF;
  IF pg_catalog.to_regclass(${table.text}) IS NULL THEN ${notYet} END IF;
  IF EXISTS (SELECT FROM ${table} WHERE version = ${migration.version}) THEN
    ${refuse("migration % is applied already", migration.version, GUARD.applied)}
  END IF;
  IF NOT EXISTS (SELECT FROM ${table} WHERE version = ${predecessor ?? ""}) THEN ${notYet} END IF;
END`;
  return sql`DO ${body.text};`;
}

/** Records a migration in its own transaction; returns the row. */
export function recordMigration(schema: string, { version, name, checksum }: Migration): SqlText {
  return sql`
INSERT INTO ${historyTable(schema)} (version, name, checksum, execution_time_ms)
VALUES (${version}, ${name}, ${checksum},
  pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp()) * 1000))
RETURNING applied_at, execution_time_ms;`;
}
