/**
 * `db:import`: another tool's folder as one of ours, and its history.
 *
 * @module
 */

import { type Actor, UNKNOWN_ACTOR } from "../config/actor.ts";
import { ConnectionLost, type Session } from "../database/session.ts";
import { identifier, sql, SqlText } from "../database/sql.ts";
import { historyTable, readHistory, recordMigration } from "../engine/history.ts";
import { PipeweaveError } from "../errors.ts";
import { convertFolder, type Imported, type Placeholders } from "../import/convert.ts";
import type { Book, ForeignFolder, Tool } from "../import/foreign.ts";
import { readForeignFolder } from "../import/folder.ts";
import { type AppliedThere, type ForeignHistory, readForeignHistory } from "../import/history.ts";
import { lookAtOutput, writeFolder, type Written } from "../import/write.ts";
import { compareDotted } from "../import/pairs.ts";
import { placeholdersIn } from "../import/placeholders.ts";
import { findOtherHistory } from "../engine/other_tools.ts";
import { discover } from "../migrations/discover.ts";
import { validateAll } from "../migrations/validate.ts";
import { labelOf, versionKey } from "../migrations/migration.ts";
import { alterHistory } from "./history.ts";

/** Options of {@linkcode importFolder}. */
export interface ImportOptions {
  readonly folder: string;
  /** Whose it is; found out where it is not said. */
  readonly from?: Tool | undefined;
  /** Where the files go; undefined to write nothing and change nothing. */
  readonly output?: string | undefined;
  readonly placeholders?: Placeholders | undefined;
  /** Where the old history is; found by its usual name where it is not said. */
  readonly book?: Book | undefined;
  readonly actor?: Actor | undefined;
  /** Asked before anything is written, where the old tool's table is to be renamed; throws to change nothing. */
  readonly confirm?: ((rename: Rename, seen: ImportResult) => Promise<void>) | undefined;
}

/** A table that gets another name; both are `schema.table`. */
export interface Rename {
  readonly table: string;
  readonly to: string;
}

/** Result of {@linkcode importFolder}. */
export interface ImportResult {
  readonly tool: Tool;
  readonly files: readonly Imported[];
  /** About the folder as a whole. */
  readonly decisions: readonly string[];
  /** What has to be done by hand, by file. */
  readonly problems: readonly { readonly file: string; readonly message: string }[];
  /** What became of the output folder; undefined for a look alone. */
  readonly written: Written | undefined;
  /** What the old tool's history has; undefined where there is none, or no database was asked. */
  readonly history: AdoptedHistory | undefined;
}

/** What became of the old tool's history. */
export interface AdoptedHistory {
  /** `schema.table`. */
  readonly table: string;
  /** What it was renamed to; undefined where it stayed. */
  readonly renamedTo: string | undefined;
  /** Labels of what the old tool has applied. */
  readonly applied: readonly string[];
  /** Labels of what was recorded now. */
  readonly adopted: readonly string[];
  /** Entries of the old history that no file is for. */
  readonly unknown: readonly string[];
  /** Labels of what the old tool has not applied, although it has applied later ones. */
  readonly skipped: readonly string[];
  /** Labels of what was edited after the old tool had applied it, as far as that tool keeps checksums. */
  readonly edited: readonly string[];
}

/**
 * Reads another tool's folder and history, writes files of ours, and records what that tool has applied. The order keeps
 * every state whole: a question first, then all files, then the history in one transaction.
 *
 * @throws {PipeweaveError} of kind `usage` or `integrity`; says what was written by then
 */
export async function importFolder(
  session: Session | undefined,
  options: ImportOptions,
): Promise<ImportResult> {
  const { output } = options;
  const foreign = readForeignFolder(options.folder, options.from);
  const files = await convertFolder(foreign, options.placeholders ?? {});
  const found = session &&
    await readForeignHistory(session, foreign.tool, { ...foreign.book, ...options.book });
  if (session && !found) await assertNothingApplied(session, foreign.tool, options.book);
  const applied = found && matched(foreign, found);
  const problems = [
    ...foreign.problems,
    ...applied?.problems ?? [],
    ...files.flatMap(problemsOf),
  ];
  const seen = { tool: foreign.tool, files, decisions: foreign.decisions, problems };
  const history = found && applied && historyOf(files, found, applied);
  if (output === undefined) return { ...seen, written: undefined, history };
  const texts = filesOf(files);
  const written = lookAtOutput(output, texts, namesOf(files.filter(({ problems }) => problems.length > 0)));
  const left = written === "edited since"
    ? [
      ...applied?.problems ?? [],
      ...await leftIn(files, output, foreign.tool, options.placeholders ?? {}),
    ]
    : problems;
  const decisions = written === "edited since"
    ? [
      ...seen.decisions,
      ...foreign.problems.map(({ file }) => `${file}: it is taken to be in the new folder by now`),
    ]
    : seen.decisions;
  // A file that needs a hand gets another checksum by it: its history is taken over when that is done.
  const adoption = session && found && applied && left.length === 0
    ? await planAdoption(session, { files, applied: applied.rows, found, tool: foreign.tool })
    : undefined;
  if (adoption?.renamedTo && history) {
    const to = `${found!.schema}.${adoption.renamedTo}`;
    await options.confirm?.({ table: history.table, to }, { ...seen, written: undefined, history });
  }
  if (written === "written") writeFolder(output, texts);
  const result = { ...seen, decisions, problems: left, written };
  if (!adoption || !history) return { ...result, history };
  await adopt(session!, adoption, output, options.actor ?? UNKNOWN_ACTOR);
  return {
    ...result,
    history: {
      ...history,
      adopted: adoption.wanted.map(labelOf),
      renamedTo: adoption.renamedTo && `${found!.schema}.${adoption.renamedTo}`,
    },
  };
}

