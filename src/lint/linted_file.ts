/**
 * One file, read from top to bottom: what each of its statements breaks, given those before it. What the file itself makes
 * is new and nobody uses it yet, so it may be treated in any way.
 *
 * @module
 */

import { type Node } from "../sql/statements.ts";
import { type Fields, mayBeSame, nodeOf, nodesOf, type TableName, tableOf, written } from "../sql/tree.ts";
import { hitsOfCommand } from "./alter_rules.ts";
import type { Hit } from "./hit.ts";
import { foreignKeysIn } from "./indexes.ts";
import { BLOCKS_WRITES, droppedNames, isSet, LOCK, type Locked, locksOf } from "./locks.ts";
import { hitsOfCompositeType, hitsOfObject } from "./object_rules.ts";
import { Memory } from "./memory.ts";
import { wholeChanges, workOf } from "./work.ts";

/** One file, read from top to bottom. */
export class LintedFile {
  readonly #created: TableName[] = [];
  readonly #createdIndexes: TableName[] = [];
  /** Views that were made here: to read one is to read the tables behind it. */
  readonly #createdViews: TableName[] = [];
  readonly #addedColumns: { table: TableName; column: string }[] = [];
  /** Existing relations that are locked from here to the end of the transaction, so that others wait. */
  readonly #held: Locked[] = [];
  /** Whether a wait under a lock was told of: one is told for all of a file. */
  #hasWaited = false;

  readonly noTransaction: boolean;
  readonly memory: Memory;
  /** Names that views get again in the file after they were dropped. */
  readonly remade: readonly TableName[];
  /** What IF NOT EXISTS makes in earnest, as a database tells. */
  readonly absent: readonly TableName[];

  constructor(
    noTransaction: boolean,
    memory: Memory,
    remade: readonly TableName[],
    absent: readonly TableName[],
  ) {
    this.noTransaction = noTransaction;
    this.absent = absent;
    this.memory = memory;
    this.remade = remade;
  }

