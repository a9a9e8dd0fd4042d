/**
 * Reports of the `db:` commands as text.
 *
 * @module
 */

import type { CleanupResult } from "../cleanup/cleanup.ts";
import type { DatabaseStatus } from "../commands/status.ts";
import type { ValidationResult } from "../commands/validate.ts";
import type { MigrationPlan, PlannedMigration } from "../commands/dry_run.ts";
import type { LintResult, Reported } from "../commands/lint.ts";
import { cellsOf, fitted, padded } from "./cells.ts";
import { formatDuration } from "../config/duration.ts";
import { printable, printableLines } from "../printable.ts";
import { EMBEDDED, labelOf } from "../migrations/migration.ts";
import type { SetOfFiles } from "../migrations/discover.ts";
import { describeParts, type PartialMigration } from "../migrations/plan.ts";
import type { Finding } from "../migrations/finding.ts";
import { formatFinding } from "../migrations/validate.ts";
import { flowed, type Page, timeText } from "./page.ts";

/** A migration in a report: what it is, and how it stands. */
interface StatusRow {
  readonly sign: "✓" | "·" | "!" | " ";
  readonly label: string;
  readonly note: string;
}

/**
 * A report of `db:status`: facts as `Key: value`, then a line a migration, or two where the terminal is narrow.
 *
 * @param shown how many of either kind are listed; what is wrong always is
 */
export function formatStatus(
  status: DatabaseStatus,
  page: Page,
  shown: { readonly applied: number; readonly pending: number } = { applied: Infinity, pending: Infinity },
): string {
  const { columns, style: { good, bad, warn } } = page;
  const rows = statusRows(status, page, shown);
  const drifted = status.applied.filter(({ drift }) => drift).length;
  const width = Math.max(...rows.map(({ label }) => cellsOf(label)), 0);
  const fits = rows.every(({ note }) => width + 4 + cellsOf(note) <= columns);
  const signs = { "✓": good("✓"), "!": bad("!"), "·": warn("·"), " ": " " };
  const { pending } = status;
  const lines = [
    `Current version: ${status.current ?? "none"}`,
    `Applied migrations: ${status.applied.length}`,
    `Pending migrations: ${pending.length > 0 ? warn(String(pending.length)) : 0}`,
    ...(drifted > 0 ? [bad(`Changed migrations: ${drifted}`)] : []),
    ...(status.missing.length > 0 ? [bad(`Missing migrations: ${status.missing.length}`)] : []),
    ...(status.partial.length > 0 ? [bad(`Half-done migrations: ${status.partial.length}`)] : []),
    ...(status.taken.length > 0 ? [bad(`Numbers taken: ${status.taken.length}`)] : []),
    ...(status.others.length > 0 ? [`Of another tool: ${status.others.length}`] : []),
    `Sets: ${describeSets(status.sets)}`,
    ...status.otherHistories.map(({ table, tool }) =>
      `History of ${tool}: ${printable(table)}; take over what it applied with db:baseline`
    ),
    "",
    ...rows.map(({ sign, label, note }) =>
      fits ? `${signs[sign]} ${padded(label, width)}  ${note}` : `${signs[sign]} ${label}\n    ${note}`
    ),
  ];
  return flowed(lines.join("\n"), columns);
}

