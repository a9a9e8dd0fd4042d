/**
 * Help texts from the specs, wrapped to the terminal.
 *
 * @module
 */

import { wrapped } from "../output/cells.ts";
import type { Style } from "../output/style.ts";
import {
  COMMAND_GROUPS,
  type CommandSpec,
  describeOption,
  type OptionGroup,
  type OptionSpec,
} from "./spec.ts";

/** Exit codes of all commands (docs/cli.md has them too). */
export const EXIT_CODE_MEANINGS: readonly (readonly [string, string])[] = [
  ["0", "done, or already so"],
  ["1", "a migration or statement failed; earlier migrations stay applied and are listed"],
  ["2", "wrong usage or configuration; nothing was tried"],
  ["3", "a required condition does not hold"],
  ["4", "a time limit ran out"],
  ["5", "integrity: changed, missing, duplicate or out-of-order migrations, invalid files"],
  ["6", "no connection"],
  ["129, 130, 143", "ended by SIGHUP, SIGINT, SIGTERM, after cleaning up"],
];

/** Widest that text gets, however wide the terminal. */
const WIDEST = 100;

function wrap(text: string, width: number): readonly string[] {
  return text.split("\n").flatMap((paragraph) => wrapped(paragraph, width));
}

/** Two columns, or one below the other where the terminal is narrow. */
function table(
  rows: readonly (readonly [string, string])[],
  columns: number,
  widest = Math.max(...rows.map(([name]) => name.length)),
): string[] {
  const width = Math.min(columns, WIDEST);
  const left = widest + 4;
  if (width - left < 28) {
    return rows.flatMap((
      [name, text],
    ) => [`  ${name}`, ...wrap(text, width - 6).map((line) => `      ${line}`)]);
  }
  return rows.flatMap(([name, text]) =>
    wrap(text, width - left).map((line, i) => `  ${(i === 0 ? name : "").padEnd(left - 2)}${line}`)
  );
}

/** An option as one types it: `-q, --quiet`, `--dir <folder>`, `--json[=mode]`. */
export function flagsText({ flag, short, value, valueIsOptional }: OptionSpec): string {
  const behind = !value ? "" : valueIsOptional ? `[=${value.label}]` : ` <${value.label}>`;
  return `${short ? `${short}, ` : ""}${flag}${behind}`;
}

/** `pipeweave db:new <name> [options]` */
export function usageText({ name, argument }: CommandSpec): string {
  const word = !argument ? "" : argument.isList ? ` [${argument.label}...]` : ` <${argument.label}>`;
  return `pipeweave ${name}${word} [options]`;
}

function options(group: OptionGroup, columns: number, style: Style): string[] {
  return [
    "",
    style.strong(`${group.title}:`),
    ...table(group.options.map((option) => [flagsText(option), describeOption(option)]), columns),
  ];
}

/** Help of one command. */
export function commandHelp(spec: CommandSpec, columns: number, style: Style): string {
  return [
    `${style.strong("Usage:")} ${usageText(spec)}`,
    "",
    ...wrap(spec.description, Math.min(columns, WIDEST)),
    ...spec.options.flatMap((group) => options(group, columns, style)),
    "",
    style.strong("Exit codes:"),
    ...table([
      ["0", "done, or already so"],
      ...spec.exitCodes.map(([code, meaning]) => [String(code), meaning] as const),
    ], columns),
    "",
    style.strong("Examples:"),
    ...spec.examples.flatMap(({ purpose, line }) => [
      ...wrapped(`  # ${purpose}`, columns, "  # ").map(style.faint),
      ...exampleLines(line, columns),
    ]),
  ].join("\n");
}

/** A command line of a shell, which goes on in the next line where it is too long for one. */
function exampleLines(line: string, columns: number): readonly string[] {
  const lines = wrapped(`  ${line}`, columns - 2, "    ");
  return lines.map((one, index) => index < lines.length - 1 ? `${one} \\` : one);
}

/** Help of the whole program. */
export function programHelp(specs: readonly CommandSpec[], columns: number, style: Style): string {
  const widest = Math.max(...specs.filter(({ isHidden }) => !isHidden).map(({ name }) => name.length));
  return [
    `${style.strong("Usage:")} pipeweave <group>:<command> [options]`,
    "",
    ...wrap(
      "Migrates a live PostgreSQL, and drains PipeWeave's task queue into maintenance and back.",
      Math.min(columns, WIDEST),
    ),
    "",
    ...COMMAND_GROUPS.flatMap((group) => [
      style.strong(`${group}:`),
      ...table(
        specs.filter((spec) => spec.group === group && !spec.isHidden).map((
          { name, summary },
        ) => [name, summary]),
        columns,
        widest,
      ),
      "",
    ]),
    style.strong("Options:"),
    ...table([["-h, --help", "Show this help, or a command's: pipeweave db:migrate --help"], [
      "-V, --version",
      "Show version, commit and Deno version.",
    ], [
      "--licenses",
      "Show the licence, and those of what the binary contains.",
    ]], columns),
    "",
    style.strong("Exit codes:"),
    ...table(EXIT_CODE_MEANINGS, columns),
    "",
    style.strong("Examples:"),
    "  DATABASE_URL=postgres://user@host/db pipeweave db:status",
    "  pipeweave db:migrate --host db1 --database app --wait-for-db 60s",
  ].join("\n");
}
