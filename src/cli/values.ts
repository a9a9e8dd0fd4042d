/**
 * What the value of an option is. From it come its parsing, what is said of a wrong one, its completion, and its place in
 * the help.
 *
 * @module
 */

import { parseDuration } from "../config/duration.ts";

/** What a shell can offer for a value. */
export type Completion =
  | { readonly of: "words"; readonly words: readonly string[] }
  | { readonly of: "folders" | "files" | "versions" | "rules" | "targets" }
  | { readonly of: "nothing" };

/** The kind of a value. */
export interface Value<T> {
  /** How the help calls it: `<duration>`. */
  readonly label: string;
  readonly completion: Completion;
  /** Whether a JSON document has it as a number. */
  readonly isNumber?: boolean;
  /** Reads what was typed; throws {@linkcode BadValue}. */
  readonly parse: (text: string) => T;
}

/** A value that is none of its kind; the message goes behind the flag: `must be …`. */
export class BadValue extends Error {}

const NOTHING: Completion = { of: "nothing" };

/** Any text. */
export function text(label: string, completion: Completion = NOTHING): Value<string> {
  return { label, completion, parse: (typed) => typed };
}

/** The version of a migration. */
export const VERSION: Value<string> = text("version", { of: "versions" });
/** A folder. */
export const FOLDER: Value<string> = {
  ...text("folder", { of: "folders" }),
  parse: (typed) => {
    if (typed === "") throw new BadValue("must name a folder");
    return typed;
  },
};
/** A file. */
export const FILE: Value<string> = text("file", { of: "files" });

/**
 * A duration, in milliseconds.
 *
 * @param atLeastMs the shortest that makes sense, and why; `rule` goes behind the flag
 */
export function duration(
  { atLeastMs = 0, atMostMs = Infinity, rule = "" }: {
    readonly atLeastMs?: number;
    readonly atMostMs?: number;
    readonly rule?: string;
  } = {},
): Value<number> {
  return {
    label: "duration",
    completion: NOTHING,
    parse: (typed) => {
      const ms = parseDuration(typed);
      if (ms === undefined) {
        throw new BadValue(`must be a duration such as 500ms, 30s, 10m or 2h, not "${typed}"`);
      }
      if (ms < atLeastMs || ms > atMostMs) throw new BadValue(rule);
      return ms;
    },
  };
}

/** A whole number with bounds. */
export function wholeNumber(label: string, least: number, most: number): Value<number> {
  return {
    label,
    completion: NOTHING,
    isNumber: true,
    parse: (typed) => {
      const number = Number(typed);
      if (!/^\d+$/.test(typed) || number < least || number > most) {
        throw new BadValue(`must be a whole number from ${least} to ${most}, not "${typed}"`);
      }
      return number;
    },
  };
}

/** `name=value`. */
export const placeholder: Value<readonly [name: string, value: string]> = {
  label: "name=value",
  completion: NOTHING,
  parse: (typed) => {
    const match = /^([\w.:-]+)=(.*)$/s.exec(typed);
    if (!match) throw new BadValue(`must be name=value, not "${typed}"`);
    return [match[1]!, match[2]!];
  },
};

/** One of several words. */
export function oneOf<const T extends string>(label: string, ...words: readonly T[]): Value<T> {
  return {
    label,
    completion: { of: "words", words },
    parse: (typed) => {
      const word = words.find((one) => one === typed);
      if (word === undefined) {
        const ways = words.length === 1
          ? `takes no value, or "${words[0]}"`
          : `must be one of ${words.join(", ")}`;
        throw new BadValue(`${ways}, not "${typed}"`);
      }
      return word;
    },
  };
}
