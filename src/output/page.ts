/**
 * What a report is printed on: how wide it is, whether it has colours, and whether somebody looks at it now.
 *
 * @module
 */

import { cellsOf, fitted, without, wrapped } from "./cells.ts";
import { type Style, styleFor } from "./style.ts";

/** The page that a report is made for. */
export interface Page {
  /** Cells of a line; Infinity where there is no terminal. */
  readonly columns: number;
  readonly style: Style;
  /**
   * The time by this machine's clock, where a person looks; it tells how long ago something was. Undefined where programs may
   * read: they get the time alone.
   */
  readonly now?: Date | undefined;
}

/** A page without bounds and colours. */
export const PLAIN: Page = { columns: Infinity, style: styleFor(false) };

const [MINUTE, HOUR, DAY, YEAR] = [60, 3600, 86_400, 31_557_600];

/** How long ago something was, as one says it: `42s ago`, `5m ago`, `3h ago`, `2d ago`, `1y ago`. */
export function ageText(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const [size, unit] = seconds < 2 * MINUTE
    ? [1, "s"]
    : seconds < 2 * HOUR
    ? [MINUTE, "m"]
    : seconds < 2 * DAY
    ? [HOUR, "h"]
    : seconds < 2 * YEAR
    ? [DAY, "d"]
    : [YEAR, "y"];
  return `${Math.floor(seconds / (size as number))}${unit} ago`;
}

/**
 * A time in UTC, and how long ago that was where somebody looks. A time that is still to come, or seems to be by a clock that
 * is wrong, is told as it is.
 */
export function timeText(time: Date, { now, style }: Page): string {
  const ms = now ? now.getTime() - time.getTime() : -1;
  return time.toISOString() + (ms < 0 ? "" : style.faint(` (${ageText(ms)})`));
}

/** A line of an excerpt of a file: `  12 | CREATE …`, and the one with the caret below it. */
const EXCERPT_LINE = /^ *\d* *\|(?: |$)/;
const CARET_LINE = /^ *\| *\^$/;

/**
 * A report's lines as they fit a page: prose is broken between words, below its beginning; an excerpt of a file is cut around
 * its caret.
 *
 * @param columns Infinity changes nothing
 */
export function flowed(text: string, columns: number): string {
  if (columns === Infinity && !text.includes("^")) return text;
  const lines: string[] = [];
  let excerpt: string[] = [];
  const proseOf = (line: string) => wrapped(line, columns, `${/^ */.exec(line)![0]}  `);
  for (const line of text.split("\n")) {
    if (CARET_LINE.test(line)) lines.push(...fittedExcerpt([...excerpt, line], columns));
    else if (EXCERPT_LINE.test(line)) {
      excerpt.push(line);
      continue;
    } else lines.push(...excerpt.flatMap(proseOf), ...proseOf(line));
    excerpt = [];
  }
  return [...lines, ...excerpt.flatMap(proseOf)].join("\n");
}

/**
 * An excerpt cut to a page: the last two lines, of the caret and of what it points at, so that both are seen. The caret, which
 * counts characters, is moved to where its character is drawn.
 */
function fittedExcerpt(lines: readonly string[], columns: number): readonly string[] {
  const caret = lines.at(-1)!;
  const gutter = caret.indexOf("|") + 2;
  const room = Math.max(1, columns - gutter);
  const pointedAt = (lines.at(-2) ?? "").slice(gutter);
  const at = cellsOf([...pointedAt].slice(0, caret.length - 1 - gutter).join(""));
  // What stands before the place tells more than what follows.
  const skipped = at < room ? 0 : at - Math.floor(room * 2 / 3);
  const cut = (line: string, from: number) =>
    (line.slice(0, gutter) + fitted(without(line.slice(gutter), from), room)).trimEnd();
  return [
    ...lines.slice(0, -2).map((line) => cut(line, 0)),
    cut(lines.at(-2) ?? "", skipped),
    `${caret.slice(0, gutter)}${" ".repeat(at - skipped)}^`,
  ];
}
