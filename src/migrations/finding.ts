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
 * The place of a character in a file.
 *
 * @param offset UTF-16 units from the start of `text`
 * @param from where the statement starts; the excerpt does not go back beyond it
 */
export function locate(file: string, text: string, offset: number, from = 0): SqlLocation {
  const at = Math.max(0, Math.min(offset, text.length));
  const before = text.slice(0, at).split("\n");
  const line = before.length;
  const column = [...before[line - 1]!].length + 1;
  const first = Math.max(text.slice(0, from).split("\n").length, line - LINES_BEFORE);
  const width = String(line).length;
  const shown = text.split("\n").slice(first - 1, line);
  const rows = shown.map((content, i) => {
    const number = first + i;
    const cut = number === line ? Math.max(0, column - EXCERPT_COLUMNS) : 0;
    return {
      number,
      cut,
      content: [...content].slice(cut, cut + EXCERPT_COLUMNS).join("").replaceAll("\t", " "),
    };
  });
  const cut = rows.at(-1)?.cut ?? 0;
  const excerpt = [
    ...rows.map(({ number, content }) => `  ${String(number).padStart(width)} | ${content}`.trimEnd()),
    `  ${" ".repeat(width)} | ${" ".repeat(columnsOf([...before[line - 1]!].slice(cut)))}^`,
  ].join("\n");
  return { file, line, column, excerpt };
}

/** Characters that a terminal draws two columns wide (Unicode's East Asian Width W and F, in broad ranges). */
const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}]/u;

function columnsOf(characters: readonly string[]): number {
  return characters.reduce((columns, character) => columns + (WIDE.test(character) ? 2 : 1), 0);
}
