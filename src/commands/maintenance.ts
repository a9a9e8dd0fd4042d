/**
 * The use cases of the `maintenance:` commands.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import type { Session } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { PipeweaveError } from "../errors.ts";
import { readMaintenanceLog } from "../maintenance/log.ts";
import {
  changeMode,
  type ChangeOptions,
  type Drain,
  isSafe,
  lookAtState,
  type LookOptions,
  type OrchestratorState,
  ownerIn,
} from "../maintenance/state.ts";
import { printable } from "../printable.ts";
import { type MaintenanceStatus, maintenanceStatus, tasks } from "../maintenance/status.ts";
import type { OrchestratorMode } from "../maintenance/transitions.ts";
import {
  type Bell,
  describeLeft,
  type Look,
  stillActive,
  type WaitingOptions,
  waitUntil,
} from "../maintenance/wait.ts";

/** Result of a maintenance request. */
export interface RequestResult extends MaintenanceStatus {
  /** Whether this request started the wait; false if maintenance was requested or on already. */
  readonly requested: boolean;
  /** Whether it joined somebody else's maintenance, which is theirs to end. */
  readonly joined: boolean;
}

/** Reads the maintenance status; completes a pending transition first. */
export async function getMaintenanceStatus(
  session: Session,
  options: LookOptions = {},
): Promise<MaintenanceStatus> {
  return maintenanceStatus(await lookAtState(session, options));
}

/**
 * Asks for maintenance; enters at once when nothing is active. A request of one's own is renewed, somebody else's joined.
 *
 * @throws {PipeweaveError} of kind `timeout` when transactions that have written to `task_runs` do not end
 */
export async function requestMaintenance(
  session: Session,
  options: ChangeOptions = {},
): Promise<RequestResult> {
  const { before, ownerBefore, deploymentBefore, state } = await changeMode(session, "request", options);
  const requested = before === "running";
  const isMine = ownerBefore === ownerIn(options) && deploymentBefore === (options.deployment ?? null);
  return { ...maintenanceStatus(state), requested, joined: !requested && !isMine };
}

/**
 * Enters maintenance, which was requested before.
 *
 * @throws {PipeweaveError} of kind `condition` when tasks are active, or nobody requested it
 */
export async function enterMaintenance(
  session: Session,
  options: ChangeOptions = {},
): Promise<MaintenanceStatus> {
  const status = maintenanceStatus((await changeMode(session, "enter", options)).state);
  if (status.mode === "maintenance") {
    assertSafe(status);
    return status;
  }
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
  if (status.settlesInMs > 0) {
    throw new PipeweaveError(
      "condition",
      "settling",
      `Cannot enter maintenance yet: something may follow from tasks that have ended, for ${
        formatDuration(status.settlesInMs)
      } more`,
      { hint: "The mode stays waiting_for_maintenance and changes by itself: look again then.", data },
    );
  }
  throw new PipeweaveError(
    "condition",
    "tasks_active",
    `Cannot enter maintenance: ${
      tasks(status.pendingTasks + status.runningTasks)
    } still active (${status.pendingTasks} pending, ${status.runningTasks} running)`,
    {
      hint:
        "The mode stays waiting_for_maintenance and changes by itself: look again with maintenance:status, or give up with maintenance:exit.",
      data,
    },
  );
}

/**
 * Ends maintenance, or the wait for it.
 *
 * @returns the status; the mode is another than `running` only where a request was named that a later one has followed
 * @throws {PipeweaveError} of kind `condition` when it is somebody else's, unless forced
 */
export async function exitMaintenance(
  session: Session,
  options: ChangeOptions = {},
): Promise<MaintenanceStatus> {
  const { ownerBefore, state } = await changeMode(session, "exit", options);
  const status = maintenanceStatus(await released(session, state, options));
  const isLater = options.requestedAt && state.requestedAt?.getTime() !== options.requestedAt.getTime();
  if (status.mode === "running" || isLater) return status;
  throw new PipeweaveError(
    "condition",
    "not_owner",
    `The maintenance is ${printable(ownerBefore ?? "nobody")}'s${
      status.reason ? ` (${printable(status.reason)})` : ""
    }, since ${status.modeChangedAt.toISOString()}; the mode stays ${status.mode}`,
    {
      hint: "Ask them, or end it all the same: pipeweave maintenance:exit --force. " +
        "Containers, whose host names change, say who they are by PIPEWEAVE_OWNER.",
      data: { status },
    },
  );
}

