/**
 * Waiting for a mode: by NOTIFY where the connection can listen, and by looking again now and then, which always works.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { interrupted, messageOf, PipeweaveError } from "../errors.ts";
import { isLockConflict } from "../database/conflict.ts";
import { mayComeUp } from "../database/failures.ts";
import { sql } from "../database/sql.ts";
import type { Session } from "../database/session.ts";
import { LONGEST_TIMER_MS, pauseBefore, sleep } from "../database/sleep.ts";
import { activeCount, type LookOptions, lookWith, type OrchestratorState } from "./state.ts";
import { tasks } from "./status.ts";
import { printable } from "../printable.ts";
import { type ActiveTask, describeAge, listStatement, taskOf } from "./tasks.ts";

/** How many of the oldest tasks are told, of those that are waited for. */
const OLDEST = 5;
/** How many are read to find them: what is ignored comes first, since it is stale. */
const READ = 100;
/**
 * After a look there is none for this many times as long as it took, so that a drain of many tasks, each of which is
 * heard of when it ends, is not slowed by the looking.
 */
const REST = 9;

/** Until a time to live runs out by the server's clock, which is not ours, there is a look this often, in milliseconds. */
const MIN_PAUSE_MS = 100;
/** How long after the deadline, or the signal, a look that is under way may still be answered, in milliseconds. */
const GRACE_MS = 1000;

/** A look may take this long at most, however often one before it took too long, in milliseconds. */
const LONGEST_ANSWER_MS = 60_000;

/** What a look saw. */
export interface Look {
  /** What was read. */
  readonly state: OrchestratorState;
  /** The oldest active tasks that are waited for, the running ones first. */
  readonly oldest: readonly ActiveTask[];
  /** Who keeps a transition that is due from being completed. */
  readonly heldUpBy?: string | undefined;
}

