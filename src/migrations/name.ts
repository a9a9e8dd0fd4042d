/**
 * The part of a migration's name that says what it does.
 *
 * @module
 */

/** Letters that a name may hold: lower case, or without cases; and digits, of any alphabet. */
export const NAME_PART = String.raw`[\p{Ll}\p{Lo}\p{Lm}\p{M}\p{Nd}]+`;

/** `Größe ändern!` as `größe_ändern`; empty where there is neither a letter nor a digit. */
export function nameOfWords(words: string): string {
  return words.normalize("NFC").replace(/(\p{Ll})(\p{Lu})/gu, "$1_$2").toLowerCase()
    .split(/[^\p{Ll}\p{Lo}\p{Lm}\p{M}\p{Nd}]+/u).filter((word) => word !== "").join("_");
}
