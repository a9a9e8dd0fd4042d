/**
 * Finds migration files, in the binary and in folders, and reads them.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf, PipeweaveError } from "../errors.ts";
import { canonicalText, checksumOf, NotUtf8Error } from "./checksum.ts";
import { readDirectives } from "./directives.ts";
import { EMBEDDED_FILES } from "./embedded_files.ts";
import { NAME_PART } from "./name.ts";
import { reasonToPassOver, toolOfName } from "./folder.ts";
import { LARGEST_FILE, megabytes, utf16Of, withText } from "./text.ts";
import type { Finding } from "./finding.ts";
import { locate } from "./finding.ts";
import { type HistoryRow, isOf } from "./plan.ts";
import { compareVersions, EMBEDDED, labelOf, type Migration, versionKey } from "./migration.ts";

/** Which migrations there are. */
export interface MigrationSources {
  /** Folders of the user's own, after the embedded set. */
  readonly dirs?: readonly string[];
  /** Whether PipeWeave's own migrations take part. Default: where no folder is named, or the history has them */
  readonly embedded?: boolean | undefined;
}

/** Migrations that belong together, and how many there are. */
export interface SetOfFiles {
  /** `embedded`, or the folder as it was given. */
  readonly source: string;
  /** Migrations in it; down files do not count. */
  readonly files: number;
}

/** What was found: the migrations in the order in which they apply, and what is wrong with the files. */
export interface Discovery {
  /** The sets that take part. */
  readonly sets: readonly SetOfFiles[];
  /** In the order in which they apply. */
  readonly migrations: readonly Migration[];
  /** Everything that is wrong with the files, or worth a look. */
  readonly findings: readonly Finding[];
}

const FILE_NAME = new RegExp(`^(\\d+)_(${NAME_PART}(?:_${NAME_PART})*)(\\.down)?\\.sql$`, "u");
const DOWN = ".down.sql";
/** From this many digits on, versions are dates rather than counted numbers, and gaps mean nothing. */
export const DATE_DIGITS = 8;

/** Whether a version is of the range that PipeWeave keeps for its own migrations. */
export function isReserved(version: string): boolean {
  const key = versionKey(version);
  return key.length === 5 && key.startsWith("9");
}

/** The text of a file of PipeWeave's own set. */
export function embeddedFile(name: string): string {
  const text = EMBEDDED_FILES[name];
  if (text === undefined) throw new TypeError(`PipeWeave has no migration ${name}`);
  return text;
}

/**
 * Reads all migrations of the given sources: the embedded set, then each folder, each ordered by version. Without a
 * database; where its history decides which sets take part, see {@linkcode readFiles}.
 *
 * @throws {PipeweaveError} of kind `usage` when a folder cannot be read or holds no `.sql` file
 */
export function discover(sources: MigrationSources = {}): Discovery {
  return readFiles(sources).takingPart([]);
}

/**
 * Reads the files of all sets that may take part.
 *
 * @throws {PipeweaveError} of kind `usage` when a folder cannot be read or holds no `.sql` file
 */
export function readFiles(sources: MigrationSources): MigrationFiles {
  const { dirs = [], embedded } = sources;
  if (embedded === false && dirs.length === 0) {
    throw new PipeweaveError(
      "usage",
      "no_migrations",
      "There are no migrations: --no-embedded leaves out PipeWeave's own",
      {
        hint: "Add a folder with --dir <folder>.",
      },
    );
  }
  return new MigrationFiles(
    embedded === false ? undefined : readEmbedded(),
    dirs.map((dir) => readFolder(dir)),
    embedded ?? (dirs.length === 0 ? true : undefined),
  );
}

/** Files that were read, before it is known which of them take part. */
export class MigrationFiles {
  readonly embedded: SetFound | undefined;
  readonly own: readonly SetFound[];
  /** Whether PipeWeave's own take part; undefined where the history decides. */
  readonly withEmbedded: boolean | undefined;

  constructor(
    embedded: SetFound | undefined,
    own: readonly SetFound[],
    withEmbedded: boolean | undefined,
  ) {
    this.embedded = embedded;
    this.own = own;
    this.withEmbedded = withEmbedded;
  }

