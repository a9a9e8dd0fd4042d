/**
 * Where to connect and how: one pure decision over flags, environment and files.
 *
 * Order, first match wins per setting: flags, `DATABASE_URL`, `DB_*`, the service file, `PG*`, libpq's
 * defaults. The driver is handed the outcome and decides nothing itself.
 *
 * @module
 */

import { decidePatience, type Patience } from "./keepalive.ts";
import { readLayers, readService } from "./layers.ts";
import { mistakeIn, refusalOf } from "./parameters.ts";
import { findPassword } from "./pgpass.ts";
import { type AuthenticationMethod, parseRequireAuth } from "./require_auth.ts";
import { decideTls, defaultSslMode } from "./tls.ts";
import { printable } from "../printable.ts";

/** The connection flags as they were typed; absent means not given. */
export interface ConnectionFlags {
  readonly url?: string | undefined;
  readonly host?: string | undefined;
  readonly port?: string | undefined;
  readonly database?: string | undefined;
  readonly user?: string | undefined;
  readonly password?: string | undefined;
  readonly ssl?: boolean | undefined;
  readonly sslmode?: string | undefined;
  readonly sslrootcert?: string | undefined;
  readonly schema?: string | undefined;
  readonly connectTimeoutMs?: number | undefined;
  readonly waitForDbMs?: number | undefined;
}

/** A file that a setting names: its text and, where the platform has them, its permission bits. */
export interface FoundFile {
  readonly text: string;
  readonly mode?: number | undefined;
  /** Permission bits of the folder that it is in. */
  readonly folderMode?: number | undefined;
  /** Numbers of the users that it, the link to it, and their folder belong to; empty where the system does not tell. */
  readonly owners?: readonly number[];
}

/** What surrounds the decision. Injected, so that it stays pure. */
export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Returns undefined when there is no such file; throws when it is there and cannot be read. */
  readonly readFile: (path: string) => FoundFile | undefined;
  /** The operating system's name of the user, libpq's default for the database user. */
  readonly osUser: string | undefined;
  /** `application_name` unless the user chose one. */
  readonly applicationName: string;
}

export type SslMode = "disable" | "allow" | "prefer" | "require" | "verify-ca" | "verify-full";
export type TargetSession = "any" | "read-write" | "read-only" | "primary" | "standby" | "prefer-standby";

/** One server to try. */
export interface Host {
  /** A host name, an address, or the folder of a Unix socket (starts with `/`). */
  readonly host: string;
  /** The address to connect to instead of resolving `host` (libpq's `hostaddr`). */
  readonly address?: string;
  readonly port: number;
  /** Per host, since the password file is asked per host. */
  readonly password?: string;
}

/** Everything that connecting needs. Holds secrets: print it with {@linkcode describeTarget} only. */
export interface ConnectionSettings {
  readonly hosts: readonly Host[];
  readonly database: string;
  readonly user: string;
  readonly sslmode: SslMode;
  /** PEM of the roots to trust; undefined with a verifying mode means the system's. */
  readonly sslRoot?: string;
  readonly sslCertificate?: string;
  readonly sslKey?: string;
  readonly channelBinding: "disable" | "prefer" | "require";
  /** What the server may ask for; undefined: anything. */
  readonly requireAuth?: readonly AuthenticationMethod[];
  readonly applicationName: string;
  /** libpq's `options`: command-line options for the server, such as `-c work_mem=64MB`. */
  readonly options?: string;
  /** The session's time zone; undefined leaves it to the server. */
  readonly timeZone?: string;
  readonly targetSession: TargetSession;
  /** Limit for one attempt at one host, in milliseconds; 0 means none. */
  readonly connectTimeoutMs: number;
  /** How long a server that was connected may be silent; undefined: for ever. */
  readonly patience?: Patience;
  /** How long to keep trying while no server answers, in milliseconds. */
  readonly waitForDbMs: number;
  /** The schema that PipeWeave's tables live in. */
  readonly schema: string;
}

/** The outcome: settings, or everything that is wrong with what was given, together. */
export type ConnectionDecision =
  | {
    readonly ok: true;
    readonly settings: ConnectionSettings;
    readonly warnings: readonly string[];
    /** Whether anybody named a database at all, or all of it is defaults. */
    readonly configured: boolean;
    /** The flag, variable or parameter that names it; undefined where all of it is defaults. */
    readonly namedBy: string | undefined;
  }
  | { readonly ok: false; readonly configured: boolean; readonly problems: readonly string[] };

