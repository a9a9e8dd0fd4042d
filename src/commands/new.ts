/**
 * `db:new`: the name of the next migration file, and what to start it with.
 *
 * @module
 */

import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { assertBelow, notWritable } from "../config/leave_to_write.ts";
import { PipeweaveError } from "../errors.ts";
import { DATE_DIGITS, discover, type MigrationSources } from "../migrations/discover.ts";
import { nameOfWords } from "../migrations/name.ts";
import { compareVersions, type Migration } from "../migrations/migration.ts";

/** Digits of the first version in a set without PipeWeave's own migrations. */
const FIRST_VERSION = "001";

/** A file to be written. */
export interface NewMigration {
  readonly version: string;
  readonly name: string;
  /** Where it belongs. */
  readonly file: string;
  /** Its text. */
  readonly template: string;
}

/**
 * Names the next migration of the last folder, in the way in which its others are named.
 *
 * @param title the name, or a few words
 * @param now for versions that are dates, in UTC
 * @throws {PipeweaveError} of kind `usage` when the title holds nothing to name a file by
 */
export function newMigration(
  title: string,
  sources: MigrationSources,
  now: Date = new Date(),
): NewMigration {
  const name = nameOfWords(title);
  if (name === "") {
    throw new PipeweaveError("usage", "bad_name", "The name holds neither a letter nor a digit", {
      hint: "Say in a few words what it does: pipeweave db:new add_email_to_users",
    });
  }
  const folder = sources.dirs?.at(-1) ?? "migrations";
  const others = known(sources).toSorted((a, b) => compareVersions(a.version, b.version));
  const own = others.filter(({ source }) => source === folder);
  const version = nextVersion(own.at(-1)?.version, sources.embedded !== false, now);
  const file = join(folder, `${version}_${name}.sql`);
  return { version, name, file, template: template(file) };
}

/** The user's migrations that there are; a folder that is empty or missing is about to get its first. */
function known({ dirs = [] }: MigrationSources): readonly Migration[] {
  if (dirs.length === 0) return [];
  try {
    return discover({ dirs, embedded: false }).migrations;
  } catch (error) {
    const isNew = error instanceof PipeweaveError && /^(?:no_such|empty)_folder$/.test(error.code);
    if (!isNew) throw error;
    return dirs.length > 1 ? known({ dirs: dirs.slice(0, -1) }) : [];
  }
}

function nextVersion(last: string | undefined, besideEmbedded: boolean, now: Date): string {
  const date = now.toISOString().replace(/\D/g, "").slice(0, 14);
  // Counted versions would be PipeWeave's own ones sooner or later.
  if (last === undefined) return besideEmbedded ? date : FIRST_VERSION;
  const next = String(BigInt(last) + 1n).padStart(last.length, "0");
  return last.length >= DATE_DIGITS && compareVersions(date, last) > 0 ? date.slice(0, last.length) : next;
}

/**
 * Writes a new migration, and the file that undoes it: neither over one that is there.
 *
 * @returns the files
 * @throws {PipeweaveError} of kind `usage` when they cannot be written; none is left then
 */
export function writeMigration(
  { file, template }: NewMigration,
  { down }: { readonly down: boolean },
): readonly string[] {
  const undo = file.replace(/\.sql$/, ".down.sql");
  const texts: readonly (readonly [string, string])[] = [
    [file, template],
    ...(down
      ? [
        [
          undo,
          `-- ${undo}\n-- Undoes it, in a transaction; without this file there is no way back.\n`,
        ] as const,
      ]
      : []),
  ];
  const written: string[] = [];
  try {
    assertBelow(dirname(file));
    mkdirSync(dirname(file), { recursive: true });
    for (const [path, text] of texts) {
      const handle = openSync(path, "wx");
      written.push(path);
      try {
        writeFileSync(handle, text);
      } finally {
        closeSync(handle);
      }
    }
    return written;
  } catch (error) {
    for (const path of written) rmSync(path, { force: true });
    throw notWritable(error, file, dirname(resolve(dirname(file))), "db:new …");
  }
}

function template(file: string): string {
  return `-- ${file}
--
-- Runs in one transaction, unless a line such as these starts the file (without the second pair of dashes):
-- -- pipeweave: no-transaction          for CREATE INDEX CONCURRENTLY and the like
-- -- pipeweave: requires maintenance    not while tasks are active
-- -- pipeweave: lock-timeout 2s         give way sooner to what others do

`;
}
