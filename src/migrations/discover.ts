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

/** In a compiled binary this folder is inside the binary. */
const EMBEDDED_FOLDER = fromFileUrl(new URL("../../migrations", import.meta.url));
const FILE_NAME = /^(\d+)_([a-z0-9]+(?:_[a-z0-9]+)*)(\.down)?\.sql$/;
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
  return Deno.readTextFileSync(join(EMBEDDED_FOLDER, name));
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
    embedded === false ? undefined : readSet(EMBEDDED, EMBEDDED_FOLDER),
    dirs.map((dir) => readSet(dir, dir)),
    embedded ?? (dirs.length === 0 ? true : undefined),
  );
}

/** Files that were read, before it is known which of them take part. */
export class MigrationFiles {
  constructor(
    readonly embedded: SetFound | undefined,
    readonly own: readonly SetFound[],
    /** Whether PipeWeave's own take part; undefined where the history decides. */
    readonly withEmbedded: boolean | undefined,
  ) {}

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

/** Synchronously, since that reads a thousand small files in a third of the time. */
function readSet(source: string, folder: string): SetFound {
  const names: string[] = [];
  const passedOver: Finding[] = [];
  try {
    for (const entry of Deno.readDirSync(folder)) {
      const why = reasonToPassOver(folder, entry);
      if (why) {
        passedOver.push({ severity: "warning", code: "passed_over", file: join(folder, entry.name), ...why });
      } // Kubernetes mounts files as symbolic links.
      else if ((entry.isFile || entry.isSymlink) && entry.name.endsWith(".sql")) names.push(entry.name);
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
  if (names.length === 0 && passedOver.some(({ severity }) => severity === "error")) {
    return { source, migrations: [], findings: passedOver };
  }
  if (names.length === 0) {
    throw new PipeweaveError("usage", "empty_folder", `The folder ${folder} holds no .sql file`, {
      problems: passedOver.map(({ file, message }) => `${file} ${message}`),
      hint: passedOver[0]?.hint ??
        "Check --dir or PIPEWEAVE_MIGRATIONS_DIR; in a container, check the mount.",
    });
  }
  const read = names.sort().map((name) => readMigration(source, folder, name));
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
      ...passedOver,
      ...read.flatMap(({ findings }) => findings),
      ...downs.flatMap((down) => problemsOfDown(down, labels)),
    ],
  };
}

/** Why an entry of a folder is no migration, although somebody may take it for one; undefined where nobody would. */
function reasonToPassOver(
  folder: string,
  entry: Deno.DirEntry,
): Partial<Finding> & Pick<Finding, "message" | "hint"> | undefined {
  const { name } = entry;
  if (/^\._|^\.#|^#.*#$|~$|\.sw[a-p]$|\.(?:bak|orig|rej|tmp|old)$/i.test(name)) {
    return /\.sql|^\d/i.test(name)
      ? { message: "is passed over: it is what an editor or a copy has left", hint: "Remove it." }
      : undefined;
  }
  if (isFolder(folder, entry)) {
    if (!holdsSql(join(folder, name))) return undefined;
    const layout = /^\d/.test(name) ? toolOfFolder(join(folder, name)) : undefined;
    if (layout) {
      return {
        severity: "error",
        code: "foreign_dialect",
        message: `is a migration of ${layout}, which keeps each in a folder of its own`,
        hint: "Move each into files of the folder above: NNN_name.sql, and NNN_name.down.sql.",
      };
    }
    return {
      message: "is passed over: files are read from the folder itself, not from those in it",
      hint: "Name each folder with a --dir of its own, or move the files.",
    };
  }
  if (name.endsWith(".sql")) return undefined;
  const isAlmost = /\.sql$/i.test(name) || /\.sql\.[a-z0-9]+$/i.test(name) || /^\d+_.*sql/i.test(name);
  if (isAlmost) {
    return {
      message: "is passed over: its name does not end in .sql",
      hint: "Name it NNN_snake_case_name.sql.",
    };
  }
  const tool = /\.fizz$/.test(name)
    ? "pop"
    : /^\d+.*\.(?:js|ts|mjs|cjs|go|py|rb|exs|xml|ya?ml)$/.test(name)
    ? "another tool"
    : undefined;
  return tool && {
    message: `is passed over: it is a migration of ${tool}, and no SQL`,
    hint: "Write what it does as NNN_snake_case_name.sql.",
  };
}

function isFolder(folder: string, { name, isDirectory, isSymlink }: Deno.DirEntry): boolean {
  if (!isSymlink) return isDirectory;
  try {
    return Deno.statSync(join(folder, name)).isDirectory;
  } catch {
    return false;
  }
}

function holdsSql(folder: string): boolean {
  try {
    return [...Deno.readDirSync(folder)].some(({ name }) => /\.sql$/i.test(name));
  } catch {
    return false;
  }
}

/** The tool that keeps a migration in a folder of its own. */
function toolOfFolder(folder: string): string | undefined {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name);
  return names.includes("migration.sql") ? "Prisma" : names.includes("up.sql") ? "Diesel" : undefined;
}

