/**
 * Fitting text to a terminal: a character takes no cell, one, or two.
 *
 * @module
 */

import { unicodeWidth } from "@std/cli/unicode-width";

// Made when it is first needed: that takes longer than connecting to a database does.
let segmenter: Intl.Segmenter | undefined;
const graphemesOf = (text: string) => (segmenter ??= new Intl.Segmenter()).segment(text);

/** Cells that a text takes on a terminal. */
export function cellsOf(text: string): number {
  return unicodeWidth(text);
}

/** The start of a text that takes at most so many cells; characters that belong together are not parted. */
export function fitted(text: string, cells: number): string {
  if (cellsOf(text) <= cells) return text;
  let [end, taken] = [0, 0];
  for (const { segment, index } of graphemesOf(text)) {
    taken += cellsOf(segment);
    if (taken > cells) break;
    end = index + segment.length;
  }
  return text.slice(0, end);
}

/** A text in lines of at most so many cells. */
export function broken(text: string, cells: number): readonly string[] {
  const lines: string[] = [];
  for (let rest = text; rest !== "";) {
    // At least one character a line, also where none fits.
    const line = fitted(rest, Math.max(cells, 1)) || [...graphemesOf(rest)][0]!.segment;
    lines.push(line);
    rest = rest.slice(line.length);
  }
  return lines;
}
