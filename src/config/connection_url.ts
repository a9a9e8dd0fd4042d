/**
 * Connection URLs, read as libpq reads them (PostgreSQL documentation, 32.1.1.2 "Connection URIs").
 *
 * The platform's URL class cannot: it refuses several hosts and normalises what libpq keeps.
 *
 * @module
 */

/** libpq's connection parameters by keyword; comma-separated lists stay as written. */
export type ConnectionParameters = { [keyword: string]: string };

const ENCODING_HELP = "special characters in a user name or password must be percent-encoded " +
  "(@ is %40, / is %2F, : is %3A, # is %23, % is %25)";

/** A URL that could not be read. The message never holds a part of the URL, since any part may be a secret. */
export class ConnectionUrlError extends Error {
  override readonly name = "ConnectionUrlError";
}

function decoded(text: string, what: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ConnectionUrlError(`has a broken percent-encoding in the ${what}; ${ENCODING_HELP}`);
  }
}

/** Splits `host1:5433,[::1]:5434,host3` into parallel lists of hosts and ports. */
function readHosts(hostspec: string): { hosts: string[]; ports: string[] } {
  const hosts: string[] = [];
  const ports: string[] = [];
  for (const part of hostspec.split(",")) {
    const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(\d*))?$/.exec(part);
    if (!match) throw new ConnectionUrlError(`has a host or port that cannot be read; ${ENCODING_HELP}`);
    hosts.push(match[1] ?? decoded(match[2]!, "host"));
    ports.push(match[3] ?? "");
  }
  return { hosts, ports };
}

/**
 * Reads `postgres://` and `postgresql://` URLs: several hosts, IPv6 in brackets, percent-encoding, and any
 * parameter in the query (`?host=/run/postgresql&sslmode=require`).
 *
 * @throws {ConnectionUrlError} whose message continues a sentence: "--url …"
 */
export function parseConnectionUrl(url: string): ConnectionParameters {
  const scheme = /^postgres(?:ql)?:\/\//.exec(url);
  if (!scheme) throw new ConnectionUrlError("must start with postgres:// or postgresql://");
  let rest = url.slice(scheme[0].length);
  const parameters: ConnectionParameters = {};

  // Credentials end at the first @ that comes before any slash; only then do / and ? have their meaning.
  const end = rest.search(/[@/]/);
  if (end !== -1 && rest[end] === "@") {
    const [user, password] = splitOnce(rest.slice(0, end), ":");
    if (user !== "") parameters["user"] = decoded(user, "user name");
    if (password !== undefined && password !== "") parameters["password"] = decoded(password, "password");
    rest = rest.slice(end + 1);
  }
  const [path, query = ""] = splitOnce(rest, "?");
  const [authority, database = ""] = splitOnce(path, "/");
  // An unescaped @ belonged to the password, and so would part of what is taken for host or database.
  if (path.includes("@")) {
    const what = parameters["user"] === undefined && parameters["password"] === undefined
      ? "a / before its @"
      : "more than one @";
    throw new ConnectionUrlError(`has ${what}; ${ENCODING_HELP}`);
  }
  if (database !== "") parameters["dbname"] = decoded(database, "database name");
  if (authority !== "") {
    const { hosts, ports } = readHosts(authority);
    if (hosts.some((host) => host !== "")) parameters["host"] = hosts.join(",");
    if (ports.some((port) => port !== "")) parameters["port"] = ports.join(",");
  }

  // libpq takes an & at the end.
  for (const pair of query === "" ? [] : query.replace(/&$/, "").split("&")) {
    const [keyword, value] = splitOnce(pair, "=");
    if (keyword === "" || value === undefined) {
      throw new ConnectionUrlError("has a query parameter without a name or a value");
    }
    const name = decoded(keyword, "query");
    // libpq takes JDBC's `ssl=true` for `sslmode=require`.
    if (name === "ssl" && value === "true") parameters["sslmode"] = "require";
    else parameters[name] = decoded(value, "query");
  }
  return parameters;
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const index = text.indexOf(separator);
  return index === -1 ? [text, undefined] : [text.slice(0, index), text.slice(index + separator.length)];
}
