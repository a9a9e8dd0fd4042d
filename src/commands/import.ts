/**
 * `db:import`: another tool's folder as one of ours, and its history.
 *
 * @module
 */

import { basename } from "node:path";
import { type Actor, UNKNOWN_ACTOR } from "../config/actor.ts";
import type { Session } from "../database/session.ts";
import { identifier, sql, SqlText } from "../database/sql.ts";
import { historyTable, readHistory, recordMigration } from "../engine/history.ts";
import { PipeweaveError } from "../errors.ts";
import { convertFolder, type Imported, type Placeholders } from "../import/convert.ts";
import type { ForeignFolder, Tool } from "../import/foreign.ts";
import { readForeignFolder } from "../import/folder.ts";
import { type AppliedThere, type ForeignHistory, readForeignHistory } from "../import/history.ts";
import { lookAtOutput, writeFolder, type Written } from "../import/write.ts";
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
  const found = session && await readForeignHistory(session, foreign.tool);
  const applied = found ? matched(foreign, found) : undefined;
  const problems = [
    ...foreign.problems,
    ...files.flatMap(({ from, problems }) => problems.map((message) => ({ file: from, message }))),
  ];
  const seen = { tool: foreign.tool, files, decisions: foreign.decisions, problems };
  const isTaken = (key: string) => applied!.rows.has(key);
  const history = found && applied && {
    table: `${found.schema}.${found.name}`,
    renamedTo: undefined,
    applied: files.filter(({ key }) => isTaken(key)).map(labelOf),
    adopted: [],
    unknown: applied.unknown,
    skipped: skippedOf(files, isTaken),
  };
  if (output === undefined) return { ...seen, written: undefined, history };
  const written = lookAtOutput(output, filesOf(files));
  const left = written === "edited since" ? await leftIn(foreign, output) : problems;
  // A file that needs a hand gets another checksum by it: its history is taken over when that is done.
  const adoption = session && found && applied && left.length === 0
    ? await planAdoption(session, { files, applied: applied.rows, found, tool: foreign.tool })
    : undefined;
  if (adoption?.renamedTo && history) {
    const to = `${found!.schema}.${adoption.renamedTo}`;
    await options.confirm?.({ table: history.table, to }, { ...seen, written: undefined, history });
  }
  if (written === "written") writeFolder(output, filesOf(files));
  const result = { ...seen, problems: left, written };
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

/** What the old tool has not applied, although it has applied later ones. */
function skippedOf(files: readonly Imported[], isTaken: (key: string) => boolean): readonly string[] {
  const last = files.findLastIndex(({ key }) => isTaken(key));
  return files.slice(0, Math.max(0, last)).filter(({ key }) => !isTaken(key)).map(labelOf);
}

/** What still needs a hand in a folder that was edited after it was written. */
async function leftIn({ problems }: ForeignFolder, output: string): Promise<ImportResult["problems"]> {
  const { migrations, findings } = discover({ dirs: [output], embedded: false });
  const all = [...findings, ...await validateAll(migrations, {})];
  const versions = new Set(migrations.map(({ version }) => versionKey(version)));
  const isWritten = (file: string) => versions.has(versionKey(/^\d+/.exec(basename(file))?.[0] ?? ""));
  return [
    ...problems.filter(({ file }) => !isWritten(file)),
    ...all.filter(({ severity }) => severity === "error").map(({ file, message }) => ({ file, message })),
  ];
}

function filesOf(files: readonly Imported[]): ReadonlyMap<string, string> {
  return new Map(
    files.flatMap((file) => [
      [`${labelOf(file)}.sql`, file.sql] as const,
      ...(file.down === undefined ? [] : [[`${labelOf(file)}.down.sql`, file.down] as const]),
    ]),
  );
}

/** Which of the folder's migrations the old history has, by key. */
function matched(
  { migrations }: ForeignFolder,
  { applied, last }: ForeignHistory,
): { rows: ReadonlyMap<string, AppliedThere | undefined>; unknown: readonly string[] } {
  if (applied === undefined) {
    const index = migrations.findIndex(({ key }) => key === last);
    const isKnown = index !== -1 || last === "" || last === "0";
    return {
      rows: new Map(migrations.slice(0, index + 1).map(({ key }) => [key, undefined])),
      unknown: isKnown ? [] : [last!],
    };
  }
  const keys = new Set(migrations.map(({ key }) => key));
  return {
    rows: new Map(applied.filter(({ key }) => keys.has(key)).map((row) => [row.key, row])),
    unknown: applied.filter(({ key }) => !keys.has(key)).map(({ key }) => key),
  };
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

/** What is left to be recorded; undefined where nothing is. */
async function planAdoption(
  session: Session,
  { files, applied, found, tool }: Pick<Adoption, "applied" | "found" | "tool"> & {
    readonly files: readonly Imported[];
  },
): Promise<Adoption | undefined> {
  const clashes = found.schema === session.settings.schema && found.name === "schema_migrations";
  const history = clashes ? undefined : await readHistory(session);
  const known = new Set((history?.rows ?? []).map(({ version }) => versionKey(version)));
  const wanted = files.filter(({ key, version }) => applied.has(key) && !known.has(versionKey(version)));
  if (wanted.length === 0) return undefined;
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
  const statements = wanted.flatMap(({ key, version }): SqlText[] => {
    const migration = byVersion.get(versionKey(version));
    if (!migration) return [];
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
      error.hint(
        `The files are written to ${output}; of the history nothing was taken over. ${
          error.details.hint ?? "Run the same command again when that is mended."
        }`,
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
