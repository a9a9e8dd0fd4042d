/**
 * `maintenance:watch`: a screen that follows the mode, and two keys to change it.
 *
 * @module
 */

import { interrupted, messageOf, PipeweaveError } from "../errors.ts";
import type { Session } from "../database/session.ts";
import { sql } from "../database/sql.ts";
import { logRowOf, logStatement } from "../maintenance/log.ts";
import { maintenanceStatus } from "../maintenance/status.ts";
import { type ChangeOptions, lookWith } from "../maintenance/state.ts";
import { listStatement, taskOf } from "../maintenance/tasks.ts";
import { Bell } from "../maintenance/wait.ts";
import { type Counts, noteFits, watchScreen, watchSnapshot, type WatchView } from "../output/watch.ts";
import { ownerOptions, Picture } from "./drain.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { migratedSession } from "./migrate.ts";

/** Pause between two looks, in milliseconds; a screen is watched by people. */
const EVERY_MS = 1000;
/** Looks that are kept for the chart. */
const KEPT = 600;
const LISTED = 100;
const LOG_LINES = 20;
/** The alternate screen, without a cursor; and back. */
const [ENTER, LEAVE] = ["\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"];
const CTRL_C = "\x03";
/** A key that changes the mode: request, exit. */
type Change = "r" | "x";

/** How long a change that is under way may take when a key ends the watching, in milliseconds. */
const LAST_ACT_MS = 1000;
/** How long a question is shown, in milliseconds. */
const ANSWER_MS = 60_000;
/** How long what a key led to is shown, in milliseconds. */
const NOTE_MS = 8000;

/** Runs the command. */
export async function runWatch(input: Input, terminal: Terminal): Promise<void> {
  const { world } = input;
  const once = input.has("--once") || terminal.json;
  if (!once && !(world.keys && world.outIsTerminal)) {
    input.problem("--once is needed where there is no terminal to draw on and to read keys from");
  } else if (!once && world.env["TERM"] === "dumb") {
    input.problem("--once is needed on a terminal that cannot be drawn on: TERM is dumb");
  }
  const request = ownerOptions(input, terminal);
  const bell = new Bell();
  await using session = await migratedSession(input, terminal, bell.ring);
  const source = new Source(session, request);
  if (!once) return await new Screen(input, terminal, session, request, bell, source).run();
  const view = await source.look();
  const { status, tasks, log } = view;
  terminal.result(
    () => ({ ...status, tasks, history: log }),
    () => watchSnapshot(view, terminal.page),
  );
}

/** What is watched. */
class Source {
  readonly #counts: Counts[] = [];
  #picture = new Picture();

  readonly session: Session;
  readonly request: ChangeOptions;

  constructor(session: Session, request: ChangeOptions) {
    this.session = session;
    this.request = request;
  }

