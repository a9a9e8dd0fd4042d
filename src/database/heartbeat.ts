/**
 * Signs of life of a run whose turn is a row with a time at which it runs out: the turn of a migration outside a
 * transaction, the run of a deployment.
 *
 * @module
 */

/** Signs of life within the time of a turn. */
const BEATS = 5;

/** Beats until it is disposed of; one beat at a time. */
export class Heartbeat implements AsyncDisposable {
  readonly #timer: ReturnType<typeof setInterval>;
  #beat: Promise<void> | undefined;

  /**
   * @param turnMs how long the turn lasts without a sign of life, in milliseconds
   * @param beat gives one; a failure of it is for the next one to mend
   */
  constructor(turnMs: number, beat: () => Promise<void>) {
    this.#timer = setInterval(
      () => this.#beat ??= beat().catch(() => {}).finally(() => this.#beat = undefined),
      turnMs / BEATS,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#beat;
  }
}
