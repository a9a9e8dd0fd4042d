/**
 * SASLprep (RFC 4013), as PostgreSQL applies it to passwords: the same password, typed with other code points, is the
 * same. Where a password may not be prepared, PostgreSQL takes it as it is.
 *
 * Left out: that code points which Unicode 3.2 did not know make a password one that may not be prepared. It matters for
 * passwords alone that hold such a character besides one that is changed here.
 *
 * @module
 */

/** Spaces beside the ASCII one (RFC 3454, C.1.2): each stands for that one. */
const SPACES = /[\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000]/g;
/** What stands for nothing (RFC 3454, B.1). */
const NOTHING = /[\u00ad\u034f\u1806\u180b-\u180d\u200c\u200d\u2060\ufe00-\ufe0f\ufeff]/g;
/** What a prepared text may not hold: control characters, private use, surrogates, tags, … (RFC 3454, C.2 to C.9). */
const PROHIBITED =
  /[\p{Cc}\p{Co}\p{Cs}\p{Noncharacter_Code_Point}\u06dd\u070f\u180e\u2028\u2029\u2061-\u2063\u206a-\u206f\ufff9-\ufffd\u2ff0-\u2ffb\u0340\u0341\u200e\u200f\u202a-\u202e\u{1d173}-\u{1d17a}\u{e0001}\u{e0020}-\u{e007f}]/u;
/** Characters that are written from right to left, and those from left to right (RFC 3454, D.1 and D.2, by script). */
const RIGHT_TO_LEFT = /[\p{sc=Hebrew}\p{sc=Arabic}\p{sc=Syriac}\p{sc=Thaana}]/u;
const LEFT_TO_RIGHT = /[\p{sc=Latin}\p{sc=Greek}\p{sc=Cyrillic}\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}]/u;

/** Prepares a password; returns it unchanged where it may not be prepared. */
export function prepared(password: string): string {
  // deno-lint-ignore no-control-regex -- ASCII is meant
  if (/^[\x00-\x7f]*$/.test(password)) return password;
  const text = password.replace(SPACES, " ").replace(NOTHING, "").normalize("NFKC");
  const characters = [...text];
  const isMixed = RIGHT_TO_LEFT.test(text) &&
    (LEFT_TO_RIGHT.test(text) ||
      ![characters[0]!, characters.at(-1)!].every((end) => RIGHT_TO_LEFT.test(end)));
  return text === "" || PROHIBITED.test(text) || isMixed ? password : text;
}
