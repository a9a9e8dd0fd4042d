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
  [
    "sqitch",
    // The header ends in the name of an engine: other remarks have these words, too.
    /^--\s*(?:deploy\s+\S+\s+to|revert\s+\S+\s+from|verify\s+\S+\s+on)\s+(?:pg|cockroach|yugabyte)\s*$/i,
    HEADERS,
  ],
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

/** node-pg-migrate takes a line for a mark whatever follows; one alone may be a remark. */
const LOOSE_DIRECTION = /^--[\s-]*(up|down)\s+migration\b/i;

/** A line that may be another tool's. */
interface Suspect {
  readonly mark: Mark;
  /** Which way begins there, by the words of no tool in particular; undefined for a line of one tool alone. */
  readonly direction: "up" | "down" | undefined;
}

/** Lines that look like another tool's marks, the first one first. In a string there are none. */
async function* suspectsIn(
  text: string,
  statements: readonly Statement[] | undefined,
): AsyncGenerator<Suspect> {
  for (const match of text.matchAll(/^[ \t]*((?:--|#|\/\*)[^\n\r]*)/gm)) {
    const line = match[1]!.trim();
    const known = TOOLS.find(([, pattern]) => pattern.test(line));
    const word = (DIRECTION.exec(line) ?? LOOSE_DIRECTION.exec(line))?.[1];
    if (!known && !word) continue;
    const offset = match.index + match[0].indexOf(match[1]!);
    if (statements && !await isComment(text, offset, statements)) continue;
    const [tool, , hint] = known ?? ["another tool", undefined, SECTIONS];
    yield {
      mark: { tool, line: excerptOf(line), offset, hint },
      direction: known ? undefined : IS_UP.test(word!) ? "up" : "down",
    };
  }
}

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
  for await (const { mark, direction } of suspectsIn(text, statements)) {
    if (!direction) return mark;
    if (direction === "up") up ??= mark;
    else down ??= mark;
  }
  // One alone may be a remark; both are sections.
  return up && down;
}

/**
 * A text whose lines that look like another tool's marks are remarks, which nobody takes for a mark: `-- was: migrate:down`. No
 * line goes, since a comment may have more of them, and end where one says so.
 *
 * @returns the text, and the lines that were changed
 */
export async function withoutForeignMarks(
  text: string,
  statements: readonly Statement[],
): Promise<{ readonly text: string; readonly lines: readonly string[] }> {
  const suspects: Suspect[] = [];
  for await (const suspect of suspectsIn(text, statements)) suspects.push(suspect);
  const has = (direction: Suspect["direction"]) => suspects.some((one) => one.direction === direction);
  if (!has(undefined) && !(has("up") && has("down"))) return { text, lines: [] };
  let changed = text;
  for (const { mark: { offset } } of suspects.toReversed()) {
    const opener = /^(?:--|#|\/\*)/.exec(text.slice(offset, offset + 2))![0];
    changed = `${changed.slice(0, offset)}${opener} was: ${
      changed.slice(offset + opener.length).replace(/^[ \t]*/, "")
    }`;
  }
  return { text: changed, lines: suspects.map(({ mark }) => mark.line) };
}

async function isComment(text: string, offset: number, statements: readonly Statement[]): Promise<boolean> {
  const around = statements.find(({ start, end }) => start <= offset && offset < end);
  return !around || await commentAt(text.slice(around.start, around.end), offset - around.start);
}