/** Options of a wait. */
export interface WaitingOptions extends LookOptions {
  /** When to give up, in milliseconds of the epoch. */
  readonly deadline: number;
  /** Milliseconds between two looks without a notification. */
  readonly intervalMs: number;
  /**
   * How long a look may take, in milliseconds, before the connection counts as lost; twice as long after each that did.
   * Default: as long as the deadline is
   */
  readonly answerWithinMs?: number | undefined;
  readonly onLook?: ((look: Look) => void) | undefined;
  /** Told why a look failed, once for each reason; the next one connects anew. */
  readonly onTrouble?: ((reason: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Wakes whoever waits: to be rung by the session's `onNotify` (channel `pipeweave_maintenance`, of migration 90004). */
export class Bell {
  #wake: (() => void) | undefined;
  #rung = false;

  /** Ends the wait under way, or the next one. */
  readonly ring = (): void => {
    this.#rung = true;
    this.#wake?.();
  };

  /** Waits until it rings or the time is over. */
  async wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
    if (!this.#rung) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
        signal?.addEventListener("abort", this.#wake, { once: true });
      });
      if (this.#wake) signal?.removeEventListener("abort", this.#wake);
      this.#wake = undefined;
    }
    this.#rung = false;
    if (signal?.aborted) throw interrupted("Interrupted while waiting");
  }
}

/**
 * Looks until `isOver` says so. Each look completes a transition that is due; one that fails for the connection is made
 * again.
 *
 * @param bell rung by the session's notifications
 * @returns the last look; undefined when the deadline came first
 * @throws {PipeweaveError} whatever a look fails with, the connection and its loss excepted; `interrupted`
 */
export async function waitUntil(
  session: Session,
  bell: Bell,
  isOver: (look: Look) => boolean,
  options: WaitingOptions,
): Promise<Look | undefined> {
  const { deadline, intervalMs, onLook, onTrouble, signal } = options;
  const { schema } = session.settings;
  let listening: number | undefined;
  let failures = 0;
  let told: string | undefined;
  let heldUp = 0;
  for (;;) {
    let pause = intervalMs;
    let rest = 0;
    const start = Date.now();
    const limits = {
      ...options,
      answerWithinMs: options.answerWithinMs &&
        Math.min(options.answerWithinMs * 2 ** failures, LONGEST_ANSWER_MS),
    };
    try {
      const { state, more: [oldest = []], heldUpBy } = await answered(
        lookWith(session, options, listStatement(schema, { limit: READ })),
        session,
        limits,
      );
      const look: Look = { state, oldest: waitedFor(state, oldest.map(taskOf)).slice(0, OLDEST), heldUpBy };
      failures = 0;
      told = undefined;
      rest = REST * (Date.now() - start);
      onLook?.(look);
      if (isOver(look)) return look;
      heldUp = heldUpBy === undefined ? 0 : heldUp + 1;
      if (heldUp > 0) pause = Math.min(pause, pauseBefore(heldUp));
      if (state.waitExpiresAt) {
        pause = Math.min(pause, Math.max(MIN_PAUSE_MS, +state.waitExpiresAt - Date.now()));
      }
      if (state.settlesInMs > 0) pause = Math.min(pause, state.settlesInMs);
      // Through a pooler a notification would reach whoever has the server connection by then.
      const direct = session.serverProcess === state.serverProcess ? state.serverProcess : undefined;
      if (direct !== undefined && listening !== direct) {
        await answered(session.transaction(sql`LISTEN pipeweave_maintenance;`), session, limits);
        listening = direct;
        // What happened between the look and this goes unheard.
        pause = 0;
      }
    } catch (error) {
      if (signal?.aborted) throw interrupted("Interrupted while waiting");
      if (!mayPass(error)) throw error;
      if (told !== messageOf(error)) onTrouble?.(told = messageOf(error));
      listening = undefined;
      pause = pauseBefore(++failures);
    }
    const now = Date.now();
    if (now >= deadline) return undefined;
    pause = Math.min(pause, deadline - now);
    rest = Math.min(rest, pause);
    await sleep(rest, signal);
    await bell.wait(pause - rest, signal);
  }
}

/** Whether the next look may do better: the connection is lost, the server not up yet, or a migration has the tables. */
function mayPass(error: unknown): boolean {
  return error instanceof PipeweaveError &&
    (mayComeUp(error) || ["no_answer", "database_not_up"].includes(error.code) || isLockConflict(error));
}

/**
 * What work on a session comes to. It fails, as the loss of the connection does, when there is no answer some time after
 * the deadline or the signal, or within the limit.
 */
export async function answered<T>(
  work: Promise<T>,
  session: Session,
  { deadline, answerWithinMs, signal }: Pick<WaitingOptions, "deadline" | "answerWithinMs" | "signal">,
): Promise<T> {
  // Promise.withResolvers would do, but Node 20 does not have it.
  let fail: (error: PipeweaveError) => void = () => {};
  const late = new Promise<never>((_, reject) => fail = reject);
  const timers: ReturnType<typeof setTimeout>[] = [];
  const giveUpAfter = (ms: number) =>
    timers.push(setTimeout(() => {
      const isInterrupted = signal?.aborted ?? false;
      session.abandon();
      fail(
        isInterrupted
          ? new PipeweaveError(
            "interrupted",
            "interrupted",
            `Interrupted, and ${session.target} did not answer any more: what was asked for may be done or not`,
            { hint: "See: pipeweave maintenance:status." },
          )
          : new PipeweaveError("connection", "no_answer", `${session.target} does not answer`),
      );
    }, ms));
  const onAbort = () => giveUpAfter(GRACE_MS);
  if (deadline - Date.now() < LONGEST_TIMER_MS) giveUpAfter(Math.max(0, deadline - Date.now()) + GRACE_MS);
  if (answerWithinMs !== undefined) giveUpAfter(answerWithinMs);
  signal?.addEventListener("abort", onAbort);
  try {
    return await Promise.race([work, late]);
  } finally {
    for (const timer of timers) clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    work.catch(() => {});
  }
}

/**
 * `2 running, 3 pending`, with the oldest running one.
 *
 * @param elapsedMs milliseconds since the look
 */
export function describeLeft({ state, oldest, heldUpBy }: Look, elapsedMs = 0): string {
  const first = oldest[0] && {
    ...oldest[0],
    ageMs: oldest[0].ageMs + elapsedMs,
    silentMs: oldest[0].silentMs === null ? null : oldest[0].silentMs + elapsedMs,
  };
  const told = first
    ? `; oldest: ${printable(first.id)} (${printable(first.taskId)}, ${first.status} ${
      describeAge(first).replace("waits for", "for")
    }${first.silentMs === null ? "" : `, heartbeat ${formatDuration(first.silentMs)} ago`}${
      first.stale ? ", STALE" : ""
    })`
    : "";
  return `${countLeft(state)}${told}${settling(state)}${
    heldUpBy === undefined ? "" : `; held up by ${heldUpBy}`
  }`;
}

function settling({ settlesInMs }: OrchestratorState): string {
  return settlesInMs > 0 ? "; waits for what may follow from tasks that have ended" : "";
}

/** `2 running, 3 pending, 1 of them stale`; and what of that is not waited for. */
export function countLeft(state: OrchestratorState): string {
  const { runningTasksCount: running, pendingTasksCount: pending, staleTasksCount: stale } = state;
  const kept = activeCount(state) - state.blockingTasksCount;
  return `${running} running, ${pending} pending${stale === 0 ? "" : `, ${stale} of them stale`}` +
    (state.mode === "running" || kept === 0 ? "" : `; ${kept} not waited for`);
}

function waitedFor(
  { drain, ignoredTasks }: OrchestratorState,
  tasks: readonly ActiveTask[],
): readonly ActiveTask[] {
  const ignored = new Set(ignoredTasks);
  return tasks.filter(({ id, status }) => !ignored.has(id) && (drain === "all" || status === "running"));
}

/** `5 tasks still active (…)`. */
export function stillActive(look: Look): string {
  return `${tasks(look.state.blockingTasksCount)} still active (${describeLeft(look)})`;
}