/** How long an exit looks again where tasks that were held back could not be queued at once, and how often, in milliseconds. */
const RELEASE = { withinMs: 2000, everyMs: 200 };

/** Looks until what was held back is queued: rows that somebody has locked, transactions that end after the exit. */
async function released(
  session: Session,
  state: OrchestratorState,
  { actor, signal }: ChangeOptions,
): Promise<OrchestratorState> {
  let now = state;
  for (const deadline = Date.now() + RELEASE.withinMs; now.mode === "running" && now.heldTasksCount > 0;) {
    if (Date.now() > deadline) break;
    await sleep(RELEASE.everyMs, signal);
    now = await lookAtState(session, { actor }).catch(() => now);
  }
  return now;
}

/**
 * Makes sure that a status which says `maintenance` is so in fact: the gate is closed on every table that holds tasks, and
 * none is active.
 *
 * @throws {PipeweaveError} of kind `condition`, saying what is not so and what to do
 */
export function assertSafe(status: MaintenanceStatus): void {
  if (status.mode !== "maintenance" || status.isSafe) return;
  throw status.gate === "open"
    ? new PipeweaveError(
      "condition",
      "gate_open",
      "The mode is maintenance, but the gate is open: tasks can start",
      {
        hint:
          "A look repairs it where it may: run maintenance:status as the owner of task_runs, or db:migrate, " +
          "which also restores a missing trigger. A subscriber of replication is closed where its publisher is.",
        data: { status },
      },
    )
    : new PipeweaveError(
      "condition",
      "tasks_active",
      `The mode is maintenance, but ${
        tasks(status.pendingTasks + status.runningTasks)
      } came in behind its back`,
      {
        hint:
          "See what they are: maintenance:tasks. Wait until they have ended: maintenance:wait --for maintenance.",
        data: { status },
      },
    );
}

/** A drain in which nothing moves. */
export interface StuckDrain {
  /** Tasks that are queued. */
  readonly pending: number;
  /** Tasks that are running, and waited for. */
  readonly running: number;
  /** Which tasks it waits for. */
  readonly drain: Drain;
}

/** Options of a wait for a drain. */
export interface DrainOptions extends WaitingOptions {
  /** Start of the wait, the request included, in milliseconds since the epoch. */
  readonly since: number;
  /** A drain in which nothing moves for this long counts as stuck, in milliseconds. */
  readonly stuckAfterMs: number;
  /**
   * Told once when it is stuck: tasks are pending, none is running, and none starts; or none starts by request, and a
   * running one may wait for one that is queued.
   */
  readonly onStuck?: ((drain: StuckDrain) => void) | undefined;
}

/**
 * Waits, after a request, until the mode is `maintenance`.
 *
 * @param request the request that is waited for; a later one, after somebody called this off, is another
 * @throws {PipeweaveError} of kind `timeout`, saying what is still active; `condition` when somebody called it off
 */