  /** The migrations that take part in a database with this history. */
  takingPart(history: readonly Pick<HistoryRow, "version" | "name" | "set">[]): Discovery {
    const { embedded, own } = this;
    const isPipeweaves = (row: Pick<HistoryRow, "version" | "name" | "set">) =>
      row.set === "pipeweave" ||
      row.set === null && embedded?.migrations.some((one) => isOf(row, one)) === true;
    const takesPart = this.withEmbedded ?? history.some(isPipeweaves);
    const sets = [...(embedded && takesPart ? [embedded] : []), ...own];
    const migrations = sets.flatMap((set) => set.migrations);
    const findings = sets.flatMap((set) => [...set.findings, ...gaps(set.migrations)]);
    return {
      sets: sets.map(({ source, migrations: { length } }) => ({ source, files: length })),
      migrations,
      findings: [...findings, ...duplicates(migrations), ...mixedVersions(own)],
    };
  }
}

/** One set as its folder has it. */
interface SetFound {
  readonly source: string;
  readonly migrations: readonly Migration[];
  readonly findings: readonly Finding[];
}

/** Reads PipeWeave's own set. */
function readEmbedded(): SetFound {
  const encoder = new TextEncoder();
  return readSet(EMBEDDED, Object.keys(EMBEDDED_FILES), {
    file: (name) => `${EMBEDDED}/${name}`,
    read: (name) => encoder.encode(embeddedFile(name)),
  });
}

/** Reads a folder. Synchronously, since that reads a thousand small files in a third of the time. */
function readFolder(folder: string): SetFound {
  const names: string[] = [];
  const passedOver: Finding[] = [];
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const why = reasonToPassOver(folder, entry);
      if (why) {
        passedOver.push({ severity: "warning", code: "passed_over", file: join(folder, entry.name), ...why });
      } // Kubernetes mounts files as symbolic links.
      else if ((entry.isFile() || entry.isSymbolicLink()) && entry.name.endsWith(".sql")) {
        names.push(entry.name);
      }
    }
  } catch (error) {
    const missing = codeOf(error) === "ENOENT";
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
  if (names.length === 0 && passedOver.some(({ severity }) => severity === "error")) {
    return { source: folder, migrations: [], findings: passedOver };
  }
  if (names.length === 0) {
    throw new PipeweaveError("usage", "empty_folder", `The folder ${folder} holds no .sql file`, {
      problems: passedOver.map(({ file, message }) => `${file} ${message}`),
      hint: passedOver[0]?.hint ??
        "Check --dir or PIPEWEAVE_MIGRATIONS_DIR; in a container, check the mount.",
    });
  }
  const file = (name: string) => join(folder, name);
  const set = readSet(folder, names, { file, read: (name) => readFileSync(file(name)) });
  return { ...set, findings: [...passedOver, ...set.findings] };
}

/** Where a set's files are. */
interface Place {
  /** A file's path, or what it is called in findings. */
  file(name: string): string;
  read(name: string): Uint8Array;
}

function readSet(source: string, names: string[], place: Place): SetFound {
  const read = names.sort().map((name) => readMigration(source, name, place));
  const isDown = (_: unknown, index: number) => names[index]!.endsWith(DOWN);
  const downs = read.filter(isDown).flatMap(({ migration }) => migration ?? []);
  const ups = read.filter((_, index) => !isDown(_, index)).flatMap(({ migration }) => migration ?? []);
  const downOf = new Map(downs.map((down) => [labelOf(down), down]));
  const labels = new Set(ups.map(labelOf));
  return {
    source,
    migrations: ups.map((up) => withDown(up, downOf.get(labelOf(up))))
      .sort((a, b) => compareVersions(a.version, b.version)),
    findings: [
      ...read.flatMap(({ findings }) => findings),
      ...downs.flatMap((down) => problemsOfDown(down, labels)),
    ],
  };
}