/**
 * A database without the old tool's history has to be one in which nothing was applied; otherwise all of it would be run a
 * second time.
 *
 * @throws {PipeweaveError} of kind `integrity`
 */
async function assertNothingApplied(session: Session, tool: Tool, book: Book | undefined): Promise<void> {
  if (book?.table !== undefined) {
    const name = [book.schema, book.table].filter(Boolean).join(".");
    throw new PipeweaveError(
      "integrity",
      "no_such_history",
      `${session.target} has no table ${name} with the columns of ${tool}'s history`,
      {
        hint: "Nothing was written. Name the table as it is, with its schema: --history-table schema.table.",
      },
    );
  }
  const { rows } = await readHistory(session);
  if (rows.length > 0) return;
  const [other] = await findOtherHistory(session);
  const [tables = []] = other ? [] : await session.transaction(sql`
    SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY 1 LIMIT 1;`);
  const table = tables[0]?.["name"];
  if (!other && table === undefined) return;
  const what = other ? `a history of ${other.tool} (${other.table})` : `tables (${table} is one)`;
  throw new PipeweaveError(
    "integrity",
    "no_such_history",
    `The folder is read as ${tool}'s, and ${session.target} has ${what}, and no history of ${tool}`,
    {
      hint: "Nothing was written. Say whose folder it is (--from), or where its history is " +
        "(--history-table schema.table); --offline takes the files alone, and db:baseline says then what is applied.",
    },
  );
}

/** Which of the folder's migrations the old history has. */
interface Matched {
  readonly rows: ReadonlyMap<string, AppliedThere | undefined>;
  readonly unknown: readonly string[];
  /** Why it cannot be told what is applied. */
  readonly problems: ImportResult["problems"];
}

/** Finds the migration's own key for one of the history's: an alias, or, with Liquibase, a path from another folder on. */
function nameResolver(tool: Tool, migrations: ForeignFolder["migrations"]): (key: string) => string {
  const aliases = new Map(
    migrations.flatMap(({ key, aliases = [] }) => aliases.map((alias) => [alias, key])),
  );
  const keys = new Set(migrations.map(({ key }) => key));
  if (tool !== "liquibase") return (key) => aliases.get(key) ?? key;
  const parts = (key: string) => /^(.*::)([^:]*(?::[^:]+)*)$/s.exec(key)!.slice(1) as [string, string];
  const byChangeSet = Map.groupBy(keys, (key) => parts(key)[0]);
  return (key) => {
    if (keys.has(key)) return key;
    const [changeSet, path] = parts(key);
    const same = (byChangeSet.get(changeSet) ?? []).filter((own) => {
      const there = parts(own)[1];
      return path.endsWith(`/${there}`) || there.endsWith(`/${path}`);
    });
    return same.length === 1 ? same[0]! : key;
  };
}

