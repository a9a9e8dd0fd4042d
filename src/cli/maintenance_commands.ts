/**
 * The `maintenance:` commands.
 *
 * @module
 */

import { MODES, type OrchestratorMode } from "../maintenance/transitions.ts";
import { Bell } from "../maintenance/wait.ts";
import { formatMaintenanceLog } from "../output/log_text.ts";
import { formatMaintenance, formatTasks } from "../output/maintenance_text.ts";
import {
  drainEvents,
  drainWait,
  joinedNote,
  ownerOptions,
  REQUEST_OPTIONS,
  requestOptions,
} from "./drain.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { migratedSession } from "./migrate.ts";
import { maintenanceMetrics } from "../output/openmetrics.ts";
import { type CommandSpec, CONNECTION_OPTIONS, METRICS, type OptionSpec, OUTPUT_OPTIONS } from "./spec.ts";
import { duration, oneOf, wholeNumber } from "./values.ts";

const FAILURES: CommandSpec["exitCodes"] = [
  [1, "the database refused, or is not migrated"],
  [4, "the state's lock was not free, or the database did not come up, in time"],
  [6, "no connection"],
];
const [OWNER, REASON] = ["--owner", "--reason"].map((name) =>
  REQUEST_OPTIONS.find(({ flag }) => flag === name)!
) as [OptionSpec, OptionSpec];
/** A list is cut off here unless told otherwise. */
const LIST_LIMIT = 50;
/** How long `maintenance:wait` waits unless told otherwise, in milliseconds. */
const WAIT_TIMEOUT_MS = 15 * 60_000;

const useCases = () => import("../commands/maintenance.ts");

const status: CommandSpec = {
  name: "maintenance:status",
  group: "Maintenance",
  summary: "Show the mode and the active tasks.",
  description:
    "Shows the mode, the pending and running tasks, and whether maintenance can be entered. A transition that is due is completed first: when the last task has ended while waiting, the mode becomes maintenance.",
  options: [
    {
      title: "Status",
      options: [{
        flag: "--expect",
        value: oneOf("mode", ...MODES),
        description: `Exit 3 unless the mode is this one: ${MODES.join(", ")}.`,
      }, METRICS],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "Look", line: "pipeweave maintenance:status" },
    { purpose: "The mode alone", line: "pipeweave maintenance:status | grep Mode: | awk '{print $2}'" },
    {
      purpose: "Check in a script",
      line: "pipeweave maintenance:status --expect maintenance --quiet",
    },
  ],
  exitCodes: [
    FAILURES[0]!,
    [
      3,
      "with --expect: the mode is another; or it is maintenance, and the gate is open or tasks are active all the same",
    ],
    ...FAILURES.slice(1),
  ],
  async run(input, terminal) {
    const expected = input.choice<OrchestratorMode>("--expect");
    await using session = await migratedSession(input, terminal);
    const { assertSafe, getMaintenanceStatus, expectMode } = await useCases();
    const found = await getMaintenanceStatus(session, { actor: input.actor });
    if (!(expected !== undefined && terminal.quiet)) {
      terminal.result(
        () => found,
        () => input.has("--format") ? maintenanceMetrics(found) : formatMaintenance(found, terminal.page),
      );
    }
    if (expected !== undefined) expectMode(found, expected);
    else assertSafe(found);
  },
};

