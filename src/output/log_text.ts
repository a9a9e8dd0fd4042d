/**
 * The two logs as text: of migrations, and of maintenance.
 *
 * @module
 */

import { cellsOf } from "./cells.ts";
import { formatDuration } from "../config/duration.ts";
import type { LogRow } from "../engine/log.ts";
import type { MaintenanceLogRow } from "../maintenance/log.ts";
import { labelOf } from "../migrations/migration.ts";
import { printable } from "../printable.ts";
import { flowed, type Page, timeText } from "./page.ts";
import { paintedMode } from "./style.ts";

/** A line is easier read when what was done and who did it stand below each other, from this width on. */
const LONGEST_LINE = 160;

/** A report of `db:history`: newest first, two lines an entry where the terminal is narrow. */
export function formatHistory(rows: readonly LogRow[], page: Page): string {
  const { bad, strong } = page.style;
  return log(rows, page, (row) => ({
    what: `${strong(printable(`${row.action} ${labelOf(row)}`))}: ` +
      (row.outcome === "failed" ? bad(row.outcome) : row.outcome) +
      (row.durationMs === null ? "" : ` (${formatDuration(row.durationMs)})`),
    more: [
      ...(row.reason ? [`reason: ${printable(row.reason)}`] : []),
      ...(typeof row.details["error"] === "string" ? [`error: ${printable(row.details["error"])}`] : []),
      ...(row.details["allowedOnline"] ? ["applied with --allow-online"] : []),
    ],
  }));
}

/** A report of `maintenance:history`: newest first, two lines an entry where the terminal is narrow. */
export function formatMaintenanceLog(rows: readonly MaintenanceLogRow[], page: Page): string {
  const { style } = page;
  return log(rows, page, (row) => ({
    what: `${style.strong(printable(row.action))}: ${printable(row.modeBefore)} → ${
      paintedMode(printable(row.modeAfter), style)
    }`,
    more: [
      ...(row.reason ? [`reason: ${printable(row.reason)}`] : []),
      ...(row.details["forced"] ? [`forced: it was ${printable(row.owner ?? "nobody")}'s`] : []),
      ...(row.details["as"] ? [`as: ${printable(String(row.details["as"]))}`] : []),
      ...(row.details["drain"] === "running" ? ["pending tasks stay queued"] : []),
      ...(row.details["deployment"] ? [`deployment: ${printable(String(row.details["deployment"]))}`] : []),
      ...ignoredLine(row.details),
    ],
  }));
}

/** How many ids of ignored tasks a line of the log names. */
const NAMED_IDS = 3;

function ignoredLine({ ignoredTasks, ignoredTasksCount }: MaintenanceLogRow["details"]): readonly string[] {
  if (!Array.isArray(ignoredTasks)) return [];
  const named = ignoredTasks.slice(0, NAMED_IDS).map((id) => printable(String(id)));
  const left = Number(ignoredTasksCount ?? ignoredTasks.length) - named.length;
  return [`ignored: ${named.join(", ")}${left > 0 ? ` and ${left} more` : ""}`];
}

/** What both logs keep of an entry. */
interface Entry {
  readonly loggedAt: Date;
  readonly databaseUser: string;
  readonly osUser: string | null;
  readonly host: string | null;
  readonly tool: string | null;
}

/** Entries: when and what, by whom, in two lines where the terminal is narrow, and what else there is to say. */
function log<T extends Entry>(
  rows: readonly T[],
  page: Page,
  tell: (row: T) => { readonly what: string; readonly more: readonly string[] },
): string {
  if (rows.length === 0) return "Nothing is logged yet.";
  const lines = rows.flatMap((row) => {
    const { what, more } = tell(row);
    const head = `${timeText(row.loggedAt, page)}  ${what}`;
    const who = whoText(row);
    const fits = cellsOf(head) + 2 + cellsOf(who) <= Math.min(page.columns, LONGEST_LINE);
    return [...(fits ? [`${head}  ${who}`] : [head, `    ${who}`]), ...more.map((text) => `    ${text}`)];
  });
  return flowed(lines.join("\n"), page.columns);
}

function whoText({ databaseUser, osUser, host, tool }: Entry): string {
  const place = osUser || host ? `, ${osUser || "?"} on ${host || "?"}` : "";
  return printable(`by ${databaseUser}${place}${tool ? `, ${tool}` : ""}`);
}
