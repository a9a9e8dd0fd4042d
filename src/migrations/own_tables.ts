/**
 * Files that would change what PipeWeave keeps its books in.
 *
 * @module
 */

import type { Node } from "../sql/statements.ts";
import { descendants, nameOf, nodesOf, type TableName, tableOf } from "../sql/tree.ts";

/** Tables that the engine and the maintenance of tasks keep their books in. */
const BOOKS: ReadonlySet<string> = new Set([
  ...["schema_migrations", "migration_log", "migration_journal", "migration_lease"],
  ...["orchestrator_state", "maintenance_log", "maintenance_accepted_runs", "maintenance_recent_ends"],
  ...["maintenance_held_tasks", "maintenance_deployments"],
]);

/** Statements that change the table in their field `relation`. */
const CHANGING: ReadonlySet<string> = new Set([
  ...["InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "AlterTableStmt", "RenameStmt"],
  ...["AlterObjectSchemaStmt", "CreateStmt", "CreateTrigStmt", "RuleStmt"],
]);

/**
 * The first of PipeWeave's tables, or its schema, that a statement changes. A name without a schema means the table where
 * that is in `public`, as it is unless somebody asked for a schema of its own; then it is most likely the user's.
 *
 * @param schema of PipeWeave's tables
 */
export function ownTableChangedBy({ type, fields }: Node, schema: string): string | undefined {
  const isOurs = ({ schema: given, name }: TableName) =>
    BOOKS.has(name) && (given === schema || given === undefined && schema === "public");
  for (const node of descendants({ [type]: fields })) {
    const found = changedBy(node).find(isOurs);
    if (found) return found.name;
  }
  const isOfSchema = type === "DropStmt" && fields["removeType"] === "OBJECT_SCHEMA" &&
      nodesOf(fields["objects"]).some((one) => one.fields["sval"] === schema) ||
    type === "RenameStmt" && fields["renameType"] === "OBJECT_SCHEMA" && fields["subname"] === schema;
  return isOfSchema ? `schema ${schema}` : undefined;
}

function changedBy({ type, fields }: Node): readonly TableName[] {
  if (CHANGING.has(type)) return [tableOf(fields["relation"])].filter((name) => name !== undefined);
  switch (type) {
    case "CopyStmt":
      return fields["is_from"] === true
        ? [tableOf(fields["relation"])].filter((name) => name !== undefined)
        : [];
    case "CreatePolicyStmt":
    case "AlterPolicyStmt":
      return [tableOf(fields["table"])].filter((name) => name !== undefined);
    case "ViewStmt":
      return [tableOf(fields["view"])].filter((name) => name !== undefined);
    case "TruncateStmt":
      return nodesOf(fields["relations"]).flatMap((one) => tableOf(one.fields) ?? []);
    case "DropStmt":
      return nodesOf(fields["objects"]).map((one) =>
        droppedFrom(String(fields["removeType"]), one.fields["items"])
      );
    default:
      return [];
  }
}

/** What a name in a DROP is about: a table, or the table that a trigger, a rule or a policy is on. */
function droppedFrom(kind: string, items: unknown): TableName {
  if (!/_(?:TRIGGER|RULE|POLICY)$/.test(kind)) {
    return /_(?:TABLE|VIEW|MATVIEW|FOREIGN_TABLE)$/.test(kind)
      ? nameOf(items)
      : { schema: undefined, name: "" };
  }
  return nameOf(nodesOf(items).slice(0, -1).map(({ type, fields }) => ({ [type]: fields })));
}
