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
  ...["schema_migrations_id_seq", "migration_log_id_seq", "maintenance_log_id_seq"],
]);

/** Words by which a DO block changes the engine's tables; in functions they may mean anything. */
const CHANGED_IN_BLOCK =
  /\b(?:insert\s+into|update|delete\s+from|truncate|(?:drop|alter)\s+(?:table|sequence))\b[^;]*?\b(?:schema_migrations|migration_log|migration_journal|migration_lease)(?:_id_seq)?\b/i;

/** Statements that change the table in their field `relation`. */
const CHANGING: ReadonlySet<string> = new Set([
  ...["InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "AlterTableStmt", "RenameStmt"],
  ...["AlterObjectSchemaStmt", "CreateTrigStmt", "RuleStmt"],
]);

/**
 * The first of PipeWeave's tables, or its schema, that a statement changes. A name without a schema means the table where
 * that is in `public`, as it is unless somebody asked for a schema of its own; then it is most likely the user's.
 *
 * @param schema of PipeWeave's tables
 * @param path the search_path that the file has set by then; undefined where it has set none
 */
export function ownTableChangedBy(
  { type, fields }: Node,
  schema: string,
  path: string | undefined,
): string | undefined {
  const isInPath = path === undefined ? schema === "public" : namesSchema(path, schema);
  const isOurs = ({ schema: given, name }: TableName) =>
    BOOKS.has(name) && (given === schema || given === undefined && isInPath);
  if (type === "DoStmt" && isInPath && CHANGED_IN_BLOCK.test(JSON.stringify(fields["args"] ?? ""))) {
    return "a table";
  }
  for (const node of descendants({ [type]: fields })) {
    const found = changedBy(node).find(isOurs);
    if (found) return found.name;
  }
  const isOfSchema = type === "DropStmt" && fields["removeType"] === "OBJECT_SCHEMA" &&
      nodesOf(fields["objects"]).some((one) => one.fields["sval"] === schema) ||
    type === "RenameStmt" && fields["renameType"] === "OBJECT_SCHEMA" && fields["subname"] === schema;
  return isOfSchema ? `schema ${schema}` : undefined;
}

/** Whether a search_path leads to a schema. */
function namesSchema(path: string, schema: string): boolean {
  return path.split(",").some((name) => name.trim().replace(/^["']|["']$/g, "") === schema);
}

/** The search_path that a statement sets, as it is written. */
export function pathSetBy({ type, fields }: Node): string | undefined {
  if (type === "VariableSetStmt" && fields["name"] === "search_path") {
    return nodesOf(fields["args"]).map((one) =>
      String((one.fields["sval"] as { sval?: string } | undefined)?.sval ?? "")
    )
      .join(",");
  }
  if (type !== "SelectStmt") return undefined;
  for (const call of descendants(fields["targetList"])) {
    if (
      call.type !== "FuncCall" || nodesOf(call.fields["funcname"]).at(-1)?.fields["sval"] !== "set_config"
    ) continue;
    const [name, value] = nodesOf(call.fields["args"]).map((one) =>
      (one.fields["sval"] as { sval?: string } | undefined)?.sval
    );
    if (name === "search_path") return value ?? "";
  }
  return undefined;
}

function changedBy({ type, fields }: Node): readonly TableName[] {
  if (type === "CreateStmt") {
    return [fields["relation"], ...nodesOf(fields["inhRelations"]).map((one) => one.fields)]
      .map(tableOf).filter((name) => name !== undefined);
  }
  if (type === "AlterTableCmd" && /Inherit/.test(String(fields["subtype"]))) {
    return nodesOf([fields["def"]]).map((one) => tableOf(one.fields)).filter((name) => name !== undefined);
  }
  if (type === "AlterSeqStmt") return [tableOf(fields["sequence"])].filter((name) => name !== undefined);
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
    return /_(?:TABLE|VIEW|MATVIEW|FOREIGN_TABLE|SEQUENCE)$/.test(kind)
      ? nameOf(items)
      : { schema: undefined, name: "" };
  }
  return nameOf(nodesOf(items).slice(0, -1).map(({ type, fields }) => ({ [type]: fields })));
}
