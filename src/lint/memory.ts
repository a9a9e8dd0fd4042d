/**
 * What the files so far have made that a later statement's cost depends on.
 *
 * @module
 */

import type { Node } from "../sql/statements.ts";
import {
  descendants,
  type Fields,
  mayBeSame,
  nameOf,
  nodeOf,
  nodesOf,
  type TableName,
  tableOf,
} from "../sql/tree.ts";
import { Indexes } from "./indexes.ts";
import { droppedNames } from "./locks.ts";

/** Whether a function gives every row of a statement the same value. */
export type Volatility = "volatile" | "not volatile";

interface Check {
  readonly table: TableName;
  readonly name: string | undefined;
  /** The columns that it proves to hold a value. */
  readonly notNull: readonly string[];
  valid: boolean;
}

/** Kept over the files of a run, which are looked at in order. */
export class Memory {
  readonly #functions: { name: TableName; volatility: Volatility }[] = [];
  readonly #domains: { name: TableName; isChecked: boolean }[] = [];
  readonly #checks: Check[] = [];
  readonly #validated: TableName[] = [];
  readonly #tables: TableName[] = [];
  /** What was done to tables that were there: to one column, or to more than that can be told. */
  readonly #altered: { table: TableName; column: string | undefined }[] = [];
  readonly #droppedIndexes: TableName[] = [];
  readonly #foreignKeys: { table: TableName; name: string; referenced: TableName }[] = [];
  readonly #indexes: { name: string; table: TableName }[] = [];

  /** Those of all files, also of those behind the one that is looked at. */
  readonly indexes: Indexes = new Indexes();

  /** Takes in a statement. */
  note({ type, fields }: Node): void {
    switch (type) {
      case "CreateFunctionStmt": {
        const volatility = volatilityIn(fields["options"]) ?? "volatile";
        this.#functions.unshift({ name: nameOf(fields["funcname"]), volatility });
        return;
      }
      case "ViewStmt":
        this.#tables.push(tableOf(fields["view"])!);
        return;
      case "CreateTableAsStmt":
        this.#tables.push(tableOf((fields["into"] as Fields)["rel"])!);
        return;
      case "CreateStmt": {
        const table = tableOf(fields["relation"])!;
        this.#tables.push(table);
        for (const { type: kind, fields: element } of nodesOf(fields["tableElts"])) {
          if (kind === "Constraint") {
            this.#noteForeignKey(table, element, undefined);
            this.#noteProof(table, element, undefined);
          } else this.#noteColumn(table, element);
        }
        return;
      }
      case "DropStmt":
        if (fields["removeType"] === "OBJECT_INDEX") this.#droppedIndexes.push(...droppedNames(fields));
        return;
      case "IndexStmt": {
        const table = tableOf(fields["relation"]);
        if (table && fields["idxname"]) this.#indexes.unshift({ name: String(fields["idxname"]), table });
        return;
      }
      case "CreateDomainStmt": {
        const constraints = nodesOf(fields["constraints"]).map((one) => one.fields);
        const of = (kind: string) => constraints.find(({ contype }) => contype === kind);
        const isChecked = of("CONSTR_CHECK") !== undefined || of("CONSTR_NOTNULL") !== undefined ||
          [...descendants(of("CONSTR_DEFAULT")?.["raw_expr"])].some((node) => node.type === "FuncCall");
        this.#domains.unshift({ name: nameOf(fields["domainname"]), isChecked });
        return;
      }
      case "AlterFunctionStmt": {
        const name = nameOf((fields["func"] as Fields)["objname"]);
        const given = volatilityIn(fields["actions"]);
        if (given) this.#functions.unshift({ name, volatility: given });
        return;
      }
      case "AlterDomainStmt":
        // Whatever is done to it, nobody knows here what it was before.
        this.#domains.unshift({ name: nameOf(fields["typeName"]), isChecked: true });
        return;
      case "RenameStmt":
        if (fields["relation"]) {
          this.#altered.push({ table: tableOf(fields["relation"])!, column: undefined });
        }
        return;
      case "AlterTableStmt": {
        const table = tableOf(fields["relation"])!;
        for (const { fields: command } of nodesOf(fields["cmds"])) this.#noteCommand(table, command);
      }
    }
  }

