/**
 * Finds migration files, in the binary and in folders, and reads them.
 *
 * @module
 */

import { fromFileUrl } from "@std/path/from-file-url";
import { join } from "@std/path/join";
import { messageOf, PipeweaveError } from "../errors.ts";
import { canonicalText, checksumOf, NotUtf8Error } from "./checksum.ts";
import { readDirectives } from "./directives.ts";
import type { Finding } from "./finding.ts";
import { locate } from "./finding.ts";
import { compareVersions, EMBEDDED, labelOf, type Migration, versionKey } from "./migration.ts";

/** Which migrations there are. */
export interface MigrationSources {
  /** Folders of the user's own, after the embedded set. */
  readonly dirs?: readonly string[];
  /** Whether PipeWeave's own migrations belong to it. Default: true. */
  readonly embedded?: boolean;
}

/** What was found: the migrations in the order in which they apply, and what is wrong with the files. */
export interface Discovery {
  /** In the order in which they apply. */
  readonly migrations: readonly Migration[];
  /** Everything that is wrong with the files, or worth a look. */
  readonly findings: readonly Finding[];
}

/** In a compiled binary this folder is inside the binary. */
const EMBEDDED_FOLDER = fromFileUrl(new URL("../../migrations", import.meta.url));
const FILE_NAME = /^(\d+)_([a-z0-9]+(?:_[a-z0-9]+)*)(\.down)?\.sql$/;
const DOWN = ".down.sql";
/** From this many digits on, versions are dates rather than counted numbers, and gaps mean nothing. */
export const DATE_DIGITS = 8;

/** The text of a file of PipeWeave's own set. */
export function embeddedFile(name: string): string {
  return Deno.readTextFileSync(join(EMBEDDED_FOLDER, name));
}

/**
 * Reads all migrations of the given sources: the embedded set, then each folder, each ordered by version.
 *
 * @throws {PipeweaveError} of kind `usage` when a folder cannot be read or holds no `.sql` file
 */
export function discover({ dirs = [], embedded = true }: MigrationSources = {}): Discovery {
  const folders = [
    ...(embedded ? [{ source: EMBEDDED, folder: EMBEDDED_FOLDER }] : []),
    ...dirs.map((dir) => ({ source: dir, folder: dir })),
  ];
  if (folders.length === 0) {
    throw new PipeweaveError(
      "usage",
      "no_migrations",
      "There are no migrations: --no-embedded leaves out PipeWeave's own",
      {
        hint: "Add a folder with --dir <folder>.",
      },
    );
  }
  const sets = folders.map(({ source, folder }) => readSet(source, folder));
  const migrations = sets.flatMap((set) => set.migrations);
  const findings = sets.flatMap((set) => [...set.findings, ...gaps(set.migrations)]);
  return { migrations, findings: [...findings, ...duplicates(migrations)] };
}

/** Synchronously, since that reads a thousand small files in a third of the time. */
function readSet(source: string, folder: string): Discovery {
  const names: string[] = [];
  try {
    for (const entry of Deno.readDirSync(folder)) {
      // Kubernetes mounts files as symbolic links.
      if ((entry.isFile || entry.isSymlink) && entry.name.endsWith(".sql")) names.push(entry.name);
    }
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    throw new PipeweaveError(
      "usage",
      missing ? "no_such_folder" : "unreadable_folder",
      `The folder ${folder} ${missing ? "does not exist" : `cannot be read: ${messageOf(error)}`}`,
      {
        hint: "Check --dir or PIPEWEAVE_MIGRATIONS_DIR; in a container, check the mount.",
        cause: error,
      },
    );
  }
  if (names.length === 0) {
    throw new PipeweaveError("usage", "empty_folder", `The folder ${folder} holds no .sql file`, {
      hint: "Check --dir or PIPEWEAVE_MIGRATIONS_DIR; in a container, check the mount.",
    });
  }
  const read = names.sort().map((name) => readMigration(source, folder, name));
  const isDown = (_: unknown, index: number) => names[index]!.endsWith(DOWN);
  const downs = read.filter(isDown).flatMap(({ migration }) => migration ?? []);
  const ups = read.filter((_, index) => !isDown(_, index)).flatMap(({ migration }) => migration ?? []);
  const downOf = new Map(downs.map((down) => [labelOf(down), down]));
  const labels = new Set(ups.map(labelOf));
  return {
    migrations: ups.map((up) => withDown(up, downOf.get(labelOf(up))))
      .sort((a, b) => compareVersions(a.version, b.version)),
    findings: [
      ...read.flatMap(({ findings }) => findings),
      ...downs.flatMap((down) => problemsOfDown(down, labels)),
    ],
  };
}

