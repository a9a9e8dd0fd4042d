/**
 * What another tool's history says is applied.
 *
 * @module
 */

import { assertTrusted } from "../database/trust.ts";
import { type Row, type Session } from "../database/session.ts";
import { identifier, sql, SqlText } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { type Book, BOOKS, numberOf, type Tool } from "./foreign.ts";
import { flywayVersion } from "./pairs.ts";

/** A migration that the old tool has applied. */
export interface AppliedThere {
  /** As the folder's reader gives it. */
  readonly key: string;
  /** Null where that tool does not keep it. */
  readonly appliedAt: Date | null;
  /** Milliseconds; null where that tool does not keep it. */
  readonly durationMs: number | null;
  /** Of the file as it was then; undefined where that tool does not keep it. */
  readonly checksum?: string | undefined;
}

/** A history that was found. */
export interface ForeignHistory {
  readonly schema: string;
  readonly name: string;
  /** What is applied; undefined where the tool keeps the last one alone, which is `last`. */
  readonly applied: readonly AppliedThere[] | undefined;
  /** Key of the last one that is applied, where the tool keeps that alone; empty where none is. */
  readonly last: string | undefined;
  /** Of Flyway: what is of this version, or an earlier one, counts as applied. */
  readonly baseline?: string | undefined;
}

/** Where a tool keeps its history, and how it is read. */
interface Keeping {
  readonly schema?: string;
  /** By which it is told from a table of the user's. */
  readonly columns: readonly string[];
  /** Whether it has these columns and no others. */
  readonly isExact?: boolean;
  /** Whether other tools and applications have tables of that name: one in a schema of its own may be anybody's. */
  readonly isCommon?: boolean;
  /** What follows `SELECT`, up to the table. */
  readonly select: string;
  readonly behind?: string;
  /** @throws {PipeweaveError} where the old tool has left something half done */
  readonly read: (rows: readonly Row[]) => Omit<ForeignHistory, "schema" | "name">;
}