  /** What the next statement breaks. */
  look(node: Node): readonly Hit[] {
    const hits = [...this.#hitsOf(node), ...this.#hitsOfForeignKeys(node)];
    if (!this.noTransaction) {
      hits.push(...this.#hitsOfWork(node), ...this.#hitsOfWaits(node));
    }
    this.#remember(node);
    return hits;
  }

  readonly #isNew = (table: TableName | undefined): boolean =>
    table === undefined || this.#created.some((made) => mayBeSame(made, table));

  #remember(node: Node): void {
    const { type, fields } = node;
    this.memory.note(node);
    const into = fields["into"] ?? fields["intoClause"];
    const isCreate = ["CreateStmt", "CreateForeignTableStmt", "ViewStmt"].includes(type);
    const table = isCreate
      ? tableOf(fields["relation"] ?? fields["view"] ?? (fields["base"] as Fields | undefined)?.["relation"])
      : into
      ? tableOf((into as Fields)["rel"])
      : undefined;
    // What may have been there already is not new.
    const mayExist = fields["if_not_exists"] === true || fields["replace"] === true ||
      (fields["base"] as Fields | undefined)?.["if_not_exists"] === true;
    const isMade = table && (!mayExist || this.#isAbsent(table));
    if (isMade) this.#created.push(table);
    if (table && (type === "ViewStmt" || fields["objtype"] === "OBJECT_MATVIEW")) {
      this.#createdViews.push(table);
    }
    const renamed = type === "RenameStmt" && fields["renameType"] === "OBJECT_TABLE" &&
      tableOf(fields["relation"]);
    if (renamed) {
      const name = { schema: renamed.schema, name: String(fields["newname"]) };
      if (this.#isNew(renamed)) this.#created.push(name);
      const held = this.#held.filter((one) => mayBeSame(one.table, renamed));
      this.#held.push(...held.map(({ mode }) => ({ table: name, mode })));
    }
    if (type === "IndexStmt" && !fields["if_not_exists"]) {
      this.#createdIndexes.push({ schema: undefined, name: String(fields["idxname"] ?? "") });
    }
    if (type !== "AlterTableStmt") return;
    const altered = tableOf(fields["relation"])!;
    for (const { fields: command } of nodesOf(fields["cmds"])) {
      if (command["subtype"] === "AT_AddColumn" && !command["missing_ok"]) {
        const column = String((nodeOf(command["def"])?.fields ?? {})["colname"]);
        this.#addedColumns.push({ table: altered, column });
      }
    }
  }

  /** Whether a database tells that there is none, nor did files before this one make it. */
  #isAbsent(table: TableName): boolean {
    return this.absent.some((one) => mayBeSame(one, table));
  }

  #isAdded(table: TableName, column: unknown): boolean {
    return this.#addedColumns.some((added) => added.column === column && mayBeSame(added.table, table));
  }

  /** Work that is done while a statement before it keeps others out of a table. */
  *#hitsOfWork(node: Node): Generator<Hit> {
    if (this.#held.length === 0) return;
    const isSmall = (table: TableName) =>
      this.#isNew(table) && !this.#createdViews.some((view) => mayBeSame(view, table));
    const work = workOf(node, isSmall);
    if (work === undefined) return;
    const table = tableOf(node.fields["relation"]);
    // Said by a rule of its own.
    if (node.type === "AlterTableStmt" && table && this.#isHeld(table)) return;
    const isForReaders = this.#held.some(({ mode }) => mode === LOCK.accessExclusive);
    yield {
      rule: "work-under-lock",
      message: `${work} while it holds the lock of ${
        [...new Set(this.#held.map((held) => written(held.table)))].join(", ")
      }`,
      blocks: isForReaders ? "reads and writes" : "writes",
    };
  }

  /** A lock that is waited for while another one keeps others out. */
  *#hitsOfWaits(node: Node): Generator<Hit> {
    const wanted = [...this.#locksByName(node), ...locksOf(node)]
      .filter(({ table, mode }) => mode >= BLOCKS_WRITES && !this.#isNew(table) && !this.#isAbsent(table))
      .filter(({ table, mode }) =>
        !this.#held.some((held) => held.mode >= mode && mayBeSame(held.table, table))
      );
    const waits = wanted.find(({ table }) => this.#held.some((held) => !mayBeSame(held.table, table)));
    if (waits && !this.#hasWaited) {
      this.#hasWaited = true;
      const held = this.#held.find(({ table }) => !mayBeSame(table, waits.table))!;
      yield {
        rule: "lock-after-lock",
        message: `waits for ${written(waits.table)} while it holds the lock of ${written(held.table)}`,
      };
    }
    this.#held.push(...wanted);
  }

  /**
   * Locks that follow from what is dropped by its name: an index is dropped under the lock of its table, a foreign key
   * under those of both.
   */
  #locksByName({ type, fields }: Node): readonly Locked[] {
    if (type === "AlterTableStmt") {
      const table = tableOf(fields["relation"])!;
      return nodesOf(fields["cmds"]).flatMap(({ fields: { subtype, name } }) => {
        const other = subtype === "AT_DropConstraint"
          ? this.memory.referencedBy(table, String(name))
          : undefined;
        return other ? [{ table: other, mode: LOCK.accessExclusive }] : [];
      });
    }
    if (type !== "DropStmt" || fields["removeType"] !== "OBJECT_INDEX" || fields["concurrent"]) return [];
    return droppedNames(fields)
      .filter((index) => !this.#createdIndexes.some((made) => mayBeSame(made, index)))
      .flatMap((index) => {
        const table = this.memory.tableOfIndex(index);
        return table ? [{ table, mode: LOCK.accessExclusive }] : [];
      });
  }

  #isHeld(table: TableName): boolean {
    return !this.noTransaction && this.#held.some((held) => mayBeSame(held.table, table));
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
      case "ReindexStmt":
        if (!isSet(fields["params"], "concurrently")) {
          yield { rule: "reindex-not-concurrently", message: "rebuilds indexes without CONCURRENTLY" };
        }
        return;
      case "AlterTableStmt":
        if (fields["objtype"] === "OBJECT_TYPE") return yield* hitsOfCompositeType(fields);
        // ALTER INDEX, VIEW and SEQUENCE are this statement too.
        if (!["OBJECT_TABLE", "OBJECT_FOREIGN_TABLE"].includes(String(fields["objtype"]))) return;
        if (this.#isNew(table)) return;
        for (const command of nodesOf(fields["cmds"])) {
          const hits = hitsOfCommand(table!, command.fields, {
            memory: this.memory,
            isNew: this.#isNew,
            isAdded: (of, column) => this.#isAdded(of, column),
            isLocked: (of) => this.#isHeld(of),
          });
          const at = nodeOf(command.fields["def"])?.fields["location"];
          for (const hit of hits) yield typeof at === "number" ? { ...hit, at } : hit;
        }
        return;
      case "RenameStmt":
        return yield* this.#hitsOfRename(fields, table);
      case "AlterObjectSchemaStmt":
        if (
          ["OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW"].includes(String(fields["objectType"])) &&
          !this.#isNew(table)
        ) {
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
      case "SelectStmt":
      case "InsertStmt":
      case "UpdateStmt":
      case "DeleteStmt":
        for (const { verb, table: changed } of wholeChanges(node)) {
          if (this.#isNew(changed)) continue;
          yield { rule: "whole-table-change", message: `${verb} all rows of ${written(changed)} at once` };
        }
        return;
      case "LockStmt":
        for (const { fields: relation } of nodesOf(fields["relations"])) {
          const locked = tableOf(relation);
          if (Number(fields["mode"]) >= LOCK.exclusive && !this.#isNew(locked)) {
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
        if (this.#isNew(table)) return;
        if (fields["skipData"]) {
          yield { rule: "truncate", message: `empties ${written(table!)}: WITH NO DATA` };
        } else if (!fields["concurrent"]) {
          yield {
            rule: "refresh-not-concurrently",
            message: `refreshes ${written(table!)} without CONCURRENTLY`,
          };
        }
        return;
      case "CreateStmt":
        if (
          fields["partbound"] &&
          !nodesOf(fields["inhRelations"]).every((one) => this.#isNew(tableOf(one.fields)))
        ) {
          const [parent] = nodesOf(fields["inhRelations"]);
          yield {
            rule: "create-partition",
            message: `makes a partition of ${written(tableOf(parent!.fields)!)} in place`,
          };
        }
        return;
      case "CreateTrigStmt":
        if (!this.#isNew(table) && !fields["isconstraint"]) {
          yield { rule: "create-trigger", message: `makes a trigger on ${written(table!)}` };
        }
        return;
      default:
        yield* hitsOfObject(type, fields, {
          isNew: (of) => this.#isNew(of) || this.#isAbsent(of),
          isNewIndex: (index) => this.#createdIndexes.some((made) => mayBeSame(made, index)),
          isRemade: (view) => this.remade.some((one) => mayBeSame(one, view)),
        });
    }
  }

  *#hitsOfForeignKeys(node: Node): Generator<Hit> {
    for (const { table, columns, referenced, constraint } of foreignKeysIn(node)) {
      if (this.memory.indexes.serves({ table, columns })) continue;
      const message = `refers from ${written(table)} (${columns.join(", ")}) to ${
        written(referenced)
      } without an index on its own side`;
      const at = constraint["location"];
      yield { rule: "foreign-key-without-index", message, ...typeof at === "number" && { at } };
    }
  }

  *#hitsOfRename(fields: Fields, table: TableName | undefined): Generator<Hit> {
    const what = String(fields["renameType"]);
    if (this.#isNew(table) && what !== "OBJECT_SCHEMA") return;
    if (what === "OBJECT_COLUMN") {
      if (this.#isAdded(table!, fields["subname"])) return;
      yield { rule: "rename-column", message: `renames ${written(table!)}.${fields["subname"]}` };
    } else if (["OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_SCHEMA"].includes(what)) {
      // A view of the old name, in the same transaction, is what the old release goes on with.
      if (table && this.remade.some((view) => mayBeSame(view, table))) return;
      yield {
        rule: "rename-table",
        message: `renames ${table ? written(table) : `schema ${fields["subname"]}`}`,
      };
    }
  }
}
