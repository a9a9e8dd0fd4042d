/**
 * Lines for psql in a file of SQL: those that mean nothing to a schema are left out.
 *
 * @module
 */

import { parseStatements, SqlSyntaxError } from "../sql/statements.ts";

/** Commands that mean nothing to a schema. */
const NOTHING =
  /^\\(?:set\s+ON_ERROR_STOP\b.*|set\s+ECHO\b.*|echo\b.*|timing\b.*|pset\b.*|encoding\b.*|(?:un)?restrict\b.*)$/i;
/** psql reads no further. */
const QUIT = /^\\q(?:uit)?$/;
/** Lines at most that are taken out: each is found by reading the text again. */
const MOST = 1000;

/**
 * Takes them out. A line is a command where PostgreSQL cannot read on, so one within a string stays.
 *
 * @param decisions told of it
 */
export async function withoutPsql(text: string, decisions: string[]): Promise<string> {
  if (!/^\s*\\/m.test(text)) return text;
  let sql = text;
  let count = 0;
  let isQuit = false;
  while (count < MOST && !isQuit) {
    const at = await syntaxErrorIn(sql);
    if (at === undefined) break;
    const start = sql.lastIndexOf("\n", at - 1) + 1;
    const next = sql.indexOf("\n", at);
    const end = next === -1 ? sql.length : next + 1;
    const line = sql.slice(start, end).trim();
    if (sql.slice(start, at).trim() !== "") break;
    isQuit = QUIT.test(line);
    if (!isQuit && !NOTHING.test(line)) break;
    const behind = sql.slice(end);
    if (isQuit && /\S/.test(behind)) {
      decisions.push("what stands behind \\q was left out: psql does not read it");
    }
    sql = sql.slice(0, start) + (isQuit ? "" : behind);
    count++;
  }
  if (count > 0) decisions.push(`${count} line(s) for psql alone were left out`);
  return sql;
}

async function syntaxErrorIn(sql: string): Promise<number | undefined> {
  try {
    await parseStatements(sql);
    return undefined;
  } catch (error) {
    if (error instanceof SqlSyntaxError) return error.offset;
    throw error;
  }
}
