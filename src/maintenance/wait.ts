/**
 * Waiting for a mode: by NOTIFY where the connection can listen, and by looking again now and then, which always works.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { interrupted, messageOf, PipeweaveError } from "../errors.ts";
import { sql } from "../database/sql.ts";
import type { Session } from "../database/session.ts";
import { pauseBefore, sleep } from "../database/sleep.ts";
import { type LookOptions, lookWith, type OrchestratorState } from "./state.ts";
import { tasks } from "./status.ts";
import { type ActiveTask, listStatement, taskOf } from "./tasks.ts";

/** How many of the oldest tasks are looked at. */
const OLDEST = 5;
/**
 * After a look there is none for this many times as long as it took, so that a drain of many tasks, each of which is
 * heard of when it ends, is not slowed by the looking.
 */
const REST = 9;

/** What a look saw. */
export interface Look {
  readonly state: OrchestratorState;
  /** The oldest active tasks, the running ones first. */
  readonly oldest: readonly ActiveTask[];
  /** Who keeps a transition that is due from being completed. */
  readonly heldUpBy?: string | undefined;
}

/** How to wait. */
export interface WaitingOptions extends LookOptions {
  /** When to give up, in milliseconds of the epoch. */
  readonly deadline: number;
  /** Milliseconds between two looks without a notification. */
  readonly intervalMs: number;
  readonly onLook?: ((look: Look) => void) | undefined;
  /** Told why a look failed; the next one connects anew. */
  readonly onTrouble?: ((reason: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Wakes whoever waits: to be rung by the session's `onNotify` (channel `pipeweave_maintenance`, of migration 004). */
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
  let heldUp = 0;
  for (;;) {
    let pause = intervalMs;
    let rest = 0;
    const start = Date.now();
    try {
      const { state, more: [oldest = []], heldUpBy } = await lookWith(
        session,
        options,
        listStatement(schema, { limit: OLDEST }),
      );
      const look: Look = { state, oldest: oldest.map(taskOf), heldUpBy };
      failures = 0;
      rest = REST * (Date.now() - start);
      onLook?.(look);
      if (isOver(look)) return look;
      heldUp = heldUpBy === undefined ? 0 : heldUp + 1;
      if (heldUp > 0) pause = Math.min(pause, pauseBefore(heldUp));
      // Through a pooler a notification would reach whoever has the server connection by then.
      const direct = session.serverProcess === state.serverProcess ? state.serverProcess : undefined;
      if (direct !== undefined && listening !== direct) {
        await session.transaction(sql`LISTEN pipeweave_maintenance;`);
        listening = direct;
        // What happened between the look and this goes unheard.
        pause = 0;
      }
    } catch (error) {
      if (!(error instanceof PipeweaveError) || error.kind !== "connection") throw error;
      if (Date.now() >= deadline) throw error;
      onTrouble?.(messageOf(error));
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

/** `2 running, 3 pending`, with the oldest running one. */
export function describeLeft({ state, oldest, heldUpBy }: Look): string {
  const first = oldest[0];
  const told = first
    ? `; oldest: ${first.id} (${first.taskId}, ${first.status} for ${formatDuration(first.ageMs)}${
      first.silentMs === null ? "" : `, heartbeat ${formatDuration(first.silentMs)} ago`
    }${first.stale ? ", STALE" : ""})`
    : "";
  return `${countLeft(state)}${told}${heldUpBy === undefined ? "" : `; held up by ${heldUpBy}`}`;
}

/** `2 running, 3 pending, 1 of them stale`. */
export function countLeft(
  { runningTasksCount: running, pendingTasksCount: pending, staleTasksCount: stale }: OrchestratorState,
): string {
  return `${running} running, ${pending} pending${stale === 0 ? "" : `, ${stale} of them stale`}`;
}

/** `5 tasks still active (…)`. */
export function stillActive(look: Look): string {
  return `${tasks(look.state.blockingTasksCount)} still active (${describeLeft(look)})`;
}
