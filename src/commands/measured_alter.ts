/**
 * Asks the database what an ALTER TABLE costs: it is run on an empty copy of the table, and what became of the copy's
 * files tells whether the table would be rewritten, read through, or its indexes built anew. PostgreSQL decides that by
 * types, functions, domains and constraints, and not by rows.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { identifier, sql } from "../database/sql.ts";
import type { AlterEffect, Measure } from "../lint/measure.ts";
import type { TableName } from "../sql/tree.ts";

/** How long the copy may wait for the table, in milliseconds. */
const LOCK_TIMEOUT_MS = 1000;

/** An identifier, quoted or not, and one of a schema before it. */
const NAME =
  /^(?:"(?:[^"]|"")+"|[\p{L}_][\p{L}\p{N}_$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[\p{L}_][\p{L}\p{N}_$]*))?/u;

/** Returns a measure on a session's database; it tells nothing where the table or leave for a copy is missing. */
export function measureOn(session: Session): Measure {
  const alter: Measure["alter"] = async (text, at, table) => {
    const name = NAME.exec(text.slice(at))?.[0];
    if (name === undefined) return undefined;
    const changed = `${text.slice(0, at)}pg_temp.${identifier(table.name).text}${
      text.slice(at + name.length)
    }`;
    try {
      const sets = await session.send(messageFor(table, changed));
      return effectOf(
        sets.flat().filter((row) => "pipeweave_files" in row).map((row) => row["pipeweave_files"]),
      );
    } catch {
      // Only better knowledge: without it the statement is judged by its text.
      return undefined;
    }
  };
  const has: Measure["has"] = async ({ schema, name }, kind) => {
    const quoted = [schema, name].flatMap((part) => part === undefined ? [] : [identifier(part).text]).join(
      ".",
    );
    const statement = sql`SELECT pg_catalog.to_regclass(${quoted}) IS NOT NULL AS found;`;
    const [[row] = []] = await session.send(statement.text).catch(() => []);
    return row === undefined ? kind === "table" : row["found"] === true;
  };
  const rows: Measure["rows"] = async ({ schema, name }) => {
    const quoted = [schema, name].flatMap((part) => part === undefined ? [] : [identifier(part).text]).join(
      ".",
    );
    const statement = sql`SELECT reltuples::float8 AS rows FROM pg_catalog.pg_class
      WHERE oid = pg_catalog.to_regclass(${quoted}) AND reltuples >= 0;`;
    const [[row] = []] = await session.send(statement.text).catch(() => []);
    return row && Number(row["rows"]);
  };
  return { alter, has, rows };
}

function messageFor({ schema, name }: TableName, alter: string): string {
  const copy = identifier(name).text;
  const original = schema === undefined ? copy : `${identifier(schema).text}.${copy}`;
  const look = `SELECT (SELECT pg_catalog.json_build_object('heap', pg_catalog.pg_relation_filenode(c.oid),
    'scans', pg_catalog.pg_stat_get_xact_numscans(c.oid),
    'indexes', (SELECT pg_catalog.json_object_agg(i.relname, pg_catalog.pg_relation_filenode(i.oid)) FROM pg_catalog.pg_index x
                  JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid))
    FROM pg_catalog.pg_class c WHERE c.oid = 'pg_temp.${
    copy.replaceAll("'", "''")
  }'::pg_catalog.regclass) AS pipeweave_files;`;
  return `SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS};
SET LOCAL client_min_messages = error;
CREATE TEMPORARY TABLE ${copy} (LIKE ${original} INCLUDING ALL);
${look}
${alter};
${look}
DROP TABLE pg_temp.${copy};`;
}

interface Files {
  readonly heap: number;
  readonly scans: number;
  readonly indexes: Readonly<Record<string, number>> | null;
}

function effectOf(looks: readonly unknown[]): AlterEffect | undefined {
  const [before, after] = looks.map((look) =>
    (typeof look === "string" ? JSON.parse(look) : look) as Files | null
  );
  if (!before || !after) return undefined;
  return {
    rewrites: before.heap !== after.heap,
    scans: after.scans > before.scans,
    rebuilds: Object.entries(before.indexes ?? {}).some(([name, file]) =>
      after.indexes?.[name] !== undefined && after.indexes[name] !== file
    ),
  };
}
