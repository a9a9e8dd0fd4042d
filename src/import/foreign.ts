/**
 * A migration of another tool, as its folder has it.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";

/** The tools whose folders are read. */
export const TOOLS = [
  "dbmate",
  "diesel",
  "flyway",
  "golang-migrate",
  "goose",
  "graphile-migrate",
  "knex",
  "liquibase",
  "node-pg-migrate",
  "pop",
  "prisma",
  "rails",
  "sql-migrate",
  "sqitch",
  "sqlx",
  "tern",
] as const;

/** The name of a tool. */
export type Tool = typeof TOOLS[number];

/** The table in which each tool keeps what it has applied. */
export const BOOKS: Readonly<Record<Tool, string>> = {
  "dbmate": "schema_migrations",
  "diesel": "__diesel_schema_migrations",
  "flyway": "flyway_schema_history",
  "golang-migrate": "schema_migrations",
  "goose": "goose_db_version",
  "graphile-migrate": "migrations",
  "knex": "knex_migrations",
  "liquibase": "databasechangelog",
  "node-pg-migrate": "pgmigrations",
  "pop": "schema_migration",
  "prisma": "_prisma_migrations",
  "rails": "schema_migrations",
  "sql-migrate": "gorp_migrations",
  "sqitch": "changes",
  "sqlx": "_sqlx_migrations",
  "tern": "schema_version",
};

/** A migration of another tool. */
export interface ForeignMigration {
  /** By what the old tool's history knows it. */
  readonly key: string;
  /** Its version as that tool writes it; undefined where it has none. */
  readonly version: string | undefined;
  /** The words of its name. */
  readonly title: string;
  /** The file, from the folder on. */
  readonly file: string;
  /** What it does, as the old tool would send it. */
  readonly up: string;
  /** What undoes it. */
  readonly down: string | undefined;
  /** Whether the old tool ran it outside a transaction, by a mark of its own. */
  readonly noTransaction: boolean;
  /** What was decided on the way, a sentence each. */
  readonly decisions: readonly string[];
  /** What has to be done by hand, beside what its SQL shows, a sentence each. */
  readonly problems?: readonly string[];
  /** Other keys by which the old history may know it. */
  readonly aliases?: readonly string[];
  /** Further keys that the old history has to have before it counts as applied. */
  readonly also?: readonly string[];
  /** Whether it is no SQL: its place in the order is kept, and what it does has to be written. */
  readonly isCode?: boolean;
  /** What the old history keeps of its text; undefined where it keeps nothing, or that cannot be told. */
  readonly checksum?: string;
}

/** Where the old history is, as far as the folder says. */
export interface Book {
  readonly schema?: string | undefined;
  readonly table?: string | undefined;
  /** Of sqitch: several projects share the tables. */
  readonly project?: string | undefined;
}

/** A folder that was read. */
export interface ForeignFolder {
  readonly tool: Tool;
  /** In the order in which that tool applies them. */
  readonly migrations: readonly ForeignMigration[];
  /** Files that are no SQL, or cannot be taken over: the file, and why. */
  readonly problems: readonly { readonly file: string; readonly message: string }[];
  /** About the folder as a whole, a sentence each. */
  readonly decisions: readonly string[];
  readonly book?: Book | undefined;
}

/** Files of a folder: relative paths with `/`, sorted, and their texts. */
export interface Files {
  readonly root: string;
  readonly names: readonly string[];
  /** @throws {PipeweaveError} of kind `usage` when it cannot be read */
  readonly text: (name: string) => string;
  /** Says that a file is known for what it is, although it is not read. */
  readonly know: (name: string) => void;
}

/** What a reader of one tool's files returns. */
export type Read = Omit<ForeignFolder, "tool">;

/** A migration that is a program: it keeps its place, and somebody has to write it as SQL. */
export function codeMigration(
  { key, version, title, file }: Pick<ForeignMigration, "key" | "version" | "title" | "file">,
): ForeignMigration {
  return {
    ...{ key, version, title, file, up: "", down: undefined, noTransaction: false, decisions: [] },
    isCode: true,
  };
}

/** Names of programs. */
export const CODE = /\.(?:go|js|ts|mjs|cjs|py|rb|java|kt|class|fizz)$/;

/** A version as histories have it: a number without zeros before it. */
export function numberOf(version: string): string {
  return version.replace(/^0+(?=\d)/, "");
}

/** Orders digits as numbers, whatever their length. */
export function compareNumbers(a: string, b: string): number {
  const [x, y] = [BigInt(a), BigInt(b)];
  return x < y ? -1 : x > y ? 1 : 0;
}

/** Orders texts by their characters. */
export function compareTexts(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** @returns the error of a folder that is not what was said of it */
export function notOf(tool: Tool, root: string, what: string, hint = ""): PipeweaveError {
  return new PipeweaveError("usage", "not_of_tool", `${root} holds no migrations of ${tool}: ${what}`, {
    hint: `${hint}Name the folder that the old tool reads, and the tool with --from.`,
  });
}
