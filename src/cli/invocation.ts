/**
 * One call of a command: its options, read and checked, and the world that it runs in.
 *
 * @module
 */

import { type ConnectionSettings, decideConnection, type FoundFile } from "../config/connection.ts";
import { type Actor, currentActor } from "../config/actor.ts";
import { type Environment, osUserOf } from "../config/environment.ts";
import { PipeweaveError } from "../errors.ts";
import type { Session } from "../database/session.ts";
import type { MigrationSources } from "../migrations/discover.ts";
import { printableLines } from "../printable.ts";
import { Progress } from "../output/progress.ts";
import { type Style, styleFor } from "../output/style.ts";
import type { ParsedOptions } from "./parsed_options.ts";
import { BadValue } from "./values.ts";
import { applicationName } from "../config/version.ts";

/** The outside world, injected. */
export interface World {
  readonly env: Environment;
  /** Writes to stdout; what is written is a report. */
  readonly out: (text: string) => void;
  /** Writes to stderr; progress, prompts, warnings and errors. */
  readonly err: (text: string) => void;
  readonly outIsTerminal: boolean;
  readonly errIsTerminal: boolean;
  /** Asks for a line on the terminal; undefined where nobody can be asked. */
  readonly ask: ((question: string) => Promise<string>) | undefined;
  /** Columns and rows of the terminal as it is now; 80 and 24 where there is none. */
  readonly size: () => { readonly columns: number; readonly rows: number };
  /** Calls back for every key that is pressed, until the returned function is called; undefined where there are no keys. */
  readonly keys: ((onKey: (key: string) => void) => () => void) | undefined;
  readonly readFile: (path: string) => FoundFile | undefined;
  /** Number of the user that runs this; undefined where the system has none. */
  readonly user?: number | undefined;
  /** Aborted by SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
}

/** A call of a command. */
export class Invocation {
  /** Whether stdout is for programs. */
  readonly json: boolean;
  /** Whether each step is a JSON document of its own. */
  readonly streams: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly style: Style;
  readonly progress: Progress;
  readonly #problems: string[];
  readonly #options: ParsedOptions;
  #session: Session | undefined;
  /** The JSON document so far; an error that follows becomes part of it, since there is one document a command. */
  document: object | undefined;

  readonly command: string;
  /** What stands on the command line beside the options. */
  readonly args: readonly string[];
  readonly world: World;

  constructor(
    command: string,
    options: ParsedOptions,
    args: readonly string[],
    world: World,
  ) {
    this.command = command;
    this.#options = options;
    this.#problems = [...options.problems];
    this.args = args;
    this.world = world;
    this.json = options.has("--json");
    this.streams = options.get("--json") === "stream";
    this.quiet = options.has("--quiet");
    this.verbose = options.has("--verbose");
    this.style = styleFor(this.usesColor(world.outIsTerminal) && !this.json);
    const moving = world.errIsTerminal && !options.has("--no-progress") && world.env["TERM"] !== "dumb" &&
      !world.env["CI"];
    this.progress = new Progress(world.err, {
      shown: !this.quiet,
      moving,
      columns: () => world.size().columns,
      rows: () => world.size().rows,
    });
  }

  /** Who calls, for what is logged. */
  get actor(): Actor {
    return currentActor(this.world.env);
  }

  get signal(): AbortSignal {
    return this.world.signal;
  }

  /** Columns that a report may take: any number where stdout is no terminal. */
  get reportColumns(): number {
    return this.world.outIsTerminal ? this.world.size().columns : Infinity;
  }

  /** Prints a line of the report. */
  report(text: string): void {
    this.world.out(`${text}\n`);
  }

  /** Takes the report: text is printed at once, a JSON document when the command has ended. */
  result(json: () => object, text: () => string): void {
    if (this.json) this.document = json();
    else this.report(text());
  }

  /** Writes an event for programs that read --json=stream. */
  event(name: string, facts: object): void {
    if (this.streams) this.#line({ event: name, ...facts });
  }

  /** Prints the document, with which a command ends. */
  conclude(document: object): void {
    if (this.streams) this.event("result", document);
    else this.#line(document);
  }

  #line(document: object): void {
    this.world.out(`${JSON.stringify(document)}\n`);
  }

  /** Prints a line beside the report, unless --quiet or --json. */
  note(text: string): void {
    this.event("note", { message: text });
    if (!this.quiet && !this.json) this.progress.around(() => this.world.err(`${printableLines(text)}\n`));
  }

