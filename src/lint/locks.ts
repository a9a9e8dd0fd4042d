/**
 * The lock model: which relations a statement locks, and how strongly.
 *
 * From PostgreSQL's documentation (13.3, and the page of each command) and its source (`AlterTableGetLockLevel` of
 * tablecmds.c, `AlterTableStmt` of utility.c); tests/lint_locks_test.ts holds it against a server. The levels are the
 * same in 14 to 18.
 *
 * @module
 */

import { type Node } from "../sql/statements.ts";
import { type Fields, mayBeSame, nameOf, nodeOf, nodesOf, type TableName, tableOf } from "../sql/tree.ts";

/** Modes of table locks, in order of strength, as PostgreSQL numbers them (src/include/storage/lockdefs.h). */
export const LOCK = {
  accessShare: 1,
  rowShare: 2,
  rowExclusive: 3,
  shareUpdateExclusive: 4,
  share: 5,
  shareRowExclusive: 6,
  exclusive: 7,
  accessExclusive: 8,
} as const;

/** From here on a lock keeps writers out; {@linkcode LOCK.accessExclusive} keeps readers out too. */
export const BLOCKS_WRITES: number = LOCK.share;

/** A lock on a relation. */
export interface Locked {
  readonly table: TableName;
  readonly mode: number;
}

/** Storage parameters of tables that take a stronger lock than SHARE UPDATE EXCLUSIVE (reloptions.c). */
const STRONG_OPTIONS = new Set([
  "user_catalog_table",
  "security_barrier",
  "security_invoker",
  "check_option",
]);

const { accessShare, shareUpdateExclusive, share, shareRowExclusive, exclusive, accessExclusive } = LOCK;

/** ALTER TABLE's subcommands that take less than ACCESS EXCLUSIVE. */
const WEAKER: Readonly<Record<string, number>> = {
  AT_SetStatistics: shareUpdateExclusive,
  AT_SetOptions: shareUpdateExclusive,
  AT_ResetOptions: shareUpdateExclusive,
  AT_ClusterOn: shareUpdateExclusive,
  AT_DropCluster: shareUpdateExclusive,
  AT_ValidateConstraint: shareUpdateExclusive,
  AT_AttachPartition: shareUpdateExclusive,
  AT_DetachPartitionFinalize: shareUpdateExclusive,
  AT_EnableTrig: shareRowExclusive,
  AT_EnableAlwaysTrig: shareRowExclusive,
  AT_EnableReplicaTrig: shareRowExclusive,
  AT_EnableTrigAll: shareRowExclusive,
  AT_EnableTrigUser: shareRowExclusive,
  AT_DisableTrig: shareRowExclusive,
  AT_DisableTrigAll: shareRowExclusive,
  AT_DisableTrigUser: shareRowExclusive,
};

/** The lock that a subcommand of ALTER TABLE takes on its own table. */
export function lockOfCommand(command: Fields): number {
  const subtype = String(command["subtype"]);
  const def = nodeOf(command["def"])?.fields ?? {};
  switch (subtype) {
    case "AT_AddConstraint":
      return def["contype"] === "CONSTR_FOREIGN" ? shareRowExclusive : accessExclusive;
    case "AT_SetRelOptions":
    case "AT_ResetRelOptions":
    case "AT_ReplaceRelOptions":
      return nodesOf(def["items"]).some(({ fields }) => STRONG_OPTIONS.has(String(fields["defname"])))
        ? accessExclusive
        : shareUpdateExclusive;
    case "AT_DetachPartition":
      return def["concurrent"] ? shareUpdateExclusive : accessExclusive;
    default:
      return WEAKER[subtype] ?? accessExclusive;
  }
}

const on = (table: TableName | undefined, mode: number): readonly Locked[] => table ? [{ table, mode }] : [];

/** The locks that a statement takes on relations that it names, and on those that it leads to by name. */
export function locksOf({ type, fields }: Node): readonly Locked[] {
  const table = tableOf(fields["relation"]);
  switch (type) {
    case "AlterTableStmt":
      return OF_RELATIONS.has(String(fields["objtype"])) ? locksOfAlter(table!, fields) : [];
    case "IndexStmt":
      return on(table, fields["concurrent"] ? shareUpdateExclusive : share);
    case "CreateStmt":
      return locksOfCreate(fields);
    case "DropStmt":
      return locksOfDrop(fields);
    case "RenameStmt":
      return RENAMED.has(String(fields["renameType"])) ? on(table, accessExclusive) : [];
    case "AlterObjectSchemaStmt":
      return OF_RELATIONS.has(String(fields["objectType"])) ? on(table, accessExclusive) : [];
    case "TruncateStmt":
      return nodesOf(fields["relations"]).flatMap((one) => on(tableOf(one.fields), accessExclusive));
    case "LockStmt":
      return nodesOf(fields["relations"]).flatMap((one) => on(tableOf(one.fields), Number(fields["mode"])));
    case "CreateTrigStmt":
      return on(table, shareRowExclusive);
    case "RuleStmt":
      return on(table, accessExclusive);
    case "CreatePolicyStmt":
    case "AlterPolicyStmt":
      return on(tableOf(fields["table"]), accessExclusive);
    case "ViewStmt":
      return fields["replace"] ? on(tableOf(fields["view"]), accessExclusive) : [];
    case "RefreshMatViewStmt":
      return on(table, fields["concurrent"] ? exclusive : accessExclusive);
    case "ClusterStmt":
      return on(table, accessExclusive);
    case "ReindexStmt":
      return on(table, isSet(fields["params"], "concurrently") ? shareUpdateExclusive : share);
    case "VacuumStmt":
      return nodesOf(fields["rels"]).flatMap((one) =>
        on(
          tableOf(one.fields["relation"]),
          isSet(fields["options"], "full") ? accessExclusive : shareUpdateExclusive,
        )
      );
    default:
      return [];
  }
}

