/**
 * A drain on the command line: its options, and what is shown of it. For `maintenance:request` and `db:migrate
 * --maintenance`.
 *
 * @module
 */

import type { RequestResult, StuckDrain } from "../commands/maintenance.ts";
import { DRAIN_TIMEOUT_MS, type DrainEvents, type DrainWait, type Ending } from "../commands/drain.ts";
import type { ChangeOptions, Drain } from "../maintenance/state.ts";
import { countLeft, describeLeft, type Look } from "../maintenance/wait.ts";
import { printable } from "../printable.ts";
import { tasks } from "../maintenance/status.ts";
import { formatDuration } from "../config/duration.ts";
import type { Step } from "../output/progress.ts";
import { PLAIN } from "../output/page.ts";
import { formatTasks } from "../output/maintenance_text.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import type { OptionSpec } from "./spec.ts";
import { duration, oneOf, text } from "./values.ts";

/** On a terminal somebody watches: it is looked again this often, in milliseconds. */
const WATCHED_MS = 1000;
/** Lines of tasks below the bar. */
const TASK_LINES = 6;
/** How far back the rate looks, in milliseconds: a drain that has become slow is told as slow. */
const RATE_MS = 60_000;

/** The column holds no more. */
const LONGEST_SETTLE_MS = 24 * 60 * 60_000;

/** What a request for maintenance may say, wherever it is made. */
export const REQUEST_OPTIONS: readonly OptionSpec[] = [
  { flag: "--reason", value: text("text"), description: "Why; shown by status, and kept by the log." },
  {
    flag: "--owner",
    isSetting: true,
    variable: "PIPEWEAVE_OWNER",
    value: text("name"),
    description: "Whose maintenance it is.",
    defaultsTo: "PIPEWEAVE_OWNER, or the system's user and host, such as alice@build-7",
  },
  {
    flag: "--drain",
    isSetting: true,
    value: oneOf("what", "all", "running"),
    description:
      "all: pending and running tasks have to end. running: pending ones stay queued, and none starts.",
    defaultsTo: "all",
  },
  {
    flag: "--settle",
    isSetting: true,
    value: duration({ atMostMs: LONGEST_SETTLE_MS, rule: "must be 24h or shorter" }),
    description:
      "How long to wait, after the last task has ended, for what may follow: the next step of a pipeline run, or a retry. Where nothing can, it does not wait.",
    defaultsTo: "2s",
  },
  {
    flag: "--ignore-stale",
    isSetting: true,
    description: "Do not wait for tasks of which nothing has been heard for too long.",
  },
  {
    flag: "--ttl",
    value: duration({
      atLeastMs: 1,
      rule: "must be greater than 0: the request would be over before it began",
    }),
    description:
      "The wait goes back to running by itself after this long, unless it is asked for again with --ttl, so that one whose command was killed does not last. Maintenance, once reached, never does.",
  },
];

/** The request that the command line describes. */
export function requestOptions(input: Input, terminal: Terminal): ChangeOptions {
  return {
    ...ownerOptions(input, terminal),
    drain: input.choice<Drain>("--drain"),
    settleMs: input.duration("--settle"),
    ignoreStale: input.has("--ignore-stale"),
    ttlMs: input.duration("--ttl"),
  };
}

/** Who acts, and why. */
export function ownerOptions(input: Input, terminal: Terminal): ChangeOptions {
  return {
    actor: input.actor,
    owner: input.text("--owner") || input.world.env["PIPEWEAVE_OWNER"] || undefined,
    reason: input.text("--reason"),
    signal: input.signal,
    onLockWait: (reason) => terminal.progress.update(`Changing the mode: ${reason}`),
  };
}

/** The wait that the command line describes. */
export function drainWait(
  input: Input,
  terminal: Terminal,
  timeoutMs: number | undefined = DRAIN_TIMEOUT_MS,
): DrainWait {
  const intervalMs = input.checkIntervalMs();
  return {
    ...{ timeoutMs, intervalMs, lookEveryMs: lookEveryMs(terminal, intervalMs) },
    onTimeout: input.choice<Ending>("--on-timeout") ?? "stay",
    onInterrupt: input.choice<Ending>("--on-interrupt") ?? "exit",
  };
}

/** Milliseconds between two looks of a drain: shorter where somebody watches. */
export function lookEveryMs(terminal: Terminal, intervalMs: number): number {
  return terminal.progress.options.moving ? Math.min(intervalMs, WATCHED_MS) : intervalMs;
}

/** Shows how far a drain is. */
export function drainEvents(input: Input, terminal: Terminal): DrainEvents {
  const { progress } = terminal;
  const picture = new Picture();
  return {
    onRequested: (asked) => {
      progress.stop();
      if (asked.joined) terminal.note(`${joinedNote(input, asked)} Waiting with them.`);
      terminal.event("requested", { mode: asked.mode, joined: asked.joined });
      if (asked.mode !== "maintenance") terminal.note(asked.message);
    },
    onLook: (look) => {
      terminal.event("draining", {
        pendingTasks: look.state.pendingTasksCount,
        runningTasks: look.state.runningTasksCount,
        staleTasks: look.state.staleTasksCount,
      });
      const now = Date.now();
      const step = picture.step(look, now, progress.options.columns());
      const then = describeLeft(look);
      progress.update({
        ...step,
        moreNow: () => step.more?.replace(then, () => describeLeft(look, Date.now() - now)) ?? "",
      });
    },
    onTrouble: (reason) => terminal.note(`${reason}; looking again`),
    onStuck: (stuck) => terminal.note(describeStuck(stuck)),
    onCallingOff: () => {
      progress.stop();
      terminal.note("Calling the request off…");
    },
  };
}

function describeStuck({ pending, running, drain }: StuckDrain): string {
  return drain === "all"
    ? `Nothing moves: ${
      tasks(pending)
    } pending, none running, and none starts. An orchestrator that starts nothing ` +
      "while waiting never ends such a drain. Leave them queued: maintenance:request --wait --drain running"
    : `Nothing moves: ${
      tasks(running)
    } running, ${pending} queued, and none starts under --drain running. A running ` +
      "task that waits for a queued one never ends. Let the queued ones run: maintenance:request --wait --drain all";
}

/** Whose request was joined, and what of this command's own does not count then. */
export function joinedNote(input: Input, { owner, reason }: RequestResult): string {
  const flags = input.given(["--reason", "--drain", "--settle", "--ignore-stale", "--ttl"]);
  return printable(
    `It was asked for by ${owner ?? "somebody"} before${reason ? ` (${reason})` : ""}, and is theirs.`,
  ) +
    (flags.length === 0 ? "" : ` Not applied: ${flags.join(", ")}.`);
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
    const oldest = look.oldest.length === 0
      ? []
      : formatTasks(look.oldest, { ...PLAIN, columns: columns - 3 }).split("\n");
    const settling = look.state.settlesInMs > 0 ? ", waiting for what may follow" : "";
    return {
      label: `Draining: ${tasks(left)} left${eta}${settling}`,
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
