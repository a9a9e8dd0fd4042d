/**
 * The `maintenance:` commands.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { MODES, type OrchestratorMode } from "../maintenance/transitions.ts";
import { formatMaintenance } from "../output/text.ts";
import type { Invocation } from "./invocation.ts";
import { migratedSession } from "./migrate.ts";
import { type CommandSpec, CONNECTION_OPTIONS, OUTPUT_OPTIONS } from "./spec.ts";

const FAILURES: CommandSpec["exitCodes"] = [
  [1, "the database refused, or is not migrated"],
  [4, "the state's lock was not free, or the database did not come up, in time"],
  [6, "no connection"],
];

const useCases = () => import("../commands/maintenance.ts");

const status: CommandSpec = {
  name: "maintenance:status",
  summary: "Show the mode and the active tasks.",
  description:
    "Shows the mode, the pending and running tasks, and whether maintenance can be entered. A transition that is due is completed first: when the last task has ended while waiting, the mode becomes maintenance.",
  options: [
    {
      title: "Status",
      options: [{
        flags: "--expect <mode:string>",
        description: `Exit 3 unless the mode is this one: ${MODES.join(", ")}.`,
      }],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "Look", line: "pipeweave maintenance:status" },
    { purpose: "The mode alone", line: "pipeweave maintenance:status | grep Mode: | awk '{print $2}'" },
    {
      purpose: "Wait for the drain in a script",
      line: "until pipeweave maintenance:status --expect maintenance --quiet; do sleep 5; done",
    },
  ],
  exitCodes: [FAILURES[0]!, [3, "with --expect: the mode is another"], ...FAILURES.slice(1)],
  async run(invocation) {
    const expected = invocation.text("expect");
    if (expected !== undefined && !(MODES as readonly string[]).includes(expected)) {
      throw new PipeweaveError(
        "usage",
        "bad_option",
        `--expect must be one of ${MODES.join(", ")}, not "${expected}"`,
      );
    }
    const { getMaintenanceStatus, expectMode } = await useCases();
    const found = await getMaintenanceStatus(await migratedSession(invocation));
    if (!(expected !== undefined && invocation.quiet)) {
      invocation.result(() => found, () => formatMaintenance(found));
    }
    if (expected !== undefined) expectMode(found, expected as OrchestratorMode);
  },
};

const request: CommandSpec = {
  name: "maintenance:request",
  summary: "Ask for maintenance: running → waiting → maintenance.",
  description:
    "Asks for maintenance. No new tasks are accepted from then on; when none is pending or running any more the mode becomes maintenance, at once if there is none now. Asking again changes nothing.",
  options: [CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [{ purpose: "Before a migration", line: "pipeweave maintenance:request" }],
  exitCodes: FAILURES,
  async run(invocation) {
    const { requestMaintenance } = await useCases();
    const found = await requestMaintenance(await migratedSession(invocation));
    invocation.result(() => found, () => found.message);
    if (found.mode === "waiting_for_maintenance") {
      invocation.note(
        "It enters by itself when they are done: look with maintenance:status, or call it off with maintenance:exit.",
      );
    }
  },
};

const enter: CommandSpec = {
  name: "maintenance:enter",
  summary: "Enter maintenance now, if nothing is active.",
  description:
    "Enters maintenance after a request, if no task is pending or running. It never cuts a task off: while any is active it refuses, and says how many there are.",
  options: [CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [{ purpose: "After maintenance:request", line: "pipeweave maintenance:enter" }],
  exitCodes: [FAILURES[0]!, [3, "tasks are active, or maintenance was not requested"], ...FAILURES.slice(1)],
  async run(invocation) {
    const { enterMaintenance } = await useCases();
    const found = await enterMaintenance(await migratedSession(invocation));
    invocation.result(() => found, () => found.message);
  },
};

const exit: CommandSpec = {
  name: "maintenance:exit",
  summary: "Go back to running; also cancels a wait.",
  description: "Ends maintenance, or the wait for it: the mode is running again and tasks are accepted.",
  options: [CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [{ purpose: "After a migration", line: "pipeweave maintenance:exit" }],
  exitCodes: FAILURES,
  async run(invocation: Invocation) {
    const { exitMaintenance } = await useCases();
    const found = await exitMaintenance(await migratedSession(invocation));
    invocation.result(() => found, () => "Orchestrator is now running normally");
  },
};

export const MAINTENANCE_COMMANDS: readonly CommandSpec[] = [status, request, enter, exit];
