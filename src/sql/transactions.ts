/**
 * How statements stand to transactions: which of them PostgreSQL refuses inside of one, and what may be there after one of
 * those was cut off. By parse node; what PostgreSQL decides as late as at run time (REINDEX of a partitioned table,
 * statements of extensions) it tells with SQLSTATE 25001, and {@linkcode whenRefused} says what holds then.
 *
 * From PostgreSQL's callers of PreventInTransactionBlock, and the documentation's pages of the commands.
 *
 * @module
 */

import type { Node, Statement } from "./statements.ts";
import { descendants, nodesOf } from "./tree.ts";

/**
 * - `atomic`: runs in a transaction; it may be tried again after anything that rolled it back.
 * - `resumable`: has transactions of its own, and may be run again once it was looked at what is there.
 * - `opaque`: may commit inside, nobody knows what; it is run once.
 */
export type Atomicity = "atomic" | "resumable" | "opaque";

/** How a statement stands to transactions. */
export interface TransactionClass {
  readonly atomicity: Atomicity;
  /** Its name where PostgreSQL refuses it inside a transaction. */
  readonly outside?: string;
  /** Whether what it waits for long, it waits for without keeping others from anything. */
  readonly blocksNobody?: true;
}

const ATOMIC: TransactionClass = { atomicity: "atomic" };
const OPAQUE: TransactionClass = { atomicity: "opaque" };

const alone = (outside: string): TransactionClass => ({ atomicity: "resumable", outside });
const concurrently = (outside: string): TransactionClass => ({
  ...alone(outside),
  blocksNobody: true,
});

/** The statements that are not atomic, by the type of their node; undefined where a form of it is. */
const CLASSES: Readonly<Record<string, (fields: Node["fields"]) => TransactionClass | undefined>> = {
  IndexStmt: ({ concurrent }) => concurrent ? concurrently("CREATE INDEX CONCURRENTLY") : undefined,
  DropStmt: ({ concurrent }) => concurrent ? concurrently("DROP INDEX CONCURRENTLY") : undefined,
  ReindexStmt: ({ params, kind }) =>
    hasOption(params, "concurrently")
      ? concurrently("REINDEX CONCURRENTLY")
      : /_(?:SCHEMA|SYSTEM|DATABASE)$/.test(String(kind))
      ? alone("REINDEX of a schema or database")
      : undefined,
  AlterTableStmt: ({ cmds }) =>
    nodesOf(cmds).some(({ fields }) => isConcurrentDetach(fields))
      ? concurrently("DETACH PARTITION CONCURRENTLY")
      : undefined,
  VacuumStmt: ({ is_vacuumcmd }) => is_vacuumcmd ? alone("VACUUM") : undefined,
  ClusterStmt: ({ relation }) => relation === undefined ? alone("CLUSTER of all tables") : undefined,
  DiscardStmt: ({ target }) => target === "DISCARD_ALL" ? alone("DISCARD ALL") : undefined,
  CreatedbStmt: () => alone("CREATE DATABASE"),
  DropdbStmt: () => alone("DROP DATABASE"),
  AlterDatabaseStmt: ({ options }) =>
    hasOption(options, "tablespace") ? alone("ALTER DATABASE SET TABLESPACE") : undefined,
  CreateTableSpaceStmt: () => alone("CREATE TABLESPACE"),
  DropTableSpaceStmt: () => alone("DROP TABLESPACE"),
  AlterSystemStmt: () => alone("ALTER SYSTEM"),
  CreateSubscriptionStmt: () => alone("CREATE SUBSCRIPTION"),
  DropSubscriptionStmt: () => alone("DROP SUBSCRIPTION"),
  CallStmt: () => OPAQUE,
  DoStmt: ({ args }) => mayCommit(args) ? OPAQUE : undefined,
};

/** How a statement stands to transactions. */
export function transactionClassOf({ node: { type, fields } }: Pick<Statement, "node">): TransactionClass {
  return CLASSES[type]?.(fields) ?? ATOMIC;
}

/** Statements that do no harm when they are run again, of those that PostgreSQL may refuse at run time. */
const REPEATABLE: ReadonlySet<string> = new Set([
  "ReindexStmt",
  "ClusterStmt",
  "VacuumStmt",
  "AlterDatabaseStmt",
]);

/** What holds for a statement that is atomic by its node, and that PostgreSQL refused to run in a transaction. */
export function whenRefused({ node }: Pick<Statement, "node">): TransactionClass {
  return REPEATABLE.has(node.type) ? { atomicity: "resumable" } : OPAQUE;
}

/** Whether a list of DefElem nodes has an option of the name, and does not say that it is off. */
function hasOption(list: unknown, name: string): boolean {
  const option = nodesOf(list).findLast(({ fields }) => fields["defname"] === name);
  return option !== undefined && !/^(?:false|off|no|0)$/i.test(textOf(option.fields["arg"]) ?? "");
}

/** Whether an AlterTableCmd detaches a partition CONCURRENTLY. */
export function isConcurrentDetach({ subtype, def }: Node["fields"]): boolean {
  const { PartitionCmd } = (def ?? {}) as { PartitionCmd?: { concurrent?: boolean } };
  return subtype === "AT_DetachPartition" && PartitionCmd?.concurrent === true;
}

/**
 * Whether a DO block may commit inside: words that may stand for it are looked for, in strings and comments too, since in
 * doubt it may. A function that it calls cannot (PostgreSQL documentation, 41.8: transaction management).
 */
function mayCommit(args: unknown): boolean {
  const options = nodesOf(args).map(({ fields }) => fields);
  const language = options.find(({ defname }) => defname === "language");
  if (language && textOf(language["arg"])?.toLowerCase() !== "plpgsql") return true;
  const body = options.filter(({ defname }) => defname === "as").map(({ arg }) => textOf(arg)).join("\n");
  return /\b(?:commit|rollback|call|execute|dblink\w*)\b/i.test(body);
}

function textOf(value: unknown): string | undefined {
  for (const { type, fields } of descendants(value)) {
    if (type === "String") return String(fields["sval"] ?? "");
    if (type === "Integer") return String(fields["ival"] ?? 0);
  }
  return undefined;
}
