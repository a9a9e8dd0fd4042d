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
}

/** Files of a folder: relative paths with `/`, sorted, and their texts. */
export interface Files {
  readonly root: string;
  readonly names: readonly string[];
  /** @throws {PipeweaveError} of kind `usage` when it cannot be read */
  readonly text: (name: string) => string;
}

/** What a reader of one tool's files returns. */
export type Read = Omit<ForeignFolder, "tool">;

/** @returns the error of a folder that is not what was said of it */
export function notOf(tool: Tool, root: string, what: string): PipeweaveError {
  return new PipeweaveError("usage", "not_of_tool", `${root} holds no migrations of ${tool}: ${what}`, {
    hint: "Name the folder that the old tool reads, and the tool with --from.",
  });
}
