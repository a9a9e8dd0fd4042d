/**
 * What a subcommand of ALTER TABLE breaks on a table that exists.
 *
 * @module
 */

import { type Fields, nameOf, nodeOf, nodesOf, type TableName, tableOf, written } from "../sql/tree.ts";
import type { Hit } from "./hit.ts";
import type { Memory } from "./memory.ts";
import { verdictOn } from "./volatility.ts";

/** What is known of a file where a subcommand stands. */
export interface AlterContext {
  readonly memory: Memory;
  readonly isNew: (table: TableName | undefined) => boolean;
  /** Whether a column was added by this file. */
  readonly isAdded: (table: TableName, column: unknown) => boolean;
  /** Whether a statement before this one keeps others out of the table. */
  readonly isLocked: (table: TableName) => boolean;
}

/** What a subcommand breaks. */
export function* hitsOfCommand(table: TableName, command: Fields, context: AlterContext): Generator<Hit> {
  const name = written(table);
  const { type, fields: def } = nodeOf(command["def"]) ?? { type: "", fields: {} as Fields };
  const column = `${name}.${command["name"] ?? def["colname"]}`;
  switch (command["subtype"]) {
    case "AT_AddColumn":
      return yield* hitsOfColumn(`${name}.${def["colname"]}`, def, context);
    case "AT_AddConstraint":
      if (type === "Constraint") yield* hitsOfConstraint(table, name, def, context);
      return;
    case "AT_SetNotNull":
      if (!context.memory.isProvenNotNull(table, String(command["name"]))) {
        yield { rule: "set-not-null", message: `makes ${column} NOT NULL` };
      }
      return;
    case "AT_AlterColumnType":
      yield { rule: "change-column-type", message: `changes the type of ${column}` };
      return;
    case "AT_SetExpression":
      yield { rule: "add-generated-column", message: `computes ${column} anew for every row` };
      return;
    case "AT_DropColumn":
      if (!context.isAdded(table, command["name"])) {
        yield { rule: "drop-column", message: `drops ${column}` };
      }
      return;
    case "AT_ValidateConstraint":
      if (context.isLocked(table)) {
        yield {
          rule: "validate-in-same-transaction",
          message: `validates ${command["name"]} on ${name} under the lock of a statement before it`,
        };
      }
      return;
    case "AT_EnableRowSecurity":
    case "AT_ForceRowSecurity":
      yield { rule: "row-level-security", message: `switches row level security on for ${name}` };
      return;
    case "AT_SetTableSpace":
    case "AT_SetLogged":
    case "AT_SetUnLogged":
    case "AT_SetAccessMethod":
      yield { rule: "rewrite-table", message: `rewrites ${name}` };
      return;
    case "AT_AttachPartition": {
      const partition = tableOf(def["name"]);
      if (!context.isNew(partition) && !context.memory.isValidated(partition!)) {
        yield { rule: "attach-partition", message: `attaches ${written(partition!)} to ${name}` };
      }
      return;
    }
    case "AT_DetachPartition":
      if (!def["concurrent"]) {
        yield {
          rule: "detach-not-concurrently",
          message: `detaches a partition from ${name} without CONCURRENTLY`,
        };
      }
  }
}

function* hitsOfColumn(column: string, def: Fields, context: AlterContext): Generator<Hit> {
  const constraints = nodesOf(def["constraints"]).map(({ fields }) => fields);
  const of = (kind: string) => constraints.find(({ contype }) => contype === kind);
  const type = nameOf((def["typeName"] as Fields | undefined)?.["names"]);
  const fallback = of("CONSTR_DEFAULT")?.["raw_expr"];
  const generated = of("CONSTR_GENERATED");
  const isSerial = /serial\d?$/.test(type.name);
  const verdict = verdictOn(fallback, context.memory);
  if (isSerial || of("CONSTR_IDENTITY") || verdict !== "the same") {
    const doubt = typeof verdict === "object"
      ? `, unless ${verdict.unknown} is STABLE or IMMUTABLE, which is not known here`
      : "";
    yield {
      rule: "add-column-volatile-default",
      message: `adds ${column} with a value of its own for every row${doubt}`,
    };
  }
  if (context.memory.isCheckedDomain(type)) {
    yield {
      rule: "add-column-volatile-default",
      message: `adds ${column} of the domain ${written(type)}, whose constraints are checked row by row`,
    };
  }
  if (generated && generated["generated_kind"] !== "v") {
    yield { rule: "add-generated-column", message: `adds the stored generated column ${column}` };
  }
  const isRequired = of("CONSTR_NOTNULL") !== undefined || of("CONSTR_PRIMARY") !== undefined;
  if (isRequired && fallback === undefined && !generated && !isSerial && !of("CONSTR_IDENTITY")) {
    yield { rule: "add-required-column", message: `adds ${column}, NOT NULL and without a default` };
  }
  if (type.name === "json") yield { rule: "json-column", message: `adds ${column} as json` };
  for (const constraint of constraints) {
    // A column that is NULL everywhere fulfils every foreign key, and PostgreSQL knows; a CHECK it reads every row for.
    const isEmpty = fallback === undefined && !isSerial && !generated && !of("CONSTR_IDENTITY");
    if (constraint["contype"] === "CONSTR_FOREIGN" && isEmpty) continue;
    if (constraint["contype"] === "CONSTR_NOTNULL") continue;
    yield* hitsOfConstraint(undefined, column, constraint, context);
  }
}

/** @param table undefined for a constraint of a column that is added with it */
function* hitsOfConstraint(
  table: TableName | undefined,
  on: string,
  constraint: Fields,
  { memory }: AlterContext,
): Generator<Hit> {
  // NOT ENFORCED: nothing is ever checked (PostgreSQL 18).
  if (constraint["skip_validation"] || constraint["is_enforced"] === false) return;
  switch (constraint["contype"]) {
    case "CONSTR_FOREIGN": {
      const referenced = tableOf(constraint["pktable"]);
      yield {
        rule: "add-foreign-key",
        message: `adds a foreign key from ${on} to ${referenced ? written(referenced) : "?"}`,
      };
      return;
    }
    case "CONSTR_CHECK":
      yield { rule: "add-check", message: `adds a CHECK to ${on}` };
      return;
    case "CONSTR_UNIQUE":
    case "CONSTR_PRIMARY": {
      const kind = constraint["contype"] === "CONSTR_UNIQUE" ? "UNIQUE" : "PRIMARY KEY";
      const index = constraint["indexname"];
      if (!index) yield { rule: "add-unique-constraint", message: `adds ${kind} to ${on}` };
      // A primary key makes its columns NOT NULL, which reads the table where they are not so already.
      if (index && kind === "PRIMARY KEY") {
        const columns = memory.indexes.columnsOf(String(index));
        if (!columns?.every((column) => table && memory.isProvenNotNull(table, column))) {
          const doubt = columns ? "" : ", unless they are so already, which is not known here";
          yield {
            rule: "set-not-null",
            message: `makes the columns of the index ${index} NOT NULL, as a PRIMARY KEY of ${on}${doubt}`,
          };
        }
      }
      return;
    }
    case "CONSTR_EXCLUSION":
      yield { rule: "add-exclusion-constraint", message: `adds an EXCLUDE constraint to ${on}` };
      return;
    case "CONSTR_NOTNULL": {
      const columns = nodesOf(constraint["keys"]).map(({ fields }) => String(fields["sval"]));
      if (!columns.every((column) => table && memory.isProvenNotNull(table, column))) {
        yield { rule: "set-not-null", message: `makes ${on}.${columns.join(", ")} NOT NULL` };
      }
    }
  }
}