  #noteCommand(table: TableName, command: Fields): void {
    this.#altered.push({ table, column: columnOf(command) });
    const { type, fields: def } = nodeOf(command["def"]) ?? { type: "", fields: {} as Fields };
    if (command["subtype"] === "AT_AddConstraint" && type === "Constraint") {
      this.#noteProof(table, def, undefined);
      this.#noteForeignKey(table, def, undefined);
    }
    if (command["subtype"] === "AT_SetNotNull") {
      this.#checks.push({ table, name: undefined, notNull: [String(command["name"])], valid: true });
    }
    if (command["subtype"] === "AT_DropNotNull") this.#forgetNotNull(table, String(command["name"]));
    if (command["subtype"] === "AT_AddColumn") this.#noteColumn(table, def);
    if (command["subtype"] === "AT_ValidateConstraint") {
      this.#validated.push(table);
      for (const check of this.#checks) {
        if (mayBeSame(check.table, table) && check.name === command["name"]) check.valid = true;
      }
    }
    if (command["subtype"] === "AT_DropConstraint") {
      const index = this.#checks.findIndex((check) =>
        mayBeSame(check.table, table) && check.name === command["name"]
      );
      if (index !== -1) this.#checks.splice(index, 1);
    }
  }

  #noteColumn(table: TableName, column: Fields): void {
    const name = String(column["colname"]);
    for (const { fields } of nodesOf(column["constraints"])) {
      this.#noteForeignKey(table, fields, name);
      this.#noteProof(table, fields, name);
    }
  }

  /** Takes in the columns that a constraint proves to hold a value. */
  #noteProof(table: TableName, constraint: Fields, column: string | undefined): void {
    const keys = (list: unknown) =>
      column ? [column] : nodesOf(list).map(({ fields }) => String(fields["sval"]));
    const proven = constraint["contype"] === "CONSTR_NOTNULL" || constraint["contype"] === "CONSTR_PRIMARY"
      ? keys(constraint["keys"])
      : constraint["contype"] === "CONSTR_CHECK"
      ? provenBy(constraint["raw_expr"])
      : [];
    if (proven.length === 0) return;
    const name = constraint["conname"] === undefined ? undefined : String(constraint["conname"]);
    this.#checks.push({ table, name, notNull: proven, valid: !constraint["skip_validation"] });
  }

  /** DROP NOT NULL leaves CHECKs alone; to take them for gone too is to ask for a look too many at most. */
  #forgetNotNull(table: TableName, column: string): void {
    for (const check of this.#checks) {
      if (mayBeSame(check.table, table) && check.notNull.includes(column)) check.valid = false;
    }
  }

  /** @param column the one that the constraint stands behind */
  #noteForeignKey(table: TableName, constraint: Fields, column: string | undefined): void {
    const referenced = tableOf(constraint["pktable"]);
    if (constraint["contype"] !== "CONSTR_FOREIGN" || !referenced) return;
    const columns = column
      ? [column]
      : nodesOf(constraint["fk_attrs"]).map(({ fields }) => String(fields["sval"]));
    // As PostgreSQL names one that was given no name (ChooseConstraintName).
    const name = String(constraint["conname"] ?? `${table.name}_${columns.join("_")}_fkey`);
    this.#foreignKeys.unshift({ table, name, referenced });
  }

  /** The table that a foreign key refers to; undefined where it was not made here. */
  referencedBy(table: TableName, constraint: string): TableName | undefined {
    return this.#foreignKeys.find((one) => one.name === constraint && mayBeSame(one.table, table))
      ?.referenced;
  }

  /** Whether a validated constraint proves that a column holds a value in every row. */
  isProvenNotNull(table: TableName, column: string): boolean {
    return this.#checks.some((check) =>
      check.valid && mayBeSame(check.table, table) && check.notNull.includes(column)
    );
  }

  /** Whether a constraint of a table was validated: one that says where a partition belongs, perhaps. */
  isValidated(table: TableName): boolean {
    return this.#validated.some((validated) => mayBeSame(validated, table));
  }

  /**
   * Whether what a database tells of a statement is past, by what these files do before it: to its table, or to a function
   * or a domain that it mentions. To be asked before the statement is noted.
   */
  isStale({ fields }: Node): boolean {
    const table = tableOf(fields["relation"]);
    const columns = nodesOf(fields["cmds"]).map((command) => columnOf(command.fields));
    const isAltered = table &&
      this.#altered.some((altered) =>
        mayBeSame(altered.table, table) && (altered.column === undefined || columns.includes(altered.column))
      );
    if (isAltered) return true;
    return [...descendants(fields["cmds"])].some(({ type, fields: mentioned }) =>
      type === "FuncCall"
        ? this.volatilityOf(nameOf(mentioned["funcname"])) !== undefined
        : type === "ColumnDef" &&
          this.isCheckedDomain(nameOf((mentioned["typeName"] as Fields | undefined)?.["names"])) !== undefined
    );
  }

  /** What was noted so far is in the database by now, which tells of it better. */
  settle(): void {
    for (const past of [this.#altered, this.#functions, this.#domains, this.#tables, this.#droppedIndexes]) {
      past.length = 0;
    }
  }

  /** Whether a table was made here. */
  hasMade(table: TableName): boolean {
    return this.#tables.some((made) => mayBeSame(made, table));
  }

  /** Whether an index was dropped here, whatever a database still has. */
  hasDroppedIndex(index: TableName): boolean {
    return this.#droppedIndexes.some((dropped) => mayBeSame(dropped, index));
  }

  /** The table that an index was made on; undefined where it was not made here. */
  tableOfIndex({ name }: TableName): TableName | undefined {
    return this.#indexes.find((index) => index.name === name)?.table;
  }

  /** How a function was made; undefined where it was not made here. */
  volatilityOf(name: TableName): Volatility | undefined {
    return this.#functions.find((made) => mayBeSame(made.name, name))?.volatility;
  }

  /** Whether a type is a domain whose values are looked at one by one; undefined where it was not made here. */
  isCheckedDomain(name: TableName): boolean | undefined {
    return this.#domains.find((made) => mayBeSame(made.name, name))?.isChecked;
  }
}