const OF_RELATIONS = new Set(["OBJECT_TABLE", "OBJECT_FOREIGN_TABLE", "OBJECT_VIEW", "OBJECT_MATVIEW"]);
const RENAMED = new Set([
  ...OF_RELATIONS,
  ...["OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_RULE", "OBJECT_POLICY"],
]);

function locksOfAlter(table: TableName, fields: Fields): readonly Locked[] {
  const commands = nodesOf(fields["cmds"]).map((command) => command.fields);
  const own = Math.max(accessShare, ...commands.map(lockOfCommand));
  return [
    { table, mode: own },
    ...commands.flatMap((command): readonly Locked[] => {
      const { type, fields: def } = nodeOf(command["def"]) ?? { type: "", fields: {} as Fields };
      switch (command["subtype"]) {
        case "AT_AddColumn":
          return referencedBy(nodesOf(def["constraints"]).map((one) => one.fields));
        case "AT_AddConstraint":
          return type === "Constraint" ? referencedBy([def]) : [];
        case "AT_AttachPartition":
        case "AT_DetachPartition":
          return on(
            tableOf(def["name"]),
            def["concurrent"] ? shareUpdateExclusive : accessExclusive,
          );
        case "AT_AddInherit":
        case "AT_DropInherit":
          return on(tableOf(nodeOf(command["def"])?.fields), shareUpdateExclusive);
        default:
          return [];
      }
    }),
  ];
}

/** The other side of foreign keys: its triggers are made there. */
function referencedBy(constraints: readonly Fields[]): readonly Locked[] {
  return constraints.filter(({ contype }) => contype === "CONSTR_FOREIGN")
    .flatMap((constraint) => on(tableOf(constraint["pktable"]), shareRowExclusive));
}

function locksOfCreate(fields: Fields): readonly Locked[] {
  const elements = nodesOf(fields["tableElts"]);
  const parents = nodesOf(fields["inhRelations"]).map((parent) => tableOf(parent.fields));
  return [
    ...parents.flatMap((parent) => on(parent, fields["partbound"] ? accessExclusive : shareUpdateExclusive)),
    ...elements.flatMap(({ type, fields: element }) =>
      type === "Constraint"
        ? referencedBy([element])
        : referencedBy(nodesOf(element["constraints"]).map((one) => one.fields))
      // One that refers to itself locks nothing that was there.
    ).filter(({ table }) => !mayBeSame(table, tableOf(fields["relation"])!)),
  ];
}

function locksOfDrop(fields: Fields): readonly Locked[] {
  const what = String(fields["removeType"]);
  if (what === "OBJECT_TRIGGER" || what === "OBJECT_RULE" || what === "OBJECT_POLICY") {
    // The table's name, and behind it the object's.
    return nodesOf(fields["objects"]).map(({ fields: object }) => ({
      table: nameOf((object["items"] as unknown[]).slice(0, -1)),
      mode: accessExclusive,
    }));
  }
  return OF_RELATIONS.has(what)
    ? droppedNames(fields).map((table) => ({ table, mode: accessExclusive }))
    : [];
}

/** What DROP names: lists of strings, for schemas strings, for types and domains type names. */
export function droppedNames(fields: Fields): readonly TableName[] {
  return nodesOf(fields["objects"]).map(({ type, fields: object }) =>
    type === "List"
      ? nameOf(object["items"])
      : type === "TypeName"
      ? nameOf(object["names"])
      : type === "ObjectWithArgs"
      ? nameOf(object["objname"])
      : { schema: undefined, name: String(object["sval"]) }
  );
}

/** Whether an option is given, and not switched off. */
export function isSet(options: unknown, name: string): boolean {
  return nodesOf(options).some(({ fields }) =>
    fields["defname"] === name &&
    !/"(?:sval|boolval)":"?(?:false|off|0)/.test(JSON.stringify(fields["arg"] ?? ""))
  );
}
