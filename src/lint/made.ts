/**
 * What a file makes, known before its statements are looked at.
 *
 * @module
 */

import type { Statement } from "../sql/statements.ts";
import { type Fields, type TableName, tableOf } from "../sql/tree.ts";
import type { Measure } from "./measure.ts";
import type { Memory } from "./memory.ts";

/** Tables that CREATE TABLE IF NOT EXISTS will make, since neither the database has them nor the files before this one. */
export async function absentOf(
  statements: readonly Statement[],
  memory: Memory,
  measure: Measure,
): Promise<readonly TableName[]> {
  const absent: TableName[] = [];
  for (const { node: { type, fields } } of statements) {
    if (type !== "CreateStmt" || !fields["if_not_exists"]) continue;
    const table = tableOf(fields["relation"])!;
    if (!memory.hasMade(table) && !await measure.has(table, "table")) absent.push(table);
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
