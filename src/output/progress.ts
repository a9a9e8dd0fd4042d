/**
 * Progress of long work, on stderr: a line that moves on a terminal, and elsewhere a plain line now and then.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { printable } from "../printable.ts";
import { cellsOf, fitted } from "./cells.ts";

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
  /** Columns of the terminal as it is now. */
  readonly columns: () => number;
  /** Rows of the terminal as it is now. Default: as many as are needed */
  readonly rows?: () => number;
}

/** Cells of a bar. */
const BAR_CELLS = 12;

/** What is being done now. */
export interface Step {
  /** What, as short as it can be told. */
  readonly label: string;
  /** How much of it is done, from 0 to 1, where that is known. */
  readonly fraction?: number | undefined;
  /** What else there is to say; a narrow terminal cuts it off. */
  readonly more?: string | undefined;
  /** `more` as it is by now, where it tells how old something is. */
  readonly moreNow?: (() => string) | undefined;
  /** In place of `more` on a terminal: lines below the first. */
  readonly below?: readonly string[] | undefined;
}

/** `███░░░ 50%` */
export function bar(fraction: number): string {
  const full = Math.floor(fraction * BAR_CELLS);
  return `${"█".repeat(full)}${"░".repeat(BAR_CELLS - full)} ${Math.floor(fraction * 100)}%`;
}

/** The progress of one command. */
export class Progress {
  #step: Step = { label: "" };
  #since = 0;
  #timer: ReturnType<typeof setInterval> | undefined;
  #frame = 0;
  /** The lines that stand on the terminal, and go before anything else is printed. */
  #drawn: readonly string[] = [];

  readonly write: (text: string) => void;
  readonly options: ProgressOptions;

  constructor(write: (text: string) => void, options: ProgressOptions) {
    this.write = write;
    this.options = options;
  }

  /** Sets the line that is shown; a running clock goes on. */
  update(step: string | Step): void {
    if (!this.options.shown) return;
    this.#step = typeof step === "string" ? { label: step } : step;
    if (this.#timer !== undefined) return;
    this.#since = Date.now();
    const tick = this.options.moving ? () => this.#draw() : () => this.write(`${this.#text()}\n`);
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

  #text(): string {
    const { label, fraction, more, moreNow } = this.#step;
    const done = fraction === undefined ? "" : ` ${bar(fraction)}`;
    const told = moreNow?.() ?? more;
    return printable(
      `${label}${done} (${formatDuration(Date.now() - this.#since)})${told ? `: ${told}` : ""}`,
    );
  }

  #draw(): void {
    if (Date.now() - this.#since < QUIET_MS) return;
    const frame = FRAMES[this.#frame++ % FRAMES.length];
    const { label, fraction, more, below } = this.#step;
    // What changes comes first: a narrow terminal cuts off the rest.
    const first = [
      frame,
      formatDuration(Date.now() - this.#since),
      ...(fraction === undefined ? [] : [bar(fraction)]),
      more && !below ? `${label}: ${more}` : label,
    ].join(" ");
    // Lines that the terminal breaks, or that do not fit it, could not be taken back.
    // The terminal shows ^C behind it.
    const room = Math.max(1, this.options.columns() - 3);
    const rows = Math.max(1, (this.options.rows?.() ?? Infinity) - 1);
    const lines = [first, ...(below ?? [])].slice(0, rows).map((line) => fitted(printable(line), room));
    this.write(`${this.#eraser()}${lines.join("\n")}`);
    this.#drawn = lines;
  }

  #erase(): void {
    if (this.#drawn.length > 0) this.write(this.#eraser());
    this.#drawn = [];
  }

  /** What takes the cursor back to where drawing began, and clears from there on. */
  #eraser(): string {
    const columns = this.options.columns();
    // A terminal that has become narrower since has broken the lines.
    const rows = this.#drawn.reduce(
      (sum, line) => sum + Math.max(1, Math.ceil(cellsOf(line) / columns)),
      0,
    );
    return `\r${rows > 1 ? `\x1b[${rows - 1}A` : ""}\x1b[J`;
  }
}
