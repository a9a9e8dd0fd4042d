/**
 * Results as text.
 *
 * @module
 */

import type { CleanupResult } from "../cleanup/cleanup.ts";
import type { DatabaseStatus } from "../commands/status.ts";
import type { ValidationResult } from "../commands/validate.ts";
import type { MigrationPlan, PlannedMigration } from "../commands/dry_run.ts";
import type { LintResult, Reported } from "../commands/lint.ts";
import { formatDuration } from "../config/duration.ts";
import type { MaintenanceLogRow } from "../maintenance/log.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { printable, printableLines } from "../printable.ts";
import { type ActiveTask, describeAge } from "../maintenance/tasks.ts";
import type { LogRow } from "../engine/log.ts";
import { EMBEDDED, labelOf } from "../migrations/migration.ts";
import type { SetOfFiles } from "../migrations/discover.ts";
import { describeParts } from "../migrations/plan.ts";
import { formatFinding } from "../migrations/validate.ts";

/**
 * A report of `db:status`: facts as `Key: value`, then a line a migration, or two where the terminal is narrow.
 *
 * @param columns of the terminal; Infinity where there is none
 */
export function formatStatus(
  status: DatabaseStatus,
  columns: number,
  shown: { readonly applied: number; readonly pending: number } = { applied: Infinity, pending: Infinity },
): string {
  const hidden = Math.max(0, status.applied.length - shown.applied);
  const later = Math.max(0, status.pending.length - shown.pending);
  const partial = new Map(status.partial.map((one) => [one.version, one]));
  const rows = [
    ...(hidden > 0
      ? [{ sign: " ", label: `${hidden} earlier ones`, note: "applied; --all shows them" }]
      : []),
    ...status.applied.filter((row, index) => index >= hidden || row.drift).map((row) => ({
      sign: row.drift ? "!" : "✓",
      label: labelOf(row),
      note: `${row.drift ? "CHANGED since it was applied" : "applied"} ${row.appliedAt.toISOString()}` +
        (row.executionTimeMs === null ? "" : ` (${formatDuration(row.executionTimeMs)})`),
    })),
    ...status.pending.slice(0, status.pending.length - later).map((migration) => ({
      sign: "·",
      label: labelOf(migration),
      note: [
        "pending",
        ...(status.outOfOrder.includes(migration) ? ["OUT OF ORDER"] : []),
        ...(partial.has(migration.version)
          ? [`HALF DONE: ${describeParts(partial.get(migration.version)!)}`]
          : []),
      ].join(", "),
    })),
    ...(later > 0 ? [{ sign: " ", label: `${later} later ones`, note: "pending" }] : []),
    ...status.taken.map(({ migration, by }) => ({
      sign: "!",
      label: labelOf(migration),
      note: `not applied: its NUMBER IS TAKEN by ${printable(labelOf(by))}`,
    })),
    ...status.partial.filter(({ version }) => !status.pending.some((one) => one.version === version)).map((
      one,
    ) => ({
      sign: "!",
      label: printable(labelOf(one)),
      note: `HALF DONE: ${describeParts(one)}, and there is NO FILE for it`,
    })),
    ...status.missing.map((row) => ({
      sign: "!",
      label: printable(labelOf(row)),
      note: `applied ${row.appliedAt.toISOString()}, but there is NO FILE for it`,
    })),
    ...status.others.map((row) => ({
      sign: "·",
      label: printable(labelOf(row)),
      note: `applied ${row.appliedAt.toISOString()} by another tool`,
    })),
  ];
  const drifted = status.applied.filter(({ drift }) => drift).length;
  const width = Math.max(...rows.map(({ label }) => label.length), 0);
  const fits = rows.every(({ note }) => width + 4 + note.length <= columns);
  return [
    `Current version: ${status.current ?? "none"}`,
    `Applied migrations: ${status.applied.length}`,
    `Pending migrations: ${status.pending.length}`,
    ...(drifted > 0 ? [`Changed migrations: ${drifted}`] : []),
    ...(status.missing.length > 0 ? [`Missing migrations: ${status.missing.length}`] : []),
    ...(status.partial.length > 0 ? [`Half-done migrations: ${status.partial.length}`] : []),
    ...(status.taken.length > 0 ? [`Numbers taken: ${status.taken.length}`] : []),
    ...(status.others.length > 0 ? [`Of another tool: ${status.others.length}`] : []),
    `Sets: ${describeSets(status.sets)}`,
    ...status.otherHistories.map(({ table, tool }) =>
      `History of ${tool}: ${printable(table)}; take over what it applied with db:baseline`
    ),
    "",
    ...rows.map(({ sign, label, note }) =>
      fits ? `${sign} ${label.padEnd(width)}  ${note}` : `${sign} ${label}\n    ${note}`
    ),
  ].join("\n");
}

