/**
 * Asking for maintenance and waiting until it is reached: what `maintenance:request --wait` and a deployment share.
 *
 * @module
 */

import { messageOf, PipeweaveError } from "../errors.ts";
import type { Session } from "../database/session.ts";
import type { ChangeOptions } from "../maintenance/state.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { answered, type Bell, type Look } from "../maintenance/wait.ts";
import {
  exitMaintenance,
  requestMaintenance,
  type RequestResult,
  type StuckDrain,
  waitForMaintenance,
} from "./maintenance.ts";

/** Default limit for a drain, in milliseconds. */
export const DRAIN_TIMEOUT_MS = 15 * 60_000;
/** Intervals in which nothing moves, after which a drain counts as stuck. */
const STUCK_INTERVALS = 2;
/** Limit for ending a request after a time-out or a signal, once connected, in milliseconds. */
const CALL_OFF_MS = 4000;
/** Limit for the lock on the state row meanwhile, in milliseconds. */
const CALL_OFF_LOCK_MS = 2000;

/** What to do with our own request when its wait ends without maintenance. */
export type Ending = "stay" | "exit";

/** Options of a wait. */
export interface DrainWait {
  /** How long, the request included, in milliseconds. */
  readonly timeoutMs: number;
  /** Milliseconds between two looks without a notification. */
  readonly intervalMs: number;
  /** The same where somebody watches. Default: as `intervalMs` */
  readonly lookEveryMs?: number | undefined;
  readonly onTimeout: Ending;
  readonly onInterrupt: Ending;
}

/** Callbacks for the progress of a drain. */
export interface DrainEvents {
  /** Maintenance was asked for, or is on already. */
  readonly onRequested?: ((request: RequestResult) => void) | undefined;
  /** The state was looked at. */
  readonly onLook?: ((look: Look) => void) | undefined;
  /** A look failed; the next one connects anew. */
  readonly onTrouble?: ((reason: string) => void) | undefined;
  /** Nothing moves any more. Told once. */
  readonly onStuck?: ((drain: StuckDrain) => void) | undefined;
  /** The request is called off, after a time-out or an interruption. */
  readonly onCallingOff?: (() => void) | undefined;
}

/** A drain that has reached maintenance. */
export interface Drained {
  /** Result of the request. */
  readonly request: RequestResult;
  /** The status when maintenance was reached. */
  readonly status: MaintenanceStatus;
  /** Duration in milliseconds. */
  readonly drainedMs: number;
}

/**
 * Asks for maintenance and waits until it is reached.
 *
 * @param bell rung by the session's notifications
 * @throws {PipeweaveError} of kind `timeout`, `condition` when somebody called it off, `interrupted`; it says what became
 *   of the request
 */
export async function drain(
  session: Session,
  bell: Bell,
  request: ChangeOptions,
  wait: DrainWait,
  events: DrainEvents = {},
): Promise<Drained> {
  const since = Date.now();
  const { signal } = request;
  // To close the gate has to wait for transactions under way, which counts as waiting too.
  const deadline = since + wait.timeoutMs;
  const asking = requestMaintenance(session, { ...request, lockWaitMs: wait.timeoutMs });
  const asked = await answered(asking, session, { deadline, signal });
  events.onRequested?.(asked);
  if (asked.isSafe) return { request: asked, status: asked, drainedMs: Date.now() - since };
  try {
    const status = await waitForMaintenance(session, bell, asked, {
      actor: request.actor,
      since,
      deadline,
      intervalMs: wait.lookEveryMs ?? wait.intervalMs,
      stuckAfterMs: STUCK_INTERVALS * wait.intervalMs,
      signal,
      onLook: events.onLook,
      onTrouble: events.onTrouble,
      onStuck: events.onStuck,
    });
    return { request: asked, status, drainedMs: Date.now() - since };
  } catch (error) {
    const kind = error instanceof PipeweaveError ? error.kind : undefined;
    const ending = { interrupted: wait.onInterrupt, timeout: wait.onTimeout }[String(kind)];
    if (ending !== undefined) await end(session, asked, request, ending, error as PipeweaveError, events);
    throw error;
  }
}

/** Calls a request off, or leaves it, and adds to the error what became of it. */
async function end(
  session: Session,
  asked: RequestResult,
  request: ChangeOptions,
  ending: Ending,
  error: PipeweaveError,
  { onCallingOff }: DrainEvents,
): Promise<void> {
  if (ending === "stay" || !asked.requested) {
    return error.add(
      `The mode stays waiting_for_maintenance${asked.requested ? "" : ", as it was before this command"}`,
      {
        hint: error.details.hint ??
          "Wait on: pipeweave maintenance:request --wait. Call it off: pipeweave maintenance:exit.",
      },
    );
  }
  onCallingOff?.();
  await using cleaner = session.beside();
  const { signal: _, ...who } = request;
  const late = setTimeout(() => cleaner.abandon(), CALL_OFF_MS);
  try {
    const status = await exitMaintenance(cleaner, {
      ...{ ...who, requestedAt: asked.requestedAt, lockWaitMs: CALL_OFF_LOCK_MS },
    });
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
  }
}
