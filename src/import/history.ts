/**
 * What another tool's history says is applied.
 *
 * @module
 */

import { assertTrusted } from "../database/trust.ts";
import { type Row, type Session } from "../database/session.ts";
import { identifier, sql, SqlText } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { BOOKS, type Tool } from "./foreign.ts";
import { flywayVersion } from "./pairs.ts";

/** A migration that the old tool has applied. */
export interface AppliedThere {
  /** As the folder's reader gives it. */
  readonly key: string;
  /** Null where that tool does not keep it. */
  readonly appliedAt: Date | null;
  /** Milliseconds; null where that tool does not keep it. */
  readonly durationMs: number | null;
}

/** A history that was found. */
export interface ForeignHistory {
  readonly schema: string;
  readonly name: string;
  /** What is applied; undefined where the tool keeps the last one alone, which is `last`. */
  readonly applied: readonly AppliedThere[] | undefined;
  /** Key of the last one that is applied, where the tool keeps that alone; empty where none is. */
  readonly last: string | undefined;
}

/** Where a tool keeps its history, and how it is read. */
interface Keeping {
  readonly schema?: string;
  /** By which it is told from a table of the user's. */
  readonly columns: readonly string[];
  /** Which no table of that tool has. */
  readonly not?: string;
  /** What follows `SELECT`, up to the table. */
  readonly select: string;
  readonly behind?: string;
  /** @throws {PipeweaveError} where the old tool has left something half done */
  readonly read: (rows: readonly Row[]) => Pick<ForeignHistory, "applied" | "last">;
}

const digits = (value: unknown) => String(value).replace(/^0+(?=\d)/, "");
const each = (keyOf: (row: Row) => string | undefined) => (rows: readonly Row[]) => ({
  applied: rows.flatMap((row): AppliedThere[] => {
    const key = keyOf(row);
    return key === undefined ? [] : [{
      key,
      appliedAt: row["at"] instanceof Date ? row["at"] : null,
      durationMs: typeof row["ms"] === "number" ? row["ms"] : null,
    }];
  }),
  last: undefined,
});
const lastOnly = (rows: readonly Row[]) => ({
  applied: undefined,
  last: rows[0] ? digits(rows[0]["version"]) : "",
});

function halfDone(what: string): PipeweaveError {
  return new PipeweaveError("integrity", "half_done_there", `The old tool has left ${what} half done`, {
    hint: "Bring the database in order with the old tool first; then import again.",
  });
}

