/**
 * What is wrong with a file, found without running it.
 *
 * @module
 */

import type { SqlLocation } from "../errors.ts";

/** One thing that is wrong, or worth a look. */
export interface Finding {
  /** An error keeps migrations from being applied. */
  readonly severity: "error" | "warning";
  /** A stable identifier, for `--json`. */
  readonly code: string;
  /** The file or folder that it is about. */
  readonly file: string;
  /** What is wrong; reads on from the file's name. */
  readonly message: string;
  /** How to put it right. */
  readonly hint?: string;
  /** The place in the file. */
  readonly location?: SqlLocation;
}

/** Lines of a statement that an excerpt shows before the one with the caret. */
const LINES_BEFORE = 3;
/** Columns that fit beside the line number on a narrow terminal; longer lines are cut around the caret. */
const EXCERPT_COLUMNS = 100;

/**
 * The place of a character in a file. The caret of the excerpt stands below it where every character is as wide as the others;
 * whoever draws it moves it.
 *
 * @param offset UTF-16 units from the start of `text`
 * @param from where the statement starts; the excerpt does not go back beyond it
 */
export function locate(file: string, text: string, offset: number, from = 0): SqlLocation {
  const at = Math.max(0, Math.min(offset, text.length));
  const starts = lineStarts(text);
  const line = lineOf(text, at);
  const before = text.slice(starts[line - 1]!, at);
  const column = [...before].length + 1;
  const first = Math.max(lineOf(text, from), line - LINES_BEFORE);
  const width = String(line).length;
  const shown = text.slice(starts[first - 1]!, starts[line] === undefined ? undefined : starts[line]! - 1)
    .split("\n");
  const rows = shown.map((content, i) => {
    const number = first + i;
    // What stands before the place tells more than what follows, and the place itself has to be seen.
    const cut = number === line && column > EXCERPT_COLUMNS * 2 / 3
      ? column - Math.floor(EXCERPT_COLUMNS * 2 / 3)
      : 0;
    return {
      number,
      cut,
      content: [...content].slice(cut, cut + EXCERPT_COLUMNS).join("").replaceAll("\t", " "),
    };
  });
  const cut = rows.at(-1)?.cut ?? 0;
  const excerpt = [
    ...rows.map(({ number, content }) => `  ${String(number).padStart(width)} | ${content}`.trimEnd()),
    `  ${" ".repeat(width)} | ${" ".repeat([...before].slice(cut).length)}^`,
  ].join("\n");
  return { file, line, column, excerpt };
}

/** The text that was asked about last, and where its lines begin: files are asked about statement by statement. */
let known: { readonly text: string; readonly starts: readonly number[] } = { text: "", starts: [0] };

function lineStarts(text: string): readonly number[] {
  if (known.text !== text) {
    const starts = [0];
    for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) starts.push(at + 1);
    known = { text, starts };
  }
  return known.starts;
}

/** The line of a character, counted from 1. */
export function lineOf(text: string, offset: number): number {
  const starts = lineStarts(text);
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (starts[middle]! <= offset) low = middle;
    else high = middle - 1;
  }
  return low + 1;
}
