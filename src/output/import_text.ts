/**
 * The report of `db:import`.
 *
 * @module
 */

import type { ImportResult } from "../commands/import.ts";
import { labelOf } from "../migrations/migration.ts";
import { shellQuoted } from "../shell.ts";
import { printable } from "../printable.ts";
import { flowed, type Page } from "./page.ts";

/** Files whose decisions are shown one by one unless --verbose: the others are counted. */
const SHOWN = 20;
/** Names that a line has. */
const NAMED = 10;

/** How a report is wanted. */
export interface ImportText {
  /** The folder for the files, as it was given; undefined for a look. */
  readonly output: string | undefined;
  /** The database whose history was looked for; undefined where none was named, or with --offline. */
  readonly target: string | undefined;
  readonly schema: string;
  /** The options that name the database, without a password, as they are to be typed again; empty where variables do. */
  readonly connection: string;
  /** Whether all files are listed. */
  readonly verbose: boolean;
  readonly page: Page;
}

/** What was read: the files, each decision, what needs a hand, and what the old history has. */
export function formatSeen(result: ImportResult, { verbose, page, target }: ImportText): string {
  const { tool, files, decisions, problems, history } = result;
  const { bad, strong } = page.style;
  const oneWay = files.filter(({ down, isCode }) => down === undefined && !isCode).map(labelOf);
  const withDown = files.filter(({ down }) => down !== undefined).length;
  const outside = files.filter(({ sql }) => sql.startsWith("-- pipeweave: no-transaction")).length;
  const lines = [
    `${tool}: ${files.length} migration(s), ${withDown} with a way down, ${outside} outside a transaction`,
    ...(oneWay.length > 0 && withDown > 0 ? [`- no way down: ${named(oneWay)}`] : []),
    ...decisions.map((one) => `- ${printable(one)}`),
  ];
  const common = commonDecisions(files);
  for (const [decision, count] of common) lines.push(`- ${count} files: ${printable(decision)}`);
  const told = files.map((file) => ({
    ...file,
    decisions: verbose ? file.decisions : file.decisions.filter((one) => !common.has(one)),
  })).filter(({ decisions }) => decisions.length > 0);
  const shown = verbose ? told : told.slice(0, SHOWN);
  if (shown.length > 0) lines.push("", strong("Decisions:"));
  for (const { from, version, name, decisions: own } of shown) {
    lines.push(`  ${printable(from)} → ${version}_${name}.sql`);
    for (const one of own) lines.push(`    - ${printable(one)}`);
  }
  if (shown.length < told.length) {
    lines.push(`  … and ${told.length - shown.length} file(s) more: --verbose shows them, --json has them`);
  }
  if (problems.length > 0) lines.push("", bad("Needs a hand:"));
  for (const { file, message } of problems) lines.push(`  ${printable(file)}: ${printable(message)}`);
  lines.push("", ...historyLines(history, files.length, tool, target));
  return flowed(lines.join("\n"), page.columns);
}

/** Decisions that are the same in so many files are told once. */
const COMMON = 4;

function commonDecisions(files: ImportResult["files"]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const one of files.flatMap(({ decisions }) => decisions)) counts.set(one, (counts.get(one) ?? 0) + 1);
  return new Map([...counts].filter(([, count]) => count >= COMMON));
}

function historyLines(
  history: ImportResult["history"],
  files: number,
  tool: string,
  target: string | undefined,
): readonly string[] {
  if (target === undefined) return ["History: no database was asked, so none is taken over"];
  if (!history) return [`History: ${target} has no table of ${tool}'s`];
  const { table, applied, unknown, skipped, edited } = history;
  return [
    `History of ${table}: ${applied.length} of ${files} applied`,
    ...(unknown.length > 0
      ? [`  applied, and no file for it is here: ${named(unknown)}; ours does not get to know of it`]
      : []),
    ...(skipped.length > 0
      ? [`  not applied, though later ones are: ${named(skipped)}; db:migrate --out-of-order applies them`]
      : []),
    ...(edited.length > 0
      ? [`  edited since ${tool} applied them, and taken as they are now: ${named(edited)}`]
      : []),
  ];
}

function named(names: readonly string[]): string {
  return names.slice(0, NAMED).map(printable).join(", ") + (names.length > NAMED ? ", …" : "");
}

/** What was done. */
export function formatDone(result: ImportResult, { output, schema, connection, page }: ImportText): string {
  const { problems, written, history, tool } = result;
  if (written === undefined) return "Nothing was written: this was a look.";
  const { good } = page.style;
  const option = schema === "public" ? "" : ` --schema ${shellQuoted(schema)}`;
  const lines = [
    written === "written"
      ? `${good("✓")} Written to ${output}`
      : written === "there already"
      ? `${good("✓")} ${output} has these files already`
      : `${good("✓")} ${output} has these files, some edited since: they count as they are`,
    ...doneWithHistory(history, problems.length > 0, page),
    ...(history?.renamedTo ? [`  the old table is now ${history.renamedTo}: take ${tool} out of use`] : []),
    ...(problems.length === 0
      ? [`Go on with: pipeweave db:status --dir ${shellQuoted(output!)}${option}${connection}`]
      : []),
  ];
  return flowed(lines.join("\n"), page.columns);
}

function doneWithHistory(
  history: ImportResult["history"],
  needsHand: boolean,
  { style: { good } }: Page,
): readonly string[] {
  if (!history || history.applied.length === 0) return [];
  if (needsHand) return ["  the history is not taken over yet: files need a hand first"];
  const { adopted, table } = history;
  return [
    adopted.length > 0
      ? `${good("✓")} Recorded as applied: ${adopted.length}`
      : `  nothing to record: ours has what ${table} has`,
  ];
}
