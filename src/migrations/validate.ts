/**
 * Checks files without running them: PostgreSQL's syntax, and statements that do not fit the way in which a
 * migration runs.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { type Finding, locate } from "./finding.ts";
import type { Migration } from "./migration.ts";
import { type Node, SqlSyntaxError, type Statement, statementsOf } from "../sql/statements.ts";

/** What a statement breaks, and the way out. */
interface Misfit {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** All that is wrong with one file's SQL. */
export async function validateSql(migration: Migration): Promise<readonly Finding[]> {
  const { file, sql } = migration;
  let statements: readonly Statement[];
  try {
    statements = await statementsOf(migration);
  } catch (error) {
    if (!(error instanceof SqlSyntaxError)) throw error;
    const copied = /^\s*copy\b[^;]*\bfrom\s+stdin\b/im.test(sql.slice(0, error.offset));
    const meta = /^\s*\\\w/.test(sql.slice(sql.lastIndexOf("\n", error.offset) + 1));
    return [{
      severity: "error",
      code: meta ? "psql_command" : "syntax",
      file,
      message: error.message,
      location: locate(file, sql, error.offset),
      ...(copied && !meta
        ? { hint: "COPY … FROM STDIN needs a client that streams data: use INSERT … VALUES." }
        : {}),
      ...(meta ? { hint: "Commands that start with a backslash are psql's own; write SQL instead." } : {}),
    }];
  }
  if (statements.length === 0) {
    return [{ severity: "warning", code: "no_statement", file, message: "holds comments and no statement" }];
  }
  return statements.flatMap(({ node, start }): Finding[] => {
    const misfit = findMisfit(node, migration.directives.noTransaction);
    return misfit ? [{ severity: "error", file, location: locate(file, sql, start, start), ...misfit }] : [];
  });
}

/**
 * Refuses migrations whose SQL must not be sent.
 *
 * @throws {PipeweaveError} of kind `integrity`, listing everything that is wrong
 */
export async function assertRunnable(migrations: readonly Migration[]): Promise<void> {
  const findings = (await Promise.all(migrations.map(validateSql))).flat();
  assertNoErrors(findings, "Nothing was applied");
}

/**
 * Throws when any finding is an error.
 *
 * @param state the state that things are in now, for the message
 * @throws {PipeweaveError} of kind `integrity`
 */
export function assertNoErrors(findings: readonly Finding[], state: string): void {
  const errors = findings.filter((finding) => finding.severity === "error");
  if (errors.length === 0) return;
  const [first] = errors as [Finding];
  const count = errors.length === 1
    ? "A migration file is invalid"
    : `${errors.length} problems in migration files`;
  throw new PipeweaveError(
    "integrity",
    errors.length === 1 ? first.code : "invalid_files",
    `${count}. ${state}.`,
    {
      problems: errors.map(formatFinding),
      ...(errors.length === 1 && first.location ? { data: { location: plainLocation(first) } } : {}),
      hint: "Correct the files; `pipeweave db:validate --offline` checks them without a database.",
    },
  );
}

function plainLocation({ location }: Finding): Record<string, unknown> {
  return { file: location!.file, line: location!.line, column: location!.column };
}

/** A finding as text: `file:line:column: message`, the excerpt, and the way out. */
export function formatFinding({ file, location, message, hint }: Finding): string {
  const where = location ? `${file}:${location.line}:${location.column}: ${message}` : `${file} ${message}`;
  return [where, ...(location ? [location.excerpt] : []), ...(hint ? [`  fix: ${hint}`] : [])].join("\n");
}

function findMisfit({ type, fields }: Node, noTransaction: boolean): Misfit | undefined {
  if (type === "TransactionStmt") {
    return {
      code: "transaction_control",
      message: `${transactionWord(fields)} is not allowed in a migration`,
      hint: noTransaction
        ? "Leave it out: with no-transaction every statement is committed by itself."
        : "Leave it out: the file runs in a transaction of its own. For a part that may fail, use a DO block with EXCEPTION.",
    };
  }
  if (type === "CopyStmt" && fields["filename"] === undefined && fields["is_program"] !== true) {
    return {
      code: "copy_stdio",
      message: `COPY ${fields["is_from"] ? "FROM STDIN" : "TO STDOUT"} needs a client that streams data`,
      hint: "Use INSERT … VALUES, or load the data with psql outside the migrations.",
    };
  }
  if (
    noTransaction && type === "IndexStmt" && fields["concurrent"] === true && fields["idxname"] === undefined
  ) {
    return {
      code: "unnamed_index",
      message: "CREATE INDEX CONCURRENTLY without a name cannot be taken up again",
      hint:
        "Name the index: an attempt that fails leaves an INVALID one, which is found by its name and rebuilt.",
    };
  }
  const outside = noTransaction ? undefined : needsNoTransaction(type, fields);
  if (outside === undefined) return undefined;
  return {
    code: "not_in_transaction",
    message: `${outside} cannot run inside a transaction`,
    hint: "Put it in a migration of its own that starts with the line: -- pipeweave: no-transaction",
  };
}

function transactionWord(fields: Node["fields"]): string {
  const kind = String(fields["kind"]).replace("TRANS_STMT_", "").replaceAll("_", " ");
  return kind === "START" ? "START TRANSACTION" : kind;
}

/**
 * Whether a statement needs a message of its own: PostgreSQL refuses it in a transaction, or it may hold COMMITs, as
 * procedures and DO blocks do.
 */
export function runsAlone({ type, fields }: Node): boolean {
  return type === "CallStmt" || type === "DoStmt" || needsNoTransaction(type, fields) !== undefined;
}

/** The statement's name when PostgreSQL refuses it in a transaction (its PreventInTransactionBlock callers). */
function needsNoTransaction(type: string, fields: Node["fields"]): string | undefined {
  switch (type) {
    case "IndexStmt":
      return fields["concurrent"] ? "CREATE INDEX CONCURRENTLY" : undefined;
    case "DropStmt":
      return fields["concurrent"] ? "DROP INDEX CONCURRENTLY" : undefined;
    case "ReindexStmt": {
      const params = JSON.stringify(fields["params"] ?? []);
      if (/"defname":"concurrently"/.test(params)) return "REINDEX CONCURRENTLY";
      return /_(?:SCHEMA|SYSTEM|DATABASE)$/.test(String(fields["kind"]))
        ? "REINDEX of a schema or database"
        : undefined;
    }
    case "VacuumStmt":
      return fields["is_vacuumcmd"] ? "VACUUM" : undefined;
    case "ClusterStmt":
      return fields["relation"] === undefined ? "CLUSTER of all tables" : undefined;
    case "AlterTableStmt":
      return /"concurrent":true/.test(JSON.stringify(fields["cmds"] ?? []))
        ? "DETACH PARTITION CONCURRENTLY"
        : undefined;
    case "DiscardStmt":
      return fields["target"] === "DISCARD_ALL" ? "DISCARD ALL" : undefined;
    case "CreatedbStmt":
      return "CREATE DATABASE";
    case "DropdbStmt":
      return "DROP DATABASE";
    case "CreateTableSpaceStmt":
      return "CREATE TABLESPACE";
    case "DropTableSpaceStmt":
      return "DROP TABLESPACE";
    case "AlterSystemStmt":
      return "ALTER SYSTEM";
    case "CreateSubscriptionStmt":
      return "CREATE SUBSCRIPTION";
    case "DropSubscriptionStmt":
      return "DROP SUBSCRIPTION";
    default:
      return undefined;
  }
}