function statusRows(
  status: DatabaseStatus,
  page: Page,
  shown: { readonly applied: number; readonly pending: number },
): readonly StatusRow[] {
  const { bad, faint } = page.style;
  const hidden = Math.max(0, status.applied.length - shown.applied);
  const later = Math.max(0, status.pending.length - shown.pending);
  const partial = new Map(status.partial.map((one) => [one.version, one]));
  const applied = (row: { readonly appliedAt: Date }) => `applied ${timeText(row.appliedAt, page)}`;
  const halfDone = (one: PartialMigration) => bad(`HALF DONE: ${describeParts(one)}`);
  return [
    ...(hidden > 0
      ? [{
        ...{ sign: " " as const, label: hidden === 1 ? "1 earlier one" : `${hidden} earlier ones` },
        note: faint("applied; --all shows them"),
      }]
      : []),
    ...status.applied.filter((row, index) => index >= hidden || row.drift).map((row) => ({
      sign: row.drift ? "!" as const : "✓" as const,
      label: labelOf(row),
      note: row.drift
        ? `${bad("CHANGED")} since it was ${applied(row)}${tookText(row)}`
        : `${applied(row)}${tookText(row)}`,
    })),
    ...status.pending.slice(0, status.pending.length - later).map((migration) => ({
      sign: "·" as const,
      label: labelOf(migration),
      note: [
        "pending",
        ...(status.outOfOrder.includes(migration) ? [bad("OUT OF ORDER")] : []),
        ...(partial.has(migration.version) ? [halfDone(partial.get(migration.version)!)] : []),
      ].join(", "),
    })),
    ...(later > 0
      ? [{
        sign: " " as const,
        label: later === 1 ? "1 later one" : `${later} later ones`,
        note: faint("pending; --all shows them"),
      }]
      : []),
    ...status.taken.map(({ migration, by }) => ({
      sign: "!" as const,
      label: labelOf(migration),
      note: `not applied: its ${bad("NUMBER IS TAKEN")} by ${printable(labelOf(by))}`,
    })),
    ...status.partial.filter(({ version }) => !status.pending.some((one) => one.version === version)).map((
      one,
    ) => ({
      sign: "!" as const,
      label: printable(labelOf(one)),
      note: `${halfDone(one)}, and there is ${bad("NO FILE")} for it`,
    })),
    ...status.missing.map((row) => ({
      sign: "!" as const,
      label: printable(labelOf(row)),
      note: `${applied(row)}, but there is ${bad("NO FILE")} for it`,
    })),
    ...status.others.map((row) => ({
      sign: "·" as const,
      label: printable(labelOf(row)),
      note: `${applied(row)} by another tool`,
    })),
  ];
}

function tookText({ executionTimeMs }: { readonly executionTimeMs: number | null }): string {
  return executionTimeMs === null ? "" : ` (${formatDuration(executionTimeMs)})`;
}

/** Applied migrations, and pending ones, that are shown where nobody says how many. */
export const SHOWN = 50;

/** `PipeWeave's own (5), ./db (12)`. */
export function describeSets(sets: readonly SetOfFiles[]): string {
  return sets.map(({ source, files }) => `${source === EMBEDDED ? "PipeWeave's own" : source} (${files})`)
    .join(", ");
}

/** A report of `db:validate`: every finding, then the verdict. */
export function formatValidation(
  { valid, migrations, comparedWithDatabase, findings }: ValidationResult,
  { columns, style: { good, bad, warn } }: Page,
): string {
  const scope = comparedWithDatabase ? "files and the database's history" : "files alone";
  const verdict = valid
    ? `${good("✓")} ${migrations} migration(s) are valid (${scope})`
    : `${bad("✗")} ${migrations} migration(s) checked (${scope}): not valid`;
  const painted = ({ severity }: Finding) => (severity === "error" ? bad : warn)(`${severity}:`);
  const lines = [
    ...findings.flatMap((finding) => [`${painted(finding)} ${printableLines(formatFinding(finding))}`, ""]),
    verdict,
  ];
  return flowed(lines.join("\n"), columns);
}

/** A report of `db:cleanup`. */
export function formatCleanup(result: CleanupResult, { columns }: Page): string {
  const { dryRun, idempotencyCache, dlq, tempUploads, kept = [], leftAlone = [] } = result;
  const verb = dryRun ? "Would remove" : "Removed";
  const lines = [
    `${verb} expired idempotency cache entries: ${idempotencyCache}`,
    `${verb} old dead letter queue entries: ${dlq}`,
    ...(tempUploads === null ? [] : [
      `${verb} records of uploads deleted long ago: ${tempUploads.archived}`,
      `Expired uploads for the orchestrator to delete: ${tempUploads.expired}`,
    ]),
    ...kept.map(({ table, rows, reason }) => `Kept in ${table}: ${rows} (${printable(reason)})`),
    ...leftAlone.map((what) => `Left alone: ${printable(what)}`),
  ];
  return flowed(lines.join("\n"), columns);
}