function matched(
  { tool, migrations }: ForeignFolder,
  { schema, name, applied, last, baseline }: ForeignHistory,
): Matched {
  if (applied === undefined) {
    const index = migrations.findIndex(({ key }) => key === last);
    const isKnown = index !== -1 || last === "" || last === "0";
    return {
      rows: new Map(migrations.slice(0, index + 1).map(({ key }) => [key, undefined])),
      unknown: isKnown ? [] : [last!],
      problems: isKnown ? [] : [{
        file: `${schema}.${name}`,
        message:
          `says that ${last} was applied last, and no file has that version: what is applied cannot be told`,
      }],
    };
  }
  const byName = nameResolver(tool, migrations);
  const rows = new Map(applied.map((row) => [byName(row.key), row]));
  const isBelow = (key: string) =>
    baseline !== undefined && /^[\d.]+$/.test(key) && compareDotted(key, baseline) <= 0;
  const namesOf = ({ key, also = [] }: ForeignFolder["migrations"][number]) => [key, ...also];
  const some = migrations.filter((one) => namesOf(one).some((key) => rows.has(key)) || isBelow(one.key));
  const half = some.filter((one) => !isBelow(one.key) && namesOf(one).some((key) => !rows.has(key)));
  const taken = some.filter((one) => !half.includes(one));
  const keys = new Set(migrations.flatMap(({ key, also = [] }) => [key, ...also]));
  return {
    rows: new Map(taken.map(({ key }) => [key, rows.get(key)])),
    unknown: applied.filter(({ key }) => !keys.has(byName(key))).map(({ key }) => key),
    problems: [
      ...half.map((one) => ({
        file: one.file,
        message: `stands for more than the old tool has applied here: ${
          namesOf(one).filter((key) => !rows.has(key)).length
        } version(s) of it are missing in ${schema}.${name}. Bring the database up to date with that tool first`,
      })),
      // Another folder's, or one whose files were renamed.
      ...(some.length === 0 && applied.length > 0
        ? [{
          file: `${schema}.${name}`,
          message: `has ${applied.length} applied, and none of them is in this folder: is it another one's?`,
        }]
        : []),
    ],
  };
}

function historyOf(
  files: readonly Imported[],
  { schema, name }: ForeignHistory,
  { rows, unknown }: Matched,
): AdoptedHistory {
  const isTaken = ({ key }: Imported) => rows.has(key);
  const last = files.findLastIndex(isTaken);
  const isEdited = ({ key, checksum }: Imported) => {
    const then = rows.get(key)?.checksum;
    return then !== undefined && checksum !== undefined && then !== checksum;
  };
  return {
    table: `${schema}.${name}`,
    renamedTo: undefined,
    applied: files.filter(isTaken).map(labelOf),
    adopted: [],
    unknown,
    skipped: files.slice(0, Math.max(0, last)).filter((file) => !isTaken(file)).map(labelOf),
    edited: files.filter((file) => isTaken(file) && isEdited(file)).map(labelOf),
  };
}

/** By the file that is to be mended, since lines are counted in it; code has none yet. */
function problemsOf(file: Imported): ImportResult["problems"] {
  const { from, problems, isCode } = file;
  return problems.map((message) =>
    isCode ? { file: from, message } : { file: `${labelOf(file)}.sql`, message: `${message} (from ${from})` }
  );
}

/** What still needs a hand in a folder that was edited after it was written, or was written with other options. */
async function leftIn(
  files: readonly Imported[],
  output: string,
  tool: Tool,
  placeholders: Placeholders,
): Promise<ImportResult["problems"]> {
  const { migrations, findings } = discover({ dirs: [output], embedded: false });
  const all = [...findings, ...await validateAll(migrations, {})];
  const versions = new Set(migrations.map(({ version }) => versionKey(version)));
  const unwritten = files.filter(({ isCode, version }) => isCode && !versions.has(versionKey(version)));
  // A name whose value looks like itself was to stay.
  const kept = Object.keys(placeholders).filter((name) => placeholders[name]!.includes(name));
  const unfilled = migrations.flatMap((migration) => {
    const marks = placeholdersIn(migration.sql, tool, false, kept);
    const again = "fill them in there, or remove the folder and import anew with --placeholder name=value";
    return [
      ...(marks.length > 0 ? [`still holds placeholders: ${marks.join(", ")}; ${again}`] : []),
      ...(migration.sql.includes("\ufffd") ? ["holds letters that were lost (U+FFFD): write them"] : []),
    ].map((message) => ({ file: migration.file, message }));
  });
  return [
    ...unwritten.flatMap(problemsOf),
    ...unfilled,
    ...all.filter(({ severity }) => severity === "error").map(({ file, message }) => ({ file, message })),
  ];
}

function filesOf(files: readonly Imported[]): ReadonlyMap<string, string> {
  return new Map(
    files.filter(({ isCode }) => !isCode).flatMap((file) => [
      [`${labelOf(file)}.sql`, file.sql] as const,
      ...(file.down === undefined ? [] : [[`${labelOf(file)}.down.sql`, file.down] as const]),
    ]),
  );
}

function namesOf(files: readonly Imported[]): ReadonlySet<string> {
  return new Set(filesOf(files).keys());
}

/** What is to be recorded. */
interface Adoption {
  readonly tool: Tool;
  readonly found: ForeignHistory;
  readonly applied: ReadonlyMap<string, AppliedThere | undefined>;
  /** What our history has not. */
  readonly wanted: readonly Imported[];
  /** Name that the old table gets, where its own is that of ours. */
  readonly renamedTo: string | undefined;
  /** Whether our tables are there, and whole. */
  readonly complete: boolean;
}

