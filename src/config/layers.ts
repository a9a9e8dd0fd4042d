/**
 * Where connection parameters are read from, in order of rank.
 *
 * @module
 */

import type { ConnectionFlags, Surroundings } from "./connection.ts";
import { type ConnectionParameters, ConnectionUrlError, parseConnectionUrl } from "./connection_url.ts";
import { endsIn, PG_VARIABLES } from "./parameters.ts";
import { findService } from "./service_file.ts";

/** A layer of settings and how to name it in a message. */
export interface Layer {
  readonly parameters: ConnectionParameters;
  readonly source: (keyword: string) => string;
}

function compact(entries: Record<string, string | undefined>): ConnectionParameters {
  const parameters: ConnectionParameters = {};
  for (const [keyword, value] of Object.entries(entries)) {
    // An empty environment variable counts as not set, as in libpq.
    if (value !== undefined && value !== "") parameters[keyword] = value;
  }
  return parameters;
}

function readUrl(url: string | undefined, name: string, problems: string[]): Layer {
  const source = (keyword: string) => `${keyword} in ${name}`;
  if (url === undefined || url === "") return { parameters: {}, source };
  const mistake = endsIn(url) ?? (/^\s/.test(url) ? "begins with a space: remove it" : undefined);
  if (mistake !== undefined) {
    problems.push(`${name} ${mistake}`);
    return { parameters: {}, source };
  }
  try {
    return { parameters: parseConnectionUrl(url), source };
  } catch (error) {
    if (!(error instanceof ConnectionUrlError)) throw error;
    problems.push(`${name} ${error.message}`);
    return { parameters: {}, source };
  }
}

/** `DB_SSL` as Node services write it: a boolean or an sslmode. */
function readDbSsl(value: string | undefined): string | undefined {
  if (value === undefined || value === "") return undefined;
  const lower = value.toLowerCase();
  if (["1", "true", "yes", "on"].includes(lower)) return "require";
  if (["0", "false", "no", "off"].includes(lower)) return "disable";
  return lower;
}

const FLAG_NAMES: Readonly<Record<string, string>> = {
  dbname: "--database",
  connect_timeout: "--connect-timeout",
};

/** Reads all that may name a database: flags, URL, variables; the first of them that gives a parameter counts. */
export function readLayers(flags: ConnectionFlags, { env }: Surroundings, problems: string[]): Layer[] {
  const first = (...names: string[]) => names.find((name) => env[name] !== undefined && env[name] !== "");
  const db: Record<string, string | undefined> = {
    host: first("DB_HOST"),
    port: first("DB_PORT"),
    dbname: first("DB_NAME", "DB_DATABASE"),
    user: first("DB_USER", "DB_USERNAME"),
    password: first("DB_PASS", "DB_PASSWORD"),
    sslmode: first("DB_SSL"),
  };
  const dbValues = Object.entries(db).map(([keyword, name]) => {
    const value = name === undefined ? undefined : env[name];
    return [keyword, keyword === "sslmode" ? readDbSsl(value) : value] as const;
  });
  if (flags.ssl && flags.sslmode === "disable") {
    problems.push("--ssl and --sslmode disable contradict each other");
  }
  return [
    {
      parameters: compact({
        host: flags.host,
        port: flags.port,
        dbname: flags.database,
        user: flags.user,
        password: flags.password,
        sslmode: flags.sslmode ?? (flags.ssl ? "require" : undefined),
        sslrootcert: flags.sslrootcert,
      }),
      source: (keyword) => FLAG_NAMES[keyword] ?? `--${keyword}`,
    },
    // A URL names a whole database: one on the command line replaces the one in the environment.
    flags.url === undefined
      ? readUrl(env["DATABASE_URL"], "DATABASE_URL", problems)
      : readUrl(flags.url, "--url", problems),
    { parameters: compact(Object.fromEntries(dbValues)), source: (keyword) => db[keyword] ?? keyword },
    {
      parameters: compact(
        Object.fromEntries(Object.entries(PG_VARIABLES).map(([keyword, name]) => [keyword, env[name]])),
      ),
      source: (keyword) => PG_VARIABLES[keyword] ?? keyword,
    },
  ];
}

/** libpq looks a service up in the user's file, then in the system's. */
export function readService(name: string, { env, readFile }: Surroundings, problems: string[]): Layer {
  const home = env["HOME"] ?? env["USERPROFILE"];
  const paths = [
    env["PGSERVICEFILE"] || (home && `${home}/.pg_service.conf`),
    env["PGSYSCONFDIR"] && `${env["PGSYSCONFDIR"]}/pg_service.conf`,
  ].filter((path): path is string => Boolean(path));
  for (const path of paths) {
    try {
      const file = readFile(path);
      const parameters = file && findService(file.text, name);
      if (parameters) {
        return {
          parameters,
          source: (keyword) => `${keyword} of service "${name}" in ${path}`,
        };
      }
    } catch (error) {
      problems.push(
        `The service file ${path} cannot be read: ${error instanceof Error ? error.message : error}`,
      );
      return { parameters: {}, source: String };
    }
  }
  problems.push(
    `Service "${name}" is defined in none of: ${paths.join(", ") || "(no HOME, no PGSERVICEFILE)"}`,
  );
  return { parameters: {}, source: String };
}