const request: CommandSpec = {
  name: "maintenance:request",
  group: "Maintenance",
  summary: "Ask for maintenance: running → waiting → maintenance.",
  description:
    "Asks for maintenance. PostgreSQL refuses new tasks from then on; when none is pending or running any more the mode becomes maintenance, at once if there is none now. Asking again renews it. Somebody else's request is joined, and stays theirs.",
  options: [
    {
      title: "Request",
      options: [
        ...REQUEST_OPTIONS,
      ],
    },
    {
      title: "Waiting",
      options: [
        { flag: "--wait", description: "Wait until maintenance is reached, and show how far it is." },
        {
          flag: "--timeout",
          value: duration(),
          description: "How long to wait; 0 looks once.",
          defaultsTo: "15m",
        },
        {
          flag: "--on-timeout",
          value: oneOf("what", "stay", "exit"),
          description: "stay: the request stands. exit: it is called off, if this command made it.",
          defaultsTo: "stay",
        },
        {
          flag: "--on-interrupt",
          value: oneOf("what", "stay", "exit"),
          description: "The same, after Ctrl-C, for a request that this command made.",
          defaultsTo: "exit",
        },
      ],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    {
      purpose: "Drain, and go on when it is done",
      line: 'pipeweave maintenance:request --wait --timeout 10m --reason "release 42"',
    },
    { purpose: "Ask, and look later", line: "pipeweave maintenance:request --ttl 30m" },
  ],
  exitCodes: [
    FAILURES[0]!,
    [3, "with --wait: somebody called it off, or its time to live ran out"],
    [4, "not drained, or the locks were not free, or the database did not come up, in time"],
    FAILURES[2]!,
  ],
  async run(input, terminal) {
    const options = requestOptions(input, terminal);
    const waits = input.has("--wait");
    const wait = drainWait(input, terminal, input.duration("--timeout"));
    input.onlyWith("--wait", waits, ["--timeout", "--on-timeout", "--on-interrupt"]);
    const bell = new Bell();
    await using session = await migratedSession(input, terminal, bell.ring);
    if (waits) {
      const { drain } = await import("../commands/drain.ts");
      const { status, drainedMs } = await drain(session, bell, options, wait, drainEvents(input, terminal));
      terminal.progress.stop();
      return terminal.result(() => ({ ...status, drainedMs }), () => status.message);
    }
    const { assertSafe, requestMaintenance } = await useCases();
    const found = await requestMaintenance(session, options);
    terminal.progress.stop();
    terminal.result(() => found, () => found.message);
    assertSafe(found);
    if (found.joined) {
      terminal.note(joinedNote(input, found));
    }
    if (found.mode === "waiting_for_maintenance") {
      terminal.note(
        "It enters by itself when they are done: look with maintenance:status, wait with maintenance:request --wait, or call it off with maintenance:exit.",
      );
    }
  },
};

const enter: CommandSpec = {
  name: "maintenance:enter",
  group: "Maintenance",
  summary: "Enter maintenance now, if nothing is active.",
  description:
    "Enters maintenance after a request, if no task is pending or running. It never cuts a task off: while any is active it refuses, and says how many there are.",
  options: [{ title: "Log", options: [REASON] }, CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [{ purpose: "After maintenance:request", line: "pipeweave maintenance:enter" }],
  exitCodes: [FAILURES[0]!, [3, "tasks are active, or maintenance was not requested"], ...FAILURES.slice(1)],
  async run(input, terminal) {
    await using session = await migratedSession(input, terminal);
    const { enterMaintenance } = await useCases();
    const found = await enterMaintenance(session, ownerOptions(input, terminal));
    terminal.progress.stop();
    terminal.result(() => found, () => found.message);
  },
};

const exit: CommandSpec = {
  name: "maintenance:exit",
  group: "Maintenance",
  summary: "Go back to running; also cancels a wait.",
  description:
    "Ends maintenance, or the wait for it: the mode is running again and tasks are accepted. What somebody else asked for is ended with --force alone, and the log keeps that.",
  options: [
    {
      title: "Ending",
      options: [{ flag: "--force", description: "End it although it is somebody else's." }, OWNER, REASON],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [{ purpose: "After a migration", line: "pipeweave maintenance:exit" }],
  exitCodes: [FAILURES[0]!, [3, "it is somebody else's"], ...FAILURES.slice(1)],
  async run(input: Input, terminal: Terminal) {
    await using session = await migratedSession(input, terminal);
    const { exitMaintenance } = await useCases();
    const found = await exitMaintenance(session, {
      ...ownerOptions(input, terminal),
      force: input.has("--force"),
    });
    terminal.progress.stop();
    terminal.result(() => found, () => "Orchestrator is now running normally");
    if (found.heldTasks > 0) {
      terminal.warn(
        `${found.heldTasks} task(s) that were held back during maintenance are not queued yet, since somebody has them ` +
          "locked: the next maintenance:status does it",
      );
    }
  },
};

const wait: CommandSpec = {
  name: "maintenance:wait",
  group: "Maintenance",
  summary: "Wait until the mode is running, or maintenance.",
  description:
    "Waits for a mode, whoever leads there; it asks for nothing itself. For entrypoints of applications that should start when maintenance is over.",
  options: [
    {
      title: "Waiting",
      options: [
        {
          flag: "--for",
          value: oneOf("mode", "running", "maintenance"),
          description: "running or maintenance.",
          defaultsTo: "running",
        },
        {
          flag: "--timeout",
          value: duration(),
          description: "How long to wait; 0 looks once.",
          defaultsTo: "15m",
        },
      ],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [{
    purpose: "In an entrypoint",
    line: "pipeweave maintenance:wait --for running --timeout 30m",
  }],
  exitCodes: [FAILURES[0]!, [4, "the mode was another all the time"], FAILURES[2]!],
  async run(input, terminal) {
    const mode = input.choice<"running" | "maintenance">("--for") ?? "running";
    const deadline = Date.now() + (input.duration("--timeout") ?? WAIT_TIMEOUT_MS);
    const intervalMs = input.checkIntervalMs();
    const bell = new Bell();
    await using session = await migratedSession(input, terminal, bell.ring);
    const { waitForMode } = await useCases();
    const found = await waitForMode(session, bell, mode, {
      ...{ actor: input.actor, deadline, intervalMs, signal: input.signal },
      onLook: ({ state }) => terminal.progress.update(`Waiting for ${mode}: the mode is ${state.mode}`),
      onTrouble: (reason) => terminal.note(`${reason}; looking again`),
    });
    terminal.progress.stop();
    terminal.result(() => found, () => formatMaintenance(found, terminal.page));
  },
};

const list: CommandSpec = {
  name: "maintenance:tasks",
  group: "Maintenance",
  summary: "List the active tasks, the oldest first.",
  description:
    "Lists tasks that are running or pending. Stale are those of which nothing has been heard for too long: running ones silent for longer than their heartbeat may take, and pending ones an hour behind their time.",
  options: [
    {
      title: "List",
      options: [
        { flag: "--stale", description: "Only stale ones." },
        {
          flag: "--limit",
          value: wholeNumber("n", 1, 1_000_000),
          description: `Tasks at most.`,
          defaultsTo: `${LIST_LIMIT}`,
        },
      ],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [{ purpose: "What keeps a drain from ending", line: "pipeweave maintenance:tasks --stale" }],
  exitCodes: FAILURES,
  async run(input, terminal) {
    const limit = input.integer("--limit") ?? LIST_LIMIT;
    await using session = await migratedSession(input, terminal);
    const { listTasks } = await import("../maintenance/tasks.ts");
    // One more tells whether there are more.
    const found = await listTasks(session, { stale: input.has("--stale"), limit: limit + 1 });
    const tasks = found.slice(0, limit);
    terminal.result(
      () => ({ tasks, more: found.length > limit }),
      () => formatTasks(tasks, terminal.page),
    );
    if (found.length > limit) {
      terminal.note(`There are more tasks than these ${limit}: --limit <n> shows more.`);
    }
  },
};

const history: CommandSpec = {
  name: "maintenance:history",
  group: "Maintenance",
  summary: "Show who asked for, entered and ended maintenance.",
  description:
    "Shows the log of the mode's changes, newest first, whoever made them: the database writes it, and lets nobody change it.",
  options: [
    {
      title: "List",
      options: [{
        flag: "--limit",
        value: wholeNumber("n", 1, 1_000_000),
        description: `Lines at most.`,
        defaultsTo: `${LIST_LIMIT}`,
      }],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [{ purpose: "The last changes", line: "pipeweave maintenance:history --limit 5" }],
  exitCodes: FAILURES,
  async run(input, terminal) {
    const limit = input.integer("--limit") ?? LIST_LIMIT;
    await using session = await migratedSession(input, terminal);
    const { readMaintenanceLog } = await import("../maintenance/log.ts");
    const rows = await readMaintenanceLog(session, limit);
    terminal.result(() => ({ history: rows }), () => formatMaintenanceLog(rows, terminal.page));
  },
};

const watch: CommandSpec = {
  name: "maintenance:watch",
  group: "Maintenance",
  summary: "Follow the mode and the tasks on a full screen.",
  description:
    "Shows the mode, charts of the running and the pending tasks, the stale and the oldest of them, and the log, every second. Keys: r requests maintenance, and x exits it; both ask first. ? explains. q and Ctrl-C end the watching, with exit code 0, and leave the mode as it is.",
  options: [
    {
      title: "Watching",
      options: [{ flag: "--once", description: "Print it once, and end." }, OWNER, REASON],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "During a deployment, beside it", line: "pipeweave maintenance:watch" },
    { purpose: "For a report", line: "pipeweave maintenance:watch --once >snapshot.txt" },
  ],
  exitCodes: FAILURES,
  async run(input, terminal) {
    const { runWatch } = await import("./watch.ts");
    await runWatch(input, terminal);
  },
};

export const MAINTENANCE_COMMANDS: readonly CommandSpec[] = [
  ...[status, request, enter, exit],
  ...[wait, list, history, watch],
];