const KEEPINGS: Readonly<Record<Tool, Keeping>> = {
  "dbmate": {
    ...{ columns: ["version"], not: "checksum", select: "version" },
    read: each((row) => digits(row["version"])),
  },
  "rails": {
    ...{ columns: ["version"], not: "checksum", select: "version" },
    read: each((row) => String(row["version"])),
  },
  "golang-migrate": {
    ...{ columns: ["version", "dirty"], select: "version, dirty" },
    read: (rows) => {
      if (rows[0]?.["dirty"] === true) throw halfDone(`version ${rows[0]["version"]}`);
      return lastOnly(rows);
    },
  },
  "goose": {
    ...{ columns: ["version_id", "is_applied"] },
    // The newest row of a version says whether it is applied.
    select: "DISTINCT ON (version_id) version_id::text AS version, is_applied, tstamp::timestamptz AS at",
    behind: "ORDER BY version_id, id DESC",
    read: each((row) =>
      row["is_applied"] === true && row["version"] !== "0" ? digits(row["version"]) : undefined
    ),
  },
  "sql-migrate": {
    ...{ columns: ["id", "applied_at"], select: "id, applied_at AS at" },
    read: each((row) => String(row["id"])),
  },
  "tern": {
    ...{ columns: ["version"], not: "installed_rank", select: "version" },
    read: lastOnly,
  },
  "node-pg-migrate": {
    ...{ columns: ["name", "run_on"], select: "name, run_on::timestamptz AS at" },
    read: each((row) => String(row["name"])),
  },
  "knex": {
    ...{ columns: ["name", "batch"], select: "name, migration_time AS at" },
    read: each((row) => String(row["name"]).replace(/\.[^.]+$/, "")),
  },
  "prisma": {
    ...{ columns: ["migration_name", "finished_at"] },
    select:
      "migration_name AS name, finished_at AS at, rolled_back_at, (extract(epoch FROM finished_at - started_at) * 1000)::integer AS ms",
    read: (rows) => {
      const failed = rows.find((row) => row["at"] === null && row["rolled_back_at"] === null);
      if (failed) throw halfDone(String(failed["name"]));
      return each((row) => row["rolled_back_at"] === null ? String(row["name"]) : undefined)(rows);
    },
  },
  "diesel": {
    ...{ columns: ["version", "run_on"] },
    select: "version, run_on::timestamptz AS at",
    read: each((row) => String(row["version"])),
  },
  "sqlx": {
    ...{ columns: ["version", "checksum"] },
    select: "version::text, installed_on AS at, success, (execution_time / 1000000)::integer AS ms",
    read: (rows) => {
      const failed = rows.find((row) => row["success"] === false);
      if (failed) throw halfDone(`version ${failed["version"]}`);
      return each((row) => digits(row["version"]))(rows);
    },
  },
  "flyway": {
    ...{ columns: ["installed_rank", "script"] },
    select: "version, script, type, success, installed_on::timestamptz AS at, execution_time AS ms",
    behind: "ORDER BY installed_rank",
    read: (rows) => {
      const failed = rows.find((row) => row["success"] === false);
      if (failed) throw halfDone(String(failed["script"]));
      return each((row) => {
        if (row["type"] === "SCHEMA" || /^DELETE/.test(String(row["type"]))) return undefined;
        return row["version"] === null ? String(row["script"]) : flywayVersion(String(row["version"]));
      })(rows);
    },
  },
  "pop": {
    ...{ columns: ["version"], select: "version" },
    read: each((row) => digits(row["version"])),
  },
  "graphile-migrate": {
    ...{ schema: "graphile_migrate", columns: ["hash", "filename"] },
    select: "filename, date AS at",
    // The file's name may have a message behind the number, and the history has not.
    read: each((row) => /^\d+/.exec(String(row["filename"]))?.[0]),
  },
  "liquibase": {
    ...{ columns: ["orderexecuted", "author"] },
    select: "id, author, dateexecuted::timestamptz AS at",
    behind: "ORDER BY orderexecuted",
    read: each((row) => `${row["id"]}::${row["author"]}`),
  },
  "sqitch": {
    ...{ schema: "sqitch", columns: ["change_id", "committed_at"] },
    select: "change, committed_at AS at",
    behind: "ORDER BY planned_at, committed_at",
    read: (rows) => {
      const seen = new Map<string, number>();
      return each((row) => {
        const name = String(row["change"]);
        const count = seen.get(name) ?? 0;
        seen.set(name, count + 1);
        return `${name}#${count}`;
      })(rows);
    },
  },
};

/**
 * Looks for a tool's history, and reads it.
 *
 * @returns undefined where there is none
 * @throws {PipeweaveError} of kind `integrity` when the old tool has left something half done, or there are several
 */
export async function readForeignHistory(session: Session, tool: Tool): Promise<ForeignHistory | undefined> {
  const table = BOOKS[tool];
  const { schema, columns, not, select, behind = "", read } = KEEPINGS[tool];
  const [found = []] = await session.transaction(sql`
    SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = ${table} AND c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%'
       AND n.nspname = ${schema ?? null}::text IS NOT FALSE
       AND (SELECT count(*) FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
             AND a.attname = ANY (pg_catalog.string_to_array(${
    columns.join(",")
  }, ',')::name[])) = ${columns.length}
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attname = ${not ?? null}::name AND NOT a.attisdropped)
     ORDER BY n.nspname <> 'public', 1;`);
  if (found.length === 0) return undefined;
  if (found.length > 1 && found[0]!["schema"] !== "public") {
    throw new PipeweaveError(
      "integrity",
      "several_histories",
      `There are several histories of ${tool}: ${
        found.map((row) => `${row["schema"]}.${row["name"]}`).join(", ")
      }`,
      { hint: "Leave the one that counts in the schema public, or import the files alone: --offline." },
    );
  }
  const [{ schema: home, name }] = found as unknown as [{ schema: string; name: string }];
  const answers = await session.transaction(sql`
    ${assertTrusted(home, [name], "read")}
    SELECT ${new SqlText(select)} FROM ${identifier(home)}.${identifier(name)} ${new SqlText(behind)};`);
  return { schema: home, name, ...read(answers.at(-1) ?? []) };
}
