/**
 * What a text looks like to PostgreSQL's own scanner: comments and strings.
 *
 * @module
 */

import { unitsByBytes } from "./offsets.ts";

/** Whether a comment begins at a place, and not something that looks like one in a string. */
export async function commentAt(text: string, offset: number): Promise<boolean> {
  const { scan } = await import("libpg-query");
  const { tokens } = await scan(text);
  const units = unitsByBytes(text);
  return tokens.some(({ start, tokenName }) => /COMMENT$/.test(tokenName) && units(start) === offset);
}

/**
 * The first string that means something else where standard_conforming_strings is off: one with a backslash that is not
 * written as E'…'. What the text sets before it counts.
 *
 * @returns its place in UTF-16 units
 */
export async function ambiguousStringIn(text: string): Promise<number | undefined> {
  if (!text.includes("\\")) return undefined;
  const { scan } = await import("libpg-query");
  const { tokens } = await scan(text);
  const units = unitsByBytes(text);
  const set = /\bstandard_conforming_strings\b/i.exec(text)?.index ?? Infinity;
  for (const { start, end, tokenName } of tokens) {
    const [from, to] = [units(start), units(end)];
    if (from > set) return undefined;
    if (tokenName === "SCONST" && text[from] === "'" && text.slice(from, to).includes("\\")) return from;
  }
  return undefined;
}