/** A report of `db:lint`: every finding with its reason and the safe way, then the verdict. */
export function formatLint({ findings, files, pendingOnly }: LintResult, page: Page): string {
  const { good, bad } = page.style;
  const scope = `${files} ${pendingOnly ? "pending " : ""}migration(s)`;
  const verdict = findings.length === 0
    ? `${good("✓")} ${scope}: nothing found that would hurt a live database`
    : `${bad("✗")} ${findings.length} finding(s) in ${scope}`;
  const lines = [...findings.flatMap((finding) => [...linesOfFinding(finding, page), ""]), verdict];
  return flowed(lines.join("\n"), page.columns);
}

function linesOfFinding(
  { severity, code, file, location, message, blocks, why, hint }: Reported,
  { style: { good, bad, warn, faint, strong } }: Page,
): readonly string[] {
  const place = strong(location ? `${file}:${location.line}:${location.column}:` : `${file}:`);
  return [
    `${place} ${severity === "warning" ? warn("warning: ") : ""}${message} ${faint(`(${code})`)}`,
    ...(location ? [location.excerpt] : []),
    ...(why === "" ? [] : [`  why: ${why}`]),
    ...(blocks === "nobody" ? [] : [`  blocks: ${(blocks === "writes" ? warn : bad)(blocks)}`]),
    ...(hint ? [`  ${good("safe:")} ${hint}`] : []),
  ];
}

/** A report of `db:migrate --dry-run`: a paragraph a migration, a line a statement. */
export function formatPlan(plan: MigrationPlan, page: Page): string {
  const { current, migrations, executed, untried, tried, failed } = plan;
  const lines = [
    `Current version: ${current ?? "none"}`,
    `Pending migrations: ${migrations.length}`,
    ...migrations.flatMap((planned) => ["", ...linesOfPlanned(planned, page)]),
    "",
    ...(executed ? [`Tried: ${tried} of ${migrations.length}`] : []),
    ...(executed && migrations.length > 1
      ? ["A lock is listed where it is first taken: all of it was tried in one transaction."]
      : []),
    ...(untried ? [`Not tried: ${untried}.`] : []),
    ...(failed
      ? [`${page.style.bad(`${labelOf(failed.migration)} failed`)}; what follows it was not tried.`]
      : []),
    executed ? "Everything was rolled back: nothing is applied." : "Nothing was applied.",
  ];
  return flowed(lines.join("\n"), page.columns);
}

function linesOfPlanned(
  { migration, statements }: PlannedMigration,
  { columns, style: { bad, warn, strong } }: Page,
): string[] {
  const how = [
    `${statements.length} statement(s)`,
    migration.directives.noTransaction ? "one by one, outside a transaction" : "in one transaction",
    ...(migration.directives.requiresMaintenance ? ["requires maintenance"] : []),
  ];
  const ms = statements.reduce((sum, { tried }) => sum + (tried?.durationMs ?? 0), 0);
  const time = statements.some(({ tried }) => tried) ? ` (${formatDuration(ms)})` : "";
  const head = `${strong(labelOf(migration))}: ${how.join(", ")}${time}`;
  // PipeWeave's own are the same everywhere; --json has their statements too.
  if (migration.source === EMBEDDED && statements.every(({ findings }) => findings.length === 0)) {
    return [head];
  }
  return [
    head,
    ...statements.flatMap(({ line, firstLine, tried, findings }) => {
      const head = `  line ${line}${tried ? ` (${formatDuration(tried.durationMs)})` : ""}: `;
      const room = Math.max(columns - cellsOf(head), 20);
      const shown = cellsOf(firstLine) > room ? `${fitted(firstLine, room - 1)}…` : firstLine;
      return [
        `${head}${shown}`,
        ...(tried?.locks ?? []).map(({ table, mode }) =>
          `    locks ${table}: ${mode.startsWith("ACCESS EXCLUSIVE") ? warn(mode) : mode}`
        ),
        ...(tried?.rewritten ?? []).map((table) => `    ${bad("REWRITES")} ${table}`),
        ...findings.map(({ code, message, blocks }) =>
          `    ${bad("!")} ${message}${blocks === "nobody" ? "" : `, which blocks ${blocks}`} (${code})`
        ),
      ];
    }),
  ];
}