/** Applied migrations that a report shows unless it is asked for all. */
/** Applied migrations that are shown where nobody says how many. */
export const SHOWN_APPLIED = 50;

/** `PipeWeave's own (5), ./db (12)`. */
export function describeSets(sets: readonly SetOfFiles[]): string {
  return sets.map(({ source, files }) => `${source === EMBEDDED ? "PipeWeave's own" : source} (${files})`)
    .join(", ");
}

/** A report of `db:validate`: every finding, then the verdict. */
export function formatValidation({ valid, files, comparedWithDatabase, findings }: ValidationResult): string {
  const scope = comparedWithDatabase ? "files and the database's history" : "files alone";
  const verdict = valid
    ? `✓ ${files} migration(s) are valid (${scope})`
    : `✗ ${files} migration(s) checked (${scope}): not valid`;
  return [
    ...findings.flatMap((finding) => [printableLines(`${finding.severity}: ${formatFinding(finding)}`), ""]),
    verdict,
  ]
    .join("\n");
}

/** A report of `db:cleanup`. */
export function formatCleanup(result: CleanupResult): string {
  const { dryRun, idempotencyCache, dlq, tempUploads, kept = [], leftAlone = [] } = result;
  const verb = dryRun ? "Would remove" : "Removed";
  return [
    `${verb} expired idempotency cache entries: ${idempotencyCache}`,
    `${verb} old dead letter queue entries: ${dlq}`,
    ...(tempUploads === null ? [] : [
      `${verb} records of uploads deleted long ago: ${tempUploads.archived}`,
      `Expired uploads for the orchestrator to delete: ${tempUploads.expired}`,
    ]),
    ...kept.map(({ table, rows, reason }) => `Kept in ${table}: ${rows} (${printable(reason)})`),
    ...leftAlone.map((what) => `Left alone: ${printable(what)}`),
  ].join("\n");
}

/** A report of `maintenance:status`, one `Key: value` a line. */
export function formatMaintenance(status: MaintenanceStatus): string {
  const { owner, reason, drain, waitExpiresAt, staleTasks, ignoredTasks } = status;
  return [
    `Mode: ${status.mode}`,
    `Pending tasks: ${status.pendingTasks}`,
    `Running tasks: ${status.runningTasks}`,
    ...(staleTasks > 0 ? [`Stale tasks: ${staleTasks}`] : []),
    ...(ignoredTasks.length > 0 ? [`Ignored tasks: ${ignoredTasks.length}`] : []),
    ...(status.heldTasks > 0 ? [`Held tasks: ${status.heldTasks}`] : []),
    `Can enter maintenance: ${status.canEnterMaintenance ? "Yes" : "No"}`,
    `Status: ${status.message}`,
    `Mode changed at: ${status.modeChangedAt.toISOString()}`,
    ...(status.mode !== "running" && status.gate === "open" ? ["Gate: open"] : []),
    ...(owner === null ? [] : [`Requested by: ${printable(owner)}`]),
    ...(reason === null ? [] : [`Reason: ${printable(reason)}`]),
    ...(drain === "all" ? [] : [`Drain: ${drain}`]),
    ...(status.deployment === null ? [] : [`Deployment: ${printable(status.deployment)}`]),
    ...(waitExpiresAt === null ? [] : [`Wait expires at: ${waitExpiresAt.toISOString()}`]),
  ].join("\n");
}

