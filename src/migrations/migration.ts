/**
 * What a migration is, as data.
 *
 * @module
 */

import type { Directives } from "./directives.ts";

/** The name that PipeWeave's own set has in messages. */
export const EMBEDDED = "embedded";

/** Which set a migration belongs to, as the history has it: wherever its folder stands, on whichever machine. */
export type MigrationSet = "pipeweave" | "user";

/** The set of a migration. */
export function setOf({ source }: Pick<Migration, "source">): MigrationSet {
  return source === EMBEDDED ? "pipeweave" : "user";
}

/** A migration file that was read and understood. */
export interface Migration {
  /** The digits of the file name, as written. */
  readonly version: string;
  /** The rest of the file name, without `.sql`. */
  readonly name: string;
  /** SHA-256 of {@linkcode sql} in hex. */
  readonly checksum: string;
  /** The file's text without a byte-order mark and with LF line ends. Of a large file it is read when it is asked for. */
  readonly sql: string;
  /** Length of {@linkcode sql}, in UTF-16 units. */
  readonly size: number;
  /** The file, for messages. */
  readonly file: string;
  /** The set that it belongs to: `embedded`, or the folder as it was given. */
  readonly source: string;
  /** What the file asks of the tool. */
  readonly directives: Directives;
  /** What undoes it: the file `NNN_name.down.sql`, where there is one. */
  readonly down?: Migration;
}

/** A row of `schema_migrations`, compared with its file. */
export interface AppliedMigration {
  /** As the history has it. */
  readonly version: string;
  /** As the history has it. */
  readonly name: string;
  /** SHA-256 of the file as it was applied, in hex. */
  readonly checksum: string;
  /** When its transaction began. */
  readonly appliedAt: Date;
  /** Milliseconds; null where the tool that applied it did not say. */
  readonly executionTimeMs: number | null;
  /** Whose it is; null where another tool applied it, such as PipeWeave's Node tool. */
  readonly set: MigrationSet | null;
  /** Whether the file has changed since it was applied. */
  readonly drift: boolean;
}

/** `001_initial_schema`: how a migration is named in reports. */
export function labelOf(migration: { readonly version: string; readonly name: string }): string {
  return `${migration.version}_${migration.name}`;
}

/** Migrations that a message names one by one; of more it names the first and the last. */
const NAMED = 6;

/** Migrations in a sentence: all of them, or how many, from which to which. */
export function listOf(migrations: readonly Pick<Migration, "version" | "name">[]): string {
  const labels = migrations.map(labelOf);
  return labels.length <= NAMED
    ? labels.join(", ")
    : `${labels.length} migrations, from ${labels[0]} to ${labels.at(-1)}`;
}

/** The number that a version stands for, as a key: versions are compared as numbers of any length. */
export function versionKey(version: string): string {
  return version.replace(/^0+(?=\d)/, "");
}

/** Orders versions as numbers. */
export function compareVersions(a: string, b: string): number {
  const [x, y] = [versionKey(a), versionKey(b)];
  return x.length - y.length || (x < y ? -1 : x > y ? 1 : 0);
}
