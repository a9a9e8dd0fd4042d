/**
 * Asking for maintenance and waiting for it at the terminal: for `maintenance:request --wait` and `db:migrate
 * --maintenance`.
 *
 * @module
 */

import type { RequestResult } from "../commands/maintenance.ts";
import type { Session } from "../database/session.ts";
import type { ChangeOptions, Drain } from "../maintenance/state.ts";
import { answered, type Bell, countLeft, describeLeft, type Look } from "../maintenance/wait.ts";
import { printable } from "../maintenance/printable.ts";
import { type MaintenanceStatus, tasks } from "../maintenance/status.ts";
import { formatDuration } from "../config/duration.ts";
import { messageOf, PipeweaveError } from "../errors.ts";
import type { Step } from "../output/progress.ts";
import { formatTasks } from "../output/text.ts";
import type { Invocation } from "./invocation.ts";
import type { OptionSpec } from "./spec.ts";

const DRAIN_TIMEOUT_MS = 15 * 60_000;
/** On a terminal somebody watches: it is looked again this often, in milliseconds. */
const WATCHED_MS = 1000;
/** Intervals in which nothing moves, after which a drain counts as stuck. */
const STUCK_INTERVALS = 2;
/** How long the end of a request may take after a time-out or a signal, once connected, in milliseconds. */
const CALL_OFF_MS = 15_000;
/** Lines of tasks below the bar. */
const TASK_LINES = 6;
/** How far back the rate looks, in milliseconds: a drain that has become slow is told as slow. */
const RATE_MS = 60_000;

/** What a request for maintenance may say, wherever it is made. */
export const REQUEST_OPTIONS: readonly OptionSpec[] = [
  { flags: "--reason <text:string>", description: "Why; shown by status, and kept by the log." },
  {
    flags: "--owner <name:string>",
    description:
      "Whose maintenance it is. Default: PIPEWEAVE_OWNER, or the system's user and host, such as alice@build-7",
  },
  {
    flags: "--drain <what:string>",
    description:
      "all: pending and running tasks have to end. running: pending ones stay queued, and none starts. Default: all",
  },
  {
    flags: "--ignore-stale",
    description: "Do not wait for tasks of which nothing has been heard for too long.",
  },
  {
    flags: "--ttl <duration:string>",
    description:
      "The wait goes back to running by itself after this long, unless it is asked for again with --ttl, so that one whose command was killed does not last. Maintenance, once reached, never does.",
  },
];

/** The request that the command line describes. */
export function requestOptions(invocation: Invocation): ChangeOptions {
  return {
    ...ownerOptions(invocation),
    drain: invocation.choice<Drain>("drain", "--drain", ["all", "running"]),
    ignoreStale: invocation.options["ignoreStale"] === true,
    ttlMs: ttlMs(invocation),
  };
}

function ttlMs(invocation: Invocation): number | undefined {
  const ms = invocation.duration("ttl", "--ttl");
  if (ms === 0) invocation.problem("--ttl must be greater than 0: the request would be over before it began");
  return ms;
}

/** Who acts, and why. */
export function ownerOptions(invocation: Invocation): ChangeOptions {
  return {
    actor: invocation.actor,
    owner: invocation.text("owner") || invocation.world.env["PIPEWEAVE_OWNER"] || undefined,
    reason: invocation.text("reason"),
    signal: invocation.signal,
    onLockWait: (reason) => invocation.progress.update(`Changing the mode: ${reason}`),
  };
}

/** What to do with a request of this command when its wait ends without maintenance. */
export type Ending = "stay" | "exit";

/** How to wait. */
export interface DrainWait {
  readonly timeoutMs: number;
  readonly intervalMs: number;
  readonly onTimeout: Ending;
  readonly onInterrupt: Ending;
}

/** The wait that the command line describes. */
export function drainWait(
  invocation: Invocation,
  timeoutMs: number | undefined = DRAIN_TIMEOUT_MS,
): DrainWait {
  return {
    timeoutMs,
    intervalMs: invocation.checkIntervalMs(),
    onTimeout: invocation.choice<Ending>("onTimeout", "--on-timeout", ["stay", "exit"]) ?? "stay",
    onInterrupt: invocation.choice<Ending>("onInterrupt", "--on-interrupt", ["stay", "exit"]) ?? "exit",
  };
}

/**
 * Asks for maintenance and waits until it is reached.
 *
 * @throws {PipeweaveError} of kind `timeout`, `condition` when somebody called it off, `interrupted`; it says what became
 *   of the request
 */
export async function drain(
  invocation: Invocation,
  session: Session,
  bell: Bell,
  request: ChangeOptions,
  wait: DrainWait,
): Promise<
  { readonly request: RequestResult; readonly status: MaintenanceStatus; readonly drainedMs: number }