/** UTF-16 units from which on a text is read again when it is asked for: memory grows with the largest, not with all. */
const KEPT_IN_MEMORY = 1024 * 1024;

/** A migration with its text, which is read again where it is too large to be kept all the time. */
function withText(migration: Omit<Migration, "sql">, text: string, path: string): Migration {
  if (text.length < KEPT_IN_MEMORY) return { ...migration, sql: text };
  let kept: WeakRef<{ text: string }> | undefined;
  const read = () => {
    const again = canonicalText(Deno.readFileSync(path));
    if (checksumOf(again) === migration.checksum) return again;
    throw new PipeweaveError(
      "integrity",
      "changed_while_read",
      `${migration.file} was changed while it was being read`,
      { hint: "Run it again, when nobody writes to it." },
    );
  };
  return Object.defineProperty({ ...migration }, "sql", {
    enumerable: true,
    get: () => {
      const known = kept?.deref();
      if (known) return known.text;
      const holder = { text: read() };
      kept = new WeakRef(holder);
      return holder.text;
    },
  }) as Migration;
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
    const tool = toolOfName(name);
    return invalid("bad_name", `is not named like a migration${tool ? `, but like one of ${tool}` : ""}`, {
      hint: "Name it NNN_snake_case_name.sql: digits, then lower-case words, joined by underscores.",
    });
  }
  let bytes: Uint8Array;
  try {
    bytes = Deno.readFileSync(join(folder, name));
  } catch (error) {
    const dangling = error instanceof Deno.errors.FilesystemLoop || error instanceof Deno.errors.NotFound;
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
      join(folder, name),
    ),
    findings,
  };
}

/** The largest file whose statements PostgreSQL's parser can read in the memory that WebAssembly has. */
const LARGEST_FILE = 64 * 1024 * 1024;

const megabytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(0)} MB`;

/** The name that iconv has for what a text in UTF-16 is in: by its byte-order mark, or by every second byte being zero. */
function utf16Of(bytes: Uint8Array): string | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe || bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16";
  const head = bytes.subarray(0, 64);
  if (head.length < 4 || head.length % 2 !== 0) return undefined;
  const zeros = (from: number) => head.filter((byte, index) => index % 2 === from && byte === 0).length * 2;
  return zeros(1) > head.length * 0.8 && zeros(0) === 0
    ? "utf-16le"
    : zeros(0) > head.length * 0.8 && zeros(1) === 0
    ? "utf-16be"
    : undefined;
}

/** Whose way of naming files this is. */
function toolOfName(name: string): string | undefined {
  if (/^[VR]\d*[\d._]*__/.test(name)) return "Flyway";
  if (/^U[\d._]+__/.test(name)) return "Flyway, which undoes something";
  if (/\.(?:up|down)\.sql$/.test(name)) return "golang-migrate";
  return /-(?:up|down)\.sql$/.test(name) ? "db-migrate" : undefined;
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
