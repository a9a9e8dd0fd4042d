/**
 * The indexes that files make, those to come among them: an index for a foreign key is often built CONCURRENTLY, in a
 * migration behind it.
 *
 * @module
 */

import type { Node } from "../sql/statements.ts";
import { type Fields, mayBeSame, nodeOf, nodesOf, type TableName, tableOf } from "../sql/tree.ts";

/** An index on columns, without a condition. */
interface Index {
  readonly table: TableName;
  readonly name: string | undefined;
  readonly columns: readonly string[];
}

/** A foreign key and where the statement that makes it says so. */
export interface ForeignKey {
  readonly table: TableName;
  readonly columns: readonly string[];
  readonly referenced: TableName;
  readonly constraint: Fields;
}

/** The indexes of a run's files. */
export class Indexes {
  /** By the table's name without its schema. */
  readonly #byTable = new Map<string, Index[]>();
  readonly #byName = new Map<string, Index>();

  /** Takes in what a statement makes. */
  foresee(node: Node): void {
    if (node.type === "IndexStmt" && node.fields["whereClause"] === undefined) {
      const columns = nodesOf(node.fields["indexParams"]).map(({ fields }) => String(fields["name"] ?? ""));
      this.#add({
        table: tableOf(node.fields["relation"])!,
        name: node.fields["idxname"] as string | undefined,
        columns,
      });
    }
    for (const { table, constraint, column } of constraintsIn(node)) {
      if (!["CONSTR_PRIMARY", "CONSTR_UNIQUE"].includes(String(constraint["contype"]))) continue;
      this.#add({ table, name: undefined, columns: column ? [column] : namesIn(constraint["keys"]) });
    }
  }

  #add(index: Index): void {
    const { table: { name }, name: ownName } = index;
    const others = this.#byTable.get(name);
    if (others) others.push(index);
    else this.#byTable.set(name, [index]);
    if (ownName !== undefined) this.#byName.set(ownName, index);
  }

  /** Whether an index of the table begins with these columns, in any order. */
  serves({ table, columns }: Pick<ForeignKey, "table" | "columns">): boolean {
    return (this.#byTable.get(table.name) ?? []).some((index) =>
      mayBeSame(index.table, table) &&
      columns.every((column) => index.columns.slice(0, columns.length).includes(column))
    );
  }

  /** The columns of an index; undefined where no file makes it. */
  columnsOf(name: string): readonly string[] | undefined {
    return this.#byName.get(name)?.columns;
  }
}

/** The foreign keys that a statement makes. */
export function foreignKeysIn(node: Node): readonly ForeignKey[] {
  return constraintsIn(node).flatMap(({ table, constraint, column }) => {
    const referenced = tableOf(constraint["pktable"]);
    if (constraint["contype"] !== "CONSTR_FOREIGN" || !referenced) return [];
    return [{ table, referenced, constraint, columns: column ? [column] : namesIn(constraint["fk_attrs"]) }];
  });
}

interface Constraint {
  readonly table: TableName;
  readonly constraint: Fields;
  /** The one that the constraint stands behind. */
  readonly column: string | undefined;
}

function constraintsIn({ type, fields }: Node): readonly Constraint[] {
  const table = tableOf(fields["relation"]);
  if (!table) return [];
  const elements = type === "CreateStmt"
    ? nodesOf(fields["tableElts"])
    : type === "AlterTableStmt"
    ? nodesOf(fields["cmds"]).flatMap(({ fields: { def } }) => nodeOf(def) ?? [])
    : [];
  return elements.flatMap((element): readonly Constraint[] => {
    if (element.type === "Constraint") return [{ table, constraint: element.fields, column: undefined }];
    if (element.type !== "ColumnDef") return [];
    const column = String(element.fields["colname"]);
    return nodesOf(element.fields["constraints"]).map((one) => ({ table, constraint: one.fields, column }));
  });
}

const namesIn = (list: unknown): readonly string[] =>
  nodesOf(list).map(({ fields }) => String(fields["sval"]));
