/**
 * Reads another tool's folder, and finds out whose it is.
 *
 * @module
 */

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { messageOf, PipeweaveError } from "../errors.ts";
import { type Files, type ForeignFolder, notOf, type Read, type Tool, TOOLS } from "./foreign.ts";
import { readDiesel, readFlyway, readPairs, readPop, readPrisma } from "./pairs.ts";
import { readGraphile, readLiquibase, readRails, readSqitch } from "./plans.ts";
import { DIALECTS, readSections, splitSections } from "./sections.ts";

/** Folders below the one that is named are read so far down. */
const DEPTH = 4;

const READERS: Readonly<Record<Tool, (files: Files) => Read>> = {
  "dbmate": (files) => readSections(files, "dbmate"),
  "goose": (files) => readSections(files, "goose"),
  "sql-migrate": (files) => readSections(files, "sql-migrate"),
  "tern": (files) => readSections(files, "tern"),
  "node-pg-migrate": (files) => {
    const hasPairs = files.names.some((name) => /^\d+.*\.up\.sql$/.test(name));
    if (!hasPairs) return readSections(files, "node-pg-migrate");
    const { migrations, ...rest } = readPairs(files, "knex");
    return { ...rest, migrations };
  },
  "golang-migrate": (files) => readPairs(files, "golang-migrate"),
  "sqlx": (files) => readPairs(files, "sqlx"),
  "knex": (files) => readPairs(files, "knex"),
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
  const from = tool ?? recognise(files);
  if (from === undefined) {
    throw new PipeweaveError(
      "usage",
      "unknown_tool",
      `It cannot be told which tool's migrations ${root} holds`,
      {
        hint: `Say it with --from, one of ${TOOLS.join(", ")}.`,
      },
    );
  }
  if (from === "sqitch" && !files.names.includes("sqitch.plan")) {
    throw notOf(from, root, "there is no sqitch.plan");
  }
  if (from === "rails" && !files.names.some((name) => /(?:^|\/)structure\.sql$/.test(name))) {
    throw notOf(
      from,
      root,
      "there is no structure.sql; with schema.rb, set config.active_record.schema_format = :sql",
    );
  }
  const read = READERS[from](files);
  if (read.migrations.length === 0) throw notOf(from, root, "no file is named or written as that tool's are");
  return { tool: from, ...read };
}

/** Whose folder it is, by what no other tool's has. */
function recognise(files: Files): Tool | undefined {
  const { names } = files;
  const some = (pattern: RegExp) => names.some((name) => pattern.test(name));
  if (names.includes("sqitch.plan")) return "sqitch";
  if (some(/^[^/]+\/migration\.sql$/)) return "prisma";
  if (some(/^[^/]+\/up\.sql$/)) return "diesel";
  if (some(/(?:^|\/)V[\d._]+__.*\.sql$/)) return "flyway";
  const sql = names.filter((name) => name.endsWith(".sql"));
  const looked = sql.slice(0, 50);
  if (looked.some((name) => /^--! Previous: /m.test(files.text(name)))) return "graphile-migrate";
  if (looked.some((name) => /^\s*--\s*liquibase formatted sql/im.test(files.text(name)))) return "liquibase";
  for (const dialect of ["dbmate", "goose", "sql-migrate", "node-pg-migrate", "tern"] as const) {
    const own = looked.filter((name) => /^\d+[^/]*\.sql$/.test(name) || dialect === "tern");
    if (own.some((name) => splitSections(files.text(name), DIALECTS[dialect]).hasMarks)) return dialect;
  }
  if (
    some(/^\d+_.*\.(?:postgres|cockroach|mysql|sqlite3?|autocommit)\b.*\.(?:up|down)\.sql$/) ||
    some(/\.fizz$/)
  ) {
    return "pop";
  }
  if (some(/(?:^|\/)\d+[_-].*\.(?:up|down)\.sql$/)) return "golang-migrate";
  if (sql.length > 0 && sql.every((name) => /(?:^|\/)structure\.sql$/.test(name))) return "rails";
  return looked.some((name) => /^\d+_[^/]*\.sql$/.test(name)) ? "sqlx" : undefined;
}

function filesOf(root: string): Files {
  const names: string[] = [];
  const walk = (folder: string, depth: number): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
      const name = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        if (depth < DEPTH) walk(name, depth + 1);
      } else names.push(name);
    }
  };
  try {
    walk("", 0);
  } catch (error) {
    throw new PipeweaveError(
      "usage",
      "unreadable_folder",
      `The folder ${root} cannot be read: ${messageOf(error)}`,
      {
        hint: "Name the folder with the old tool's migrations.",
        cause: error,
      },
    );
  }
  const texts = new Map<string, string>();
  return {
    root,
    names: names.sort(),
    text: (name) => {
      let text = texts.get(name);
      if (text === undefined) {
        text = new TextDecoder().decode(readFileSync(join(root, name)));
        texts.set(name, text);
      }
      return text;
    },
  };
}
