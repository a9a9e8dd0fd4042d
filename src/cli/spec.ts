/**
 * What a command is, as data: the command tree, its help and docs/cli.md are all made from it.
 *
 * @module
 */

import type { Invocation } from "./invocation.ts";

/** An option of a command. */
export interface OptionSpec {
  /** As Cliffy takes it: `-j, --json`, `--dir <folder:string>`. */
  readonly flags: string;
  readonly description: string;
  /** Whether it may be given several times. */
  readonly repeatable?: boolean;
}

/** Options under a heading of their own. */
export interface OptionGroup {
  readonly title: string;
  readonly options: readonly OptionSpec[];
}

/** A command line that works, and what it is for. */
export interface Example {
  readonly purpose: string;
  readonly line: string;
}

/** A command: `<group>:<name>`. */
export interface CommandSpec {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What it does, in paragraphs. */
  readonly description: string;
  /** What stands beside its options, as Cliffy takes it: `<version:string>`. */
  readonly arguments?: string;
  readonly options: readonly OptionGroup[];
  readonly examples: readonly Example[];
  /** Its exit codes besides 0 and 2, and what they mean here. */
  readonly exitCodes: readonly (readonly [code: number, meaning: string])[];
  /** Does it; throws what fails. */
  readonly run: (invocation: Invocation) => Promise<void>;
}

/** Options of every command. */
export const OUTPUT_OPTIONS: OptionGroup = {
  title: "Output",
  options: [
    {
      flags: "--json=[mode:string]",
      description:
        "Print one JSON document on stdout and nothing else there; with =stream one a step, a line each.",
    },
    { flags: "--quiet", description: "Print no progress, and no step-by-step report." },
    { flags: "--verbose", description: "Print notices of the server, and stack traces of errors." },
    {
      flags: "--no-color",
      description: "Print without colours (also NO_COLOR, and where stdout is no terminal).",
    },
    { flags: "--no-progress", description: "Show no moving progress." },
  ],
};

/** Options of every command that connects. */
export const CONNECTION_OPTIONS: OptionGroup = {
  title: "Connection",
  options: [
    { flags: "--url <url:string>", description: "Connection URL, as libpq reads it (DATABASE_URL)." },
    {
      flags: "--host <host:string>",
      description: "Host, address, or folder of a Unix socket; several by commas (DB_HOST, PGHOST).",
    },
    { flags: "--port <port:string>", description: "Port (DB_PORT, PGPORT). Default: 5432" },
    {
      flags: "--database <name:string>",
      description: "Database (DB_NAME, DB_DATABASE, PGDATABASE). Default: the user",
    },
    { flags: "--user <name:string>", description: "Database user (DB_USER, DB_USERNAME, PGUSER)." },
    {
      flags: "--password <password:string>",
      description: "Password; others on this machine can see it, so prefer DB_PASS, PGPASSWORD or ~/.pgpass.",
    },
    { flags: "--ssl", description: "The same as --sslmode require." },
    {
      flags: "--sslmode <mode:string>",
      description:
        "disable, allow, prefer, require, verify-ca or verify-full (DB_SSL, PGSSLMODE). Default: prefer",
    },
    {
      flags: "--sslrootcert <file:string>",
      description: 'Root certificate for the verifying modes, or "system" (PGSSLROOTCERT).',
    },
    {
      flags: "--schema <name:string>",
      description: "Schema that PipeWeave's tables live in. Default: public",
    },
    {
      flags: "--connect-timeout <duration:string>",
      description:
        "Limit for connecting to one host, 0 for none (PGCONNECT_TIMEOUT, in seconds). Default: 10s",
    },
    {
      flags: "--wait-for-db <duration:string>",
      description:
        "Keep trying while the server starts or cannot be reached; not on a wrong password. Default: 0",
    },
  ],
};

/** Options of every command that reads migration files. */
export const MIGRATION_OPTIONS: OptionGroup = {
  title: "Migrations",
  options: [
    {
      flags: "--dir <folder:string>",
      description:
        "Migrations of your own, which go after PipeWeave's; may be repeated (PIPEWEAVE_MIGRATIONS_DIR).",
      repeatable: true,
    },
    {
      flags: "--embedded",
      description:
        "Let PipeWeave's own migrations take part. Default: where there is no --dir, or the history has them",
    },
    { flags: "--no-embedded", description: "Leave out PipeWeave's own migrations." },
  ],
};
