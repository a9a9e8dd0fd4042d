/**
 * The state of maintenance, and of the queue, as text.
 *
 * @module
 */

import { cellsOf } from "./cells.ts";
import { formatDuration } from "../config/duration.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { type ActiveTask, describeAge } from "../maintenance/tasks.ts";
import { printable } from "../printable.ts";
import { flowed, type Page, timeText } from "./page.ts";
import { paintedMode } from "./style.ts";

/** A report of `maintenance:status`, one `Key: value` a line. */
export function formatMaintenance(status: MaintenanceStatus, page: Page): string {
  const { owner, reason, drain, waitExpiresAt, staleTasks, ignoredTasks, canEnterMaintenance } = status;
  const { good, bad, warn } = page.style;
  const lines = [
    `Mode: ${paintedMode(status.mode, page.style)}`,
    `Pending tasks: ${status.pendingTasks}`,
    `Running tasks: ${status.runningTasks}`,
    ...(staleTasks > 0 ? [bad(`Stale tasks: ${staleTasks}`)] : []),
    ...(ignoredTasks.length > 0 ? [`Ignored tasks: ${ignoredTasks.length}`] : []),
    ...(status.heldTasks > 0 ? [`Held tasks: ${status.heldTasks}`] : []),
    `Can enter maintenance: ${canEnterMaintenance ? good("Yes") : "No"}`,
    `Status: ${status.message}`,
    `Mode changed at: ${timeText(status.modeChangedAt, page)}`,
    ...(status.mode !== "running" && status.gate === "open" ? [warn("Gate: open")] : []),
    ...(owner === null ? [] : [`Requested by: ${printable(owner)}`]),
    ...(reason === null ? [] : [`Reason: ${printable(reason)}`]),
    ...(drain === "all" ? [] : [`Drain: ${drain}`]),
    ...(status.deployment === null ? [] : [`Deployment: ${printable(status.deployment)}`]),
    ...(waitExpiresAt === null ? [] : [`Wait expires at: ${timeText(waitExpiresAt, page)}`]),
  ];
  return flowed(lines.join("\n"), page.columns);
}

/** A report of `maintenance:tasks`: a line a task, or two where the terminal is narrow. */
export function formatTasks(tasks: readonly ActiveTask[], { columns, style: { bad } }: Page): string {
  if (tasks.length === 0) return "No task is active.";
  const lines = tasks.map((task) => {
    const what = `${task.status} ${printable(task.id)} (${printable(task.taskId)})`;
    const facts = [
      describeAge(task),
      ...(task.silentMs === null ? [] : [`heartbeat ${formatDuration(task.silentMs)} ago`]),
      ...(task.attempt > 1 ? [`attempt ${task.attempt}`] : []),
      ...(task.stale ? [bad("STALE")] : []),
    ].join(", ");
    const line = `${task.stale ? bad("!") : "·"} ${what}`;
    return cellsOf(line) + 2 + cellsOf(facts) <= columns ? `${line}  ${facts}` : `${line}\n    ${facts}`;
  });
  return flowed(lines.join("\n"), columns);
}
