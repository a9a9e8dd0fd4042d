/**
 * The picture of `maintenance:watch`: pure, from what was read to lines that fit the terminal.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import type { MaintenanceLogRow } from "../maintenance/log.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import type { ActiveTask } from "../maintenance/tasks.ts";
import { broken, fitted } from "./cells.ts";
import { formatMaintenance, formatMaintenanceLog, formatTasks } from "./text.ts";

/** Active tasks at one look. */
export interface Counts {
  readonly running: number;
  readonly pending: number;
}

/** What is shown. */
export interface WatchView {
  readonly status: MaintenanceStatus;
  /** Running ones first, the oldest of each first. */
  readonly tasks: readonly ActiveTask[];
  /** Newest first. */
  readonly log: readonly MaintenanceLogRow[];
  /** At each look, the last one now. */
  readonly counts: readonly Counts[];
  /** Milliseconds between two looks. */
  readonly everyMs: number;
  /** What else there is to say, such as why the last look failed. */
  readonly note?: string | undefined;
}

const BARS = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const EIGHTHS = BARS.length - 1;
const KEYS = "r request   x exit maintenance   q quit";
/** Lines that a note may take. */
const NOTE_LINES = 3;
/** Columns in front of a chart, for what it shows. */
const LABEL = 16;
/** Rows of a chart: one where the terminal is low, more where there is room. */
const chartRows = (rows: number) => rows < 30 ? 1 : rows < 40 ? 2 : 3;

/**
 * A chart: a bar a look, as high as its share of the highest, drawn in eighths of a row. What is not zero shows.
 *
 * @param rows lines that it takes, the topmost first
 */
export function chart(counts: readonly number[], columns: number, rows: number): readonly string[] {
  const shown = counts.slice(-Math.max(1, columns));
  const highest = Math.max(...shown, 1);
  const heights = shown.map((count) => Math.ceil(count / highest * rows * EIGHTHS));
  return Array.from({ length: rows }, (_, row) => {
    const below = (rows - 1 - row) * EIGHTHS;
    return heights.map((height) => BARS[Math.min(EIGHTHS, Math.max(0, height - below))]).join("");
  });
}

/** Charts of the running and the pending tasks over time, each with its name, and its number now. */
function charts({ counts, everyMs }: WatchView, columns: number, rows: number): readonly string[] {
  const room = Math.max(1, columns - LABEL);
  const span = formatDuration(Math.min(counts.length, room) * everyMs);
  const named = (["running", "pending"] as const).flatMap((name) => {
    const series = counts.map((each) => each[name]);
    const label = `${name} ${series.at(-1) ?? 0}`;
    return chart(series, room, rows).map((line, row, { length }) =>
      `${(row === length - 1 ? label : "").padEnd(LABEL)}${line}`
    );
  });
  return [`The last ${span}:`, ...named];
}

/**
 * The lines of a screen.
 *
 * @param columns lines are cut off here
 * @param rows lines at most; the lists share what the rest leaves
 */
export function watchScreen(view: WatchView, columns: number, rows: number): readonly string[] {
  const { status, tasks, log, note } = view;
  const head = [
    ...formatMaintenance(status).split("\n"),
    "",
    ...charts(view, columns, chartRows(rows)),
    "",
  ];
  const foot = ["", ...(note ? broken(note, columns).slice(0, NOTE_LINES) : []), KEYS];
  const room = Math.max(2, rows - head.length - foot.length - 3);
  const logLines = formatMaintenanceLog(log, columns).split("\n");
  const taskLines = formatTasks(staleFirst(tasks), columns).split("\n");
  const forLog = Math.min(logLines.length, Math.max(1, Math.floor(room / 2)));
  const lines = [
    ...head,
    "Active tasks, stale ones (!) and the oldest first:",
    ...fitting(taskLines, room - forLog),
    "",
    "Log:",
    ...logLines.slice(0, forLog),
  ];
  return [...lines.slice(0, Math.max(0, rows - foot.length)), ...foot].slice(0, rows)
    .map((line) => fitted(line, columns));
}

function staleFirst(tasks: readonly ActiveTask[]): readonly ActiveTask[] {
  return [...tasks.filter(({ stale }) => stale), ...tasks.filter(({ stale }) => !stale)];
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
    formatTasks(staleFirst(tasks), columns),
    "",
    formatMaintenanceLog(log, columns),
  ].join("\n");
}
