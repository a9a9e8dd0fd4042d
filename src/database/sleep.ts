import { interrupted } from "../errors.ts";

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
