/**
 * A file's statements, by PostgreSQL's own parser (libpg-query, the server's grammar as WebAssembly).
 *
 * The parser takes some 60 ms to load, so it is loaded when it is first needed and not before.
 *
 * @module
 */

import { unitsBefore, unitsByBytes } from "./offsets.ts";
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

  /** @param offset where it gave up, in UTF-16 units */
  constructor(message: string, readonly offset: number) {
    super(excerptOf(message));
  }
}

/**
 * Splits a text into its statements.
 *
 * @throws {SqlSyntaxError}
 */
export async function parseStatements(text: string): Promise<readonly Statement[]> {
  if (text.trim() === "") return [];
  const { parse, hasSqlDetails } = await import("libpg-query");
  const bytes = new TextEncoder().encode(text);
  try {
    const { stmts = [] } = await parse(text);
    // Where all characters are of one byte, as in most files, bytes are units.
    const units = bytes.length === text.length ? (at: number) => at : unitsByBytes(text);
    return stmts.map(({ stmt, stmt_location: from = 0, stmt_len: length }) => {
      const to = length ? from + length : bytes.length;
      const [type, fields] = Object.entries(stmt as object as Record<string, Record<string, unknown>>)[0]!;
      const start = units(from);
      const end = units(to);
      return { start: start + lengthOfLead(text.slice(start, end)), end, node: { type, fields } };
    });
  } catch (error) {
    if (!hasSqlDetails(error)) throw error;
    // The parser counts characters here, and bytes in its tree.
    const offset = unitsBefore(text, error.sqlDetails!.cursorPosition);
    throw new SqlSyntaxError(error.sqlDetails!.message, offset);
  }
}

/**
 * Parses migrations while there is nothing else to do, the last first, since those are the most likely to be needed; one
 * in a turn of the event loop, so that nothing waits for it.
 */
export function parseAhead(migrations: readonly { readonly sql: string }[]): { stop(): void } {
  let stopped = false;
  const start = async () => {
    await (await import("libpg-query")).loadModule();
    for (const migration of migrations.toReversed()) {
      await new Promise((resolve) => setTimeout(resolve));
      if (stopped) return;
      await statementsOf(migration);
    }
  };
  // What cannot be parsed is found again when it is asked for.
  start().catch(() => {});
  return { stop: () => stopped = true };
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
