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
import { writeFolder, type Written } from "../import/write.ts";
import { discover } from "../migrations/discover.ts";
import type { Finding } from "../migrations/finding.ts";
import { validateAll } from "../migrations/validate.ts";
import { labelOf, type Migration, versionKey } from "../migrations/migration.ts";
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
  /** Asked before the old tool's table is renamed; throws to leave it. */
  readonly confirm?: ((old: string, now: string) => Promise<void>) | undefined;
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
}

/**
 * Reads another tool's folder and history, writes files of ours, and records what that tool has applied. The order keeps
 * every state whole: all files, then the history in one transaction.
 *
 * @throws {PipeweaveError} of kind `usage` or `integrity`; says what was written by then
 */
export async function importFolder(
  session: Session | undefined,
  options: ImportOptions,
): Promise<ImportResult> {
  const foreign = readForeignFolder(options.folder, options.from);
  const files = await convertFolder(foreign, options.placeholders ?? {});
  const found = session && await readForeignHistory(session, foreign.tool);
  const applied = found ? matched(foreign, found) : undefined;
  const problems = [
    ...foreign.problems,
    ...files.flatMap(({ from, problems }) => problems.map((message) => ({ file: from, message }))),
  ];
  const common = { tool: foreign.tool, files, decisions: foreign.decisions, problems };
  const isTaken = (key: string) => applied!.rows.has(key);
  const plan = found && applied && {
    table: `${found.schema}.${found.name}`,
    renamedTo: undefined,
    applied: files.filter(({ key }) => isTaken(key)).map(labelOf),
    adopted: [],
    unknown: applied.unknown,
  };
  if (options.output === undefined) return { ...common, written: undefined, history: plan };
  const written = writeFolder(options.output, filesOf(files));
  const { migrations, findings } = discover({ dirs: [options.output], embedded: false });
  const left = written === "edited since" ? await leftIn(foreign, migrations, findings) : problems;
  if (!session || !found || !applied) return { ...common, problems: left, written, history: undefined };
  // A file that needs a hand gets another checksum by it.
  if (left.length > 0) return { ...common, problems: left, written, history: plan };
  const adoption = await adopt(session, {
    migrations,
    files,
    applied: applied.rows,
    found,
    options,
    tool: foreign.tool,
  });
  return { ...common, problems: left, written, history: { ...plan!, ...adoption } };
}

/** What still needs a hand in a folder that was edited after it was written. */
async function leftIn(
  { problems }: ForeignFolder,
  migrations: readonly Migration[],
  findings: readonly Finding[],
): Promise<ImportResult["problems"]> {
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

/** Records what the old tool has applied, in one transaction. */
async function adopt(session: Session, { migrations, files, applied, found, options, tool }: {
  readonly migrations: readonly Migration[];
  readonly files: readonly Imported[];
  readonly applied: ReadonlyMap<string, AppliedThere | undefined>;
  readonly found: ForeignHistory;
  readonly options: ImportOptions;
  readonly tool: Tool;
}): Promise<Pick<AdoptedHistory, "adopted" | "renamedTo">> {
  const { schema } = session.settings;
  const clashes = found.schema === schema && found.name === "schema_migrations";
  const history = clashes ? undefined : await readHistory(session);
  const known = new Set((history?.rows ?? []).map(({ version }) => versionKey(version)));
  const wanted = files.filter(({ key, version }) => applied.has(key) && !known.has(versionKey(version)));
  if (wanted.length === 0) return { adopted: [], renamedTo: undefined };
  const renamedTo = clashes ? `schema_migrations_of_${tool.replaceAll("-", "_")}` : undefined;
  const statements = wanted.flatMap(({ key, version }): SqlText[] => {
    const migration = migrations.find((one) => versionKey(one.version) === versionKey(version));
    if (!migration) return [];
    const row = applied.get(key);
    const ms = row?.durationMs ?? null;
    return [
      recordMigration(schema, migration, sql`${ms}::integer`, {
        ...{ action: "baseline", actor: options.actor ?? UNKNOWN_ACTOR, reason: `applied by ${tool}` },
        details: { importedFrom: tool, key, appliedAt: row?.appliedAt?.toISOString() ?? null },
      }),
      ...(row?.appliedAt
        ? [sql`UPDATE ${historyTable(schema)} SET applied_at = ${row.appliedAt.toISOString()}::timestamptz
          WHERE version = ${migration.version};`]
        : []),
    ];
  });
  try {
    if (renamedTo) await options.confirm?.(`${found.schema}.${found.name}`, `${found.schema}.${renamedTo}`);
    await alterHistory(session, history?.complete ?? false, statements, {
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
        `The files are written to ${options.output}; of the history nothing was taken over. ${
          error.details.hint ?? "Run the same command again when that is mended."
        }`,
      );
    }
    throw error;
  }
  return { adopted: wanted.map(labelOf), renamedTo: renamedTo && `${found.schema}.${renamedTo}` };
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
