/**
 * Places in texts, between the characters that PostgreSQL counts, the bytes that its parser counts, and JavaScript's units.
 *
 * @module
 */

/** UTF-16 units of the first `characters` characters. */
export function unitsBefore(text: string, characters: number): number {
  let units = 0;
  for (let left = characters; left > 0 && units < text.length; left--) {
    units += text.codePointAt(units)! > 0xffff ? 2 : 1;
  }
  return units;
}

/** Finds the UTF-16 units that stand before a count of UTF-8 bytes, for counts that ascend: in one pass over the text. */
export function unitsByBytes(text: string): (bytes: number) => number {
  let units = 0;
  let seen = 0;
  return (bytes) => {
    if (bytes < seen) units = seen = 0;
    while (seen < bytes && units < text.length) {
      const code = text.codePointAt(units)!;
      seen += code < 0x80 ? 1 : code < 0x800 ? 2 : code > 0xffff ? 4 : 3;
      units += code > 0xffff ? 2 : 1;
    }
    return units;
  };
}