  /** Prints a warning. */
  warn(text: string): void {
    this.event("warning", { message: text });
    this.progress.around(() => this.world.err(`warning: ${printableLines(text)}\n`));
  }

  /** Whether what goes to a stream may be coloured: https://no-color.org, and FORCE_COLOR as Node has it. */
  usesColor(isTerminal: boolean): boolean {
    return colors(this.world, isTerminal, this.#options.has("--no-color"));
  }

  /** Whether a flag was given. */
  has(flag: string): boolean {
    return this.#options.has(flag);
  }

  /** An option's text. */
  text(flag: string): string | undefined {
    return this.#options.get<string>(flag);
  }

  /** An option's duration, in milliseconds. */
  duration(flag: string): number | undefined {
    return this.#options.get<number>(flag);
  }

  /** An option's whole number. */
  integer(flag: string): number | undefined {
    return this.#options.get<number>(flag);
  }

  /** An option's one of several words. */
  choice<T extends string>(flag: string): T | undefined {
    return this.#options.get<T>(flag);
  }

  /** Where an option's value comes from; undefined where nobody gave it. */
  sourceOf(flag: string): "flag" | "file" | undefined {
    return this.#options.sources.get(flag);
  }

  /** The values of an option that may be repeated. */
  list<T>(flag: string): readonly T[] {
    return this.#options.get<readonly T[]>(flag) ?? [];
  }

  /** A variable's whole number; undefined where it is not set. */
  environmentInteger(name: string, least: number, most: number): number | undefined {
    const value = this.world.env[name];
    if (!value) return undefined;
    if (!/^\d+$/.test(value) || Number(value) < least || Number(value) > most) {
      this.#problems.push(`${name} must be a whole number from ${least} to ${most}, not "${value}"`);
    }
    return Number(value);
  }

  /** Returns the flags of `flags` that were given on the command line. @param flags such as `--on-timeout` */
  given(flags: readonly string[]): readonly string[] {
    return flags.filter((flag) => this.#options.isTyped(flag));
  }

  /** Notes flags that mean nothing without another one, where that is missing. */
  onlyWith(other: string, isGiven: boolean, flags: readonly string[]): void {
    if (isGiven) return;
    for (const flag of this.given(flags)) this.#problems.push(`${flag} needs ${other}`);
  }

  /** Notes what a reading finds wrong. @param name of what is read, before the message */
  check(read: () => unknown, name: string): void {
    try {
      read();
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      this.#problems.push(`${name} ${error.message}`);
    }
  }

  /** Notes what is wrong with an option; {@linkcode assertUsable} throws it. */
  problem(text: string): void {
    this.#problems.push(text);
  }

  /** Which migrations are meant. */
  sources(): MigrationSources {
    const given = this.#options.get<readonly string[]>("--dir");
    const fromEnvironment = this.world.env["PIPEWEAVE_MIGRATIONS_DIR"];
    return {
      dirs: given ?? (fromEnvironment ? [fromEnvironment] : []),
      embedded: this.has("--no-embedded") ? false : this.has("--embedded") || undefined,
    };
  }

  /** Polling interval of everything that waits, in milliseconds. */
  checkIntervalMs(): number {
    const value = this.world.env["MAINTENANCE_CHECK_INTERVAL_MS"];
    if (!value) return 5000;
    if (!/^\d{1,9}$/.test(value) || Number(value) < 1) {
      this.#problems.push(
        `MAINTENANCE_CHECK_INTERVAL_MS must be a number of milliseconds from 1 on, not "${value}"`,
      );
    }
    return Number(value);
  }

  /** Whether `AUTO_MIGRATE` asks for pending migrations to be applied first. */
  autoMigrate(): boolean {
    const value = this.world.env["AUTO_MIGRATE"];
    if (value && !["true", "false", "1", "0"].includes(value.toLowerCase())) {
      this.#problems.push(`AUTO_MIGRATE must be true or false, not "${value}"`);
    }
    return value?.toLowerCase() === "true" || value === "1";
  }

  /** As {@linkcode assertUsable}, for what stands on the command line alone; what is wrong with a connection is told with it. */
  assertParsed(): void {
    if (this.#problems.length === 0) return;
    const decision = this.#options.declares("--url") ? this.#decide() : undefined;
    if (decision && !decision.ok) this.#problems.push(...decision.problems);
    this.assertUsable();
  }

  /**
   * Throws when any option was wrong. Called before anything is tried.
   *
   * @throws {PipeweaveError} of kind `usage`, listing all of it
   */
  assertUsable(): void {
    const problems = this.#problems;
    if (problems.length === 0) return;
    throw problems.length === 1
      ? new PipeweaveError("usage", "bad_option", problems[0]!, {
        hint: `See: pipeweave ${this.command} --help`,
      })
      : new PipeweaveError(
        "usage",
        "bad_options",
        `${problems.length} settings are wrong; nothing was tried`,
        {
          problems,
          hint: `See: pipeweave ${this.command} --help`,
        },
      );
  }

  /** An option's value, of whatever kind. */
  value(flag: string): unknown {
    return this.#options.get(flag) ?? (this.#options.has(flag) || undefined);
  }

  /** The database that is meant, without its password; undefined where none is named. */
  connection(): string | undefined {
    const decision = this.#decide();
    if (!decision.ok || !decision.configured) return undefined;
    const { hosts, database, user } = decision.settings;
    return `${user}@${hosts.map(({ host, port }) => `${host}:${port}`).join(",")}/${database}`;
  }

  /** Whether anybody named a database at all. */
  connectionIsConfigured(): boolean {
    const decision = this.#decide();
    return decision.configured;
  }

  /**
   * The session of this call; connects when it is first used. {@linkcode close} ends it.
   *
   * @param overrides settings that the command decides
   * @param onNotify told of notifications, where the command listens
   * @throws {PipeweaveError} of kind `usage` when settings are wrong
   */
  async session(overrides: Partial<ConnectionSettings> = {}, onNotify?: () => void): Promise<Session> {
    if (this.#session) return this.#session;
    const decision = this.#decide();
    if (!decision.ok) this.#problems.push(...decision.problems);
    this.assertUsable();
    if (!decision.ok) throw new Error("unreachable: problems were thrown");
    for (const warning of decision.warnings) this.warn(warning);
    if (this.world.env["AUTO_INIT_DB"]) {
      this.warn("AUTO_INIT_DB is no longer read; use AUTO_MIGRATE=true (development only)");
    }
    return this.#session = await this.openSession({ ...decision.settings, ...overrides }, {
      interruptible: true,
      onNotify,
    });
  }

  /** A session that the caller closes; one that is not interruptible goes on after a signal, to clean up. */
  async openSession(
    settings: ConnectionSettings,
    { interruptible, onNotify }: { interruptible: boolean; onNotify?: (() => void) | undefined },
  ): Promise<Session> {
    // Loaded here, since `--version`, `--help` and offline work need no driver.
    const { Session } = await import("../database/session.ts");
    return new Session(settings, {
      signal: interruptible ? this.signal : undefined,
      onNotify: () => onNotify?.(),
      onWait: (reason) => this.progress.update(`Waiting for the database: ${reason}`),
      onNotice: ({ severity, code, message, detail, hint }) => {
        const more = [detail, hint].filter(Boolean).join(" ");
        const text = more ? `${message} (${more})` : message;
        // "… already exists, skipping" is what safe-to-repeat migrations are made of.
        const expected = code.startsWith("42") || message.endsWith(", skipping");
        if (severity === "WARNING") this.warn(text);
        else if (this.verbose || !expected) this.note(`${severity.toLowerCase()}: ${text}`);
      },
    });
  }

  /** Ends what was opened. */
  async close(): Promise<void> {
    this.progress.stop();
    await this.#session?.close();
  }

  #decide(): ReturnType<typeof decideConnection> {
    const { env, readFile } = this.world;
    const flag = (name: string) => this.text(`--${name}`);
    return decideConnection({
      url: flag("url"),
      host: flag("host"),
      port: flag("port"),
      database: flag("database"),
      user: flag("user"),
      password: flag("password"),
      ssl: this.has("--ssl"),
      sslmode: flag("sslmode"),
      sslrootcert: flag("sslrootcert"),
      schema: flag("schema"),
      connectTimeoutMs: this.duration("--connect-timeout"),
      waitForDbMs: this.duration("--wait-for-db"),
    }, { env, readFile, osUser: osUserOf(env), applicationName: applicationName(this.command) });
  }
}

/** Whether what goes to a stream may be coloured: https://no-color.org, and FORCE_COLOR as Node has it. */
export function colors({ env }: Pick<World, "env">, isTerminal: boolean, isOff: boolean): boolean {
  if (isOff || env["NO_COLOR"]) return false;
  if (env["FORCE_COLOR"] && env["FORCE_COLOR"] !== "0") return true;
  return isTerminal && env["TERM"] !== "dumb";
}
