/**
 * The tables that hold a target's rows: a row's place (`ctid`) is unique within one table alone, and a partitioned table,
 * or a parent of others, is many.
 *
 * @module
 */

import { type Row, type Session } from "../database/session.ts";
import { identifier, sql, SqlText } from "../database/sql.ts";
import { assertTrusted, type Use } from "../database/trust.ts";

/** Rows of one kind that have to go. */
export interface Target {
  readonly table: string;
  /** The column of time that `condition` is about and an index is on. */
  readonly time: string;
  readonly condition: SqlText;
}

/** One table that holds rows of a target. */
export interface Leaf {
  /** Schema and name, quoted. */
  readonly name: SqlText;
  /** What the name meant when it was looked up. */
  readonly oid: string;
  /** Its triggers, and which version of each: nothing else about it can run a stranger's code while it is the same. */
  readonly triggers: string;
  /** Whether foreign keys refer to it: then a row that goes may run triggers of other tables too. */
  readonly isReferredTo: boolean;
  /** Whether something may keep a row without an error: a trigger before the row is deleted, or a rule. */
  readonly mayKeep: boolean;
  /** Blocks of the table. */
  readonly blocks: number;
  /** Rows that have to go; counted only as far as it decides how they go, unless all of them were to be counted. */
  readonly rows: number;
}

/** What holds a target's rows. */
export interface Leaves {
  readonly leaves: readonly Leaf[];
  /** What holds some too, and is left alone: what it is. */
  readonly leftAlone: readonly string[];
}

/** From so many rows in a block on, reading every block is cheaper than finding them by the index (measured: 4 to 16, by how they lie). */
export const ROWS_WORTH_A_BLOCK = 8;

/** What is no table of rows, by `relkind`. */
const OTHERS: Readonly<Record<string, string>> = {
  v: "a view",
  m: "a materialized view",
  f: "a foreign table",
};

/**
 * Finds the tables of a target, and how much of it each holds.
 *
 * @param use whether the rows are to be counted (`read`) or removed (`change`)
 * @param countAll count every row; otherwise as many as make it worth to read every block, since to count a table costs a
 *   fifth of what it costs to empty it
 * @throws {StatementError} with SQLSTATE 42P01 where there is no such table
 */
export async function findLeaves(
  session: Session,
  { table, condition }: Target,
  use: Use,
  countAll: boolean,
): Promise<Leaves> {
  const { schema } = session.settings;
  const root = sql`${identifier(schema)}.${identifier(table)}`.text;
  const [found = []] = await session.transaction(sql`
      ${assertTrusted(schema, [table], use, { writes: use === "change" ? [table] : [] })}
      WITH RECURSIVE tree (relation) AS (
        SELECT ${root}::regclass::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.relation
          JOIN pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
      )
      SELECT c.oid::regclass::text AS name, c.oid::text AS oid, c.relkind::text AS kind,
             ${triggersOf(sql`c.oid`)} AS triggers,
             EXISTS (SELECT FROM pg_constraint f WHERE f.contype = 'f' AND f.confrelid = c.oid) AS is_referred_to,
             c.relhasrules OR EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal
               AND g.tgenabled <> 'D' AND g.tgtype & 11 = 11) AS may_keep
        FROM tree JOIN pg_class c ON c.oid = tree.relation WHERE c.relkind <> 'p' ORDER BY 1;`);
  const tables = found.filter(({ kind }) => kind === "r");
  const leftAlone = found.filter(({ kind }) => kind !== "r").map(({ name, kind }) =>
    `${name} is ${OTHERS[String(kind)] ?? "no table"}`
  );
  if (tables.length === 0) return { leaves: [], leftAlone };
  const queries = tables.map((row) => extentQuery(nameOf(row), condition, countAll).text);
  const extents = await session.transaction(new SqlText(queries.join("")));
  return {
    leftAlone,
    leaves: tables.map((row, index) => ({
      name: nameOf(row),
      oid: String(row["oid"]),
      triggers: String(row["triggers"]),
      isReferredTo: row["is_referred_to"] as boolean,
      mayKeep: row["may_keep"] as boolean,
      blocks: extents[index]![0]!["blocks"] as number,
      rows: extents[index]![0]!["rows"] as number,
    })),
  };
}

/** A table's triggers as {@linkcode Leaf.triggers} has them. To replace a trigger leaves its `oid`, but not its `xmin`. */
export function triggersOf(oid: SqlText): SqlText {
  return sql`(SELECT coalesce(string_agg(g.oid || ' ' || g.xmin, ',' ORDER BY g.oid), '') FROM pg_trigger g WHERE g.tgrelid = ${oid})`;
}

/** As `regclass` writes it: quoted, and with its schema. */
const nameOf = (row: Row) => new SqlText(String(row["name"]));

function extentQuery(name: SqlText, condition: SqlText, countAll: boolean): SqlText {
  const blocks = sql`(pg_relation_size(${name.text}::regclass) / current_setting('block_size')::bigint)`;
  const some =
    sql`(SELECT FROM ONLY ${name} WHERE ${condition} LIMIT ${ROWS_WORTH_A_BLOCK} * ${blocks}) AS counted`;
  return sql`
      SELECT count(*)::integer AS rows, (SELECT ${blocks}::integer) AS blocks
        FROM ${countAll ? sql`ONLY ${name} WHERE ${condition}` : some};`;
}
