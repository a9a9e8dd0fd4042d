/**
 * Other ways to write a command line, brought to the one that the tree knows.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import type { CommandSpec, OptionSpec } from "./spec.ts";

/** What people type who know another tool, and what it is here. A name with a colon is taken; any other is suggested. */
const SYNONYMS: Readonly<Record<string, string>> = {
  "db:up": "db:migrate",
  "db:down": "db:rollback",
  "db:undo": "db:rollback",
  "db:create": "db:new",
  "up": "db:migrate",
  "migrate": "db:migrate",
  "deploy": "db:migrate",
  "apply": "db:migrate",
  "update": "db:migrate",
  "down": "db:rollback",
  "rollback": "db:rollback",
  "undo": "db:rollback",
  "revert": "db:rollback",
  "redo": "db:rollback, and then db:migrate",
  "create": "db:new",
  "new": "db:new",
  "generate": "db:new",
  "add": "db:new",
  "init": "db:migrate",
  "status": "db:status or maintenance:status",
  "info": "db:status",
  "list": "db:status",
  "version": "--version",
  "wait": "db:wait or maintenance:wait",
  "lint": "db:lint",
  "validate": "db:validate",
  "verify": "db:validate",
  "check": "db:validate, or db:status --check",
  "baseline": "db:baseline",
  "repair": "db:repair",
  "fix": "db:repair",
  "import": "db:import",
  "drain": "maintenance:request --wait",
  "history": "db:history or maintenance:history",
  "log": "db:history",
  "completion": "completions",
  "dump": "pg_dump --schema-only",
};

/** A letter or two may be wrong, of a long word a third. */
const CLOSE = 1 / 3;

/** The command line as the tree takes it: the command, then its options and words. */
export interface CommandLine {
  /** Undefined where none is named. */
  readonly command: CommandSpec | undefined;
  /** What stands behind the command. */
  readonly args: readonly string[];
  /** What is asked for instead of the command's work. */
  readonly asks: "help" | "version" | "licenses" | undefined;
}

/**
 * Reads a command line: `db migrate` is `db:migrate`; options may stand before the command; `--help`, `-h` and
 * `--version` may stand anywhere.
 *
 * @throws {PipeweaveError} of kind `usage` for a command or an option that there is not
 */
export function readCommandLine(args: readonly string[], commands: readonly CommandSpec[]): CommandLine {
  const words = args[0] === "help" ? [...args.slice(1), "--help"] : args;
  const at = indexOfCommand(words, commands);
  const { command, length } = at === undefined
    ? { command: undefined, length: 0 }
    : commandAt(words, at, commands);
  const rest = at === undefined ? words : [...words.slice(0, at), ...words.slice(at + length)];
  const options = command ? optionsOf(command) : new Map<string, OptionSpec>();
  const flags = flagsIn(rest, options);
  const isAsked = (...asking: string[]) => flags.some((word) => asking.includes(word));
  if (isAsked("--help", "-h")) {
    // Help about what there is not is none.
    if (at !== undefined && !command && !isGroup(words[at]!, commands)) {
      throw unknownCommand(words.slice(at, at + 2), commands);
    }
    return { command, args: [], asks: "help" };
  }
  if (isAsked("--version", "-V") && !options.has("--version")) {
    return { command, args: rest, asks: "version" };
  }
  if (isAsked("--licenses")) return { command, args: rest, asks: "licenses" };
  if (at === undefined) {
    if (rest.length === 0) return { command, args: [], asks: "help" };
    const [flag] = rest;
    const near = flag!.startsWith("--") ? closest(flag!, ["--help", "--version", "--licenses"]) : undefined;
    throw usage("There is no command on this line", near ? `Did you mean ${near}?` : "See: pipeweave --help");
  }
  if (!command) {
    if (isGroup(words[at]!, commands) && words.length === at + 1) return { command, args: [], asks: "help" };
    throw unknownCommand(words.slice(at, at + 2), commands);
  }
  assertKnown(rest, command, options);
  return { command, args: rest, asks: undefined };
}

/** The words of a command line that are no option's value. */
function flagsIn(words: readonly string[], options: ReadonlyMap<string, OptionSpec>): readonly string[] {
  const takesNext = (word: string | undefined) => {
    const option = word === undefined ? undefined : options.get(word);
    return option?.value !== undefined && !option.valueIsOptional;
  };
  const flags: string[] = [];
  for (let index = 0; index < words.length; index++) {
    flags.push(words[index]!);
    if (takesNext(words[index])) index++;
  }
  return flags;
}

const isGroup = (word: string, commands: readonly CommandSpec[]) =>
  commands.some(({ name }) => name.startsWith(`${word}:`));

