/**
 * Results as text.
 *
 * @module
 */

import type { CleanupResult } from "../cleanup/cleanup.ts";
import type { ValidationResult } from "../commands/validate.ts";
import { formatDuration } from "../config/duration.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { labelOf } from "../migrations/migration.ts";
import type { MigrationStatus } from "../migrations/plan.ts";
import { formatFinding } from "../migrations/validate.ts";

/**
 * A report of `db:status`: facts as `Key: value`, then a line a migration, or two where the terminal is narrow.
 *
 * @param columns of the terminal; Infinity where there is none
 */
export function formatStatus(status: MigrationStatus, columns: number): string {
  const rows = [
    ...status.applied.map((row) => ({
      sign: row.drift ? "!" : "✓",
      label: labelOf(row),
      note: `${row.drift ? "CHANGED since it was applied" : "applied"} ${row.appliedAt.toISOString()}` +
        (row.executionTimeMs === null ? "" : ` (${formatDuration(row.executionTimeMs)})`),
    })),
    ...status.pending.map((migration) => ({
      sign: "·",
      label: labelOf(migration),
      note: status.outOfOrder.includes(migration) ? "pending, OUT OF ORDER" : "pending",
    })),
    ...status.missing.map((row) => ({
      sign: "!",
      label: labelOf(row),
      note: `applied ${row.appliedAt.toISOString()}, but there is NO FILE for it`,
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
    "",
    ...rows.map(({ sign, label, note }) =>
      fits ? `${sign} ${label.padEnd(width)}  ${note}` : `${sign} ${label}\n    ${note}`
    ),
  ].join("\n");
}

/** A report of `db:validate`: every finding, then the verdict. */
export function formatValidation({ valid, files, comparedWithDatabase, findings }: ValidationResult): string {
  const scope = comparedWithDatabase ? "files and the database's history" : "files alone";
  const verdict = valid
    ? `✓ ${files} migration(s) are valid (${scope})`
    : `✗ ${files} migration(s) checked (${scope}): not valid`;
  return [...findings.flatMap((finding) => [`${finding.severity}: ${formatFinding(finding)}`, ""]), verdict]
    .join("\n");
}

/** A report of `db:cleanup`. */
export function formatCleanup({ dryRun, idempotencyCache, dlq, tempUploads }: CleanupResult): string {
  const verb = dryRun ? "Would remove" : "Removed";
  return [
    `${verb} expired idempotency cache entries: ${idempotencyCache}`,
    `${verb} old dead letter queue entries: ${dlq}`,
    ...(tempUploads === null ? [] : [
      `${verb} records of uploads deleted long ago: ${tempUploads.archived}`,
      `Expired uploads for the orchestrator to delete: ${tempUploads.expired}`,
    ]),
  ].join("\n");
}

/** A report of `maintenance:status`, one `Key: value` a line. */
export function formatMaintenance(status: MaintenanceStatus): string {
  return [
    `Mode: ${status.mode}`,
    `Pending tasks: ${status.pendingTasks}`,
    `Running tasks: ${status.runningTasks}`,
    `Can enter maintenance: ${status.canEnterMaintenance ? "Yes" : "No"}`,
    `Status: ${status.message}`,
    `Mode changed at: ${status.modeChangedAt.toISOString()}`,
  ].join("\n");
}
