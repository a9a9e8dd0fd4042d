/**
 * Finds in a migration, by its parse tree, what would hurt a live database. What the file itself creates is new and
 * nobody uses it yet, so it may be treated in any way.
 *
 * @module
 */

import { allowances, type RuleId } from "../migrations/allow.ts";
import { type Finding, locate } from "../migrations/finding.ts";
import { type Blocks, ruleOf } from "./rules.ts";
import type { Migration } from "../migrations/migration.ts";
import { type Node, SqlSyntaxError, type Statement, statementsOf } from "../sql/statements.ts";
import {
  descendants,
  type Fields,
  mayBeSame,
  nameOf,
  nodeOf,
  nodesOf,
  type TableName,
  tableOf,
  written,
} from "../sql/tree.ts";

/** A finding of a rule. */
export interface LintFinding extends Finding {
  readonly code: RuleId;
  /** Who waits while the statement runs. */
  readonly blocks: Blocks;
  readonly why: string;
}

/** What a statement breaks, and on what. */
interface Hit {
  readonly rule: RuleId;
  readonly message: string;
}

/**
 * All findings of one migration, but for those that the file allows with a reason.
 *
 * Text that PostgreSQL cannot read has none: `validateSql` says what is wrong with it.
 */
export async function lint(migration: Migration): Promise<readonly LintFinding[]> {
  let statements: readonly Statement[];
  try {
    statements = await statementsOf(migration);
  } catch (error) {
    if (error instanceof SqlSyntaxError) return [];
    throw error;
  }
  const file = new LintedFile(migration.directives.noTransaction);
  const allowed = allowances(migration.sql, statements);
  return statements.flatMap(({ node, start }, index) => {
    const hits = file.look(node).filter(({ rule }) => !allowed(rule, index));
    return hits.map(({ rule, message }): LintFinding => {
      const { blocks, why, safe } = ruleOf(rule);
      return {
        ...{ severity: "error", code: rule, file: migration.file, message, blocks, why, hint: safe },
        location: locate(migration.file, migration.sql, start, start),
      };
    });
  });
}

/** One file, read from top to bottom. */
class LintedFile {
  readonly #created: TableName[] = [];
  readonly #createdIndexes: TableName[] = [];
  readonly #addedColumns: string[] = [];
  /** Tables whose constraints were validated here: a CHECK may prove what SET NOT NULL needs. */
  readonly #validated: TableName[] = [];
  /** Existing tables that nobody else can use from here to the end of the transaction. */
  readonly #locked: TableName[] = [];

  readonly noTransaction: boolean;

  constructor(noTransaction: boolean) {
    this.noTransaction = noTransaction;
  }

  /** What the next statement breaks. */
  look(node: Node): readonly Hit[] {
    const hits = [...this.#hitsOf(node)];
    const locks = this.noTransaction ? [] : this.#exclusivelyLocked(node);
    const other = locks.find((table) => this.#locked.some((held) => !mayBeSame(held, table)));
    if (other) {
      const held = this.#locked.find((table) => !mayBeSame(table, other))!;
      hits.push({
        rule: "lock-after-lock",
        message: `waits for ${written(other)} while it holds the lock of ${written(held)}`,
      });
    }
    this.#locked.push(...locks.filter((table) => !this.#locked.some((held) => mayBeSame(held, table))));
    this.#remember(node);
    return hits;
  }

  #isNew(table: TableName | undefined): boolean {
    return table === undefined || this.#created.some((made) => mayBeSame(made, table));
  }

  #remember({ type, fields }: Node): void {
    const into = fields["into"] ?? fields["intoClause"];
    const table = type === "CreateStmt" || type === "CreateForeignTableStmt" || type === "ViewStmt"
      ? tableOf(fields["relation"] ?? fields["view"] ?? (fields["base"] as Fields | undefined)?.["relation"])
      : into
      ? tableOf((into as Fields)["rel"])
      : undefined;
    if (table) this.#created.push(table);
    if (
      type === "RenameStmt" && fields["renameType"] === "OBJECT_TABLE" &&
      this.#isNew(tableOf(fields["relation"]))
    ) {
      this.#created.push({ schema: undefined, name: String(fields["newname"]) });
    }
    if (type === "IndexStmt") {
      this.#createdIndexes.push({ schema: undefined, name: String(fields["idxname"] ?? "") });
    }
    if (type !== "AlterTableStmt") return;
    const altered = tableOf(fields["relation"])!;
    for (const { fields: command } of nodesOf(fields["cmds"])) {
      if (command["subtype"] === "AT_ValidateConstraint") this.#validated.push(altered);
      if (command["subtype"] === "AT_AddColumn") {
        this.#addedColumns.push(`${altered.name}.${(nodeOf(command["def"])?.fields ?? {})["colname"]}`);
      }
    }
  }

