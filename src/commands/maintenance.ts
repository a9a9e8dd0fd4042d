/**
 * `maintenance:status`, `:request`, `:enter` and `:exit`.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { changeMode, lookAtState } from "../maintenance/state.ts";
import { type MaintenanceStatus, maintenanceStatus, tasks } from "../maintenance/status.ts";
import type { OrchestratorMode } from "../maintenance/transitions.ts";

/** Tells the status, after completing a transition that is due. */
export async function getMaintenanceStatus(session: Session): Promise<MaintenanceStatus> {
  return maintenanceStatus(await lookAtState(session));
}

/** Asks for maintenance; enters at once when nothing is active. */
export async function requestMaintenance(session: Session): Promise<MaintenanceStatus> {
  return maintenanceStatus((await changeMode(session, "request")).state);
}

/**
 * Enters maintenance, which was requested before.
 *
 * @throws {PipeweaveError} of kind `condition` when tasks are active, or nobody requested it
 */
export async function enterMaintenance(session: Session): Promise<MaintenanceStatus> {
  const status = maintenanceStatus((await changeMode(session, "enter")).state);
  if (status.mode === "maintenance") return status;
  const data = { status };
  if (status.mode === "running") {
    throw new PipeweaveError(
      "condition",
      "not_requested",
      "Maintenance was not requested; the mode stays running",
      {
        hint: "Run: pipeweave maintenance:request",
        data,
      },
    );
  }
  const active = status.pendingTasks + status.runningTasks;
  throw new PipeweaveError(
    "condition",
    "tasks_active",
    `Cannot enter maintenance: ${
      tasks(active)
    } still active (${status.pendingTasks} pending, ${status.runningTasks} running)`,
    {
      hint:
        "The mode stays waiting_for_maintenance and changes by itself: look again with maintenance:status, or give up with maintenance:exit.",
      data,
    },
  );
}

/** Ends maintenance, or the wait for it. */
export async function exitMaintenance(session: Session): Promise<MaintenanceStatus> {
  return maintenanceStatus((await changeMode(session, "exit")).state);
}

/**
 * Holds a status against the mode that is expected.
 *
 * @throws {PipeweaveError} of kind `condition` when it is another
 */
export function expectMode({ mode, message }: MaintenanceStatus, expected: OrchestratorMode): void {
  if (mode === expected) return;
  throw new PipeweaveError("condition", "other_mode", `The mode is ${mode}, not ${expected}: ${message}`);
}