/**
 * A report of `maintenance:tasks`: a line a task, or two where the terminal is narrow.
 *
 * @param columns of the terminal; Infinity where there is none
 */
export function formatTasks(tasks: readonly ActiveTask[], columns: number): string {
  if (tasks.length === 0) return "No task is active.";
  return tasks.map((task) => {
    const what = `${task.stale ? "!" : "·"} ${task.status} ${printable(task.id)} (${printable(task.taskId)})`;
    const facts = [
      describeAge(task),
      ...(task.silentMs === null ? [] : [`heartbeat ${formatDuration(task.silentMs)} ago`]),
      ...(task.attempt > 1 ? [`attempt ${task.attempt}`] : []),
      ...(task.stale ? ["STALE"] : []),
    ].join(", ");
    return what.length + 2 + facts.length <= columns ? `${what}  ${facts}` : `${what}\n    ${facts}`;
  }).join("\n");
}

/**
 * A report of `maintenance:history`.
 *
 * @param columns of the terminal; Infinity where there is none
 */
export function formatMaintenanceLog(rows: readonly MaintenanceLogRow[], columns: number): string {
  if (rows.length === 0) return "Nothing is logged yet.";
  return rows.map((row) => {
    const what = printable(
      `${row.loggedAt.toISOString()}  ${row.action}: ${row.modeBefore} → ${row.modeAfter}`,
    );
    const more = [
      ...(row.reason ? [`reason: ${printable(row.reason)}`] : []),
      ...(row.details["forced"] ? [`forced: it was ${printable(row.owner ?? "nobody")}'s`] : []),
      ...(row.details["as"] ? [`as: ${printable(String(row.details["as"]))}`] : []),
      ...(row.details["drain"] === "running" ? ["pending tasks stay queued"] : []),
      ...(row.details["deployment"] ? [`deployment: ${printable(String(row.details["deployment"]))}`] : []),
      ...ignoredLine(row.details),
    ];
    return logEntry(what, row, more, columns);
  }).join("\n");
}

/** How many ids of ignored tasks a line of the log names. */
const NAMED_IDS = 3;

function ignoredLine({ ignoredTasks, ignoredTasksCount }: MaintenanceLogRow["details"]): readonly string[] {
  if (!Array.isArray(ignoredTasks)) return [];
  const named = ignoredTasks.slice(0, NAMED_IDS).map((id) => printable(String(id)));
  const left = Number(ignoredTasksCount ?? ignoredTasks.length) - named.length;
  return [`ignored: ${named.join(", ")}${left > 0 ? ` and ${left} more` : ""}`];
}

/** A report of `db:lint`: every finding with its reason and the safe way, then the verdict. */
export function formatLint({ findings, files, pendingOnly }: LintResult): string {
  const scope = `${files} ${pendingOnly ? "pending " : ""}migration(s)`;
  const verdict = findings.length === 0
    ? `✓ ${scope}: nothing found that would hurt a live database`
    : `✗ ${findings.length} finding(s) in ${scope}`;
  return [...findings.flatMap((finding) => [formatLintFinding(finding), ""]), verdict].join("\n");
}

function formatLintFinding({ code, file, location, message, blocks, why, hint }: Reported): string {
  return [
    `${file}:${location?.line}:${location?.column}: ${message} (${code})`,
    ...(location ? [location.excerpt] : []),
    ...(why === "" ? [] : [`  why: ${why}`]),
    ...(blocks === "nobody" ? [] : [`  blocks: ${blocks}`]),
    ...(hint ? [`  safe: ${hint}`] : []),
  ].join("\n");
}

/**
 * A report of `db:migrate --dry-run`: a paragraph a migration, a line a statement.
 *
 * @param columns of the terminal; Infinity where there is none
 */
