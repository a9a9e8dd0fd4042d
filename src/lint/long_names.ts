/**
 * Names that PostgreSQL cuts: NAMEDATALEN leaves 63 bytes (src/include/pg_config_manual.h), and the parser cuts the rest
 * off with a NOTICE alone.
 *
 * @module
 */

import type { Node } from "../sql/statements.ts";
import type { Hit } from "./hit.ts";

/** Bytes that a name may have. */
const LONGEST = 63;

/** A quoted or a bare name. */
const NAME = /"((?:[^"]|"")+)"|[\p{L}_][\p{L}\p{N}_$]*/gu;

/** The names of a statement that are cut. */
export function* longNames(node: Node, text: string): Generator<Hit> {
  let tree: string | undefined;
  const told = new Set<string>();
  for (const [word, quoted] of text.matchAll(NAME)) {
    const name = quoted?.replaceAll('""', '"') ?? word.toLowerCase();
    const { length } = new TextEncoder().encode(name);
    if (length <= LONGEST || told.has(name)) continue;
    told.add(name);
    const cut = beginningOf(name);
    // A word of a comment or of a string is no name: the parser has not cut it.
    tree ??= JSON.stringify(node.fields);
    if (!tree.includes(JSON.stringify(cut))) continue;
    yield { rule: "long-identifier", message: `names ${cut}… with ${length} bytes, of which 63 are kept` };
  }
}

/** As many characters as 63 bytes hold. */
function beginningOf(name: string): string {
  const bytes = new TextEncoder().encode(name);
  let end = LONGEST;
  // Not in the middle of a character, whose other bytes begin with 10.
  while ((bytes[end]! & 0xc0) === 0x80) end--;
  return new TextDecoder().decode(bytes.subarray(0, end));
}
