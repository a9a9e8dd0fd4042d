/**
 * The environment variables that pipeweave reads: the binary is compiled with leave to read these alone.
 *
 * @module
 */

import { userInfo } from "node:os";
import { PG_VARIABLES } from "./parameters.ts";

/** Every variable, by what it is for. */
export const ENVIRONMENT: readonly string[] = [
  // Connection, in order of rank.
  ...["DATABASE_URL"],
  ...[
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "DB_DATABASE",
    "DB_USER",
    "DB_USERNAME",
    "DB_PASS",
    "DB_PASSWORD",
    "DB_SSL",
  ],
  ...Object.values(PG_VARIABLES),
  ...["PGSERVICEFILE", "PGSYSCONFDIR"],
  // Behaviour.
  ...["AUTO_MIGRATE", "AUTO_INIT_DB", "MAINTENANCE_CHECK_INTERVAL_MS", "PIPEWEAVE_MIGRATIONS_DIR"],
  ...["PIPEWEAVE_DLQ_RETENTION_DAYS", "PIPEWEAVE_OWNER"],
  // Who and where: libpq's default user, its files, the terminal.
  ...[
    "HOME",
    "APPDATA",
    "USERPROFILE",
    "USER",
    "LOGNAME",
    "USERNAME",
    "NO_COLOR",
    "FORCE_COLOR",
    "TERM",
    "CI",
    "GITHUB_ACTIONS",
  ],
];

/** An environment, as plain data. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the variables of {@linkcode ENVIRONMENT}; everything below is handed the result.
 *
 * @param get returns a variable of the process
 */
export function readEnvironment(get: (name: string) => string | undefined): Environment {
  return Object.fromEntries(ENVIRONMENT.map((name) => [name, get(name)]));
}

/** The operating system's user name: as the environment tells it, or, in a container or from cron, as the system does. */
export function osUserOf(env: Environment): string | undefined {
  return env["USER"] || env["LOGNAME"] || env["USERNAME"] || accountName();
}

function accountName(): string | undefined {
  try {
    return userInfo().username || undefined;
  } catch {
    // A number that no account has, as containers are given.
    return undefined;
  }
}
