/**
 * Cliffy's command, made from a spec.
 *
 * Written so that Cliffy 1.0.0-rc.5 and 1.0.0 take it alike: options on each command, no `.argument()`, no third
 * argument of `.command()`.
 *
 * @module
 */

import { Command } from "@cliffy/command";
import { checkConnection } from "./connect.ts";
import { Input } from "./input.ts";
import { ParsedOptions, type RawOptions } from "./parsed_options.ts";
import type { Project } from "./project_file.ts";
import type { CommandSpec, OptionSpec } from "./spec.ts";
import { Terminal } from "./terminal.ts";
import type { World } from "./world.ts";

/** A call of a command. */
export interface Call {
  readonly input: Input;
  readonly terminal: Terminal;
}

/**
 * Parses the arguments of a command by its declaration, and runs it.
 *
 * @param project what the project's file sets
 * @param onParsed receives the call as soon as its options are parsed, before it runs
 */
export async function runCommand(
  spec: CommandSpec,
  args: readonly string[],
  world: World,
  project: Project,
  onParsed: (call: Call) => void,
): Promise<void> {
  const root = new Command().name("pipeweave").noExit();
  // Declaring the options of all commands takes longer than running one of them.
  root.command(spec.name, buildCommand());
  await root.parse([spec.name, ...args]);

  function buildCommand() {
    // deno-lint-ignore no-explicit-any -- options come from data, so their types are known at run time alone
    const command: Command<any> = new Command().description(spec.summary);
    for (const option of spec.options.flatMap((group) => group.options)) {
      command.option(asCliffy(option), option.description, option.repeatable ? { collect: true } : {});
    }
    const { argument } = spec;
    if (argument) {
      command.arguments(argument.isList ? `[${argument.label}...:string]` : `<${argument.label}:string>`);
    }
    command.action(async (options: unknown, ...words: unknown[]) => {
      const given = words.filter((word) => word !== undefined).map(String);
      const parsed = new ParsedOptions(spec.options, options as RawOptions, project, world.env);
      const input = new Input(spec.name, parsed, given, world);
      const terminal = new Terminal(parsed, world);
      onParsed({ input, terminal });
      for (const word of argument ? given : []) {
        input.check(() => argument!.parse(word), `<${argument!.label}>`);
      }
      if (input.isWrong) checkConnection(input);
      input.assertUsable();
      await spec.run(input, terminal);
    });
    return command;
  }
}

/** An option as Cliffy takes it: `--dir <folder:string>`. Its value stays a text; {@linkcode ParsedOptions} reads it. */
function asCliffy({ flag, short, value, valueIsOptional }: OptionSpec): string {
  const behind = !value ? "" : valueIsOptional ? "=[value:string]" : " <value:string>";
  return `${short ? `${short}, ` : ""}${flag}${behind}`;
}