  /** Reads all of it in one round trip. */
  async look(): Promise<WatchView> {
    const { schema } = this.session.settings;
    const lists = sql`${listStatement(schema, { limit: LISTED })}${logStatement(schema, LOG_LINES)}`;
    const { state, more: [tasks = [], log = []] } = await lookWith(this.session, this.request, lists);
    const status = maintenanceStatus(state);
    this.#counts.push({ running: status.runningTasks, pending: status.pendingTasks });
    if (this.#counts.length > KEPT) this.#counts.shift();
    const isDraining = status.mode === "waiting_for_maintenance";
    // The next drain has a beginning of its own.
    if (!isDraining) this.#picture = new Picture();
    return {
      ...{ status, tasks: tasks.map(taskOf), log: log.map(logRowOf) },
      ...{ counts: this.#counts, everyMs: EVERY_MS },
      drain: isDraining ? this.#picture.step({ state, oldest: [] }, Date.now(), Infinity) : undefined,
    };
  }
}

/** The full screen. */
class Screen {
  #view: WatchView | undefined;
  #note = "";
  #noteUntil = 0;
  readonly #pressed: string[] = [];
  /** What was asked about, and not answered yet. */
  #asks: Change | undefined;
  #isExplained = false;
  #quits = false;
  /** Whether a key closed the gate last, and none opened it. */
  #closed = false;
  #acting: Promise<void> = Promise.resolve();
  readonly #ending = new AbortController();

  readonly input: Input;
  readonly terminal: Terminal;
  readonly session: Session;
  readonly request: ChangeOptions;
  readonly bell: Bell;
  readonly source: Source;

  constructor(
    input: Input,
    terminal: Terminal,
    session: Session,
    request: ChangeOptions,
    bell: Bell,
    source: Source,
  ) {
    this.input = input;
    this.terminal = terminal;
    this.session = session;
    this.request = request;
    this.bell = bell;
    this.source = source;
  }

  /**
   * Draws until a key ends it.
   *
   * @throws {PipeweaveError} whatever the first look fails with; `interrupted`
   */
  async run(): Promise<void> {
    const { input: { world }, source } = this;
    this.#view = await source.look();
    const quit = Promise.withResolvers<void>();
    const release = world.keys!((key) => {
      if (key === "q" || key === CTRL_C) {
        this.#quits = true;
        quit.resolve();
      }
      this.#pressed.push(key);
      this.bell.ring();
    });
    world.out(ENTER);
    try {
      // A key ends it at once, also while the server does not answer.
      await Promise.race([this.#follow(), quit.promise]);
      this.#ending.abort();
      await Promise.race([this.#acting, new Promise((resolve) => setTimeout(resolve, LAST_ACT_MS))]);
    } finally {
      this.#quits = true;
      world.out(LEAVE);
      release();
    }
    if (this.#closed) {
      this.terminal.note(
        "This watch asked for maintenance, and that stays. See maintenance:status; call it off with maintenance:exit.",
      );
    }
  }

  async #follow(): Promise<void> {
    const { input: { signal }, bell, source } = this;
    while (!this.#quits) {
      this.#draw();
      await bell.wait(EVERY_MS, signal);
      for (const key of this.#pressed.splice(0)) {
        await (this.#acting = this.#take(key));
        // What was typed before the question was seen is no answer to it.
        if (this.#asks) break;
      }
      try {
        this.#view = await source.look();
      } catch (error) {
        if (signal.aborted) throw interrupted("Interrupted");
        // What is shown is what was read last, and it says so.
        this.#say(`Not up to date: ${messageOf(error)}`, EVERY_MS);
      }
    }
  }

  /** Takes a key: one that changes the mode is asked about first. */
  async #take(key: string): Promise<void> {
    const asked = this.#asks;
    this.#asks = undefined;
    if (asked) return key === "y" ? await this.#act(asked) : this.#say("Nothing was changed");
    this.#isExplained = key === "?" && !this.#isExplained;
    if (key !== "r" && key !== "x") return;
    const { target } = this.session;
    const question = key === "r"
      ? `Close the queue of ${target}? y closes it, any other key leaves it open`
      : `Open the queue of ${target}? Tasks start again. y opens it, any other key leaves the mode as it is`;
    const { columns, rows } = this.input.world.size();
    if (!noteFits(question, columns, rows)) return this.#say("Too small a terminal to ask");
    this.#asks = key;
    this.#say(question, ANSWER_MS);
  }

  /** Does what a key asks for, and tells what came of it. */
  async #act(key: Change): Promise<void> {
    const { requestMaintenance, exitMaintenance } = await import("../commands/maintenance.ts");
    const change = key === "r" ? requestMaintenance : exitMaintenance;
    this.#say(key === "r" ? "Requesting maintenance…" : "Exiting maintenance…");
    const options = {
      ...this.request,
      signal: AbortSignal.any([this.input.signal, this.#ending.signal]),
      onLockWait: (reason: string) => this.#say(`Changing the mode: ${reason}`),
    };
    try {
      const { message, mode } = await change(this.session, options);
      this.#closed = mode !== "running";
      this.#say(message);
    } catch (error) {
      if (this.input.signal.aborted) throw error;
      const hint = error instanceof PipeweaveError ? error.details.hint : undefined;
      this.#say(`${messageOf(error)}${hint ? `. ${hint}` : ""}`);
    }
  }

  #say(note: string, forMs = NOTE_MS): void {
    this.#note = note;
    this.#noteUntil = Date.now() + forMs + EVERY_MS / 2;
    this.#draw();
  }

  #draw(): void {
    if (this.#quits || !this.#view) return;
    const { world } = this.input;
    const { columns, rows } = world.size();
    const note = Date.now() < this.#noteUntil ? this.#note : undefined;
    const view = { ...this.#view, note, isExplained: this.#isExplained };
    // Drawn over line by line: a screen that is cleared first flickers.
    const lines = watchScreen(view, { ...this.terminal.page, columns }, rows).map((line) => `${line}\x1b[K`);
    world.out(`\x1b[H${lines.join("\r\n")}\x1b[J`);
  }
}