export async function waitForMaintenance(
  session: Session,
  bell: Bell,
  request: RequestResult,
  options: DrainOptions,
): Promise<MaintenanceStatus> {
  const { since } = options;
  let last: Look | undefined;
  let trouble: string | undefined;
  let still: (StuckDrain & { since: number }) | undefined;
  let told = false;
  const onLook = (look: Look) => {
    last = look;
    trouble = undefined;
    const { mode, pendingTasksCount: pending, runningTasksCount: running, drain } = look.state;
    const waits = mode === "waiting_for_maintenance" && pending > 0 &&
      (drain === "running") === (running > 0);
    if (!waits || still?.pending !== pending || still.running !== running) {
      still = waits ? { pending, running, drain, since: Date.now() } : undefined;
    }
    if (still && !told && Date.now() - still.since >= options.stuckAfterMs) {
      told = true;
      options.onStuck?.(still);
    }
    options.onLook?.(look);
  };
  const isLost = ({ state }: Look) =>
    state.mode === "running" || state.requestedAt?.getTime() !== request.requestedAt?.getTime();
  const isOver = (look: Look) => isSafe(look.state) || isLost(look);
  const onTrouble = (reason: string) => {
    trouble = reason;
    options.onTrouble?.(reason);
  };
  const look = await waitUntil(session, bell, isOver, { ...options, onLook, onTrouble });
  if (look && isLost(look)) throw await calledOff(session, request, maintenanceStatus(look.state));
  if (look) return maintenanceStatus(look.state);
  throw new PipeweaveError(
    "timeout",
    "drain_timeout",
    `Not drained within ${formatDuration(Math.round(options.deadline - since))}: ${
      last ? stillActive(last) : "unknown"
    }${trouble === undefined ? "" : ` when last seen; since then ${trouble}`}`,
    {
      hint: "See maintenance:tasks for what is active, and wait on with maintenance:request --wait." +
        (last && last.state.runningTasksCount === 0
          ? " Pending tasks can stay queued: --drain running."
          : "") +
        (last && last.state.staleTasksCount > 0 ? " Stale ones can be left out: --ignore-stale." : ""),
      ...(last ? { data: { status: maintenanceStatus(last.state), left: describeLeft(last) } } : {}),
    },
  );
}

/** How many lines of the log are searched for who ended a request. */
const SEARCHED_LINES = 50;

async function calledOff(
  session: Session,
  { requestedAt, waitExpiresAt }: RequestResult,
  status: MaintenanceStatus,
): Promise<PipeweaveError> {
  // Not everybody may read the log.
  const log = await readMaintenanceLog(session, SEARCHED_LINES).catch(() => []);
  const end = log.findLast(({ modeAfter, loggedAt }) =>
    modeAfter === "running" && requestedAt !== null && loggedAt > requestedAt
  );
  // Until it is recorded, an end by time is seen by the time alone.
  const hasExpired = end ? end.action === "expire" : waitExpiresAt !== null && waitExpiresAt <= new Date();
  const who = hasExpired
    ? "its time to live ran out (--ttl)"
    : end
    ? `${end.details["as"] ?? end.osUser ?? end.databaseUser}${
      end.host ? ` on ${end.host}` : ""
    } called it off`
    : "somebody called it off";
  const now = status.mode === "running"
    ? "the mode is running"
    : `the mode is ${status.mode} by a later request of ${printable(status.owner ?? "somebody")}`;
  return new PipeweaveError(
    "condition",
    "called_off",
    `The wait for maintenance is over, and ${now}: ${who}`,
    {
      hint: "See: pipeweave maintenance:history. Ask again with maintenance:request --wait.",
      data: { status },
    },
  );
}

/**
 * Waits until the mode is this one, whoever leads there.
 *
 * @throws {PipeweaveError} of kind `timeout`
 */
export async function waitForMode(
  session: Session,
  bell: Bell,
  mode: OrchestratorMode,
  options: WaitingOptions,
): Promise<MaintenanceStatus> {
  const since = Date.now();
  let last: Look | undefined;
  const onLook = (look: Look) => {
    last = look;
    options.onLook?.(look);
  };
  const isOver = ({ state }: Look) => mode === "maintenance" ? isSafe(state) : state.mode === mode;
  const look = await waitUntil(session, bell, isOver, { ...options, onLook });
  if (look) return maintenanceStatus(look.state);
  const status = last && maintenanceStatus(last.state);
  throw new PipeweaveError(
    "timeout",
    "other_mode",
    `The mode did not become ${mode} within ${formatDuration(Date.now() - since)}: it is ${
      status ? `${status.mode} since ${status.modeChangedAt.toISOString()}` : "unknown"
    }${status?.owner ? `, requested by ${printable(status.owner)}` : ""}${
      status?.reason ? ` (${printable(status.reason)})` : ""
    }`,
    { hint: "See: pipeweave maintenance:status", ...(status ? { data: { status } } : {}) },
  );
}

/**
 * Holds a status against the mode that is expected.
 *
 * @throws {PipeweaveError} of kind `condition` when it is another
 */
export function expectMode(status: MaintenanceStatus, expected: OrchestratorMode): void {
  const { mode, message } = status;
  if (mode === expected) return assertSafe(status);
  throw new PipeweaveError("condition", "other_mode", `The mode is ${mode}, not ${expected}: ${message}`);
}
