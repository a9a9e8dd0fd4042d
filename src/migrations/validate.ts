/**
 * Checks files without running them: PostgreSQL's syntax, and statements that do not fit the way in which a
 * migration runs.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { type Finding, locate } from "./finding.ts";
import { foreignMark, type Mark } from "./dialects.ts";
import { ownTableChangedBy, pathSetBy } from "./own_tables.ts";
import { EMBEDDED, type Migration } from "./migration.ts";
import { ambiguousStringIn } from "../sql/comments.ts";
import { sessionProblemOf } from "../sql/session_state.ts";
import { transactionClassOf } from "../sql/transactions.ts";
import { type Node, SqlSyntaxError, type Statement, statementsOf } from "../sql/statements.ts";

/** What a statement breaks, and the way out. */
interface Misfit {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** What files are held against besides PostgreSQL's grammar. */
export interface ValidationTerms {
  /** Whether the database reads backslashes in strings as escapes. Default: false */
  readonly escapes?: boolean | undefined;
  /** Schema of PipeWeave's tables. Default: public */
  readonly schema?: string | undefined;
}

/** All that is wrong with one file's SQL. */
export async function validateSql(
  migration: Migration,
  { schema = "public", escapes = false }: ValidationTerms = {},
): Promise<readonly Finding[]> {
  const { file, sql } = migration;
  let statements: readonly Statement[];
  try {
    statements = await statementsOf(migration);
  } catch (error) {
    if (!(error instanceof SqlSyntaxError)) throw error;
    const foreign = await foreignMark(sql, undefined);
    if (foreign) return [foreignDialect(migration, foreign)];
    const invisible = invisibleNear(sql, error.offset);
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
      ...(meta ? { hint: hintAboutMeta(sql, error.offset) } : {}),
      ...(invisible ? { hint: `There is an invisible character (${invisible}): remove it.` } : {}),
    }];
  }
  if (statements.length === 0) {
    // An unfinished template would be told as applied, and a way down that does nothing as rolled back.
    return [{
      ...{ severity: "error", code: "no_statement", file, message: "holds comments and no statement" },
      hint: file.endsWith(".down.sql")
        ? "Write what undoes it, or remove the file: then there is no way back."
        : "Write what it does; where it is to do nothing: SELECT 1;",
    }];
  }
  const foreign = await foreignMark(sql, statements);
  if (foreign) return [foreignDialect(migration, foreign)];
  const ambiguous = escapes ? await ambiguousStringIn(sql) : undefined;
  if (ambiguous !== undefined) {
    return [{
      severity: "error",
      code: "ambiguous_string",
      file,
      message:
        "a backslash in a string is an escape in this database (standard_conforming_strings is off), and none elsewhere",
      location: locate(file, sql, ambiguous, ambiguous),
      hint:
        "Write E'...' where an escape is meant, or begin the file with: SET standard_conforming_strings = on;",
    }];
  }
  let path: string | undefined;
  return statements.flatMap(({ node, start }): Finding[] => {
    path = pathSetBy(node) ?? path;
    const misfit = findMisfit(node, migration, schema, path);
    const found = misfit ?? findHazard(node);
    return found
      ? [{
        severity: misfit ? "error" : "warning",
        file,
        location: locate(file, sql, start, start),
        ...found,
      }]
      : [];
  });
}

function foreignDialect({ file, sql }: Migration, { tool, line, offset, hint }: Mark): Finding {
  return {
    severity: "error",
    code: "foreign_dialect",
    file,
    message: `is a migration of ${tool}: "${line}" would be a comment here, and everything would run`,
    location: locate(file, sql, offset, offset),
    hint,
  };
}

/** The first invisible character that PostgreSQL takes for a part of a word, near a place; as `U+00A0`. */
function invisibleNear(sql: string, offset: number): string | undefined {
  const found = /[\u00a0\u1680\u2000-\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]/.exec(
    // In a string it is a letter like others.
    sql.slice(Math.max(0, offset - 40), offset + 40).replaceAll(/'[^'\n]*'/g, "''"),
  );
  return found ? `U+${found[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}` : undefined;
}

function hintAboutMeta(sql: string, offset: number): string {
  const line = sql.slice(sql.lastIndexOf("\n", offset) + 1).trimStart();
  return /^\\(?:un)?restrict\b/.test(line)
    ? "pg_dump writes these lines for psql: delete those that start with \\restrict and \\unrestrict."
    : "Commands that start with a backslash are psql's own; write SQL instead.";
}

/** What runs, and hurts. */
function findHazard({ type, fields }: Node): Misfit | undefined {
  if (type !== "VariableSetStmt" || fields["name"] !== "lock_timeout") return undefined;
  const value = JSON.stringify(fields["args"] ?? []);
  if (fields["kind"] === "VAR_SET_VALUE" && !/"ival":\{\}|"ival":0|"sval":"0\D*"/.test(value)) {
    return undefined;
  }
  return {
    code: "no_lock_timeout",
    message:
      "it switches the limit for locks off: others queue behind each lock that it waits for, without an end",
    hint: "Leave it out; for a longer wait: -- pipeweave: lock-timeout 1min",
  };
}

/** All that is wrong with several files: one after the other, since each may be large. */
export async function validateAll(
  migrations: readonly Migration[],
  terms: ValidationTerms,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const migration of migrations) findings.push(...await validateSql(migration, terms));
  return findings;
}

/**
 * Refuses migrations whose SQL must not be sent.
 *
 * @throws {PipeweaveError} of kind `integrity`, listing everything that is wrong
 */
export async function assertRunnable(
  migrations: readonly Migration[],
  terms: ValidationTerms,
): Promise<void> {
  const findings = await validateAll(migrations, terms);
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

function findMisfit(
  node: Node,
  { directives: { noTransaction }, file, source }: Migration,
  schema: string,
  path: string | undefined,
): Misfit | undefined {
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
  const own = source === EMBEDDED ? undefined : ownTableChangedBy(node, schema, path);
  if (own) {
    return {
      code: "own_table",
      message: `it changes ${own}, in which PipeWeave keeps its books`,
      hint:
        "Leave it out. Where a table of another tool is meant, give PipeWeave's a schema of their own: --schema pipeweave",
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
    hint: file.endsWith(".down.sql")
      ? "Roll-backs run in a transaction: write it without CONCURRENTLY. With requires maintenance it hurts nobody."
      : "Put it in a migration of its own that starts with the line: -- pipeweave: no-transaction",
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
