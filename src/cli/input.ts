/**
 * What a command is given: its options, its words, and the variables that stand for options.
 *
 * @module
 */

import { type Actor, currentActor } from "../config/actor.ts";
import { PipeweaveError } from "../errors.ts";
import type { MigrationSources } from "../migrations/discover.ts";
import { defaultFolder } from "./default_folder.ts";
import type { ParsedOptions } from "./parsed_options.ts";
import { BadValue } from "./values.ts";
import type { World } from "./world.ts";

/** The input of one call of a command. What is wrong with it is gathered, and told all at once. */
export class Input {
  readonly command: string;
  /** What stands on the command line beside the options. */
  readonly args: readonly string[];
  readonly world: World;
  readonly #options: ParsedOptions;
  readonly #problems: string[];

  constructor(command: string, options: ParsedOptions, args: readonly string[], world: World) {
    this.command = command;
    this.args = args;
    this.world = world;
    this.#options = options;
    this.#problems = [...options.problems];
  }

  /** Who calls, for what is logged. */
  get actor(): Actor {
    return currentActor(this.world.env);
  }

  /** Aborted when the command is to end. */
  get signal(): AbortSignal {
    return this.world.signal;
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

  /** The values of an option that may be repeated. */
  list<T>(flag: string): readonly T[] {
    return this.#options.get<readonly T[]>(flag) ?? [];
  }

  /** An option's value, of whatever kind. */
  value(flag: string): unknown {
    return this.#options.get(flag) ?? (this.#options.has(flag) || undefined);
  }

  /** Connection URLs of the project's file, by the names that `--target` takes. */
  get targets(): ReadonlyMap<string, string> {
    return this.#options.targets;
  }

  /** Where an option's value comes from; undefined where nobody gave it. */
  sourceOf(flag: string): "flag" | "file" | undefined {
    return this.#options.sources.get(flag);
  }

  /** Whether the command has an option. */
  declares(flag: string): boolean {
    return this.#options.declares(flag);
  }

  /** The flags of `flags` that were given on the command line. @param flags such as `--on-timeout` */
  given(flags: readonly string[]): readonly string[] {
    return flags.filter((flag) => this.#options.isTyped(flag));
  }

  /** A variable's whole number; undefined where it is not set. */
  environmentInteger(name: string, least: number, most: number): number | undefined {
    const value = this.world.env[name];
    if (!value) return undefined;
    if (!/^\d+$/.test(value) || Number(value) < least || Number(value) > most) {
      this.problem(`${name} must be a whole number from ${least} to ${most}, not "${value}"`);
    }
    return Number(value);
  }

  /**
   * Which migrations are meant: those of `./migrations` where nobody names a set.
   *
   * @param byDefault whether that folder counts
   * @throws {PipeweaveError} of kind `usage` when somebody else could have put it there
   */
  sources({ byDefault = true } = {}): MigrationSources {
    const fromEnvironment = this.world.env["PIPEWEAVE_MIGRATIONS_DIR"];
    const given = this.#options.get<readonly string[]>("--dir") ??
      (fromEnvironment ? [fromEnvironment] : undefined);
    const isOpen = byDefault && given === undefined && this.declares("--dir") && !this.has("--embedded");
    const found = isOpen ? defaultFolder(this.world.user) : undefined;
    return {
      dirs: given ?? (found ? [found] : []),
      embedded: this.has("--no-embedded") ? false : this.has("--embedded") || undefined,
    };
  }

  /** Polling interval of everything that waits, in milliseconds. */
  checkIntervalMs(): number {
    const value = this.world.env["MAINTENANCE_CHECK_INTERVAL_MS"];
    if (!value) return 5000;
    if (!/^\d{1,9}$/.test(value) || Number(value) < 1) {
      this.problem(
        `MAINTENANCE_CHECK_INTERVAL_MS must be a number of milliseconds from 1 on, not "${value}"`,
      );
    }
    return Number(value);
  }

  /** Whether `AUTO_MIGRATE` asks for pending migrations to be applied first. */
  autoMigrate(): boolean {
    const value = this.world.env["AUTO_MIGRATE"];
    if (value && !["true", "false", "1", "0"].includes(value.toLowerCase())) {
      this.problem(`AUTO_MIGRATE must be true or false, not "${value}"`);
    }
    return value?.toLowerCase() === "true" || value === "1";
  }

  /** Notes flags that mean nothing without another one, where that is missing. */
  onlyWith(other: string, isGiven: boolean, flags: readonly string[]): void {
    if (isGiven) return;
    for (const flag of this.given(flags)) this.problem(`${flag} needs ${other}`);
  }

  /** Notes what a reading finds wrong. @param name of what is read, before the message */
  check(read: () => unknown, name: string): void {
    try {
      read();
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      this.problem(`${name} ${error.message}`);
    }
  }

  /** Notes what is wrong; {@linkcode assertUsable} throws it. */
  problem(text: string): void {
    this.#problems.push(text);
  }

  /** Whether anything was found wrong so far. */
  get isWrong(): boolean {
    return this.#problems.length > 0;
  }

  /**
   * Throws when anything was wrong. Called before anything is tried.
   *
   * @throws {PipeweaveError} of kind `usage`, listing all of it
   */
  assertUsable(): void {
    const problems = this.#problems;
    if (problems.length === 0) return;
    const hint = `See: pipeweave ${this.command} --help`;
    if (problems.length === 1) throw new PipeweaveError("usage", "bad_option", problems[0]!, { hint });
    throw new PipeweaveError(
      "usage",
      "bad_options",
      `${problems.length} settings are wrong; nothing was tried`,
      { problems, hint },
    );
  }
}