> {
  const { requestMaintenance, waitForMaintenance } = await import("../commands/maintenance.ts");
  const since = Date.now();
  // To close the gate has to wait for transactions under way, which counts as waiting too.
  const deadline = since + wait.timeoutMs;
  const asking = requestMaintenance(session, { ...request, lockWaitMs: wait.timeoutMs });
  const asked = await answered(asking, session, { deadline, signal: invocation.signal });
  invocation.progress.stop();
  if (asked.joined) {
    invocation.note(`${joinedNote(invocation, asked)} Waiting with them.`);
  }
  invocation.event("requested", { mode: asked.mode, joined: asked.joined });
  if (asked.mode === "maintenance") return { request: asked, status: asked, drainedMs: Date.now() - since };
  invocation.note(asked.message);
  const picture = new Picture();
  const { moving, columns } = invocation.progress.options;
  try {
    const status = await waitForMaintenance(session, bell, asked, {
      actor: request.actor,
      since,
      deadline,
      intervalMs: moving ? Math.min(wait.intervalMs, WATCHED_MS) : wait.intervalMs,
      stuckAfterMs: STUCK_INTERVALS * wait.intervalMs,
      signal: invocation.signal,
      onLook: (look) => {
        invocation.event("draining", {
          pendingTasks: look.state.pendingTasksCount,
          runningTasks: look.state.runningTasksCount,
          staleTasks: look.state.staleTasksCount,
        });
        invocation.progress.update(picture.step(look, Date.now(), columns()));
      },
      onTrouble: (reason) => invocation.note(`${reason}; looking again`),
      onStuck: (pending) =>
        invocation.note(
          `Nothing moves: ${
            tasks(pending)
          } pending, none running, and none starts. An orchestrator that starts nothing while waiting never ends ` +
            "such a drain. Leave them queued: maintenance:request --wait --drain running",
        ),
    });
    invocation.progress.stop();
    return { request: asked, status, drainedMs: Date.now() - since };
  } catch (error) {
    invocation.progress.stop();
    const kind = error instanceof PipeweaveError ? error.kind : undefined;
    const ending = kind === "interrupted"
      ? wait.onInterrupt
      : kind === "timeout"
      ? wait.onTimeout
      : undefined;
    if (ending !== undefined) await end(invocation, session, asked, request, ending, error as PipeweaveError);
    throw error;
  }
}

/** Whose request was joined, and what of this command's own does not count then. */
export function joinedNote(invocation: Invocation, { owner, reason }: RequestResult): string {
  const flags = invocation.given(["--reason", "--drain", "--ignore-stale", "--ttl"]);
  return printable(
    `It was asked for by ${owner ?? "somebody"} before${reason ? ` (${reason})` : ""}, and is theirs.`,
  ) +
    (flags.length === 0 ? "" : ` Not applied: ${flags.join(", ")}.`);
}

/** Calls a request off, or leaves it, and adds to the error what became of it. */
async function end(
  invocation: Invocation,
  session: Session,
  asked: RequestResult,
  request: ChangeOptions,
  ending: Ending,
  error: PipeweaveError,
): Promise<void> {
  const { exitMaintenance } = await import("../commands/maintenance.ts");
  if (ending === "stay" || !asked.requested) {
    return error.add(
      `The mode stays waiting_for_maintenance${asked.requested ? "" : ", as it was before this command"}`,
      {
        hint: error.details.hint ??
          "Wait on: pipeweave maintenance:request --wait. Call it off: pipeweave maintenance:exit.",
      },
    );
  }
  invocation.note("Calling the request off…");
  // The session may have been ended by the signal.
  const cleaner = await invocation.openSession(session.settings, { interruptible: false });
  const { signal: _, ...unstoppable } = request;
  const late = setTimeout(() => cleaner.abandon(), CALL_OFF_MS);
  try {
    const status = await exitMaintenance(cleaner, { ...unstoppable, requestedAt: asked.requestedAt });
    error.add(
      status.mode === "running"
        ? "The request was called off: the mode is running"
        : `The request is over; the mode is ${status.mode} by a later one`,
      {
        hint: `Ask again: pipeweave maintenance:request --wait${
          error.kind === "timeout" ? ", with a longer --timeout" : ""
        }.`,
        data: { status },
      },
    );
  } catch (failure) {
    error.add(`The request could not be called off: ${messageOf(failure)}`, {
      hint: "See what the mode is, and end it: pipeweave maintenance:status, pipeweave maintenance:exit.",
    });
  } finally {
    clearTimeout(late);
    await cleaner.close();
  }
}

/** How far a drain is, from one look to the next. */
export class Picture {
  #most = 0;
  /** Tasks that had ended, at each look of the last minute. */
  #ended: { readonly at: number; readonly count: number }[] = [];
  #last: number | undefined;

  /**
   * What there is to show now: a bar, what is left, how fast it goes, and the oldest tasks.
   *
   * @param now milliseconds of the epoch
   * @param columns of the terminal
   */
  step(look: Look, now: number, columns: number): Step {
    const left = look.state.blockingTasksCount;
    this.#most = Math.max(this.#most, left);
    // What is queued meanwhile by a pipeline under way does not undo what has ended.
    const ended = (this.#ended.at(-1)?.count ?? 0) + Math.max(0, (this.#last ?? left) - left);
    this.#last = left;
    this.#ended.push({ at: now, count: ended });
    while (now - this.#ended[0]!.at > RATE_MS) this.#ended.shift();
    const first = this.#ended[0]!;
    const perSecond = (ended - first.count) / Math.max(1, now - first.at) * 1000;
    const rate = perSecond === 0 ? "" : `; ${perSecond.toFixed(1)}/s`;
    const eta = perSecond === 0 || left === 0
      ? ""
      : `, about ${formatDuration(Math.ceil(left / perSecond) * 1000)}`;
    const oldest = look.oldest.length === 0 ? [] : formatTasks(look.oldest, columns - 3).split("\n");
    return {
      label: `Draining: ${tasks(left)} left${eta}`,
      fraction: this.#most === 0 ? 1 : 1 - left / this.#most,
      more: `${describeLeft(look)}${rate}`,
      below: [
        `  ${countLeft(look.state)}${rate}`,
        ...(look.heldUpBy === undefined ? [] : [`  held up by ${look.heldUpBy}`]),
        ...oldest.slice(0, TASK_LINES).map((line) => `  ${line}`),
      ],
    };
  }
}
