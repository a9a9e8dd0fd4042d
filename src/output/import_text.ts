/**
 * The report of `db:import`.
 *
 * @module
 */

import type { ImportResult } from "../commands/import.ts";
import { printable } from "../printable.ts";

/** Files whose decisions are shown one by one unless --verbose: the others are counted. */
const SHOWN = 20;

/** Renders the report. @param output the folder, as it was given */
export function formatImport(result: ImportResult, output: string | undefined, verbose: boolean): string {
  const { tool, files, decisions, problems, written, history } = result;
  const downs = files.filter(({ down }) => down !== undefined).length;
  const outside = files.filter(({ sql }) => sql.startsWith("-- pipeweave: no-transaction")).length;
  const lines = [
    `${tool}: ${files.length} migration(s), ${downs} with a way down, ${outside} outside a transaction`,
    ...decisions.map((one) => `- ${printable(one)}`),
  ];
  const told = files.filter((file) => file.decisions.length > 0);
  const shown = verbose ? told : told.slice(0, SHOWN);
  if (shown.length > 0) lines.push("", "Decisions:");
  for (const { from, version, name, decisions: own } of shown) {
    lines.push(`  ${printable(from)} → ${version}_${name}.sql`);
    for (const one of own) lines.push(`    - ${printable(one)}`);
  }
  if (shown.length < told.length) {
    lines.push(`  … and ${told.length - shown.length} file(s) more: --verbose shows them, --json has them`);
  }
  if (problems.length > 0) lines.push("", "Needs a hand:");
  for (const { file, message } of problems) lines.push(`  ${printable(file)}: ${printable(message)}`);
  lines.push("");
  if (history) {
    const { table, renamedTo, applied, adopted, unknown } = history;
    lines.push(`History of ${table}: ${applied.length} of ${files.length} applied`);
    if (unknown.length > 0) {
      lines.push(
        `  without a file: ${unknown.slice(0, 10).map(printable).join(", ")}${
          unknown.length > 10 ? ", …" : ""
        }`,
      );
    }
    if (adopted.length > 0) lines.push(`  recorded as applied now: ${adopted.length}`);
    else if (written !== undefined && problems.length > 0) {
      lines.push("  not taken over yet: files need a hand first");
    } else if (written !== undefined) lines.push("  nothing to record: ours has it already");
    if (renamedTo) {
      lines.push(`  the old table is now ${renamedTo}: take the old tool out of your deployment`);
    }
  }
  lines.push(
    written === undefined
      ? "Nothing was written: this was a look."
      : written === "written"
      ? `✓ Written to ${output}`
      : written === "there already"
      ? `✓ ${output} has these files already`
      : `✓ ${output} has these files, some edited since: they count as they are`,
  );
  return lines.join("\n");
}