/**
 * What is left to be recorded; undefined where nothing is.
 *
 * @throws {PipeweaveError} of kind `integrity` where our history has something else under a number
 */
async function planAdoption(
  session: Session,
  { files, applied, found, tool }: Pick<Adoption, "applied" | "found" | "tool"> & {
    readonly files: readonly Imported[];
  },
): Promise<Adoption | undefined> {
  const clashes = found.schema === session.settings.schema && found.name === "schema_migrations";
  const history = clashes ? undefined : await readHistory(session);
  const known = new Map((history?.rows ?? []).map((row) => [versionKey(row.version), row]));
  const taken = files.filter(({ key }) => applied.has(key));
  const wanted = taken.filter(({ version }) => !known.has(versionKey(version)));
  const other = taken.find(({ version, name, isCode }) => {
    const row = known.get(versionKey(version));
    return row && (row.set === "pipeweave" || row.name !== name && !isCode);
  });
  if (other) {
    throw new PipeweaveError(
      "integrity",
      "number_taken",
      `The number of ${labelOf(other)} is taken in ${session.target}: by ${
        labelOf(known.get(versionKey(other.version))!)
      }`,
      {
        hint:
          "Nothing was written. Give PipeWeave's tables for these files a schema of their own: --schema <name>.",
      },
    );
  }
  // A table of that name is in the way also where nothing was applied.
  if (wanted.length === 0 && !clashes) return undefined;
  const renamedTo = clashes ? `schema_migrations_of_${tool.replaceAll("-", "_")}` : undefined;
  return { tool, found, applied, wanted, renamedTo, complete: history?.complete ?? false };
}

/** Records what the old tool has applied, in one transaction. */
async function adopt(session: Session, adoption: Adoption, output: string, actor: Actor): Promise<void> {
  const { schema } = session.settings;
  const { tool, found, applied, wanted, renamedTo } = adoption;
  // The checksums are those of the files as they stand there.
  const { migrations } = discover({ dirs: [output], embedded: false });
  const byVersion = new Map(migrations.map((migration) => [versionKey(migration.version), migration]));
  const statements = wanted.flatMap((file): SqlText[] => {
    const { key, version } = file;
    const migration = byVersion.get(versionKey(version));
    if (!migration) {
      throw new PipeweaveError("integrity", "file_gone", `${labelOf(file)} is not in ${output} any more`, {
        hint: "Something else changes that folder. Of the history nothing was taken over; run it again.",
      });
    }
    const row = applied.get(key);
    const ms = row?.durationMs ?? null;
    return [
      recordMigration(schema, migration, sql`${ms}::integer`, {
        ...{ action: "baseline", actor, reason: `applied by ${tool}` },
        details: { importedFrom: tool, key, appliedAt: row?.appliedAt?.toISOString() ?? null },
      }),
      ...(row?.appliedAt
        ? [sql`UPDATE ${historyTable(schema)} SET applied_at = ${row.appliedAt.toISOString()}::timestamptz
          WHERE version = ${migration.version};`]
        : []),
    ];
  });
  try {
    await alterHistory(session, adoption.complete, statements, {
      first: renamedTo
        ? sql`ALTER TABLE ${identifier(found.schema)}.${identifier(found.name)} RENAME TO ${
          identifier(renamedTo)
        };
          ${renameIndexes(found.schema, renamedTo)}`
        : undefined,
    });
  } catch (error) {
    if (error instanceof PipeweaveError) {
      const why = error.details.sqlstate === "23505"
        ? "Somebody else has recorded the same meanwhile: run the same command again."
        : error.details.hint ?? "Run the same command again when that is mended.";
      error.hint(
        error instanceof ConnectionLost
          // It may have been lost behind the commit.
          ? `The files are written to ${output}; the history was taken over whole, or not at all. Run the same command again: it goes on from what it finds.`
          : `The files are written to ${output}; of the history nothing was taken over. ${why}`,
      );
    }
    throw error;
  }
}

/** Its indexes have the names that those of our table get. */
function renameIndexes(schema: string, table: string): SqlText {
  const body = sql`
DECLARE one record;
BEGIN
  FOR one IN SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
              WHERE x.indrelid = ${`${identifier(schema).text}.${identifier(table).text}`}::regclass LOOP
    EXECUTE format('ALTER INDEX %I.%I RENAME TO %I', ${schema}::text, one.relname, left('old_' || one.relname, 63));
  END LOOP;
END`;
  return sql`DO ${body.text};`;
}
