/**
 * `migration_journal`: which statements of a migration outside a transaction are done, so that the run after a crash goes
 * on at the first that is not.
 *
 * @module
 */

import { identifier, sql, type SqlText } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";
import { type Row, type Session, StatementError } from "../database/session.ts";
import { checksumOf } from "../migrations/checksum.ts";
import type { Migration } from "../migrations/migration.ts";
import type { Statement } from "../sql/statements.ts";
import type { State } from "./trace.ts";

/** What is known of one statement. */
export interface JournalRow {
  /** As the file had it when the statement was begun. */
  readonly version: string;
  /** Counted from 1. */
  readonly statement: number;
  /** {@linkcode hashOf} the statement as it was begun. */
  readonly hash: string;
  readonly finished: boolean;
  /** What was seen before it was begun, where it leaves a trace in the catalog. */
  readonly before: State | null;
}

/** Whether a line is of a version, however that is written: versions are numbers. */
const isOf = (version: string) => sql`ltrim(version, '0') = ltrim(${version}, '0')`;

const journalTable = (schema: string) => sql`${identifier(schema)}.migration_journal`;

/** SHA-256 of a statement's text, white space and comments in it included, those around it not. */
export function hashOf({ sql: text }: Pick<Migration, "sql">, { start, end }: Statement): string {
  return checksumOf(text.slice(start, end).trim());
}

/** What earlier runs of a migration did, by number. */
export type Journal = ReadonlyMap<number, JournalRow>;

/** A query for the journal of a migration; {@linkcode journalOf} reads its rows. */
export function selectJournal(schema: string, version: string): SqlText {
  return sql`SELECT version, statement, hash, finished_at IS NOT NULL AS finished, before
        FROM ${journalTable(schema)} WHERE ${isOf(version)} ORDER BY statement;`;
}

/** The journal that the rows of {@linkcode selectJournal} are. */
export function journalOf(rows: readonly Row[]): Journal {
  return new Map(rows.map((row) => [row["statement"] as number, {
    version: String(row["version"]),
    statement: row["statement"] as number,
    hash: String(row["hash"]),
    finished: row["finished"] === true,
    before: row["before"] as State | null,
  }]));
}

/** Reads what earlier runs of a migration did, by number. */
export async function readJournal(session: Session, version: string): Promise<Journal> {
  const { schema } = session.settings;
  try {
    const [rows = []] = await session.transaction(
      sql`${assertTrusted(schema, ["migration_journal"], "read")} ${selectJournal(schema, version)}`,
    );
    return journalOf(rows);
  } catch (error) {
    if (error instanceof StatementError && error.details.sqlstate === "42P01") return new Map();
    throw error;
  }
}

/** Which statement a line of the journal is about. */
export interface JournalKey {
  readonly version: string;
  readonly name: string;
  /** Counted from 1. */
  readonly statement: number;
  readonly hash: string;
  readonly fence: string;
}

/** Notes that a statement begins. */
export function begin(schema: string, key: JournalKey, before: State | null): SqlText {
  return note(schema, key, before, sql`NULL`);
}

/** Notes that a statement is done. */
export function finish(schema: string, key: JournalKey): SqlText {
  return note(schema, key, null, sql`pg_catalog.clock_timestamp()`);
}

function note(
  schema: string,
  { version, name, statement, hash, fence }: JournalKey,
  before: State | null,
  finishedAt: SqlText,
): SqlText {
  return sql`
INSERT INTO ${journalTable(schema)} AS j (version, name, statement, hash, fence, before, finished_at)
VALUES (${version}, ${name}, ${statement}, ${hash}, ${fence}::bigint, ${
    before && JSON.stringify(before)
  }::jsonb, ${finishedAt})
ON CONFLICT (version, statement) DO UPDATE
   SET name = excluded.name, hash = excluded.hash, fence = excluded.fence, before = CASE WHEN excluded.finished_at IS NULL THEN excluded.before ELSE j.before END,
       finished_at = excluded.finished_at;`;
}

/** Takes it back that a statement was begun. */
export function unbegin(schema: string, version: string): SqlText {
  return sql`DELETE FROM ${journalTable(schema)} WHERE ${isOf(version)} AND finished_at IS NULL;`;
}

/** Takes a statement whose end nobody noted to be done. */
export function takeAsDone(schema: string, version: string): SqlText {
  return sql`UPDATE ${journalTable(schema)} SET finished_at = pg_catalog.clock_timestamp() WHERE ${
    isOf(version)
  } AND finished_at IS NULL;`;
}

/** Takes a statement that has run to be another one: the file's now. */
export function rehash(schema: string, version: string, statement: number, hash: string): SqlText {
  return sql`UPDATE ${journalTable(schema)} SET hash = ${hash} WHERE ${
    isOf(version)
  } AND statement = ${statement};`;
}

/** Removes what is noted of a migration: the history has it now. */
export function forget(schema: string, version: string): SqlText {
  return sql`DELETE FROM ${journalTable(schema)} WHERE ${isOf(version)};`;
}
