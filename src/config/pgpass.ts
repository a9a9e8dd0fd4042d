/**
 * The password file, as libpq reads it (PostgreSQL documentation, 32.16 "The Password File").
 *
 * @module
 */

/** What a line of the password file is matched against. */
export interface PasswordKey {
  /** Host name as the user gave it; `localhost` stands for a Unix socket in the default folder. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
}

const FIELD = String.raw`((?:\\.|[^:\\])*)`;
/** `host:port:database:user:password`; a colon or backslash inside a field is escaped by a backslash. */
const LINE = new RegExp(`^${FIELD}:${FIELD}:${FIELD}:${FIELD}:(.*)$`);

const unescaped = (field: string) => field.replace(/\\(.)/g, "$1");

/** The password of the first line that matches, or undefined. */
export function findPassword(text: string, key: PasswordKey): string | undefined {
  const wanted = [key.host, String(key.port), key.database, key.user];
  for (const line of text.split(/\r?\n/)) {
    const fields = line.startsWith("#") ? null : LINE.exec(line)?.slice(1);
    if (!fields) continue;
    // A bare asterisk matches anything; an escaped one is a literal.
    if (wanted.every((value, i) => fields[i] === "*" || unescaped(fields[i]!) === value)) {
      return unescaped(fields[4]!);
    }
  }
  return undefined;
}
