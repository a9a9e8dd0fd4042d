/**
 * Texts that others wrote into the database, made safe to print: reasons, names, ids.
 *
 * @module
 */

/**
 * Replaces control characters by what stands for them, so that a text neither moves the cursor of a terminal nor breaks
 * the lines of a report: `\n`, `\x1b`.
 */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- they are what it is about
  return text.replace(/[\x00-\x1f\x7f-\x9f\u2028\u2029]/g, (character) => {
    const known = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
    return known ?? `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}