const SSL_MODES: readonly SslMode[] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
const TARGET_SESSIONS: readonly TargetSession[] = [
  "any",
  "read-write",
  "read-only",
  "primary",
  "standby",
  "prefer-standby",
];
const DEFAULT_CONNECT_TIMEOUT_MS = 10_000;

/**
 * Decides where and how to connect.
 *
 * libpq's rules are those of the PostgreSQL documentation, chapters 32.1.2, 32.15, 32.16, 32.17 and 32.19. One
 * differs on purpose: a host that was chosen in one place is never overruled by a `hostaddr` from a place of
 * lower rank.
 */
export function decideConnection(flags: ConnectionFlags, surroundings: Surroundings): ConnectionDecision {
  const problems: string[] = [];
  const warnings: string[] = [];
  const layers = readLayers(flags, surroundings, problems);
  const service = layers.map((layer) => layer.parameters["service"]).find((name) => name !== undefined);
  if (service !== undefined) layers.splice(3, 0, readService(service, surroundings, problems));

  const has = (keyword: string) => layers.findIndex((layer) => layer.parameters[keyword] !== undefined);
  const get = (keyword: string) => layers[has(keyword)]?.parameters[keyword];
  const named = (keyword: string) => layers[has(keyword)]?.source(keyword) ?? keyword;

  for (const layer of layers) {
    for (const [keyword, value] of Object.entries(layer.parameters)) {
      const refusal = refusalOf(keyword, value);
      if (refusal !== undefined) problems.push(`${layer.source(keyword)}${printable(refusal)}`);
      const mistake = mistakeIn(keyword, value);
      if (mistake === undefined) continue;
      // Such a password can be set, if hardly on purpose.
      (keyword === "password" ? warnings : problems).push(`${layer.source(keyword)} ${mistake}`);
    }
  }

  const oneOf = <T extends string>(keyword: string, allowed: readonly T[], fallback: T): T => {
    const value = get(keyword) ?? fallback;
    if ((allowed as readonly string[]).includes(value)) return value as T;
    problems.push(`${named(keyword)} must be one of ${allowed.join(", ")}, not "${printable(value)}"`);
    return fallback;
  };
  const given = { get, named };
  const sslmode = oneOf("sslmode", SSL_MODES, defaultSslMode(given));
  const targetSession = oneOf("target_session_attrs", TARGET_SESSIONS, "any");
  const user = get("user") ?? surroundings.osUser;
  if (user === undefined) {
    problems.push("No database user is named: give --user, PGUSER or a user in the URL");
  }
  const database = get("dbname") ?? user ?? "";
  const schema = flags.schema ?? "public";
  if (flags.host !== undefined && /:\/\/|.@/.test(flags.host)) {
    problems.push("--host takes a host; a URL goes to --url");
  }
  if (/^\[.*\]$/.test(flags.host ?? "")) {
    problems.push("--host takes an IPv6 address without brackets; they belong into a URL");
  }
  if (schema.startsWith("$") || schema.startsWith("pg_")) {
    problems.push(`--schema must not start with $ or pg_`);
  }
  if (schema === "" || new TextEncoder().encode(schema).length > 63 || schema.includes("\0")) {
    problems.push("--schema must be 1 to 63 bytes long");
  }

  const seconds = get("connect_timeout");
  if (seconds !== undefined && !/^-?\d{1,6}$/.test(seconds)) {
    problems.push(
      `${named("connect_timeout")} must be a whole number of seconds, not "${printable(seconds)}"`,
    );
  }
  const connectTimeoutMs = flags.connectTimeoutMs ??
    (seconds === undefined ? DEFAULT_CONNECT_TIMEOUT_MS : Math.max(0, Number(seconds)) * 1000);
  const { waitForDbMs = 0 } = flags;

  const hosts = decideHosts(get, has, named, problems);
  const tls = decideTls(sslmode, given, surroundings, { problems, warnings });
  const patience = decidePatience(get, (keyword, problem) => problems.push(`${named(keyword)} ${problem}`));
  let requireAuth: readonly AuthenticationMethod[] | undefined;
  try {
    requireAuth = parseRequireAuth(get("require_auth") ?? "");
  } catch (error) {
    problems.push(`${named("require_auth")} ${(error as Error).message}`);
  }
  const passwords = decidePasswords(
    hosts,
    { user: user ?? "", database },
    get,
    surroundings,
    warnings,
    problems,
  );
  if (problems.length > 0) {
    // Anything that is set wrong was meant.
    const configured = layers.some(({ parameters }) => Object.keys(parameters).length > 0);
    return { ok: false, configured, problems };
  }

  const keyword = ["host", "hostaddr", "dbname", "port", "user"].find((one) => get(one));
  const namedBy = keyword && named(keyword);
  const options = get("options");
  const timeZone = get("timezone");
  return {
    ok: true,
    warnings,
    configured: namedBy !== undefined,
    namedBy,
    settings: {
      hosts: hosts.map((host, i) => passwords[i] === undefined ? host : { ...host, password: passwords[i] }),
      database,
      user: user!,
      ...tls,
      applicationName: get("application_name") ?? surroundings.applicationName,
      ...(options === undefined ? {} : { options }),
      ...(timeZone === undefined ? {} : { timeZone }),
      ...(requireAuth === undefined ? {} : { requireAuth }),
      ...(patience === undefined ? {} : { patience }),
      targetSession,
      connectTimeoutMs,
      waitForDbMs,
      schema,
    },
  };
}