export function formatPlan(plan: MigrationPlan, columns: number): string {
  const { current, migrations, executed, untried, tried, failed } = plan;
  return [
    `Current version: ${current ?? "none"}`,
    `Pending migrations: ${migrations.length}`,
    ...migrations.flatMap((planned) => ["", ...linesOfPlanned(planned, columns)]),
    "",
    ...(executed ? [`Tried: ${tried} of ${migrations.length}`] : []),
    ...(untried ? [`Not tried: ${untried}.`] : []),
    ...(failed ? [`${labelOf(failed.migration)} failed; what follows it was not tried.`] : []),
    executed ? "Everything was rolled back: nothing is applied." : "Nothing was applied.",
  ].join("\n");
}

function linesOfPlanned({ migration, statements, findings }: PlannedMigration, columns: number): string[] {
  const how = [
    `${statements.length} statement(s)`,
    migration.directives.noTransaction ? "one by one, outside a transaction" : "in one transaction",
    ...(migration.directives.requiresMaintenance ? ["requires maintenance"] : []),
  ];
  const ms = statements.reduce((sum, { tried }) => sum + (tried?.durationMs ?? 0), 0);
  const time = statements.some(({ tried }) => tried) ? ` (${formatDuration(ms)})` : "";
  const head = `${labelOf(migration)}: ${how.join(", ")}${time}`;
  // PipeWeave's own are the same everywhere; --json has their statements too.
  if (migration.source === EMBEDDED && findings.length === 0) return [head];
  return [
    head,
    ...statements.flatMap(({ line, firstLine, tried }) => {
      const head = `  line ${line}${tried ? ` (${formatDuration(tried.durationMs)})` : ""}: `;
      const room = Math.max(columns - head.length, 20);
      const shown = [...firstLine].length > room
        ? `${[...firstLine].slice(0, room - 1).join("")}…`
        : firstLine;
      return [
        `${head}${shown}`,
        ...(tried?.locks ?? []).map(({ table, mode }) => `    locks ${table}: ${mode}`),
        ...(tried?.rewritten ?? []).map((table) => `    REWRITES ${table}`),
        ...findings.filter(({ location }) => location?.line === line)
          .map(({ code, message, blocks }) =>
            `    ! ${message}${blocks === "nobody" ? "" : `, which blocks ${blocks}`} (${code})`
          ),
      ];
    }),
  ];
}

/** A report of `db:history`: newest first, two lines an entry where the terminal is narrow. */
export function formatHistory(rows: readonly LogRow[], columns: number): string {
  if (rows.length === 0) return "Nothing is logged yet.";
  return rows.map((row) => {
    const what = printable(`${row.loggedAt.toISOString()}  ${row.action} ${labelOf(row)}: ${row.outcome}`) +
      (row.durationMs === null ? "" : ` (${formatDuration(row.durationMs)})`);
    const more = [
      ...(row.reason ? [`reason: ${printable(row.reason)}`] : []),
      ...(typeof row.details["error"] === "string" ? [`error: ${printable(row.details["error"])}`] : []),
      ...(row.details["allowedOnline"] ? ["applied with --allow-online"] : []),
    ];
    return logEntry(what, row, more, columns);
  }).join("\n");
}

/** An entry of a log: what, by whom, in two lines where the terminal is narrow, and what else there is to say. */
function logEntry(
  what: string,
  { databaseUser, osUser, host, tool }: {
    readonly databaseUser: string;
    readonly osUser: string | null;
    readonly host: string | null;
    readonly tool: string | null;
  },
  more: readonly string[],
  columns: number,
): string {
  const who = printable(
    `by ${databaseUser}` + (osUser || host ? `, ${osUser || "?"} on ${host || "?"}` : "") +
      (tool ? `, ${tool}` : ""),
  );
  const head = what.length + 2 + who.length <= Math.min(columns, 160)
    ? [`${what}  ${who}`]
    : [what, `    ${who}`];
  return [...head, ...more.map((text) => `    ${text}`)].join("\n");
}
