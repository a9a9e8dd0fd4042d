/**
 * A file's statements, by PostgreSQL's own parser (libpg-query, the server's grammar as WebAssembly).
 *
 * The parser takes some 60 ms to load, so it is loaded when it is first needed and not before.
 *
 * @module
 */

import { unitsBefore, unitsByBytes } from "./offsets.ts";
import { pieceEnds } from "./split.ts";
import { excerptOf } from "../printable.ts";

/** A parse tree node: its type, and its fields as libpg-query names them. */
export interface Node {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** One statement of a file. Offsets are UTF-16 units from the start of the text. */
export interface Statement {
  /** First character of the statement, comments before it left out. */
  readonly start: number;
  /** Behind the last character, the semicolon left out. */
  readonly end: number;
  readonly node: Node;
}

/** PostgreSQL cannot read the text. */
export class SqlSyntaxError extends Error {
  override readonly name = "SqlSyntaxError";

  readonly offset: number;

  /** @param offset where it gave up, in UTF-16 units */
  constructor(message: string, offset: number) {
    super(excerptOf(message));
    this.offset = offset;
  }
}

/** UTF-16 units of text that the parser reads at a time, or one statement where that is longer. */
const PIECE = 1024 * 1024;

/**
 * Splits a text into its statements.
 *
 * @throws {SqlSyntaxError}
 */
export async function parseStatements(text: string): Promise<readonly Statement[]> {
  if (text.trim() === "") return [];
  if (text.length <= PIECE) return await parsePiece(text);
  const statements: Statement[] = [];
  let from = 0;
  let ends = pieceEnds(text, PIECE);
  for (let index = 0; index < ends.length; index++) {
    try {
      statements.push(...moved(await parsePiece(text.slice(from, ends[index]!)), from));
    } catch (error) {
      if (!(error instanceof SqlSyntaxError)) throw error;
      // It may be half of a statement, if it is not wrong: the rest is read at once.
      if (index === ends.length - 1) throw new SqlSyntaxError(error.message, error.offset + from);
      ends = [...ends.slice(0, index), text.length];
      index--;
      continue;
    }
    from = ends[index]!;
    // A connection may be under way, whose timers are not to wait for us.
    await new Promise((resolve) => setTimeout(resolve));
  }
  return statements;
}

function moved(statements: readonly Statement[], by: number): Statement[] {
  return statements.map(({ start, end, node }) => ({ start: start + by, end: end + by, node }));
}

async function parsePiece(text: string): Promise<readonly Statement[]> {
  const { parse, hasSqlDetails } = await import("libpg-query");
  const length = text.length;
  const bytes = new TextEncoder().encode(text).length;
  try {
    const { stmts = [] } = await parse(text);
    // Where all characters are of one byte, as in most files, bytes are units.
    const units = bytes === length ? (at: number) => at : unitsByBytes(text);
    return stmts.map(({ stmt, stmt_location: from = 0, stmt_len: size }) => {
      const to = size ? from + size : bytes;
      const [type, fields] = Object.entries(stmt as object as Record<string, Record<string, unknown>>)[0]!;
      const start = units(from);
      const end = units(to);
      const node = { type, fields: length < KEPT_WHOLE ? fields : withoutRows(type, fields) };
      return { start: start + lengthOfLead(text.slice(start, end)), end, node };
    });
  } catch (error) {
    if (hasSqlDetails(error)) {
      // The parser counts characters here, and bytes in its tree.
      throw new SqlSyntaxError(
        error.sqlDetails!.message,
        unitsBefore(text, error.sqlDetails!.cursorPosition),
      );
    }
    if (error instanceof Error) throw error;
    // WebAssembly has no more memory, and its module is of no use any more.
    throw new SqlSyntaxError(
      `a statement, or the statements, of ${
        (bytes / 1024 / 1024).toFixed(0)
      } MB are too large for the parser: split the file`,
      0,
    );
  }
}

/** UTF-16 units of text up to which trees are kept as they are. */
const KEPT_WHOLE = 64 * 1024;

/** An INSERT without its rows, of which nobody asks what they are: they are most of a large file's tree. */
function withoutRows(type: string, fields: Record<string, unknown>): Record<string, unknown> {
  const select = (fields["selectStmt"] as { SelectStmt?: Record<string, unknown> } | undefined)?.SelectStmt;
  if (type !== "InsertStmt" || !Array.isArray(select?.["valuesLists"])) return fields;
  if (JSON.stringify(select["valuesLists"]).includes('"set_config"')) return fields;
  return { ...fields, selectStmt: { SelectStmt: { ...select, valuesLists: [] } } };
}

const parsed = new WeakMap<object, Promise<readonly Statement[]>>();

/**
 * The statements of a migration, parsed once.
 *
 * @throws {SqlSyntaxError}
 */
export function statementsOf(migration: { readonly sql: string }): Promise<readonly Statement[]> {
  let statements = parsed.get(migration);
  if (!statements) parsed.set(migration, statements = parseStatements(migration.sql));
  return statements;
}

/** Length of the white space and comments at the start; comments nest, as in PostgreSQL. */
function lengthOfLead(text: string): number {
  let at = 0;
  for (;;) {
    const rest = text.slice(at);
    const plain = /^(?:\s+|--[^\n]*)/.exec(rest);
    if (plain) at += plain[0].length;
    else if (rest.startsWith("/*")) at += lengthOfComment(rest);
    else return at;
  }
}

function lengthOfComment(text: string): number {
  let depth = 0;
  for (const mark of text.matchAll(/\/\*|\*\//g)) {
    depth += mark[0] === "/*" ? 1 : -1;
    if (depth === 0) return mark.index + 2;
  }
  return text.length;
}
