/**
 * Command lines to be copied.
 *
 * @module
 */

/** A word of a command line as a POSIX shell reads it. */
export function shellQuoted(word: string): string {
  return /^[\w./:@-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
