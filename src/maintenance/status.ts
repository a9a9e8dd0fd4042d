/**
 * The state of maintenance as it is reported.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { activeCount, type Drain, isSafe, type OrchestratorState } from "./state.ts";
import { printable } from "../printable.ts";
import type { OrchestratorMode } from "./transitions.ts";

/** Status of maintenance, as `maintenance:status` shows it. */
export interface MaintenanceStatus {
  /** What the orchestrator does with tasks. */
  readonly mode: OrchestratorMode;
  /** Tasks that wait for a worker. */
  readonly pendingTasks: number;
  /** Tasks that a worker has. */
  readonly runningTasks: number;
  /** Whether maintenance can be entered: no task is active, and none can follow from one that has ended. */
  readonly canEnterMaintenance: boolean;
  /** The state in a sentence. */
  readonly message: string;
  /** When the mode last changed. */
  readonly modeChangedAt: Date;
  /** When maintenance was asked for, which tells this request from a later one; null while the mode is running. */
  readonly requestedAt: Date | null;
  /** Owner of the request; null if there is none or it is unknown. */
  readonly owner: string | null;
  /** Reason of the request; null if none was given. */
  readonly reason: string | null;
  /** Which tasks the drain waits for. */
  readonly drain: Drain;
  /** When a wait goes back to running by itself; null for never. */
  readonly waitExpiresAt: Date | null;
  /** Active tasks of which nothing has been heard for too long. */
  readonly staleTasks: number;
  /** Tasks that the drain does not wait for, since they were stale at the request. */
  readonly ignoredTasks: readonly string[];
  /** Whether PostgreSQL actually refuses tasks, on every table that holds them. */
  readonly gate: "open" | "closed";
  /** Whether it is safe to migrate: the mode is `maintenance`, the gate is closed, and nothing is active. */
  readonly isSafe: boolean;
  /** Milliseconds until it is sure that nothing follows from tasks that have ended; 0 where nothing can. */
  readonly settlesInMs: number;
  /** Tasks that came during maintenance and belong to work accepted before: the exit queues them. */
  readonly heldTasks: number;
  /** The run of db:migrate --maintenance that asked for it; null where it was no deployment. */
  readonly deployment: string | null;
}

/** Describes a state. */
export function maintenanceStatus(state: OrchestratorState): MaintenanceStatus {
  return {
    mode: state.mode,
    pendingTasks: state.pendingTasksCount,
    runningTasks: state.runningTasksCount,
    canEnterMaintenance: state.blockingTasksCount === 0 && state.settlesInMs === 0,
    message: messageFor(state),
    modeChangedAt: state.modeChangedAt,
    requestedAt: state.requestedAt,
    owner: state.owner,
    reason: state.reason,
    drain: state.drain,
    waitExpiresAt: state.waitExpiresAt,
    staleTasks: state.staleTasksCount,
    ignoredTasks: state.ignoredTasks,
    gate: state.mode !== "running" && state.gateFits ? "closed" : "open",
    isSafe: isSafe(state),
    settlesInMs: state.settlesInMs,
    heldTasks: state.heldTasksCount,
    deployment: state.deployment,
  };
}

function messageFor(state: OrchestratorState): string {
  const left = state.blockingTasksCount;
  const kept = activeCount(state) - left;
  switch (state.mode) {
    case "running":
      return "Orchestrator is running normally";
    case "waiting_for_maintenance":
      if (!state.gateFits) {
        return `Waiting for ${tasks(left)} to complete, but the gate is open: new ones can start`;
      }
      if (state.settlesInMs > 0) {
        return `Waiting for what may follow from tasks that have ended, for ${
          formatDuration(state.settlesInMs)
        } more`;
      }
      return `Waiting for ${tasks(left)} to complete`;
    case "maintenance":
      if (!state.gateFits) return "Orchestrator is in maintenance, but the gate is open: tasks can start";
      if (left > 0) return `Orchestrator is in maintenance, but ${tasks(left)} came in behind its back`;
      return `Orchestrator is in maintenance: safe to migrate${
        kept > 0 ? `; ${tasks(kept)} stay queued or ignored` : ""
      }`;
  }
}

/** `maintenance, asked for by alice@build-7 (release 42)` */
export function describeRequest({ mode, owner, reason }: MaintenanceStatus): string {
  return printable(`${mode}, asked for by ${owner ?? "somebody"}${reason ? ` (${reason})` : ""}`);
}

/** `1 task`, `5 tasks`. */
export function tasks(count: number): string {
  return `${count} task${count === 1 ? "" : "s"}`;
}
