/**
 * Files of other migration tools. Some of them keep the way up and the way down in one file, apart by comments that mean
 * nothing to PostgreSQL: run as they are, they make a table and drop it.
 *
 * @module
 */

import { excerptOf } from "../printable.ts";
import { commentAt } from "../sql/comments.ts";
import type { Statement } from "../sql/statements.ts";

/** A line by which another tool knows its files. */
export interface Mark {
  /** The tool. */
  readonly tool: string;
  /** The line, without white space around it. */
  readonly line: string;
  /** Where it begins, in UTF-16 units. */
  readonly offset: number;
  /** How to bring the file over. */
  readonly hint: string;
}

const SECTIONS =
  "Put what stands behind its mark for the way up into NNN_name.sql, what stands behind the one for the way down into NNN_name.down.sql, and leave the marks out: pipeweave db:import <folder> --output <new folder> does it.";
const HEADERS =
  "Take over the SQL alone, as NNN_name.sql, and what undoes it as NNN_name.down.sql: pipeweave db:import <folder> --output <new folder> does it.";

/** Lines of one tool alone, whatever their case and the white space in them. */
const TOOLS: readonly (readonly [tool: string, line: RegExp, hint: string])[] = [
  ["dbmate", /^--\s*migrate\s*:\s*(?:up|down)\b/i, SECTIONS],
  ["goose", /^--\s*\+\s*goose\b/i, SECTIONS],
  ["sql-migrate", /^--\s*\+\s*migrate\b/i, SECTIONS],
  ["micrate", /^--\s*\+\s*micrate\b/i, SECTIONS],
  ["Rambler", /^--\s*rambler\s+(?:up|down)\b/i, SECTIONS],
  ["tern", /^-{2,}\s*create\s+above\s*\/\s*drop\s+below\b/i, SECTIONS],
  ["node-pg-migrate", /^--\s*(?:up|down)\s+migration\s*$/i, SECTIONS],
  ["Aerich", /^--\s*(?:upgrade|downgrade)\s*--/i, SECTIONS],
  ["Mojo::Pg", /^--\s*\d+\s+(?:up|down)\s*$/i, SECTIONS],
  ["shmig", /^--\s*=+\s*(?:up|down)\s*=+/i, SECTIONS],
  ["Play evolutions", /^(?:#|--)\s*-*\s*!(?:ups|downs)\b/i, SECTIONS],
  ["MyBatis Migrations", /^--\s*\/\/\s*@undo\b/i, SECTIONS],
  ["Liquibase", /^--\s*(?:liquibase\s+formatted\s+sql|changeset\s+[^\s:]+:\S+)/i, HEADERS],
  ["sqitch", /^--\s*(?:deploy|revert|verify)\s+\S+\s+(?:to|from|on)\s+\S+\s*$/i, HEADERS],
  [
    "graphile-migrate",
    /^--!\s*(?:previous|hash|message|allowinvalidhash|no-transaction|split|include|revision)\b/i,
    HEADERS,
  ],
];

/** What begins a way up, and what a way down, by their words. */
const UP = "up|upgrade|forwards?|apply|do";
const DOWN = "down|downgrade|backwards?|reverse|revert|rollback|undo";
const PUNCTUATION = String.raw`[\s\-=+@!#*:;.,[\]{}<>/\d]*`;
/** A line of no tool in particular that begins a way up or down, and says nothing else. */
const DIRECTION = new RegExp(
  `^(?:--|#|/\\*)${PUNCTUATION}(?:(?:migrat(?:e|ion)s?|sql|name|section|begin|start|direction|script)\\b${PUNCTUATION})?(${UP}|${DOWN})` +
    `(?:${PUNCTUATION}(?:migration|sql|section|part|script))?${PUNCTUATION}$`,
  "i",
);
const IS_UP = new RegExp(`^(?:${UP})$`, "i");

/**
 * The first line in a file that another tool's files have. In a string it is none.
 *
 * @param statements undefined where PostgreSQL cannot read the file: any line counts then
 */
export async function foreignMark(
  text: string,
  statements: readonly Statement[] | undefined,
): Promise<Mark | undefined> {
  let up: Mark | undefined;
  let down: Mark | undefined;
  for (const match of text.matchAll(/^[ \t]*((?:--|#|\/\*)[^\n\r]*)/gm)) {
    const line = match[1]!.trim();
    const known = TOOLS.find(([, pattern]) => pattern.test(line));
    const direction = DIRECTION.exec(line)?.[1]?.toLowerCase();
    if (!known && !direction) continue;
    const offset = match.index + match[0].indexOf(match[1]!);
    if (statements && !await isComment(text, offset, statements)) continue;
    const shown = excerptOf(line);
    if (known) return { tool: known[0], line: shown, offset, hint: known[2] };
    const mark = { tool: "another tool", line: shown, offset, hint: SECTIONS };
    if (IS_UP.test(direction!)) up ??= mark;
    else down ??= mark;
  }
  // One alone may be a remark; both are sections.
  return up && down;
}

async function isComment(text: string, offset: number, statements: readonly Statement[]): Promise<boolean> {
  const around = statements.find(({ start, end }) => start <= offset && offset < end);
  return !around || await commentAt(text.slice(around.start, around.end), offset - around.start);
}
