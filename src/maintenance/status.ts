/**
 * The state of maintenance as it is reported.
 *
 * @module
 */

import { activeCount, type OrchestratorState } from "./state.ts";
import type { OrchestratorMode } from "./transitions.ts";

/** What `maintenance:status` tells. */
export interface MaintenanceStatus {
  /** What the orchestrator does with tasks. */
  readonly mode: OrchestratorMode;
  /** Tasks that wait for a worker. */
  readonly pendingTasks: number;
  /** Tasks that a worker has. */
  readonly runningTasks: number;
  /** Whether no task stands in the way. */
  readonly canEnterMaintenance: boolean;
  /** The state in a sentence. */
  readonly message: string;
  /** When the mode last changed. */
  readonly modeChangedAt: Date;
}

/** Describes a state. */
export function maintenanceStatus(state: OrchestratorState): MaintenanceStatus {
  return {
    mode: state.mode,
    pendingTasks: state.pendingTasksCount,
    runningTasks: state.runningTasksCount,
    canEnterMaintenance: activeCount(state) === 0,
    message: messageFor(state),
    modeChangedAt: state.modeChangedAt,
  };
}

function messageFor(state: OrchestratorState): string {
  switch (state.mode) {
    case "running":
      return "Orchestrator is running normally";
    case "waiting_for_maintenance":
      return `Waiting for ${tasks(activeCount(state))} to complete`;
    case "maintenance":
      return activeCount(state) === 0
        ? "Orchestrator is in maintenance: safe to migrate"
        : `Orchestrator is in maintenance, but ${tasks(activeCount(state))} came in behind its back`;
  }
}

/** `1 task`, `5 tasks`. */
export function tasks(count: number): string {
  return `${count} task${count === 1 ? "" : "s"}`;
}
