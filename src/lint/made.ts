/**
 * What a file makes, known before its statements are looked at.
 *
 * @module
 */

import type { Statement } from "../sql/statements.ts";
import { type Fields, type TableName, tableOf } from "../sql/tree.ts";
import { droppedNames } from "./locks.ts";
import type { Measure } from "./measure.ts";
import type { Memory } from "./memory.ts";

/** Relations of which a statement says that they may be there, and that neither the database has nor the files before this one. */
export async function absentOf(
  statements: readonly Statement[],
  memory: Memory,
  measure: Measure,
): Promise<readonly TableName[]> {
  const absent: TableName[] = [];
  for (const { node: { type, fields } } of statements) {
    for (const relation of inDoubt(type, fields)) {
      if (!memory.hasMade(relation) && !await measure.has(relation, "table")) absent.push(relation);
    }
  }
  return absent;
}

/** Relations that a file makes again after it has dropped or renamed them. */
export function remadeIn(statements: readonly Statement[]): readonly TableName[] {
  return statements.flatMap(({ node: { type, fields } }) => {
    const made = type === "ViewStmt"
      ? tableOf(fields["view"])
      : type === "CreateTableAsStmt"
      ? tableOf((fields["into"] as Fields | undefined)?.["rel"])
      : undefined;
    return made ? [made] : [];
  });
}

/** Relations that a statement makes, replaces or drops, if they are there or not. */
function inDoubt(type: string, fields: Fields): readonly TableName[] {
  const made = (rangeVar: unknown) => tableOf(rangeVar) ?? [];
  switch (type) {
    case "CreateStmt":
      return fields["if_not_exists"] ? [made(fields["relation"])].flat() : [];
    case "CreateTableAsStmt":
      return fields["if_not_exists"] ? [made((fields["into"] as Fields)["rel"])].flat() : [];
    case "ViewStmt":
      return fields["replace"] ? [made(fields["view"])].flat() : [];
    case "DropStmt":
      return fields["missing_ok"] && /TABLE|VIEW/.test(String(fields["removeType"]))
        ? droppedNames(fields)
        : [];
    default:
      return [];
  }
}