  /** Existing tables that a statement locks against reads and writes. */
  #exclusivelyLocked({ type, fields }: Node): readonly TableName[] {
    const tables = (() => {
      switch (type) {
        case "AlterTableStmt":
          return nodesOf(fields["cmds"]).every(({ fields: { subtype } }) =>
              subtype === "AT_ValidateConstraint"
            )
            ? []
            : [tableOf(fields["relation"])];
        case "RenameStmt":
        case "AlterObjectSchemaStmt":
          return [tableOf(fields["relation"])];
        case "TruncateStmt":
          return nodesOf(fields["relations"]).map((table) => tableOf(table.fields));
        case "LockStmt":
          return fields["mode"] === ACCESS_EXCLUSIVE
            ? nodesOf(fields["relations"]).map((table) => tableOf(table.fields))
            : [];
        case "DropStmt":
          return fields["removeType"] === "OBJECT_TABLE" ? droppedNames(fields) : [];
        default:
          return [];
      }
    })();
    return tables.filter((table) => table !== undefined).filter((table) => !this.#isNew(table));
  }

  *#hitsOf(node: Node): Generator<Hit> {
    const { type, fields } = node;
    const table = tableOf(fields["relation"]);
    switch (type) {
      case "IndexStmt":
        if (!fields["concurrent"] && !this.#isNew(table)) {
          yield {
            rule: "index-not-concurrently",
            message: `builds an index on ${written(table!)} without CONCURRENTLY`,
          };
        }
        return;
      case "DropStmt":
        return yield* this.#hitsOfDrop(fields);
      case "ReindexStmt":
        if (!isSet(fields["params"], "concurrently")) {
          yield { rule: "reindex-not-concurrently", message: "rebuilds indexes without CONCURRENTLY" };
        }
        return;
      case "AlterTableStmt":
        // ALTER INDEX, VIEW and SEQUENCE are this statement too.
        if (fields["objtype"] !== "OBJECT_TABLE" || this.#isNew(table)) return;
        for (const command of nodesOf(fields["cmds"])) yield* this.#hitsOfCommand(table!, command.fields);
        return;
      case "RenameStmt": {
        const what = fields["renameType"];
        if (this.#isNew(table) && what !== "OBJECT_SCHEMA") return;
        if (what === "OBJECT_COLUMN" && fields["relationType"] === "OBJECT_TABLE") {
          if (this.#addedColumns.includes(`${table!.name}.${fields["subname"]}`)) return;
          yield { rule: "rename-column", message: `renames ${written(table!)}.${fields["subname"]}` };
        } else if (
          ["OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SCHEMA"].includes(String(what))
        ) {
          yield {
            rule: "rename-table",
            message: `renames ${table ? written(table) : `schema ${fields["subname"]}`}`,
          };
        }
        return;
      }
      case "AlterObjectSchemaStmt":
        if (fields["objectType"] === "OBJECT_TABLE" && !this.#isNew(table)) {
          yield {
            rule: "rename-table",
            message: `moves ${written(table!)} to schema ${fields["newschema"]}`,
          };
        }
        return;
      case "TruncateStmt":
        for (const { fields: relation } of nodesOf(fields["relations"])) {
          const emptied = tableOf(relation);
          if (!this.#isNew(emptied)) yield { rule: "truncate", message: `empties ${written(emptied!)}` };
        }
        return;
      case "UpdateStmt":
      case "DeleteStmt":
      case "InsertStmt":
        return yield* this.#hitsOfDataChange(type, fields, table);
      case "LockStmt":
        for (const { fields: relation } of nodesOf(fields["relations"])) {
          const locked = tableOf(relation);
          if (Number(fields["mode"]) >= EXCLUSIVE && !this.#isNew(locked)) {
            yield { rule: "lock-table", message: `locks ${written(locked!)}` };
          }
        }
        return;
      case "VacuumStmt":
        if (isSet(fields["options"], "full")) {
          yield { rule: "rewrite-table", message: "VACUUM FULL rewrites tables" };
        }
        return;
      case "ClusterStmt":
        if (!this.#isNew(table) || !table) {
          yield { rule: "rewrite-table", message: `CLUSTER rewrites ${table ? written(table) : "tables"}` };
        }
        return;
      case "RefreshMatViewStmt":
        if (!fields["concurrent"] && !fields["skipData"] && !this.#isNew(table)) {
          yield {
            rule: "refresh-not-concurrently",
            message: `refreshes ${written(table!)} without CONCURRENTLY`,
          };
        }
    }
  }

  *#hitsOfDrop(fields: Fields): Generator<Hit> {
    const what = String(fields["removeType"]);
    const names = droppedNames(fields);
    if (what === "OBJECT_INDEX") {
      const old = names.filter((name) => !this.#createdIndexes.some((made) => mayBeSame(made, name)));
      if (!fields["concurrent"] && old.length > 0) {
        const message = `drops the index ${old.map(written).join(", ")} without CONCURRENTLY`;
        yield { rule: "drop-index-not-concurrently", message };
      }
    } else if (
      ["OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE", "OBJECT_SCHEMA"].includes(
        what,
      )
    ) {
      const old = names.filter((name) => !this.#isNew(name));
      if (old.length > 0) yield { rule: "drop-table", message: `drops ${old.map(written).join(", ")}` };
    }
  }

  *#hitsOfDataChange(type: string, fields: Fields, table: TableName | undefined): Generator<Hit> {
    if (this.#isNew(table)) return;
    const select = nodeOf(fields["selectStmt"]);
    const isLong = type !== "InsertStmt" || (select?.fields["fromClause"] !== undefined);
    if (type !== "InsertStmt" && fields["whereClause"] === undefined) {
      const verb = type === "UpdateStmt" ? "updates" : "deletes";
      yield { rule: "whole-table-change", message: `${verb} all rows of ${written(table!)} at once` };
    }
    if (isLong && this.#locked.length > 0) {
      const held = this.#locked.map(written).join(", ");
      yield {
        rule: "data-change-under-lock",
        message: `changes rows of ${written(table!)} while it holds the lock of ${held}`,
      };
    }
  }

  *#hitsOfCommand(table: TableName, command: Fields): Generator<Hit> {
    const name = written(table);
    const { type, fields: def } = nodeOf(command["def"]) ?? { type: "", fields: {} as Fields };
    const column = `${name}.${command["name"] ?? def["colname"]}`;
    switch (command["subtype"]) {
      case "AT_AddColumn":
        return yield* this.#hitsOfColumn(`${name}.${def["colname"]}`, def);
      case "AT_AddConstraint":
        if (type === "Constraint") yield* hitsOfConstraint(name, def);
        return;
      case "AT_SetNotNull":
        if (!this.#validated.some((validated) => mayBeSame(validated, table))) {
          yield { rule: "set-not-null", message: `makes ${column} NOT NULL` };
        }
        return;
      case "AT_AlterColumnType":
        yield { rule: "change-column-type", message: `changes the type of ${column}` };
        return;
      case "AT_DropColumn":
        if (!this.#addedColumns.includes(`${table.name}.${command["name"]}`)) {
          yield { rule: "drop-column", message: `drops ${column}` };
        }
        return;
      case "AT_ValidateConstraint":
        if (!this.noTransaction && this.#locked.some((held) => mayBeSame(held, table))) {
          const message = `validates ${
            command["name"]
          } on ${name} under the lock of an ALTER TABLE before it`;
          yield { rule: "validate-in-same-transaction", message };
        }
        return;
      case "AT_SetTableSpace":
      case "AT_SetLogged":
      case "AT_SetUnLogged":
      case "AT_SetAccessMethod":
        yield { rule: "rewrite-table", message: `rewrites ${name}` };
        return;
      case "AT_AttachPartition": {
        const partition = tableOf(def["name"]);
        const validated = partition && this.#validated.some((other) => mayBeSame(other, partition));
        if (!this.#isNew(partition) && !validated) {
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

  *#hitsOfColumn(column: string, def: Fields): Generator<Hit> {
    const constraints = nodesOf(def["constraints"]).map(({ fields }) => fields);
    const of = (kind: string) => constraints.find(({ contype }) => contype === kind);
    const typeName = nameOf((def["typeName"] as Fields | undefined)?.["names"]).name;
    const fallback = of("CONSTR_DEFAULT")?.["raw_expr"];
    const generated = of("CONSTR_GENERATED");
    const isSerial = /serial\d?$/.test(typeName);
    if (isSerial || of("CONSTR_IDENTITY") || isVolatile(fallback)) {
      yield {
        rule: "add-column-volatile-default",
        message: `adds ${column} with a value of its own for every row`,
      };
    }
    if (generated && generated["generated_kind"] !== "v") {
      yield { rule: "add-generated-column", message: `adds the stored generated column ${column}` };
    }
    const isRequired = of("CONSTR_NOTNULL") !== undefined || of("CONSTR_PRIMARY") !== undefined;
    if (isRequired && fallback === undefined && !generated && !isSerial && !of("CONSTR_IDENTITY")) {
      yield { rule: "add-required-column", message: `adds ${column}, NOT NULL and without a default` };
    }
    if (typeName === "json") yield { rule: "json-column", message: `adds ${column} as json` };
    // A column that is NULL everywhere fulfils every foreign key and almost every CHECK, yet both are checked row by row.
    for (const constraint of constraints) yield* hitsOfConstraint(column, constraint);
  }
}

/** Modes of LOCK TABLE, as PostgreSQL numbers them (src/include/storage/lockdefs.h). */
const [EXCLUSIVE, ACCESS_EXCLUSIVE] = [7, 8];

function* hitsOfConstraint(on: string, constraint: Fields): Generator<Hit> {
  if (constraint["skip_validation"]) return;
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
      if (!constraint["indexname"]) yield { rule: "add-unique-constraint", message: `adds ${kind} to ${on}` };
      return;
    }
    case "CONSTR_EXCLUSION":
      yield { rule: "add-exclusion-constraint", message: `adds an EXCLUDE constraint to ${on}` };
      return;
    case "CONSTR_NOTNULL":
      // As a constraint of the table (PostgreSQL 18); of a new column it is looked at with its default.
      if (constraint["keys"]) yield { rule: "set-not-null", message: `makes a column of ${on} NOT NULL` };
  }
}

/** What DROP names: lists of strings, or for schemas strings. */
function droppedNames(fields: Fields): readonly TableName[] {
  return nodesOf(fields["objects"]).map(({ type, fields: object }) =>
    type === "List" ? nameOf(object["items"]) : { schema: undefined, name: String(object["sval"]) }
  );
}

function isSet(options: unknown, name: string): boolean {
  return nodesOf(options).some(({ fields }) =>
    fields["defname"] === name &&
    !/"(?:sval|boolval)":"?(?:false|off|0)/.test(JSON.stringify(fields["arg"] ?? ""))
  );
}

/** Functions that give every row of a statement the same value; others are taken to be volatile. */
const STABLE_FUNCTIONS =
  /^(?:now|(?:transaction|statement)_timestamp|current_setting|to_\w+|date_trunc|date_part|make_\w+|lower|upper|md5|concat|coalesce|jsonb?_build_\w+|array_\w+|timezone|pg_current_xact_id|trunc|round|length|current_schema)$/;

function isVolatile(expression: unknown): boolean {
  return [...descendants(expression)].some(({ type, fields }) =>
    type === "FuncCall" && !STABLE_FUNCTIONS.test(nameOf(fields["funcname"]).name)
  );
}
