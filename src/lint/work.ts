/**
 * The work that a statement does, beside what it locks: rows that it reads or changes, and calls whose work nobody knows.
 *
 * @module
 */

import type { Node } from "../sql/statements.ts";
import { descendants, nameOf, nodeOf, nodesOf, type TableName, tableOf, written } from "../sql/tree.ts";
import { isBuiltIn } from "./volatility.ts";

/** Statements that may take as long as a table is large. */
const CHANGES = new Set(["UpdateStmt", "DeleteStmt", "MergeStmt"]);

/**
 * Returns what a statement does that may take long; undefined where it does not.
 *
 * @param isNew whether a relation was made in the file, and is small
 */
export function workOf(
  { type, fields }: Node,
  isNew: (table: TableName) => boolean,
): string | undefined {
  switch (type) {
    case "SelectStmt":
    case "InsertStmt":
    case "UpdateStmt":
    case "DeleteStmt":
    case "MergeStmt":
      return workOfQuery({ type, fields }, isNew);
    case "CreateTableAsStmt":
      if ((fields["into"] as { skipData?: boolean } | undefined)?.skipData) return undefined;
      return workOfQuery(nodeOf(fields["query"]), isNew);
    case "RefreshMatViewStmt": {
      const view = tableOf(fields["relation"])!;
      return fields["skipData"] || isNew(view) ? undefined : `refreshes ${written(view)}`;
    }
    case "CallStmt":
      return `calls ${
        written(nameOf((fields["funccall"] as { funcname?: unknown } | undefined)?.funcname))
      }(), whose work is not known,`;
    case "CopyStmt": {
      const table = tableOf(fields["relation"]);
      if (table && isNew(table)) return undefined;
      return table ? `copies rows ${fields["is_from"] ? "into" : "out of"} ${written(table)}` : "copies rows";
    }
    case "AlterTableStmt": {
      const table = tableOf(fields["relation"]);
      const validates = nodesOf(fields["cmds"]).some(({ fields: { subtype } }) =>
        subtype === "AT_ValidateConstraint"
      );
      return validates && table && !isNew(table) ? `validates rows of ${written(table)}` : undefined;
    }
    default:
      return undefined;
  }
}

function workOfQuery(query: Node | undefined, isNew: (table: TableName) => boolean): string | undefined {
  const nodes = [...descendants(query && { [query.type]: query.fields })];
  const named = new Set(
    nodes.filter(({ type }) => type === "CommonTableExpr").map(({ fields }) => fields["ctename"]),
  );
  const isOld = (table: TableName | undefined): table is TableName =>
    table !== undefined && !isNew(table) && table.schema !== "pg_catalog" &&
    table.schema !== "information_schema" && !(table.schema === undefined && /^pg_/.test(table.name)) &&
    !(table.schema === undefined && named.has(table.name));
  for (const { type, fields } of nodes) {
    if (!CHANGES.has(type)) continue;
    const table = tableOf(fields["relation"]);
    if (isOld(table)) return `changes rows of ${written(table)}`;
  }
  const read = nodes.filter(({ type }) => type === "RangeVar").map(({ fields }) => tableOf(fields)).find(
    isOld,
  );
  if (read) return `reads ${written(read)}`;
  const call = nodes.filter(({ type }) => type === "FuncCall").map(({ fields }) => nameOf(fields["funcname"]))
    .find((name) => !isBuiltIn(name));
  return call && `calls ${written(call)}(), whose work is not known,`;
}

/** Tables of which a statement changes every row: no condition, or one that is always true. Data-changing CTEs are looked at too. */
export function wholeChanges(node: Node): readonly { verb: string; table: TableName }[] {
  return [...descendants({ [node.type]: node.fields })].flatMap(({ type, fields }) => {
    if (type !== "UpdateStmt" && type !== "DeleteStmt") return [];
    // Joined with another table, it changes what that one names.
    if (fields["fromClause"] !== undefined || fields["usingClause"] !== undefined) return [];
    const table = tableOf(fields["relation"]);
    if (!table || !isAlwaysTrue(fields["whereClause"])) return [];
    return [{ verb: type === "UpdateStmt" ? "updates" : "deletes", table }];
  });
}

function isAlwaysTrue(condition: unknown): boolean {
  if (condition === undefined) return true;
  const { type, fields } = nodeOf(condition) ?? { type: "", fields: {} };
  const args = Array.isArray(fields["args"]) ? fields["args"] : [];
  switch (type) {
    case "A_Const":
      return JSON.stringify(fields["boolval"]) === '{"boolval":true}';
    case "BoolExpr":
      if (fields["boolop"] === "AND_EXPR") return args.every(isAlwaysTrue);
      return fields["boolop"] === "OR_EXPR" && (args.some(isAlwaysTrue) || isNullOrNot(args));
    case "A_Expr": {
      const [left, right] = [nodeOf(fields["lexpr"]), nodeOf(fields["rexpr"])];
      return nameOf(fields["name"]).name === "=" && left?.type === "A_Const" && right?.type === "A_Const" &&
        bare(left) === bare(right);
    }
    default:
      return false;
  }
}

/** Whether both `a IS NULL` and `a IS NOT NULL` are among what OR connects. */
function isNullOrNot(args: readonly unknown[]): boolean {
  const tests = args.flatMap((arg) => nodeOf(arg) ?? []).filter(({ type }) => type === "NullTest");
  const of = (kind: string) =>
    tests.filter(({ fields }) => fields["nulltesttype"] === kind).map(({ fields }) => bare(fields["arg"]));
  const nulls = of("IS_NULL");
  return of("IS_NOT_NULL").some((arg) => nulls.includes(arg));
}

/** A part of a tree, without where it stands in the text. */
function bare(value: unknown): string {
  return JSON.stringify(value, (key, part) => key === "location" ? undefined : part);
}
