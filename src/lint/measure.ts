/**
 * What a database tells of an ALTER TABLE, where there is one to ask.
 *
 * @module
 */

import { type RuleId } from "../migrations/allow.ts";
import type { Node } from "../sql/statements.ts";
import { nameOf, nodeOf, nodesOf, type TableName, tableOf, written } from "../sql/tree.ts";
import type { Hit } from "./hit.ts";
import { foreignKeysIn } from "./indexes.ts";
import type { Memory } from "./memory.ts";
import { ruleOf } from "./rules.ts";

/** What an ALTER TABLE does to its table. */
export interface AlterEffect {
  readonly rewrites: boolean;
  /** Whether it reads the table through. */
  readonly scans: boolean;
  /** Whether it builds indexes anew that were there. */
  readonly rebuilds: boolean;
}

/** A database that can be asked. */
export interface Measure {
  /** About how many rows a table has, as its last ANALYZE saw it; undefined where nobody knows. */
  readonly rows: (table: TableName) => Promise<number | undefined>;
  /**
   * Finds out what an ALTER TABLE does.
   *
   * @param text the statement
   * @param at where the table's name begins in it, in UTF-16 units
   * @returns undefined where it cannot be told
   */
  readonly alter: (text: string, at: number, table: TableName) => Promise<AlterEffect | undefined>;
  /** Whether a table or an index is there; where it cannot be told, that a table is and an index is not. */
  readonly has: (relation: TableName, kind: "table" | "index") => Promise<boolean>;
  /** Finds out what it does to make the columns of an index NOT NULL; undefined where it cannot be told. */
  readonly notNull: (table: TableName, index: TableName) => Promise<AlterEffect | undefined>;
  /** Whether an index of a table begins with these columns, in any order. */
  readonly isIndexed: (table: TableName, columns: readonly string[]) => Promise<boolean>;
}

/** Rules that ask for work which some statements of the kind do not do. */
const MEASURED: ReadonlySet<RuleId> = new Set<RuleId>([
  ...["add-check", "add-column-volatile-default", "add-generated-column", "change-column-type"] as const,
  ...["rewrite-table", "set-not-null"] as const,
]);

/** Types that everybody knows; a column of another one may be of a domain. */
const PLAIN =
  /^(?:int[248]|bool|text|varchar|bpchar|numeric|float[48]|timestamptz?|timetz?|date|interval|uuid|jsonb?|bytea|inet|cidr|xml|serial\d?|bigserial|smallserial|bit|varbit|name|oid|money|tsvector|\w+range|point)$/;

/**
 * Says of what keeps others waiting how many rows it is about; on a small table nobody waits for long.
 *
 * @param small rows up to which a table is small; 0: none is
 */
export async function sized(
  hits: readonly Hit[],
  { type, fields }: Node,
  small: number,
  measure: Measure,
): Promise<readonly Hit[]> {
  const table = tableOf(fields["relation"]);
  if (!table || !SIZED.has(type) || !hits.some(({ blocks }) => blocks !== "nobody")) return hits;
  const rows = await measure.rows(table);
  if (rows === undefined) return hits;
  return hits.map((hit) => {
    const isWork = ruleOf(hit.rule).blocks !== "nobody" && hit.blocks !== "nobody" &&
      hit.rule !== "work-under-lock";
    if (!isWork) return hit;
    const message = `${hit.message} (about ${rows} rows)`;
    return small > 0 && rows <= small ? { ...hit, message, blocks: "nobody" } : { ...hit, message };
  });
}

/** Statements whose work grows with the table that they name. */
const SIZED = new Set([
  "AlterTableStmt",
  "IndexStmt",
  "UpdateStmt",
  "DeleteStmt",
  "ClusterStmt",
  "RefreshMatViewStmt",
]);

/** What stands before the table's name; with a comment in it nobody is asked. */
const BEFORE_NAME = /^ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?/i;

/** Corrects what a statement's text tells by what a database does with it. */
export async function corrected(
  told: readonly Hit[],
  node: Node,
  text: string,
  measure: Measure,
  memory: Memory,
): Promise<readonly Hit[]> {
  const hits = await withoutIndexed(told, node, measure);
  if (node.type === "IndexStmt" && node.fields["if_not_exists"] && node.fields["idxname"]) {
    const index = { schema: tableOf(node.fields["relation"])?.schema, name: String(node.fields["idxname"]) };
    // One that is there stays as it is.
    return !memory.hasDroppedIndex(index) && await measure.has(index, "index")
      ? hits.filter(({ rule }) => rule !== "index-not-concurrently")
      : hits;
  }
  if (node.type !== "AlterTableStmt" || node.fields["objtype"] !== "OBJECT_TABLE") return hits;
  const isDoubted = hits.some(({ rule }) => MEASURED.has(rule)) ||
    nodesOf(node.fields["cmds"]).some(addsOtherType);
  if (!isDoubted) return hits;
  const table = tableOf(node.fields["relation"])!;
  const key = nodesOf(node.fields["cmds"]).map(({ fields }) => nodeOf(fields["def"])?.fields ?? {})
    .find((def) => def["contype"] === "CONSTR_PRIMARY" && def["indexname"] !== undefined);
  // The copy's indexes have other names, so what the key does to its columns is asked for.
  if (key) {
    const index = { schema: table.schema, name: String(key["indexname"]) };
    const effect = await measure.notNull(table, index);
    return effect && !effect.scans ? hits.filter(({ rule }) => rule !== "set-not-null") : hits;
  }
  const before = BEFORE_NAME.exec(text)?.[0];
  const effect = before === undefined ? undefined : await measure.alter(text, before.length, table);
  if (!effect) return hits;
  const works = effect.rewrites || effect.scans || effect.rebuilds;
  if (!works) return hits.filter(({ rule }) => !MEASURED.has(rule));
  if (hits.some(({ rule, blocks }) => MEASURED.has(rule) && blocks !== "nobody")) return hits;
  const what = effect.rewrites ? "rewrites" : effect.rebuilds ? "builds indexes anew of" : "reads through";
  return [...hits, {
    rule: "rewrite-table",
    message: `${what} ${written(table)}, as an empty copy of it shows`,
  }];
}

/** Leaves out the foreign keys whose columns a database has an index for. */
async function withoutIndexed(
  hits: readonly Hit[],
  node: Node,
  measure: Measure,
): Promise<readonly Hit[]> {
  if (!hits.some(({ rule }) => rule === "foreign-key-without-index")) return hits;
  const served = new Set<unknown>();
  for (const { table, columns, constraint } of foreignKeysIn(node)) {
    if (await measure.isIndexed(table, columns)) served.add(constraint["location"]);
  }
  return hits.filter(({ rule, at }) => rule !== "foreign-key-without-index" || !served.has(at));
}

function addsOtherType({ fields: command }: Node): boolean {
  if (command["subtype"] !== "AT_AddColumn") return false;
  const type = nodeOf(command["def"])?.fields["typeName"] as { names?: unknown } | undefined;
  return !PLAIN.test(nameOf(type?.names).name);
}