const digits = (value: unknown) => numberOf(String(value));
/** A time of the database's; it knows some that no calendar has. */
const timeOf = (value: unknown) => value instanceof Date && !Number.isNaN(value.getTime()) ? value : null;
/** What fits the column that it goes to. */
const MILLISECONDS = (seconds: string) => `least(extract(epoch FROM ${seconds}) * 1000, 2147483647)::integer`;
const each = (keyOf: (row: Row) => string | undefined) => (rows: readonly Row[]) => ({
  applied: rows.flatMap((row): AppliedThere[] => {
    const key = keyOf(row);
    return key === undefined ? [] : [{
      key,
      appliedAt: timeOf(row["at"]),
      durationMs: typeof row["ms"] === "number" ? row["ms"] : null,
      ...(row["sum"] === null || row["sum"] === undefined ? {} : { checksum: String(row["sum"]) }),
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
    ...{ columns: ["version"], isExact: true, isCommon: true, select: "version" },
    read: each((row) => String(row["version"])),
  },
  "rails": {
    ...{ columns: ["version"], isExact: true, isCommon: true, select: "version" },
    read: each((row) => String(row["version"])),
  },
  "golang-migrate": {
    ...{ columns: ["version", "dirty"], isExact: true, isCommon: true, select: "version, dirty" },
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
    ...{ columns: ["version"], isExact: true, select: "version" },
    read: lastOnly,
  },
  "node-pg-migrate": {
    ...{ columns: ["name", "run_on"], select: "name, run_on::timestamptz AS at" },
    read: each((row) => String(row["name"])),
  },
  "knex": {
    ...{ columns: ["name", "batch"], select: "name, migration_time AS at" },
    read: each((row) => String(row["name"]).replace(/\.(?:[cm]?[jt]s|sql|coffee|ls)$/, "")),
  },
  "prisma": {
    ...{ columns: ["migration_name", "finished_at"] },
    select: `migration_name AS name, finished_at AS at, rolled_back_at, checksum AS sum, ${
      MILLISECONDS("finished_at - started_at")
    } AS ms`,
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
    select:
      "version::text, installed_on AS at, success, encode(checksum, 'hex') AS sum, least(execution_time / 1000000, 2147483647)::integer AS ms",
    read: (rows) => {
      const failed = rows.find((row) => row["success"] === false);
      if (failed) throw halfDone(`version ${failed["version"]}`);
      return each((row) => digits(row["version"]))(rows);
    },
  },
  "flyway": {
    ...{ columns: ["installed_rank", "script"] },
    select:
      "version, script, type, success, checksum AS sum, installed_on::timestamptz AS at, execution_time AS ms",
    behind: "ORDER BY installed_rank",
    read: (rows) => {
      const failed = rows.find((row) => row["success"] === false);
      if (failed) throw halfDone(String(failed["script"]));
      // In the order in which it happened: what was undone is not applied.
      const now = new Map<string, Row>();
      let baseline: string | undefined;
      for (const row of rows) {
        const type = String(row["type"]);
        const key = row["version"] === null ? String(row["script"]) : flywayVersion(String(row["version"]));
        if (/BASELINE$/.test(type)) baseline = key;
        else if (/^UNDO|^DELETE/.test(type)) now.delete(key);
        else if (type !== "SCHEMA") now.set(key, { ...row, key });
      }
      return { ...each((row) => String(row["key"]))([...now.values()]), baseline };
    },
  },
  "pop": {
    ...{ columns: ["version"], select: "version" },
    read: each((row) => digits(row["version"])),
  },
  "graphile-migrate": {
    ...{ schema: "graphile_migrate", columns: ["hash", "filename"] },
    select: "filename, date AS at, hash AS sum",
    // The file's name may have a message behind the number, and the history has not.
    read: each((row) => /^\d+/.exec(String(row["filename"]))?.[0]),
  },
  "liquibase": {
    ...{ columns: ["orderexecuted", "author"] },
    select: "id, author, filename, dateexecuted::timestamptz AS at",
    behind: "ORDER BY orderexecuted",
    read: each((row) => `${row["id"]}::${row["author"]}::${row["filename"]}`),
  },
  "sqitch": {
    ...{ schema: "sqitch", columns: ["change_id", "committed_at"] },
    select: "change, project, committed_at AS at",
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
 * @param book where it is, as far as that is known
 * @returns undefined where there is none
 * @throws {PipeweaveError} of kind `integrity` when the old tool has left something half done, or there are several
 */
export async function readForeignHistory(
  session: Session,
  tool: Tool,
  book: Book = {},
): Promise<ForeignHistory | undefined> {
  const table = book.table ?? BOOKS[tool];
  const { schema: home, columns, isExact = false, isCommon = false, select, behind = "", read } =
    KEEPINGS[tool];
  const schema = book.schema ?? home ?? null;
  const [found = []] = await session.transaction(sql`
    SELECT n.nspname AS schema, c.relname AS name,
           n.nspname IN ('public', session_user) OR n.nspname = ANY (
             SELECT pg_catalog.btrim(part, ' "') FROM pg_catalog.pg_settings s,
                    pg_catalog.regexp_split_to_table(s.reset_val, ',') part WHERE s.name = 'search_path') AS is_usual
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN LATERAL (
        SELECT array_agg(a.attname) AS names, bool_and(t.typnamespace = 'pg_catalog'::regnamespace) AS are_plain
          FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) col ON true
     WHERE c.relname = ${table} AND c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%'
       AND n.nspname = ${schema}::text IS NOT FALSE
       AND col.are_plain
       AND col.names @> pg_catalog.string_to_array(${columns.join(",")}, ',')::name[]
       AND (NOT ${isExact}::boolean OR pg_catalog.cardinality(col.names) = ${columns.length}::int)
     ORDER BY 1;`);
  if (found.length === 0) return undefined;
  if (found.length > 1) {
    throw new PipeweaveError(
      "integrity",
      "several_histories",
      `There are several histories of ${tool}: ${
        found.map((row) => `${row["schema"]}.${row["name"]}`).join(", ")
      }`,
      { hint: "Say which one counts: --history-table schema.table; or import the files alone: --offline." },
    );
  }
  if (isCommon && book.schema === undefined && found[0]!["is_usual"] !== true) {
    const other = `${found[0]!["schema"]}.${found[0]!["name"]}`;
    throw new PipeweaveError(
      "integrity",
      "history_elsewhere",
      `There is a table ${other}, which may be ${tool}'s or another application's`,
      {
        hint:
          `If it is this folder's, say so: --history-table ${other}; if not, import the files alone: --offline.`,
      },
    );
  }
  const [{ schema: place, name }] = found as unknown as [{ schema: string; name: string }];
  const answers = await session.transaction(sql`
    ${assertTrusted(place, [name], "read")}
    SELECT ${new SqlText(select)} FROM ${identifier(place)}.${identifier(name)} ${new SqlText(behind)};`);
  const rows = answers.at(-1) ?? [];
  const own = book.project === undefined ? rows : rows.filter((row) => row["project"] === book.project);
  return { schema: place, name, ...read(own) };
}
