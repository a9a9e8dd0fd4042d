/**
 * Reads another tool's folder, and finds out whose it is.
 *
 * @module
 */

import { readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { messageOf, PipeweaveError } from "../errors.ts";
import {
  compareTexts,
  type Files,
  type ForeignFolder,
  notOf,
  type Read,
  type Tool,
  TOOLS,
} from "./foreign.ts";
import {
  readDiesel,
  readFlyway,
  readGolangMigrate,
  readKnex,
  readPop,
  readPrisma,
  readSqlx,
} from "./pairs.ts";
import { readGraphile, readLiquibase, readRails, readSqitch, sqitchFolders } from "./plans.ts";
import { readNodePgMigrate, readSections, splitSections } from "./sections.ts";

/** Folders below the one that is named are read so far down: a link may lead back up. */
const DEPTH = 16;
/** No file of SQL that people write is longer. */
const LONGEST_FILE = 256 * 1024 * 1024;

const READERS: Readonly<Record<Tool, (files: Files) => Read>> = {
  "dbmate": (files) => readSections(files, "dbmate"),
  "goose": (files) => readSections(files, "goose"),
  "sql-migrate": (files) => readSections(files, "sql-migrate"),
  "tern": (files) => readSections(files, "tern"),
  "node-pg-migrate": readNodePgMigrate,
  "golang-migrate": readGolangMigrate,
  "sqlx": readSqlx,
  "knex": readKnex,
  "pop": readPop,
  "diesel": readDiesel,
  "prisma": readPrisma,
  "flyway": readFlyway,
  "liquibase": readLiquibase,
  "sqitch": readSqitch,
  "graphile-migrate": readGraphile,
  "rails": readRails,
};

/**
 * Reads a folder of another tool.
 *
 * @param tool whose it is; found out where it is not said
 * @throws {PipeweaveError} of kind `usage` when that cannot be told, or there is nothing in it
 */
export function readForeignFolder(root: string, tool?: Tool): ForeignFolder {
  const files = filesOf(root);
  const recognised = tool ?? recognise(files);
  const from = recognised ?? guess(files);
  if (from === undefined) {
    throw new PipeweaveError(
      "usage",
      "unknown_tool",
      `It cannot be told which tool's migrations ${root} holds`,
      { hint: `${below(files)}Say it with --from, one of ${TOOLS.join(", ")}.` },
    );
  }
  if (from === "sqitch" && !sqitchFolders(files)) {
    throw notOf(from, root, "there is no sqitch.plan where sqitch.conf has it, or at the top");
  }
  if (from === "rails" && !files.names.some((name) => /(?:^|\/)structure\.sql$/.test(name))) {
    throw notOf(
      from,
      root,
      "there is no structure.sql; with schema.rb, set config.active_record.schema_format = :sql",
    );
  }
  files.taken.clear();
  const read = READERS[from](files);
  if (read.migrations.every(({ isCode }) => isCode)) {
    throw notOf(from, root, "no file is named or written as that tool's are", below(files));
  }
  const undecoded = files.undecoded();
  return {
    tool: from,
    ...read,
    problems: [
      ...read.problems,
      ...undecoded.map((file) => ({
        file,
        message: "is not text in UTF-8: convert it first, or its letters are lost",
      })),
    ],
    decisions: [
      ...(recognised
        ? []
        : [`it is taken for ${from}'s by the names of its files alone: --from says whose it is`]),
      ...read.decisions,
      ...leftOut(files, from),
    ],
  };
}

/** Folders further down that hold SQL: one of them may be meant. */
function below({ names, root }: Files): string {
  const folders = [...new Set(names.filter((name) => SQL.test(name) && name.includes("/")).map(dirname))];
  if (folders.length === 0) return "";
  return `Is ${folders.slice(0, 3).map((folder) => join(root, folder)).join(" or ")} meant? `;
}

/** Names of files of SQL. */
const SQL = /\.(?:sql|pgsql|psql|ddl)$/i;
/** Files that a line names. */
const NAMED = 10;

/** What of a folder was not taken, told: somebody may have thought that the tool reads it. */
function leftOut(files: OwnFiles, tool: Tool): readonly string[] {
  const left = files.names.filter((name) => SQL.test(name) && !files.taken.has(name));
  if (left.length === 0) return [];
  const named = left.slice(0, NAMED).join(", ") + (left.length > NAMED ? ", …" : "");
  return [`${left.length} file(s) were left out, since ${tool} does not read them as migrations: ${named}`];
}

/** Whose folder it is, by what no other tool's has. */
function recognise(files: Files): Tool | undefined {
  const { names } = files;
  const some = (pattern: RegExp) => names.some((name) => pattern.test(name));
  if (sqitchFolders(files)) return "sqitch";
  if (some(/^[^/]+\/migration\.sql$/)) return "prisma";
  if (some(/^[^/]+\/up\.sql$/)) return "diesel";
  if (some(/(?:^|\/)V[\d._]+__.*\.sql$/)) return "flyway";
  const sql = names.filter((name) => name.endsWith(".sql"));
  const looked = sql.slice(0, 50);
  if (looked.some((name) => /^--! Previous: /m.test(files.text(name)))) return "graphile-migrate";
  if (looked.some((name) => /^\s*--\s*liquibase formatted sql/im.test(files.text(name)))) return "liquibase";
  for (const dialect of ["dbmate", "goose", "sql-migrate", "node-pg-migrate", "tern"] as const) {
    if (looked.some((name) => !name.includes("/") && splitSections(files.text(name), dialect).hasMarks)) {
      return dialect;
    }
  }
  if (
    some(/^\d+_.*\.(?:postgres|cockroach|mysql|sqlite3?|autocommit)\b.*\.(?:up|down)\.sql$/) ||
    some(/\.fizz$/)
  ) {
    return "pop";
  }
  return sql.length > 0 && sql.every((name) => /(?:^|\/)structure\.sql$/.test(name)) ? "rails" : undefined;
}

/** Whose folder it may be, by names that several tools have. */
function guess({ names }: Files): Tool | undefined {
  if (names.some((name) => /(?:^|\/)\d+[_-].*\.(?:up|down)\.sql$/.test(name))) return "golang-migrate";
  return names.some((name) => /^\d+_[^/]*\.sql$/.test(name)) ? "sqlx" : undefined;
}

/** The files of a folder, and what became of them. */
interface OwnFiles extends Files {
  /** Files that were read. */
  readonly taken: Set<string>;
  /** Files that were read, and are not UTF-8. */
  readonly undecoded: () => readonly string[];
}

function decoded(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function filesOf(root: string): OwnFiles {
  const names: string[] = [];
  const unreadable = (what: string, error: unknown) =>
    new PipeweaveError("usage", "unreadable_folder", `${what} cannot be read: ${messageOf(error)}`, {
      hint: "Name the folder with the old tool's migrations, and see that it may be read.",
      cause: error,
    });
  // A link may lead to where it has been read already.
  const walked = new Set<string>();
  const walk = (folder: string, depth: number): void => {
    const real = realpathSync(join(root, folder));
    if (walked.has(real)) return;
    walked.add(real);
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
      const name = folder === "" ? entry.name : `${folder}/${entry.name}`;
      const kind = entry.isSymbolicLink() ? statSync(join(root, name)) : entry;
      if (kind.isDirectory()) {
        if (depth < DEPTH) walk(name, depth + 1);
      } else if (kind.isFile()) names.push(name);
    }
  };
  try {
    walk("", 0);
  } catch (error) {
    throw unreadable(`The folder ${root}`, error);
  }
  const texts = new Map<string, string>();
  const taken = new Set<string>();
  const undecoded = new Set<string>();
  const read = (name: string) => {
    try {
      const path = join(root, name);
      if (statSync(path).size > LONGEST_FILE) throw new Error("it is larger than 256 MB");
      const bytes = readFileSync(path);
      const text = decoded(bytes);
      if (text === undefined || text.includes("\0")) undecoded.add(name);
      return text ?? new TextDecoder().decode(bytes);
    } catch (error) {
      throw unreadable(name, error);
    }
  };
  return {
    root,
    names: names.sort(compareTexts),
    taken,
    know: (name) => taken.add(name),
    undecoded: () => [...taken].filter((name) => undecoded.has(name)),
    text: (name) => {
      taken.add(name);
      if (!texts.has(name)) texts.set(name, read(name));
      return texts.get(name)!;
    },
  };
}
