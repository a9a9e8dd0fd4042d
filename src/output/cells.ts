/**
 * Fitting text to a terminal: a character takes no cell, one, or two, and a colour none.
 *
 * @module
 */

import { unicodeWidth } from "@std/cli/unicode-width";
import { stripAnsiCode } from "@std/fmt/colors";

// Made when it is first needed: that takes longer than connecting to a database does.
let segmenter: Intl.Segmenter | undefined;
const graphemesOf = (text: string) => (segmenter ??= new Intl.Segmenter()).segment(text);

// deno-lint-ignore no-control-regex -- what `Style` paints with (ECMA-48, 8.3.117)
const PAINT = /(\x1b\[[\d;]*m)/;

/** Cells that a text takes on a terminal. */
export function cellsOf(text: string): number {
  return unicodeWidth(stripAnsiCode(text));
}

/** A text of exactly so many cells or more: what is missing is filled with spaces. */
export function padded(text: string, cells: number): string {
  return text + " ".repeat(Math.max(0, cells - cellsOf(text)));
}

/**
 * The start of a text that takes at most so many cells; characters that belong together are not parted. Colours that begin in
 * it end in it.
 */
export function fitted(text: string, cells: number): string {
  if (cellsOf(text) <= cells) return text;
  let taken = 0;
  return text.split(PAINT).map((part, index) => {
    if (index % 2 === 1) return part;
    const start = startOf(part, cells - taken);
    // Behind the cut only colours are left.
    taken = start === part ? taken + cellsOf(part) : cells;
    return start;
  }).join("");
}

/** The start of a text without colours. */
function startOf(text: string, cells: number): string {
  if (cellsOf(text) <= cells) return text;
  let [end, taken] = [0, 0];
  for (const { segment, index } of graphemesOf(text)) {
    taken += cellsOf(segment);
    if (taken > cells) break;
    end = index + segment.length;
  }
  return text.slice(0, end);
}

/** What is left of a text without colours when its first cells are taken away; half a character is a space. */
export function without(text: string, cells: number): string {
  let taken = 0;
  for (const { segment, index } of graphemesOf(text)) {
    if (taken >= cells) return " ".repeat(taken - cells) + text.slice(index);
    taken += cellsOf(segment);
  }
  return "";
}

/** A text without colours in lines of at most so many cells, wherever a word stands. */
export function broken(text: string, cells: number): readonly string[] {
  const lines: string[] = [];
  for (let rest = text; rest !== "";) {
    // At least one character a line, also where none fits.
    const line = startOf(rest, Math.max(cells, 1)) || [...graphemesOf(rest)][0]!.segment;
    lines.push(line);
    rest = rest.slice(line.length);
  }
  return lines;
}

/** A word, with the blanks before it; a directive is one, so that it can be copied. */
const WORD = /( *)(-- pipeweave: [^ ]+|-- [^ ]+|[^ ]+)/g;

/**
 * A line in lines of at most so many cells, broken between words. A word that is too long for a line stays whole, so that it
 * can be copied.
 *
 * @param indent what stands before the second line, and those behind it
 */
export function wrapped(line: string, cells: number, indent = ""): readonly string[] {
  if (cells === Infinity || cellsOf(line) <= cells) return [line];
  const lines: string[] = [];
  let [current, gap] = ["", ""];
  const own = /^ */.exec(line)![0];
  for (const [, space = "", word = ""] of line.slice(own.length).matchAll(WORD)) {
    gap = current === "" ? own : space;
    if (current !== "" && cellsOf(current + gap + word) > cells) {
      lines.push(current);
      current = indent + word;
    } else current += gap + word;
  }
  return [...lines, current];
}