type Get = (keyword: string) => string | undefined;

function decideHosts(get: Get, has: (keyword: string) => number, named: Get, problems: string[]): Host[] {
  const addressCounts = get("hostaddr") !== undefined &&
    (get("host") === undefined || has("hostaddr") <= has("host"));
  const addresses = addressCounts ? get("hostaddr")!.split(",") : undefined;
  const names = get("host")?.split(",") ?? addresses ?? ["localhost"];
  const ports = (get("port") ?? "5432").split(",");
  if (addresses && addresses.length !== names.length) {
    problems.push(`${named("hostaddr")} names ${addresses.length} address(es) for ${names.length} host(s)`);
  }
  if (ports.length > 1 && ports.length !== names.length) {
    problems.push(`${named("port")} names ${ports.length} ports for ${names.length} host(s)`);
  }
  return names.map((name, i) => {
    const text = ports[ports.length === 1 ? 0 : i] || "5432";
    const port = Number(text);
    // A password with an unescaped slash or colon ends up here: the text is not repeated.
    if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535) {
      problems.push(
        `${named("port")}: the port must be a number from 1 to 65535` +
          (named("port")?.match(/url/i) ? "; / : @ ? # and % in a password must be percent-encoded" : ""),
      );
    }
    const address = addresses?.[i];
    return { host: name || "localhost", port, ...(address && address !== name ? { address } : {}) };
  });
}

function decidePasswords(
  hosts: readonly Host[],
  { user, database }: { user: string; database: string },
  get: Get,
  { env, readFile }: Surroundings,
  warnings: string[],
  problems: string[],
): (string | undefined)[] {
  const given = get("password");
  if (given !== undefined) return hosts.map(() => given);
  const chosen = get("passfile");
  const path = chosen ??
    (env["APPDATA"] && !env["HOME"]
      ? `${env["APPDATA"]}/postgresql/pgpass.conf`
      : env["HOME"] && `${env["HOME"]}/.pgpass`);
  let file: FoundFile | undefined;
  try {
    file = path ? readFile(path) : undefined;
  } catch (error) {
    problems.push(
      `The password file ${path} cannot be read: ${error instanceof Error ? error.message : error}`,
    );
  }
  if (!file) return hosts.map(() => undefined);
  if (file.mode !== undefined && (file.mode & 0o077) !== 0) {
    warnings.push(`Password file ${path} is ignored: others may read it; run: chmod 600 ${path}`);
    return hosts.map(() => undefined);
  }
  const { text } = file;
  return hosts.map(({ host, port }) => {
    const socket = host === "/run/postgresql" || host === "/var/run/postgresql" || host === "/tmp";
    return findPassword(text, { host: socket ? "localhost" : host, port, database, user });
  });
}

/** The target for people and logs: `user@host:port/database`, never a password. */
export function describeTarget({ user, hosts, database }: ConnectionSettings): string {
  return `${printable(user)}@${hosts.map(describeHost).join(",")}/${printable(database)}`;
}

/** One host for people: `db1:5432`, `[::1]:5432`, `/run/postgresql:5432`. */
export function describeHost({ host, port }: Host): string {
  return `${host.includes(":") ? `[${printable(host)}]` : printable(host)}:${port}`;
}
