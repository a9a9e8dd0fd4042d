/**
 * What a command is, as data: the command tree, its help and docs/cli.md are all made from it.
 *
 * @module
 */

import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { duration, FILE, FOLDER, oneOf, text, type Value } from "./values.ts";

/** An option of a command. */
export interface OptionSpec {
  /** `--dir`; `--no-color` is the flag that is given to be without colours. */
  readonly flag: string;
  /** One letter, with its dash. */
  readonly short?: string;
  /** What stands behind it; a flag without one is given or not. */
  readonly value?: Value<unknown>;
  /** Whether the flag may stand alone, too; a value then follows by `=`. */
  readonly valueIsOptional?: boolean;
  readonly description: string;
  /** What holds where it is not given, or where it stands alone; for people. */
  readonly defaultsTo?: string;
  /** Whether it may be given several times. */
  readonly repeatable?: boolean;
  /** Whether `pipeweave.json` may set it. */
  readonly isSetting?: boolean;
  /** A variable of the environment that goes before the file. */
  readonly variable?: string;
}

/** What the help says of an option. */
export function describeOption({ description, defaultsTo, valueIsOptional }: OptionSpec): string {
  return defaultsTo === undefined
    ? description
    : `${description} ${valueIsOptional ? "Alone it is" : "Default:"} ${defaultsTo}`;
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

/** Headings of the list of commands, in order. */
export const COMMAND_GROUPS = ["Migrations", "Files", "Maintenance", "Others"] as const;

/** A heading of the list of commands. */
export type CommandGroup = typeof COMMAND_GROUPS[number];

/** A command: `<group>:<name>`. */
export interface CommandSpec {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What it does, in paragraphs. */
  readonly description: string;
  /** Heading that it is listed under. */
  readonly group: CommandGroup;
  /** Whether it is left out of lists: a name that is on its way out. */
  readonly isHidden?: boolean;
  /** What stands beside its options. */
  readonly argument?: Value<string> & {
    /** Whether it may be left out, and stand several times. */
    readonly isList?: boolean;
  };
  readonly options: readonly OptionGroup[];
  readonly examples: readonly Example[];
  /** Its exit codes besides 0 and 2, and what they mean here. */
  readonly exitCodes: readonly (readonly [code: number, meaning: string])[];
  /** Does it; throws what fails. */
  readonly run: (input: Input, terminal: Terminal) => Promise<void>;
}

/** Options of every command. */
export const OUTPUT_OPTIONS: OptionGroup = {
  title: "Output",
  options: [
    {
      flag: "--json",
      value: oneOf("mode", "stream"),
      valueIsOptional: true,
      description:
        "Print one JSON document on stdout and nothing else there; with =stream one a step, a line each.",
    },
    { flag: "--quiet", short: "-q", description: "Print no progress, and no step-by-step report." },
    {
      flag: "--verbose",
      short: "-v",
      description: "Print notices of the server, and stack traces of errors.",
    },
    {
      flag: "--no-color",
      description: "Print without colours (also NO_COLOR, and where stdout is no terminal).",
    },
    { flag: "--no-progress", description: "Show no moving progress." },
  ],
};

/** A report for machines that watch. */
export const METRICS: OptionSpec = {
  flag: "--format",
  value: oneOf("format", "prometheus"),
  description: "prometheus: gauges as OpenMetrics text, for node_exporter's textfile collector.",
};

/** Options of every command that connects. */
export const CONNECTION_OPTIONS: OptionGroup = {
  title: "Connection",
  options: [
    {
      flag: "--target",
      short: "-t",
      value: text("name", { of: "targets" }),
      description: "One of the targets in pipeweave.json, in place of --url.",
    },
    {
      flag: "--url",
      short: "-u",
      value: text("url"),
      description: "Connection URL, as libpq reads it (DATABASE_URL).",
    },
    {
      flag: "--host",
      value: text("host"),
      description: "Host, address, or folder of a Unix socket; several by commas (DB_HOST, PGHOST).",
    },
    {
      flag: "--port",
      short: "-p",
      value: text("port"),
      description: "Port (DB_PORT, PGPORT).",
      defaultsTo: "5432",
    },
    {
      flag: "--database",
      short: "-d",
      value: text("name"),
      description: "Database (DB_NAME, DB_DATABASE, PGDATABASE).",
      defaultsTo: "the user",
    },
    {
      flag: "--user",
      short: "-U",
      value: text("name"),
      description: "Database user (DB_USER, DB_USERNAME, PGUSER).",
    },
    {
      flag: "--password",
      value: text("password"),
      description: "Password; others on this machine can see it, so prefer DB_PASS, PGPASSWORD or ~/.pgpass.",
    },
    { flag: "--ssl", description: "The same as --sslmode require." },
    {
      flag: "--sslmode",
      value: oneOf("mode", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
      description: "disable, allow, prefer, require, verify-ca or verify-full (DB_SSL, PGSSLMODE).",
      defaultsTo: "prefer",
    },
    {
      flag: "--sslrootcert",
      value: FILE,
      description: 'Root certificate for the verifying modes, or "system" (PGSSLROOTCERT).',
    },
    {
      flag: "--schema",
      isSetting: true,
      value: text("name"),
      description: "Schema that PipeWeave's tables live in.",
      defaultsTo: "public",
    },
    {
      flag: "--connect-timeout",
      isSetting: true,
      value: duration(),
      description: "Limit for connecting to one host, 0 for none (PGCONNECT_TIMEOUT, in seconds).",
      defaultsTo: "10s",
    },
    {
      flag: "--wait-for-db",
      isSetting: true,
      value: duration(),
      description: "Keep trying while the server starts or cannot be reached; not on a wrong password.",
      defaultsTo: "0",
    },
  ],
};

/** Options of every command that reads migration files. */
export const MIGRATION_OPTIONS: OptionGroup = {
  title: "Migrations",
  options: [
    {
      flag: "--dir",
      isSetting: true,
      variable: "PIPEWEAVE_MIGRATIONS_DIR",
      value: FOLDER,
      description: "A folder with migrations; may be repeated (PIPEWEAVE_MIGRATIONS_DIR).",
      defaultsTo: "./migrations where it has any",
      repeatable: true,
    },
    {
      flag: "--embedded",
      isSetting: true,
      description: "Let PipeWeave's own migrations take part.",
      defaultsTo: "where there is no folder, or the history has them",
    },
    { flag: "--no-embedded", description: "Leave out PipeWeave's own migrations." },
  ],
};
