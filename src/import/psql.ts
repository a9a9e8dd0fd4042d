/**
 * Lines for psql in a file of SQL: those that mean nothing to a schema are left out.
 *
 * @module
 */

import { parseStatements, SqlSyntaxError, type Statement } from "../sql/statements.ts";

/** Commands that mean nothing to a schema. */
const NOTHING =
  /^[ \t]*\\(?:set\s+ON_ERROR_STOP\b.*|set\s+ECHO\b.*|echo\b.*|timing\b.*|pset\b.*|encoding\b.*|(?:un)?restrict\b.*)$/i;
/** psql reads no further. */
const QUIT = /^[ \t]*\\q(?:uit)?\s*$/;

/**
 * Takes them out. A line within a statement is part of a string there, and stays.
 *
 * @param decisions told of it
 */
export async function withoutPsql(text: string, decisions: string[]): Promise<string> {
  const lines = text.split(/(?<=\n)/);
  let at = 0;
  const commands = lines.flatMap((line) => {
    const start = at;
    at += line.length;
    const bare = line.trimEnd();
    return NOTHING.test(bare) || QUIT.test(bare) ? [{ start, end: at, isQuit: QUIT.test(bare) }] : [];
  });
  if (commands.length === 0) return text;
  const blank = commands.reduceRight(
    (rest, { start, end }) =>
      rest.slice(0, start) + rest.slice(start, end).replace(/[^\r\n]/g, " ") + rest.slice(end),
    text,
  );
  const statements = await parsed(blank);
  if (!statements) return text;
  const outside = commands.filter(({ start }) =>
    !statements.some((one) => one.start <= start && start < one.end)
  );
  const quit = outside.findIndex(({ isQuit }) => isQuit);
  const last = quit === -1 ? undefined : outside[quit]!;
  const left = quit === -1 ? outside : outside.slice(0, quit + 1);
  let sql = last ? text.slice(0, last.end) : text;
  for (const { start, end } of left.toReversed()) sql = sql.slice(0, start) + sql.slice(end);
  if (last && /\S/.test(text.slice(last.end))) {
    decisions.push("what stands behind \\q was left out: psql does not read it");
  }
  if (left.length > 0) decisions.push(`${left.length} line(s) for psql alone were left out`);
  return sql;
}

/** Statements; undefined where PostgreSQL cannot read the text: another command is in it, and is told. */
async function parsed(sql: string): Promise<readonly Statement[] | undefined> {
  try {
    return await parseStatements(sql);
  } catch (error) {
    if (error instanceof SqlSyntaxError) return undefined;
    throw error;
  }
}
