/**
 * Texts that others wrote into the database, made safe to print: reasons, names, ids.
 *
 * @module
 */

// deno-lint-ignore no-control-regex -- they are what it is about
const UNPRINTABLE = /[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/**
 * Replaces control characters, and those that turn the direction of writing or are invisible, by what stands for them:
 * `\n`, `\x1b`, `\u202e`. So a text neither moves the cursor of a terminal nor breaks the lines of a report, nor looks
 * like another.
 */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => {
    const known = { "\n": "\\n", "\r": "\\r", "\t": "\\t" }[character];
    const code = character.charCodeAt(0).toString(16);
    return known ?? (code.length <= 2 ? `\\x${code.padStart(2, "0")}` : `\\u${code.padStart(4, "0")}`);
  });
}

/** {@linkcode printable} line by line: what breaks lines and what indents them stays. */
export function printableLines(text: string): string {
  return text.split("\n").map((line) => line.split("\t").map(printable).join("\t")).join("\n");
}

/** Lines, and characters of a line, of what a message quotes of a server's or a parser's. */
const QUOTED = { lines: 10, characters: 500 } as const;

/** A text of a server's or a parser's, cut to a few lines: it may quote a whole file. */
export function excerptOf(text: string): string {
  const lines = text.split("\n", QUOTED.lines + 1);
  const shown = lines.slice(0, QUOTED.lines).map((line) =>
    line.length <= QUOTED.characters
      ? line
      : `${[...line.slice(0, QUOTED.characters)].slice(0, -1).join("")}…`
  );
  return [...shown, ...(lines.length > QUOTED.lines ? ["…"] : [])].join("\n");
}

/**
 * {@linkcode printable}, and no longer than fits where it is stored: in ASCII, since the database may be in any encoding. It
 * cuts what other clients write in the same way.
 */
export function bounded(text: string, most: number): string {
  const characters = [...printable(text)];
  return characters.length <= most ? characters.join("") : `${characters.slice(0, most - 3).join("")}...`;
}
