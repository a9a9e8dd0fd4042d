/**
 * The Cliffy tree, made from the specs.
 *
 * Written so that Cliffy 1.0.0-rc.5 and 1.0.0 take it alike: options on each command, no `.argument()`, no third
 * argument of `.command()`.
 *
 * @module
 */

import { Command } from "@cliffy/command";
import { COMMANDS } from "./commands.ts";
import { commandHelp, programHelp } from "./help.ts";
import { Invocation, type World } from "./invocation.ts";
import { ParsedOptions, type RawOptions } from "./parsed_options.ts";
import type { CommandSpec, OptionSpec } from "./spec.ts";
import { styleFor } from "../output/style.ts";

/**
 * Builds the tree, parses the arguments by it, and runs the command that they name.
 *
 * @param onInvocation receives the call as soon as its options are parsed, before it runs
 */
export async function runTree(
  args: readonly string[],
  world: World,
  onInvocation: (invocation: Invocation) => void,
): Promise<void> {
  const style = styleFor(world.outIsTerminal && !world.env["NO_COLOR"]);
  const root = new Command()
    .name("pipeweave")
    .description("Migrates a live PostgreSQL, and drains PipeWeave's task queue into maintenance and back.")
    .noExit()
    .help(() => programHelp(COMMANDS, world.size().columns, style))
    .action(() => world.out(`${programHelp(COMMANDS, world.size().columns, style)}\n`));
  for (const spec of COMMANDS) root.command(spec.name, buildCommand(spec));
  if (args[0] === "completions") {
    // Bash breaks words at colons, which every command's name holds.
    if (args[1] === "bash") world.out("COMP_WORDBREAKS=${COMP_WORDBREAKS//:}\n");
    const { CompletionsCommand } = await import("@cliffy/command/completions");
    root.command("completions", new CompletionsCommand());
  }
  await root.parse([...args]);

  function buildCommand(spec: CommandSpec) {
    // deno-lint-ignore no-explicit-any -- options come from data, so their types are known at run time alone
    const command: Command<any> = new Command()
      .description(spec.summary)
      .help(() => commandHelp(spec, world.size().columns, style));
    // Declaring the options of all commands takes longer than running one of them.
    const used = args[0] === spec.name || args[0] === "completions";
    const options = used ? spec.options.flatMap((group) => group.options) : [];
    for (const option of options) {
      command.option(asCliffy(option), option.description, option.repeatable ? { collect: true } : {});
    }
    if (spec.arguments) command.arguments(spec.arguments);
    command.action(async (options: unknown, ...args: unknown[]) => {
      const words = args.filter((arg) => arg !== undefined).map(String);
      const parsed = new ParsedOptions(spec.options, options as RawOptions);
      const invocation = new Invocation(spec.name, parsed, words, world);
      onInvocation(invocation);
      invocation.assertParsed();
      await spec.run(invocation);
    });
    return command;
  }
}

/** An option as Cliffy takes it: `--dir <folder:string>`. Its value stays a text; {@linkcode ParsedOptions} reads it. */
function asCliffy({ flag, short, value, valueIsOptional }: OptionSpec): string {
  const behind = !value ? "" : valueIsOptional ? `=[${value.label}:string]` : ` <${value.label}:string>`;
  return `${short ? `${short}, ` : ""}${flag}${behind}`;
}
