/**
 * Asks the database what an ALTER TABLE costs: it is run on an empty copy of the table, and what became of the copy's
 * files tells whether the table would be rewritten, read through, or its indexes built anew. PostgreSQL decides that by
 * types, functions, domains and constraints, and not by rows.
 *
 * To copy a table is to run what its owner put into its indexes: only those of a role that the one that connects is, or is
 * a member of, are copied. Names lead where the user's search_path leads; whatever looks at them does not.
 *
 * @module
 */

import { OWN_SQL, type Session, StatementError } from "../database/session.ts";
import { identifier, sequence, sql, type SqlText } from "../database/sql.ts";
import { KEEP_SETTINGS, userSettings } from "../engine/message.ts";
import type { AlterEffect, Measure } from "../lint/measure.ts";
import type { TableName } from "../sql/tree.ts";

/** How long the copy may wait for the table, and the statement on it may take, in milliseconds. */
const LIMITS_MS = { lock: 1000, statement: 5000 } as const;

/** An identifier, quoted or not, and one of a schema before it. */
const NAME =
  /^(?:"(?:[^"]|"")+"|[\p{L}_][\p{L}\p{N}_$]*)(?:\s*\.\s*(?:"(?:[^"]|"")+"|[\p{L}_][\p{L}\p{N}_$]*))?/u;

const BEFORE = "ALTER TABLE ";

/** Returns a measure on a session's database; it tells nothing where the table or leave for a copy is missing. */
export function measureOn(session: Session): Measure {
  /** What a message says; undefined where PostgreSQL refuses it. */
  const asked = async (message: SqlText | string) => {
    try {
      return (await session.send(typeof message === "string" ? message : message.text)).flat();
    } catch (error) {
      // Only better knowledge: without it the statement is judged by its text.
      if (error instanceof StatementError && error.kind !== "interrupted") return [];
      throw error;
    }
  };
  const alter = async (text: string, at: number, table: TableName): Promise<AlterEffect | undefined> => {
    const name = NAME.exec(text.slice(at))?.[0];
    if (name === undefined) return undefined;
    const copy = identifier(table.name).text;
    const rows = await asked(
      messageFor(table, `${text.slice(0, at)}pg_temp.${copy}${text.slice(at + name.length)}`),
    );
    return effectOf(rows.filter((row) => FILES in row).map((row) => row[FILES]));
  };
  return {
    alter,
    has: async (relation, kind) => {
      const [row] = await asked(
        sql`SELECT pg_catalog.to_regclass(${quoted(relation)}) IS NOT NULL AS found;`,
      );
      return row === undefined ? kind === "table" : row["found"] === true;
    },
    notNull: async (table, index) => {
      const columns = await asked(sql`SELECT a.attname::pg_catalog.text AS name FROM pg_catalog.pg_attribute a
        WHERE a.attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(${quoted(index)})::pg_catalog.oid;`);
      if (columns.length === 0) return undefined;
      const commands = columns.map(({ name }) =>
        `ALTER COLUMN ${identifier(String(name)).text} SET NOT NULL`
      );
      return await alter(
        `${BEFORE}${identifier(table.name).text} ${commands.join(", ")}`,
        BEFORE.length,
        table,
      );
    },
    isIndexed: async (table, columns) => {
      const [row] = await asked(sql`SELECT EXISTS (
        SELECT FROM pg_catalog.pg_index i
         WHERE i.indrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(${quoted(table)})::pg_catalog.oid
           AND i.indisvalid AND i.indpred IS NULL AND NOT EXISTS (
             SELECT FROM pg_catalog.json_array_elements_text(${
        JSON.stringify(columns)
      }::pg_catalog.json) wanted(name)
              WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
                WHERE a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                  AND a.attname OPERATOR(pg_catalog.=) wanted.name::pg_catalog.name
                  AND a.attnum OPERATOR(pg_catalog.=) ANY (
                    (i.indkey::pg_catalog.int2[])[0:${columns.length - 1}])))) AS found;`);
      return row?.["found"] === true;
    },
    rows: async (table) => {
      const [row] = await asked(sql`SELECT c.reltuples::pg_catalog.float8 AS rows FROM pg_catalog.pg_class c
        WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(${quoted(table)})::pg_catalog.oid
          AND c.reltuples OPERATOR(pg_catalog.>=) 0::pg_catalog.float4;`);
      return row && Number(row["rows"]);
    },
  };
}

/** A name as `to_regclass` reads it. */
function quoted({ schema, name }: TableName): string {
  return [schema, name].flatMap((part) => part === undefined ? [] : [identifier(part).text]).join(".");
}

/** Name of the column that a look at the copy comes in. */
const FILES = "pipeweave_files";

function messageFor(table: TableName, alter: string): string {
  const copy = identifier(table.name);
  const look =
    sql`SELECT json_build_object('heap', pg_relation_filenode(c.oid), 'scans', pg_stat_get_xact_numscans(c.oid),
    'indexes', (SELECT json_object_agg(i.relname, pg_relation_filenode(i.oid)) FROM pg_index x
                  JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid)) AS ${identifier(FILES)}
    FROM pg_class c WHERE c.oid = ${`pg_temp.${copy.text}`}::regclass;`;
  // Not by pg_has_role, which says that a superuser is a member of every role.
  const makeCopy = sql`
DECLARE
  original oid := nullif(current_setting('pipeweave.original'), '')::oid;
BEGIN
  IF NOT EXISTS (
    WITH RECURSIVE mine (role) AS (
      SELECT oid FROM pg_roles WHERE rolname = current_user
      UNION SELECT m.roleid FROM pg_auth_members m JOIN mine ON m.member = mine.role
    ) SELECT FROM pg_class c JOIN mine ON mine.role = c.relowner WHERE c.oid = original
  ) THEN
    RAISE EXCEPTION 'there is no such table, or its owner is not trusted';
  END IF;
  EXECUTE format('CREATE TEMPORARY TABLE %I (LIKE %s INCLUDING ALL)', ${table.name}, original::regclass);
END`;
  const before: readonly SqlText[] = [
    sql`SET LOCAL lock_timeout = ${LIMITS_MS.lock};`,
    sql`SET LOCAL statement_timeout = ${LIMITS_MS.statement};`,
    sql`SET LOCAL client_min_messages = error;`,
    sql`SELECT pg_catalog.set_config('pipeweave.original',
      coalesce(pg_catalog.to_regclass(${quoted(table)})::pg_catalog.oid::pg_catalog.text, ''), true);`,
    ...KEEP_SETTINGS,
    sql`DO ${makeCopy.text};`,
    look,
    ...userSettings("transaction"),
  ];
  const after = [...OWN_SQL, look, sql`DROP TABLE pg_temp.${copy};`];
  return `${sequence(before).text}\n${alter};\n${sequence(after).text}`;
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