/** Where the command stands: the first word that is no option and no option's value. */
function indexOfCommand(words: readonly string[], commands: readonly CommandSpec[]): number | undefined {
  const takers = new Set(
    commands.flatMap((command) => [...optionsOf(command).values()])
      .filter(({ value, valueIsOptional }) => value && !valueIsOptional)
      .flatMap(({ flag, short }) => short ? [flag, short] : [flag]),
  );
  for (let index = 0; index < words.length; index++) {
    const word = words[index]!;
    if (!word.startsWith("-") || word === "-") return index;
    if (takers.has(word)) index++;
  }
  return undefined;
}

function commandAt(
  words: readonly string[],
  at: number,
  commands: readonly CommandSpec[],
): { command: CommandSpec | undefined; length: number } {
  const find = (name: string) =>
    commands.find((one) => one.name === name) ??
      (name.includes(":") ? commands.find((one) => one.name === SYNONYMS[name]) : undefined);
  const [first, second] = [words[at]!.toLowerCase(), words[at + 1]];
  const found = find(first);
  if (found) return { command: found, length: 1 };
  const isPair = isGroup(first, commands) && second !== undefined && !second.startsWith("-");
  return { command: isPair ? find(`${first}:${second.toLowerCase()}`) : undefined, length: isPair ? 2 : 1 };
}

/** A command's options, by all their spellings. */
export function optionsOf(command: CommandSpec): ReadonlyMap<string, OptionSpec> {
  return new Map(
    command.options.flatMap(({ options }) => options)
      .flatMap((option) =>
        [[option.flag, option], ...(option.short ? [[option.short, option] as const] : [])] as const
      ),
  );
}

/** Throws for an option that the command has not, and for what would be passed over in silence. */
function assertKnown(
  words: readonly string[],
  command: CommandSpec,
  options: ReadonlyMap<string, OptionSpec>,
): void {
  for (let index = 0; index < words.length; index++) {
    const word = words[index]!;
    if (word === "--") {
      throw usage(`Nothing may stand behind "--"`, `Leave it out. See: pipeweave ${command.name} --help`);
    }
    if (!word.startsWith("-") || word === "-") continue;
    const flag = word.split("=")[0]!;
    const option = options.get(flag);
    if (option?.value && !option.valueIsOptional && flag === word) index++;
    if (option) {
      const next = words[index + 1];
      const { value, valueIsOptional } = option;
      const offered = value?.completion.of === "words" ? value.completion.words : [];
      if (valueIsOptional && flag === word && next !== undefined && offered.includes(next)) {
        throw usage(
          `"${next}" stands apart from ${flag}`,
          `A value that may be left out is joined by "=": ${flag}=${next}`,
        );
      }
      continue;
    }
    const bundle = /^-[a-zA-Z]{2,}$/.test(word) && `-${word[1]}`;
    const suggestion = closest(
      flag,
      [...options.keys(), "--help", "--version"].filter((one) => one.startsWith("--")),
    );
    throw usage(
      `${command.name} has no option "${flag}"`,
      suggestion
        ? `Did you mean ${suggestion}?`
        : bundle && options.has(bundle)
        ? `Write one-letter options apart: ${bundle} …`
        : `See: pipeweave ${command.name} --help`,
    );
  }
}

function unknownCommand(words: readonly string[], commands: readonly CommandSpec[]): PipeweaveError {
  const [first = "", second] = words;
  const isPair = isGroup(first, commands) && second !== undefined && !second.startsWith("-");
  const typed = isPair ? `${first}:${second}` : first;
  const names = commands.filter(({ isHidden }) => !isHidden).map(({ name }) => name);
  const word = typed.toLowerCase();
  const suggestion = SYNONYMS[word] ?? closest(word, names) ??
    closest(
      word,
      names.map((name) => name.split(":")[1] ?? name),
      (near) => names.find((name) => name.endsWith(`:${near}`))!,
    );
  // Any other word may be a misplaced URL, with a password in it.
  const shown = /^[a-z][a-z:_-]{0,30}$/i.test(typed) ? `"${typed}"` : "of that name";
  return usage(
    shown === "of that name" ? "There is no command of that name" : `There is no command ${shown}`,
    suggestion ? `Did you mean ${suggestion}? See: pipeweave --help` : "See: pipeweave --help",
  );
}

function usage(message: string, hint: string): PipeweaveError {
  return new PipeweaveError("usage", "bad_arguments", message, { hint });
}

/** The word that is nearest, if it is near enough to be meant. */
export function closest(
  typed: string,
  words: readonly string[],
  shown: (word: string) => string = (word) => word,
): string | undefined {
  const ranked = words.map((word) => ({ word, distance: distance(typed, word) }))
    .filter(({ word, distance }) =>
      distance <= Math.max(1, Math.floor(word.length * CLOSE)) && distance < typed.length
    )
    .sort((a, b) => a.distance - b.distance);
  return ranked[0] && shown(ranked[0].word);
}

/** Levenshtein's distance: letters to be inserted, removed or replaced. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...b].entries()) {
      next.push(Math.min(next[j]! + 1, row[j + 1]! + 1, row[j]! + (letter === other ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}
