/**
 * libpq's `require_auth`: which proofs of who we are the server may ask for (PostgreSQL documentation, 32.1.2).
 *
 * @module
 */

/** Methods of authentication; `none` lets in without any proof. */
export const AUTHENTICATION_METHODS = ["password", "md5", "gss", "sspi", "scram-sha-256", "none"] as const;
export type AuthenticationMethod = (typeof AUTHENTICATION_METHODS)[number];

/**
 * Reads a list of methods, or of methods that are excluded, each with `!` before it.
 *
 * @returns the methods that are allowed; undefined where the text is empty and all are
 * @throws {RangeError} whose message continues "require_auth …"
 */
export function parseRequireAuth(text: string): readonly AuthenticationMethod[] | undefined {
  const names = text.split(",").map((name) => name.trim()).filter((name) => name !== "");
  if (names.length === 0) return undefined;
  const excluded = names.filter((name) => name.startsWith("!")).map((name) => name.slice(1));
  if (excluded.length > 0 && excluded.length < names.length) {
    throw new RangeError("must not mix methods with and without !");
  }
  const listed = excluded.length > 0 ? excluded : names;
  const unknown = listed.find((name) => !(AUTHENTICATION_METHODS as readonly string[]).includes(name));
  if (unknown !== undefined) {
    throw new RangeError(`names a method that is not one of ${AUTHENTICATION_METHODS.join(", ")}`);
  }
  if (new Set(listed).size < listed.length) throw new RangeError("names a method twice");
  return AUTHENTICATION_METHODS.filter((method) => listed.includes(method) === (excluded.length === 0));
}
