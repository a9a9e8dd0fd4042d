/**
 * The picture of `maintenance:watch`: pure, from what was read to lines that fit the terminal.
 *
 * @module
 */

import { broken, cellsOf, fitted, padded } from "./cells.ts";
import { formatDuration } from "../config/duration.ts";
import type { MaintenanceLogRow } from "../maintenance/log.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import type { ActiveTask } from "../maintenance/tasks.ts";
import { formatMaintenanceLog } from "./log_text.ts";
import { formatMaintenance, formatTasks } from "./maintenance_text.ts";
import { flowed, type Page } from "./page.ts";
import { bar, type Step } from "./progress.ts";

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
  /** How far the drain is, where there is one. */
  readonly drain?: Step | undefined;
  /** What else there is to say, such as why the last look failed. */
  readonly note?: string | undefined;
  /** Whether the keys and signs are explained in place of the lists. */
  readonly isExplained?: boolean;
}

const BARS = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const EIGHTHS = BARS.length - 1;
const KEYS = "r request   x exit maintenance   ? help   q quit";
const SHORT_KEYS = "r x ? q";
/** What `?` shows. */
const EXPLANATION = [
  "r  asks for maintenance: no task starts any more, and the mode changes when those that are waited for have ended. It asks first.",
  "x  ends maintenance, or the wait for it: tasks start again. It asks first.",
  "q  and Ctrl-C leave; the mode stays as it is.",
  "!  is a task of which nothing has been heard for too long. maintenance:tasks lists all.",
  "Charts: a column a look, a look a second, the last one on the right; as high as its share of the most that was seen.",
  "Any key goes back.",
];
/** Lines that a note may take. */
const NOTE_LINES = 6;
/** Rows of a chart: none where the terminal is low, more where there is room. */
const chartRows = (rows: number) => rows < 22 ? 0 : rows < 30 ? 1 : rows < 40 ? 2 : 3;

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

/** Charts of the running and the pending tasks over time, each with its name, its number now, and the most that it shows. */
function charts({ counts, everyMs }: WatchView, { columns, style }: Page, rows: number): readonly string[] {
  const labelOf = (name: keyof Counts, shown: readonly Counts[]) =>
    `${name} ${shown.at(-1)?.[name] ?? 0} (most ${Math.max(0, ...shown.map((each) => each[name]))}) `;
  const names = ["running", "pending"] as const;
  const width = Math.max(...names.map((name) => labelOf(name, counts).length));
  const room = Math.max(1, columns - width);
  const shown = counts.slice(-room);
  const span = formatDuration(Math.min(counts.length, room) * everyMs);
  const paint = { running: style.good, pending: style.warn };
  const named = names.flatMap((name) =>
    chart(shown.map((each) => each[name]), room, rows).map((line, row, { length }) =>
      padded(row === length - 1 ? labelOf(name, shown) : "", width) + paint[name](line)
    )
  );
  return [`The last ${span}:`, ...named];
}

/** `Draining: 12 tasks left, about 40s ███████░░░░░ 58%` */
function drainLine({ label, fraction = 0 }: Step): string {
  return `${label} ${bar(fraction)}`;
}

const mostNotes = (rows: number) => Math.max(1, Math.min(NOTE_LINES, rows - 4));

/** Whether all of a note is seen. */
export function noteFits(note: string, columns: number, rows: number): boolean {
  return noteLines(note, columns).length <= mostNotes(rows);
}

/** Broken between words, and within one where it is too long for a line. */
function noteLines(note: string, columns: number): readonly string[] {
  return flowed(note, columns).split("\n").flatMap((line) => broken(line, columns));
}

/**
 * The lines of a screen.
 *
 * @param page lines are cut off at its columns
 * @param rows lines at most; the lists share what the rest leaves
 */
export function watchScreen(view: WatchView, page: Page, rows: number): readonly string[] {
  const { columns, style } = page;
  const { status, drain, note, isExplained } = view;
  const keys = cellsOf(KEYS) <= columns ? KEYS : SHORT_KEYS;
  const notes = note ? noteLines(note, columns).slice(0, mostNotes(rows)) : [];
  const foot = ["", ...notes.map(style.strong), style.faint(keys)].slice(-rows);
  const facts = [
    ...formatMaintenance(status, page).split("\n"),
    ...(drain ? [drainLine(drain)] : []),
  ];
  const room = rows - foot.length;
  const explained = EXPLANATION.flatMap((text) => flowed(text, columns).split("\n"));
  const head = [...facts, ...(chartRows(rows) > 0 ? ["", ...charts(view, page, chartRows(rows))] : [])];
  const body = isExplained
    ? [formatMaintenance(status, { ...page, columns: Infinity }).split("\n")[0]!, "", ...explained]
    : [...head, ...listsOf(view, page, room - head.length)];
  return [...body.slice(0, room), ...foot].map((line) => fitted(line, columns));
}

/** A heading, and at least a line below it. */
const LEAST_LIST = 3;
/** Lines that tasks get before the log gets any. */
const LEAST_TASKS = 4;

/** Tasks and log, as far as there is room: a list for which there is none has no heading either. */
function listsOf({ tasks, log }: WatchView, page: Page, room: number): readonly string[] {
  if (room < LEAST_LIST) return [];
  const entries = tasks.length === 0 ? [] : formatTasks(staleFirst(tasks), page).split("\n");
  const logLines = formatMaintenanceLog(log, page).split("\n");
  const avail = room - 2;
  const need = Math.max(1, entries.length);
  // The tasks go first: a low screen has nothing of the log.
  const share = Math.min(
    need,
    Math.max(LEAST_TASKS, avail - 2 - Math.min(logLines.length, Math.floor(avail / 3))),
  );
  const forLog = Math.max(0, Math.min(logLines.length, avail - share - 2));
  const forTasks = forLog > 0 ? share : avail;
  const { strong } = page.style;
  return [
    ...["", strong("Active tasks, stale ones (!) and the oldest first:")],
    ...(entries.length === 0 ? ["No task is active."] : tasksThatFit(entries, tasks.length, forTasks)),
    ...(forLog > 0 ? ["", strong("Log:"), ...logLines.slice(0, forLog)] : []),
  ];
}

function staleFirst(tasks: readonly ActiveTask[]): readonly ActiveTask[] {
  return [...tasks.filter(({ stale }) => stale), ...tasks.filter(({ stale }) => !stale)];
}

/** The first tasks, each with all of its lines, or the first line of the first; the last line says how many are left out. */
function tasksThatFit(lines: readonly string[], tasks: number, room: number): readonly string[] {
  if (lines.length <= room) return lines;
  const isFirst = (line: string | undefined) => line !== undefined && !line.startsWith(" ");
  let end = Math.max(0, room - 1);
  while (end > 0 && !isFirst(lines[end])) end--;
  const shown = end === 0 ? lines.slice(0, 1) : lines.slice(0, end);
  const left = tasks - shown.filter(isFirst).length;
  return left > 0 && shown.length < room ? [...shown, `… ${left} more: maintenance:tasks`] : shown;
}

/** The same once, for `--once`: everything, as long as it is. */
export function watchSnapshot({ status, tasks, log }: WatchView, page: Page): string {
  return [
    formatMaintenance(status, page),
    "",
    formatTasks(staleFirst(tasks), page),
    "",
    formatMaintenanceLog(log, page),
  ].join("\n");
}
