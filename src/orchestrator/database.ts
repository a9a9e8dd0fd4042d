/**
 * How the library's functions are told which database is meant.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { type ConnectionFlags, decideConnection } from "../config/connection.ts";
import { Session, type SessionOptions } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { VERSION } from "../config/version.ts";

/** A database: a URL, or a URL with what else matters. */
export type DatabaseTarget = string | DatabaseOptions;

/** A database by its parts, as PipeWeave 1.x takes it. */
export interface DatabaseConfig {
  /** Connection URL; stands for all parts. */
  readonly connectionString?: string | undefined;
  /** Name or address of the server, or the folder of its Unix socket. Default: `localhost` */
  readonly host?: string | undefined;
  /** Port of the server. Default: 5432 */
  readonly port?: number | undefined;
  /** Name of the database. Default: the user's name */
  readonly database?: string | undefined;
  /** Role to connect as. */
  readonly user?: string | undefined;
  /** Password of the role. */
  readonly password?: string | undefined;
  /**
   * As in node-postgres: `true` asks for a certificate that one of the public authorities signed for this host, without
   * `rejectUnauthorized` any will do, `false` is no encryption. Default: encrypted where the server offers it
   */
  readonly ssl?: boolean | { readonly rejectUnauthorized?: boolean | undefined } | undefined;
  /** Not used: one connection does. */
  readonly max?: number | undefined;
  /** Not used: no connection outlives its call. */
  readonly allowExitOnIdle?: boolean | undefined;
}

/** A database, and how to connect to it. */
export interface DatabaseOptions {
  /** Connection URL, as libpq reads it. Nothing is read from the environment. */
  readonly databaseUrl?: string | undefined;
  /** The database by its parts, where there is no URL. */
  readonly databaseConfig?: DatabaseConfig | undefined;
  /** Schema that PipeWeave's tables live in. Default: `public` */
  readonly schema?: string | undefined;
  /** Ends what runs: the server rolls it back, and the function throws. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Opens a session. It connects when it is first used.
 *
 * @throws {PipeweaveError} of kind `usage` when the URL cannot be read
 */
export function openSession(target: DatabaseTarget, session: SessionOptions = {}): Session {
  const { databaseUrl, databaseConfig = {}, schema, signal }: DatabaseOptions = typeof target === "string"
    ? { databaseUrl: target }
    : target;
  const named = databaseUrl || databaseConfig.connectionString;
  const parts = named ? { url: named } : partsOf(databaseConfig);
  if (Object.values(parts).every((part) => part === undefined)) {
    throw new PipeweaveError("usage", "no_database", "No database is named: databaseUrl is empty", {
      hint: "Give databaseUrl; where it comes from the environment, see that the variable is set.",
    });
  }
  const decision = decideConnection({ ...parts, schema }, {
    env: {},
    readFile: (path) => {
      try {
        return { text: readFileSync(path, "utf8") };
      } catch (error) {
        if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
        throw error;
      }
    },
    osUser: undefined,
    applicationName: `pipeweave/${VERSION}`,
  });
  if (!decision.ok) {
    throw new PipeweaveError("usage", "bad_database_url", "The database is not named right", {
      problems: decision.problems.map((problem) =>
        problem.replace("--url", "databaseUrl").replace("--schema", "schema")
      ),
    });
  }
  return new Session(decision.settings, { signal, ...session });
}

/** The parts of a database as the command line's options. */
function partsOf({ host, port, database, user, password, ssl }: DatabaseConfig): ConnectionFlags {
  return {
    ...{ host, database, user, password },
    port: port === undefined ? undefined : String(port),
    ...(ssl === undefined ? {} : sslOf(ssl)),
  };
}

/** Returns the libpq settings that mean the same as node-postgres' `ssl`. */
function sslOf(ssl: NonNullable<DatabaseConfig["ssl"]>): ConnectionFlags {
  if (ssl === false) return { sslmode: "disable" };
  if (ssl !== true && ssl.rejectUnauthorized === false) return { sslmode: "require" };
  return { sslmode: "verify-full", sslrootcert: "system" };
}

/** Opens a session, works with it, and closes it whatever happens. */
export async function withSession<T>(
  target: DatabaseTarget,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const session = openSession(target);
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}
