/**
 * What statements break that are about something else than one table: DROP, types, domains, databases, settings.
 *
 * @module
 */

import { type Fields, nameOf, nodeOf, nodesOf, type TableName, tableOf, written } from "../sql/tree.ts";
import type { Hit } from "./hit.ts";
import { droppedNames } from "./locks.ts";

/** What is known of a file where a statement stands. */
export interface ObjectContext {
  readonly isNew: (table: TableName) => boolean;
  readonly isNewIndex: (index: TableName) => boolean;
  /** Whether the file makes a relation of this name, before or after. */
  readonly isRemade: (table: TableName) => boolean;
}

/** What a statement breaks that is about something else than one table. */
export function* hitsOfObject(type: string, fields: Fields, context: ObjectContext): Generator<Hit> {
  switch (type) {
    case "DropStmt":
      return yield* hitsOfDrop(fields, context);
    case "DropOwnedStmt":
      yield { rule: "drop-cascade", message: "drops all that a role owns" };
      return;
    case "DropdbStmt":
      yield { rule: "drop-database", message: `drops the database ${fields["dbname"]}` };
      return;
    case "AlterEnumStmt":
      if (fields["oldVal"] !== undefined) {
        yield { rule: "rename-enum-value", message: `renames the value ${fields["oldVal"]} of an enum` };
      }
      return;
    case "AlterDomainStmt": {
      const kind = String(fields["subtype"]);
      const isChecked = fields["def"] === undefined ||
        !(nodeOf(fields["def"])?.fields ?? {})["skip_validation"];
      // C: ADD CONSTRAINT, O: SET NOT NULL, V: VALIDATE CONSTRAINT (pg's AlterDomainStmt).
      if (/^(?:AD_)?(?:C|O|V|AddConstraint|SetNotNull|ValidateConstraint)$/.test(kind) && isChecked) {
        yield {
          rule: "change-domain",
          message: `checks every column of the domain ${written(nameOf(fields["typeName"]))}`,
        };
      }
      return;
    }
    case "VariableSetStmt":
      if (
        ["lock_timeout", "statement_timeout"].includes(String(fields["name"])) && isZero(fields["args"])
      ) {
        yield { rule: "lock-timeout-off", message: `switches ${fields["name"]} off` };
      }
      return;
  }
}

function* hitsOfDrop(fields: Fields, { isNew, isNewIndex, isRemade }: ObjectContext): Generator<Hit> {
  const what = String(fields["removeType"]);
  const names = droppedNames(fields);
  if (what === "OBJECT_INDEX") {
    const old = names.filter((name) => !isNewIndex(name));
    if (!fields["concurrent"] && old.length > 0) {
      const message = `drops the index ${old.map(written).join(", ")} without CONCURRENTLY`;
      yield { rule: "drop-index-not-concurrently", message };
    }
    return;
  }
  if (
    ["OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE", "OBJECT_SCHEMA"].includes(
      what,
    )
  ) {
    const isView = what === "OBJECT_VIEW" || what === "OBJECT_MATVIEW";
    const old = names.filter((name) => !isNew(name))
      // Nobody sees a view missing that the same transaction makes again.
      .filter((name) => !isView || !isRemade(name));
    if (old.length > 0) {
      yield {
        rule: isView ? "drop-view" : "drop-table",
        message: `drops ${old.map(written).join(", ")}`,
      };
    }
  } else if (fields["behavior"] === "DROP_CASCADE" && CASCADING.has(what)) {
    yield {
      rule: "drop-cascade",
      message: `drops ${names.map(written).join(", ")} and all that depends on it, columns among it`,
    };
  }
}
/** Objects that columns, defaults and views may depend on. */
const CASCADING = new Set([
  ...["OBJECT_TYPE", "OBJECT_DOMAIN", "OBJECT_EXTENSION", "OBJECT_SEQUENCE", "OBJECT_FUNCTION"],
  ...["OBJECT_PROCEDURE", "OBJECT_ROUTINE", "OBJECT_AGGREGATE", "OBJECT_OPERATOR", "OBJECT_COLLATION"],
]);

/** ALTER TYPE of a composite type: CASCADE goes on to the tables that are made of it. */
export function* hitsOfCompositeType(fields: Fields): Generator<Hit> {
  for (const { fields: command } of nodesOf(fields["cmds"])) {
    if (command["behavior"] !== "DROP_CASCADE") continue;
    yield {
      rule: "rewrite-table",
      message: `changes the tables of the type ${written(tableOf(fields["relation"])!)}`,
    };
  }
}

function isZero(args: unknown): boolean {
  return nodesOf(args).some(({ fields }) => {
    const text = JSON.stringify(fields);
    return /"ival":\{\}|"ival":\{"ival":0\}|"sval":"0[a-z]*"/.test(text);
  });
}