/** Subcommands of ALTER TABLE that are about one column and what depends on it alone. */
const OF_ONE_COLUMN = new Set([
  ...["AT_AddColumn", "AT_AlterColumnType", "AT_ColumnDefault", "AT_SetNotNull", "AT_SetStatistics"],
]);

/** The column that a subcommand is about; undefined where it is about more, or it cannot be told. */
function columnOf(command: Fields): string | undefined {
  if (!OF_ONE_COLUMN.has(String(command["subtype"]))) return undefined;
  return String(command["name"] ?? nodeOf(command["def"])?.fields["colname"]);
}

/** The volatility among a function's options; undefined where none is given. */
function volatilityIn(options: unknown): Volatility | undefined {
  const option = nodesOf(options).find(({ fields }) => fields["defname"] === "volatility");
  const word = nodeOf(option?.fields["arg"])?.fields["sval"];
  return word === undefined ? undefined : word === "volatile" ? "volatile" : "not volatile";
}

/** The columns that a CHECK proves to hold a value: `a IS NOT NULL`, also where more is asked by AND. */
function provenBy(expression: unknown): readonly string[] {
  const { type, fields } = nodeOf(expression) ?? { type: "", fields: {} as Fields };
  if (type === "BoolExpr" && fields["boolop"] === "AND_EXPR") {
    return (fields["args"] as unknown[]).flatMap(provenBy);
  }
  if (type !== "NullTest" || fields["nulltesttype"] !== "IS_NOT_NULL") return [];
  return [nameOf(nodeOf(fields["arg"])?.fields["fields"]).name];
}
