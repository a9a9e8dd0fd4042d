/**
 * Checks files without running them: PostgreSQL's syntax, and statements that do not fit the way in which a
 * migration runs.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { type Finding, locate } from "./finding.ts";
import type { Directives } from "./directives.ts";
import type { Migration } from "./migration.ts";
import { sessionProblemOf } from "../sql/session_state.ts";
import { transactionClassOf } from "../sql/transactions.ts";
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
    const misfit = findMisfit(node, migration.directives);
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

function findMisfit(node: Node, { noTransaction }: Directives): Misfit | undefined {
  const { type, fields } = node;
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
  if (noTransaction) return sessionProblemOf(node);
  if (type === "VariableSetStmt" && isOfTransaction(fields)) {
    return {
      code: "transaction_settings",
      message:
        "the settings of a migration's transaction cannot be chosen: it has begun when the file's text runs",
      hint:
        "Leave it out: it runs at READ COMMITTED. Where it must see one state of a table, LOCK TABLE first.",
    };
  }
  const { outside } = transactionClassOf({ node });
  if (outside === undefined) return undefined;
  return {
    code: "not_in_transaction",
    message: `${outside} cannot run inside a transaction`,
    hint: "Put it in a migration of its own that starts with the line: -- pipeweave: no-transaction",
  };
}

/** SET TRANSACTION, and the parameters behind it. */
function isOfTransaction({ kind, name }: Node["fields"]): boolean {
  return kind === "VAR_SET_MULTI" && String(name).startsWith("TRANSACTION") ||
    /^transaction_(?:isolation|read_only|deferrable)$/i.test(String(name));
}

function transactionWord(fields: Node["fields"]): string {
  const kind = String(fields["kind"]).replace("TRANS_STMT_", "").replaceAll("_", " ");
  return kind === "START" ? "START TRANSACTION" : kind;
}