function withDown(up: Migration, down: Migration | undefined): Migration {
  return down ? { ...up, down } : up;
}

function problemsOfDown(down: Migration, labels: ReadonlySet<string>): Finding[] {
  const problem = (code: string, message: string, hint: string): Finding => ({
    ...{ severity: "error", code, file: down.file, message, hint },
  });
  if (!labels.has(labelOf(down))) {
    const hint = `Name it like the migration that it undoes: ${labelOf(down)}.sql is missing.`;
    return [problem("orphan_down", "undoes no migration of its folder", hint)];
  }
  if (!down.directives.noTransaction) return [];
  const hint = "Leave the line out: with requires maintenance, a plain DROP INDEX hurts nobody.";
  return [
    problem("down_no_transaction", "is marked no-transaction, and roll-backs run in a transaction", hint),
  ];
}

function readMigration(
  source: string,
  folder: string,
  name: string,
): { migration?: Migration; findings: Finding[] } {
  const file = source === EMBEDDED ? `${EMBEDDED}/${name}` : join(folder, name);
  const invalid = (code: string, message: string, extra: Partial<Finding> = {}): { findings: Finding[] } => ({
    findings: [{ severity: "error", code, file, message, ...extra }],
  });
  const match = FILE_NAME.exec(name);
  if (!match) {
    return invalid("bad_name", "is not named like a migration", {
      hint: "Name it NNN_snake_case_name.sql: digits, then lower-case words, joined by underscores.",
    });
  }
  let sql: string;
  try {
    sql = canonicalText(Deno.readFileSync(join(folder, name)));
  } catch (error) {
    if (error instanceof NotUtf8Error) {
      return invalid("not_utf8", `is not UTF-8 (byte ${error.offset})`, {
        hint: `Convert it: iconv -f latin1 -t utf-8 ${file}`,
      });
    }
    return invalid("unreadable", `cannot be read: ${messageOf(error)}`);
  }
  if (sql.trim() === "") return invalid("empty", "is empty", { hint: "Write its SQL, or remove the file." });
  if (sql.includes("\0")) return invalid("zero_byte", "holds a zero byte, which PostgreSQL cannot take");

  const { directives, problems } = readDirectives(sql);
  const findings = problems.map(({ line, message }): Finding => {
    const offset = sql.split("\n").slice(0, line - 1).join("\n").length + (line === 1 ? 0 : 1);
    return { severity: "error", code: "bad_directive", file, message, location: locate(file, sql, offset) };
  });
  const [, version, bare] = match as unknown as [string, string, string];
  return {
    migration: { version, name: bare, checksum: checksumOf(sql), sql, file, source, directives },
    findings,
  };
}

function duplicates(migrations: readonly Migration[]): Finding[] {
  const seen = new Map<string, Migration>();
  return migrations.flatMap((migration): Finding[] => {
    const first = seen.get(versionKey(migration.version));
    if (!first) {
      seen.set(versionKey(migration.version), migration);
      return [];
    }
    return [{
      severity: "error",
      code: "duplicate_version",
      file: migration.file,
      message: `has the same version as ${first.file} (${
        versionKey(migration.version)
      }; versions are compared as numbers)`,
      hint: "Give one of them the next free number.",
    }];
  });
}

/** Gaps are an error in PipeWeave's own set and worth a warning in a user's. */
function gaps(migrations: readonly Migration[]): Finding[] {
  return migrations.slice(1).flatMap((migration, index): Finding[] => {
    const before = migrations[index]!;
    if (migration.version.length >= DATE_DIGITS) return [];
    if (Number(migration.version) <= Number(before.version) + 1) return [];
    return [{
      severity: migration.source === EMBEDDED ? "error" : "warning",
      code: "gap",
      file: migration.file,
      message: `follows ${labelOf(before)}: the versions between are missing`,
    }];
  });
}
