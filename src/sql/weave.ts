/**
 * Puts SQL of ours between the statements of a file, and finds the way back from a place in the result to the file.
 *
 * @module
 */

import type { Statement } from "./statements.ts";

/** A file's text with something before each statement. */
export interface Woven {
  readonly text: string;
  /** Statements that were put before each of the file's own. */
  readonly each: number;
  /** The place in the file of a place in {@linkcode Woven.text}, both in UTF-16 units. */
  readonly toFile: (offset: number) => number;
}

/**
 * Puts SQL before each statement.
 *
 * @param before what to put before statement `k`, counted from 1: exactly one statement with its semicolon
 */
export function weave(text: string, statements: readonly Statement[], before: (k: number) => string): Woven {
  const marks = statements.map(({ start }, index) => ({ start, inserted: before(index + 1) }));
  let woven = "";
  let from = 0;
  for (const { start, inserted } of marks) {
    woven += text.slice(from, start) + inserted;
    from = start;
  }
  return {
    text: woven + text.slice(from),
    each: 1,
    toFile: (offset) => {
      let shift = 0;
      for (const { start, inserted } of marks) {
        if (offset < start + shift + inserted.length) break;
        shift += inserted.length;
      }
      return offset - shift;
    },
  };
}

/** The text as it is. */
export function unwoven(text: string): Woven {
  return { text, each: 0, toFile: (offset) => offset };
}
