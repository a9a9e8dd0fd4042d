/**
 * The options of one call, read by their declarations.
 *
 * @module
 */

import type { OptionGroup, OptionSpec } from "./spec.ts";
import type { Environment } from "../config/environment.ts";
import { keyOf, NO_PROJECT, type Project } from "./project_file.ts";
import { BadValue } from "./values.ts";

/** The options as Cliffy parsed them: texts, and `true` or `false` for flags. */
export type RawOptions = Readonly<Record<string, unknown>>;

/** The options of one call. A flag that the command does not declare was not given. */
export class ParsedOptions {
  readonly #declared: ReadonlyMap<string, OptionSpec>;
  readonly #values = new Map<string, unknown>();
  /** What is wrong with what was typed; a sentence each. */
  readonly problems: readonly string[];

  /** Connection URLs of the project's file, by their names. */
  readonly targets: Project["targets"];

  /** Where each value comes from. */
  readonly sources: ReadonlyMap<string, "flag" | "file">;

  /**
   * @param raw what was typed
   * @param project what the project's file sets
   * @param env variables, some of which go before the file
   */
  constructor(
    groups: readonly OptionGroup[],
    raw: RawOptions,
    project: Project = NO_PROJECT,
    env: Environment = {},
  ) {
    this.#declared = new Map(groups.flatMap(({ options }) => options).map((spec) => [spec.flag, spec]));
    const problems: string[] = [];
    const sources = new Map<string, "flag" | "file">();
    for (const spec of this.#declared.values()) {
      const typed = typedFor(spec.flag, raw);
      if (typed === undefined) {
        const isTypedOtherwise = typedFor(opposite(spec.flag), raw) !== undefined;
        const set = spec.variable && env[spec.variable] || isTypedOtherwise
          ? undefined
          : project.settings.get(spec.flag);
        if (set !== undefined) this.#values.set(spec.flag, set);
        if (set !== undefined) sources.set(spec.flag, "file");
        continue;
      }
      sources.set(spec.flag, "flag");
      try {
        this.#values.set(spec.flag, read(spec, typed));
      } catch (error) {
        if (!(error instanceof BadValue)) throw error;
        problems.push(`${spec.flag} ${error.message}`);
      }
    }
    this.problems = problems;
    this.targets = project.targets;
    this.sources = sources;
  }

  /** Whether a flag was given, with a usable value or without one. */
  has(flag: string): boolean {
    return this.#values.has(flag);
  }

  /** Whether a flag was typed. */
  isTyped(flag: string): boolean {
    return this.sources.get(flag) === "flag";
  }

  /** Whether the command knows a flag. */
  declares(flag: string): boolean {
    return this.#declared.has(flag);
  }

  /** The value of an option, as its declaration reads it; undefined where it was not given, or stands alone. */
  get<T>(flag: string): T | undefined {
    const value = this.#values.get(flag);
    return value === true ? undefined : value as T | undefined;
  }
}

function read({ value, valueIsOptional, repeatable }: OptionSpec, typed: unknown): unknown {
  if (!value || (valueIsOptional && typed === true)) return true;
  return repeatable
    ? (typed as readonly string[]).map((one) => value.parse(one))
    : value.parse(String(typed));
}

/** What was typed for a flag; Cliffy keeps `--no-color` as `color: false`. */
function typedFor(flag: string, raw: RawOptions): unknown {
  const negated = /^--no-(.*)$/.exec(flag)?.[1];
  if (negated !== undefined) return raw[keyOf(`--${negated}`)] === false ? true : undefined;
  const typed = raw[keyOf(flag)];
  return typed === false ? undefined : typed;
}

/** `--no-embedded` for `--embedded`, and the other way round. */
function opposite(flag: string): string {
  return flag.startsWith("--no-") ? `--${flag.slice("--no-".length)}` : `--no-${flag.slice(2)}`;
}
