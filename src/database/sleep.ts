/**
 * Waiting for time to pass.
 *
 * @module
 */

import { interrupted } from "../errors.ts";

/** Timers hold no more than 31 bits of milliseconds; who waits longer than this does not wait for the end of it. */
export const LONGEST_TIMER_MS: number = 2 ** 30;

/**
 * Waits.
 *
 * @param ms milliseconds
 * @param signal ends the wait early
 * @throws {PipeweaveError} of kind `interrupted` when the signal was the end
 */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(interrupted("Interrupted while waiting"));
    };
    if (signal?.aborted) return reject(interrupted("Interrupted while waiting"));
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Pause before something is tried again, in milliseconds: it grows, and a random part keeps others' rhythms apart. */
const PAUSE_MS = { base: 100, growth: 1.6, most: 10_000 };

/**
 * Milliseconds to wait before another attempt.
 *
 * @param attempt attempts so far, the one that failed just now included
 * @param most the pause grows no longer than this, in milliseconds
 */
export function pauseBefore(attempt: number, most: number = PAUSE_MS.most): number {
  const { base, growth } = PAUSE_MS;
  return Math.min(base * growth ** (attempt - 1), most) * (0.5 + Math.random());
}
