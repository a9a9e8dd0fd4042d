/**
 * Where comments are, by PostgreSQL's own scanner.
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