function withDown(up: Migration, down: Migration | undefined): Migration {
  // By its properties, since to ask for the text of a large file is to read it.
  return down
    ? Object.defineProperties({} as Migration, {
      ...Object.getOwnPropertyDescriptors(up),
      down: { value: down, enumerable: true },
    })
    : up;
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

/** The system's name of what went wrong, such as `ENOENT`. */
function codeOf(error: unknown): unknown {
  return error instanceof Error && "code" in error ? error.code : undefined;
}

function readMigration(
  source: string,
  name: string,
  place: Place,
): { migration?: Migration; findings: Finding[] } {
  const file = place.file(name);
  const invalid = (code: string, message: string, extra: Partial<Finding> = {}): { findings: Finding[] } => ({
    findings: [{ severity: "error", code, file, message, ...extra }],
  });
  const match = FILE_NAME.exec(name);
  if (!match) {
    const tool = toolOfName(name);
    return invalid("bad_name", `is not named like a migration${tool ? `, but like one of ${tool}` : ""}`, {
      hint: tool
        ? "Bring the folder over: pipeweave db:import <folder> --output <new folder>."
        : "Name it NNN_snake_case_name.sql: digits, then lower-case words, joined by underscores.",
    });
  }
  let bytes: Uint8Array;
  try {
    bytes = place.read(name);
  } catch (error) {
    const dangling = codeOf(error) === "ELOOP" || codeOf(error) === "ENOENT";
    return invalid(
      "unreadable",
      `cannot be read: ${dangling ? "it is a link to nothing" : messageOf(error)}`,
    );
  }
  if (bytes.length > LARGEST_FILE) {
    return invalid(
      "too_large",
      `is ${megabytes(bytes.length)}, and more than ${megabytes(LARGEST_FILE)} cannot be read`,
      { hint: "Split it into several migrations, or load the data with psql's \\copy outside of them." },
    );
  }
  const encoding = utf16Of(bytes);
  if (encoding) {
    return invalid("not_utf8", "is UTF-16, and not UTF-8", {
      hint: `Convert it: iconv -f ${encoding} -t utf-8 ${file}`,
    });
  }
  let sql: string;
  try {
    sql = canonicalText(bytes);
  } catch (error) {
    if (!(error instanceof NotUtf8Error)) throw error;
    return invalid("not_utf8", `is not UTF-8 (byte ${error.offset})`, {
      hint: `Convert it: iconv -f latin1 -t utf-8 ${file}`,
    });
  }
  if (sql.trim() === "") return invalid("empty", "is empty", { hint: "Write its SQL, or remove the file." });
  if (sql.includes("\0")) return invalid("zero_byte", "holds a zero byte, which PostgreSQL cannot take");

  const [, version, bare] = match as unknown as [string, string, string];
  if (source !== EMBEDDED && isReserved(version)) {
    return invalid("reserved_version", "has a version of PipeWeave's own range, 90000 to 99999", {
      hint: "Give it another number.",
    });
  }
  const { directives, problems } = readDirectives(sql);
  const findings = problems.map(({ line, message }): Finding => {
    const offset = sql.split("\n").slice(0, line - 1).join("\n").length + (line === 1 ? 0 : 1);
    return { severity: "error", code: "bad_directive", file, message, location: locate(file, sql, offset) };
  });
  return {
    migration: withText(
      { version, name: bare, checksum: checksumOf(sql), size: sql.length, file, source, directives },
      sql,
      file,
    ),
    findings,
  };
}

/** Versions that are dates in part: numbers go before dates, whatever was meant. */
function mixedVersions(sets: readonly SetFound[]): Finding[] {
  return sets.flatMap(({ migrations }): Finding[] => {
    const odd = migrations.find(({ version }, index) =>
      index > 0 && classOf(version) !== classOf(migrations[index - 1]!.version)
    );
    if (!odd) return [];
    return [{
      severity: "warning",
      code: "mixed_versions",
      file: odd.file,
      message: "has a version of another length than those before it: versions are compared as numbers",
      hint: "See that the order of db:status is the one that is meant; give files of one kind of version.",
    }];
  });
}

/** Counted numbers are of one kind, whatever their length; dates are of another for each length. */
const classOf = ({ length }: string): number => length < DATE_DIGITS ? 0 : length;

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
    // PipeWeave's own go on in their range where the Node tool's numbers end.
    if (migration.source === EMBEDDED && isReserved(migration.version) && !isReserved(before.version)) {
      return [];
    }
    if (Number(migration.version) <= Number(before.version) + 1) return [];
    return [{
      severity: migration.source === EMBEDDED ? "error" : "warning",
      code: "gap",
      file: migration.file,
      message: `follows ${labelOf(before)}: the versions between are missing`,
    }];
  });
}
