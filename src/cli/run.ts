/**
 * From arguments to an exit code. Nothing below ends the process.
 *
 * @module
 */

import { EXIT_CODES, PipeweaveError } from "../errors.ts";
import { FailureReported } from "./failure_reported.ts";
import type { CommandSpec } from "./spec.ts";
import { formatError } from "../output/error_text.ts";
import { errorJson } from "../output/json.ts";
import { styleFor } from "../output/style.ts";
import type { CommandLine } from "./arguments.ts";
import { usesColor } from "./terminal.ts";
import type { Call } from "./tree.ts";
import type { World } from "./world.ts";

/**
 * Runs what the arguments ask for.
 *
 * @returns the exit code; an interruption's is decided by whoever knows the signal
 */
export async function run(args: readonly string[], world: World): Promise<number> {
  if (args.length === 1 && (args[0] === "--version" || args[0] === "-V")) {
    const { versionText } = await import("./version_text.ts");
    world.out(`${versionText()}\n`);
    return 0;
  }
  if (args.length === 1 && args[0] === "--licenses") {
    const { licencesText } = await import("./version_text.ts");
    world.out(`${licencesText()}\n`);
    return 0;
  }
  let call: Call | undefined;
  try {
    const [{ runCommand }, { COMMANDS }, { readCommandLine }] = await Promise.all([
      import("./tree.ts"),
      import("./commands.ts"),
      import("./arguments.ts"),
    ]);
    if (args[0] === "__complete") {
      const { complete, offerText } = await import("./completion.ts");
      world.out(offerText(complete(args.slice(1), COMMANDS)));
      return 0;
    }
    const line = readCommandLine(args, COMMANDS);
    if (line.asks !== undefined || !line.command) {
      world.out(`${await textOf(line, COMMANDS, world)}\n`);
      return 0;
    }
    const { readProjectFile } = await import("./project_file.ts");
    const project = readProjectFile(world, COMMANDS);
    await runCommand(line.command, line.args, world, project, (parsed) => call = parsed);
    const terminal = call?.terminal;
    if (terminal?.document) terminal.conclude(terminal.document);
    return 0;
  } catch (thrown) {
    const error = await asUsageError(thrown, args);
    if (error instanceof PipeweaveError) {
      nameEmbedded(error, call);
      await nameSchema(error, call?.input.text("--schema"));
    }
    const terminal = call?.terminal;
    terminal?.progress.stop();
    const json = terminal ? terminal.json : args.some((arg) => /^--json(?:=|$)/.test(arg));
    if (json) {
      const document = error instanceof PipeweaveError
        ? errorJson(error)
        : { code: "unexpected", message: String(error) };
      // A failed migration is in its own document already.
      const whole = error instanceof FailureReported
        ? terminal?.document
        : { ...terminal?.document, error: document };
      if (terminal) terminal.conclude(whole ?? { error: document });
      else world.out(`${JSON.stringify({ error: document })}\n`);
    }
    const verbose = terminal ? terminal.verbose : args.includes("--verbose");
    const page = terminal?.errorPage ?? {
      columns: world.errIsTerminal ? world.size().columns : Infinity,
      style: styleFor(usesColor(world, world.errIsTerminal, args.includes("--no-color"))),
    };
    if (!json || verbose) world.err(`${formatError(error, { verbose, page })}\n`);
    return error instanceof PipeweaveError ? EXIT_CODES[error.kind] : 1;
  } finally {
    call?.terminal.progress.stop();
  }
}

/** What is shown instead of a command's work. */
async function textOf(
  { command, args, asks }: CommandLine,
  all: readonly CommandSpec[],
  world: World,
): Promise<string> {
  const isJson = args.some((arg) => /^--json(?:=|$)/.test(arg));
  if (asks === "version") {
    const { version, versionText } = await import("./version_text.ts");
    return isJson ? JSON.stringify(version()) : versionText();
  }
  if (asks === "licenses") {
    const { licencesText } = await import("./version_text.ts");
    return licencesText();
  }
  const { commandHelp, programHelp } = await import("./help.ts");
  const { columns } = world.size();
  const style = styleFor(usesColor(world, world.outIsTerminal, args.includes("--no-color")));
  return command ? commandHelp(command, columns, style) : programHelp(all, columns, style);
}

/** With a folder of the user's own, PipeWeave's tables are made where they are asked for. */
function nameEmbedded(error: PipeweaveError, call: Call | undefined): void {
  if (error.code !== "not_migrated" || !call?.input.sources().dirs?.length) return;
  error.hint(error.details.hint!.replace("db:migrate", "db:migrate --embedded"));
}

/** A command that a hint names has to be about the same schema. */
async function nameSchema(error: PipeweaveError, schema: string | undefined): Promise<void> {
  const { hint } = error.details;
  if (!schema || schema === "public" || !hint || hint.includes("--schema")) return;
  if (!/\b(?:db|maintenance):[a-z]/.test(hint)) return;
  const { shellQuoted } = await import("../maintenance/state.ts");
  error.hint(`${hint} With --schema ${shellQuoted(schema)}.`);
}

/** What Cliffy says about arguments, as an error of ours. */
async function asUsageError(error: unknown, args: readonly string[]): Promise<unknown> {
  const { ValidationError } = await import("@cliffy/command");
  if (!(error instanceof ValidationError)) return error;
  const { COMMANDS } = await import("./commands.ts");
  const command = COMMANDS.find(({ name }) => args.includes(name))?.name;
  // A mistyped option may hold a value, and the value may be a secret.
  const message = error.message.replace(/("--?[^"=]*)=[^"]*"/g, '$1=…"').replace(
    /"[^"]*(?::\/\/|@)[^"]*"/g,
    '"…"',
  );
  return new PipeweaveError("usage", "bad_arguments", message, {
    hint: `See: pipeweave ${command ? `${command} ` : ""}--help`,
  });
}
