/**
 * Progress of long work, on stderr: a line that moves on a terminal, and elsewhere a plain line now and then.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";

/** Work shorter than this shows no progress. */
const QUIET_MS = 1000;
/** How often the line on a terminal is drawn. */
const DRAW_MS = 100;
/** How often a plain line is printed elsewhere. */
const LINE_MS = 5000;
const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/** Where and how progress shows. */
export interface ProgressOptions {
  readonly shown: boolean;
  /** Whether the line may be drawn over. */
  readonly moving: boolean;
  readonly columns: number;
}

/** The progress of one command. */
export class Progress {
  #label = "";
  #since = 0;
  #timer: ReturnType<typeof setInterval> | undefined;
  #frame = 0;
  #drawn = false;

  constructor(readonly write: (text: string) => void, readonly options: ProgressOptions) {}

  /** Says what is being done now; the clock goes on when it was running. */
  update(label: string): void {
    if (!this.options.shown) return;
    this.#label = label;
    if (this.#timer !== undefined) return;
    this.#since = Date.now();
    const tick = this.options.moving
      ? () => this.#draw()
      : () => this.write(`${this.#label} (${this.#elapsed()})\n`);
    this.#timer = setInterval(tick, this.options.moving ? DRAW_MS : LINE_MS);
  }

  /** The work is done, or its report is due. */
  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#erase();
  }

  /** Prints something else without disturbing the line. */
  around(print: () => void): void {
    this.#erase();
    print();
  }

  #elapsed(): string {
    return formatDuration(Date.now() - this.#since);
  }

  #draw(): void {
    if (Date.now() - this.#since < QUIET_MS) return;
    const frame = FRAMES[this.#frame++ % FRAMES.length];
    const line = [...`${frame} ${this.#label} (${this.#elapsed()})`].slice(0, this.options.columns - 1).join(
      "",
    );
    this.write(`\r\x1b[2K${line}`);
    this.#drawn = true;
  }

  #erase(): void {
    if (this.#drawn) this.write("\r\x1b[2K");
    this.#drawn = false;
  }
}
