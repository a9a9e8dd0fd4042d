/**
 * The picture of `maintenance:watch`: pure, from what was read to lines that fit the terminal.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import type { MaintenanceLogRow } from "../maintenance/log.ts";
import { type MaintenanceStatus, tasks as countTasks } from "../maintenance/status.ts";
import type { ActiveTask } from "../maintenance/tasks.ts";
import { formatMaintenance, formatMaintenanceLog, formatTasks } from "./text.ts";

/** What is shown. */
export interface WatchView {
  readonly status: MaintenanceStatus;
  /** Running ones first, the oldest of each first. */
  readonly tasks: readonly ActiveTask[];
  /** Newest first. */
  readonly log: readonly MaintenanceLogRow[];
  /** Active tasks at each look, the last one now. */
  readonly counts: readonly number[];
  /** Milliseconds between two looks. */
  readonly everyMs: number;
  /** What else there is to say, such as why the last look failed. */
  readonly note?: string | undefined;
}

const BARS = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const KEYS = "r request   x exit maintenance   q quit";

/** A chart of one line: a bar a look, as high as its share of the highest. */
export function chart(counts: readonly number[], columns: number): string {
  const shown = counts.slice(-Math.max(1, columns));
  const highest = Math.max(...shown, 1);
  return shown.map((count) => count === 0 ? "·" : BARS[Math.ceil(count / highest * BARS.length) - 1]).join(
    "",
  );
}

/**
 * The lines of a screen.
 *
 * @param columns lines are cut off here
 * @param rows lines at most; the lists share what the rest leaves
 */
export function watchScreen(view: WatchView, columns: number, rows: number): readonly string[] {
  const { status, tasks, log, counts, everyMs, note } = view;
  const active = status.pendingTasks + status.runningTasks;
  const span = formatDuration(Math.min(counts.length, columns) * everyMs);
  const head = [
    ...formatMaintenance(status).split("\n"),
    "",
    `${countTasks(active)} active, at most ${Math.max(...counts, 0)} in the last ${span}:`,
    chart(counts, columns),
    "",
  ];
  const foot = ["", note ? `${note}   ${KEYS}` : KEYS];
  const room = Math.max(2, rows - head.length - foot.length - 3);
  const logLines = formatMaintenanceLog(log, columns).split("\n");
  const taskLines = formatTasks(tasks, columns).split("\n");
  const forLog = Math.min(logLines.length, Math.max(1, Math.floor(room / 2)));
  const lines = [
    ...head,
    "Active tasks, the oldest first:",
    ...fitting(taskLines, room - forLog),
    "",
    "Log:",
    ...logLines.slice(0, forLog),
  ];
  return [...lines.slice(0, rows - foot.length), ...foot].map((line) => [...line].slice(0, columns).join(""));
}

/** The first lines; the last says how many are left out. */
function fitting(lines: readonly string[], room: number): readonly string[] {
  if (lines.length <= room) return lines;
  return [...lines.slice(0, room - 1), `… ${lines.length - room + 1} more lines: maintenance:tasks`];
}

/** The same once, for `--once`: everything, as long as it is. */
export function watchSnapshot({ status, tasks, log }: WatchView, columns: number): string {
  return [
    formatMaintenance(status),
    "",
    formatTasks(tasks, columns),
    "",
    formatMaintenanceLog(log, columns),
  ].join("\n");
}
