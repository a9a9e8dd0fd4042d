/**
 * The options of one call, read by their declarations.
 *
 * @module
 */

import type { OptionGroup, OptionSpec } from "./spec.ts";
import { BadValue } from "./values.ts";

/** The options as Cliffy parsed them: texts, and `true` or `false` for flags. */
export type RawOptions = Readonly<Record<string, unknown>>;

/** The options of one call. A flag that the command does not declare was not given. */
export class ParsedOptions {
  readonly #declared: ReadonlyMap<string, OptionSpec>;
  readonly #values = new Map<string, unknown>();
  /** What is wrong with what was typed; a sentence each. */
  readonly problems: readonly string[];

  constructor(groups: readonly OptionGroup[], raw: RawOptions) {
    this.#declared = new Map(groups.flatMap(({ options }) => options).map((spec) => [spec.flag, spec]));
    const problems: string[] = [];
    for (const spec of this.#declared.values()) {
      const typed = typedFor(spec.flag, raw);
      if (typed === undefined) continue;
      try {
        this.#values.set(spec.flag, read(spec, typed));
      } catch (error) {
        if (!(error instanceof BadValue)) throw error;
        problems.push(`${spec.flag} ${error.message}`);
      }
    }
    this.problems = problems;
  }

  /** Whether a flag was given, with a usable value or without one. */
  has(flag: string): boolean {
    return this.#values.has(flag);
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
  if (negated !== undefined) return raw[keyOf(negated)] === false ? true : undefined;
  const typed = raw[keyOf(flag.slice(2))];
  return typed === false ? undefined : typed;
}

function keyOf(name: string): string {
  return name.replace(/-[a-z0-9]/g, (letter) => letter[1]!.toUpperCase());
}
