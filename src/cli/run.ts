/**
 * From arguments to an exit code. Nothing below ends the process.
 *
 * @module
 */

import { EXIT_CODES, PipeweaveError } from "../errors.ts";
import { FailureReported } from "./failure_reported.ts";
import type { CommandSpec } from "./spec.ts";
import { shellQuoted } from "../shell.ts";
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
  let call: Call | undefined;
  try {
    if (args.length === 1 && (args[0] === "--version" || args[0] === "-V")) {
      const { versionText } = await import("./version_text.ts");
      world.out(`${versionText()}\n`);
      return 0;
    }
    const [{ runCommand }, { COMMANDS }, { readCommandLine }] = await Promise.all([
      import("./tree.ts"),
      import("./commands.ts"),
      import("./arguments.ts"),
    ]);
    if (args[0] === "__complete") {
      const { complete, offerText } = await import("./completion.ts");
      const { readProjectFile } = await import("./project_file.ts");
      const project = () => readProjectFile(world, COMMANDS);
      world.out(offerText(complete(args.slice(1), COMMANDS, project)));
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
    if (call?.terminal.document) call.terminal.conclude(call.terminal.document);
    return 0;
  } catch (thrown) {
    return await reportFailure(thrown, args, world, call);
  } finally {
    call?.terminal.progress.stop();
  }
}

/** Tells what failed, on stderr or in the document, and returns the exit code. */
async function reportFailure(
  thrown: unknown,
  args: readonly string[],
  world: World,
  call: Call | undefined,
): Promise<number> {
  const error = await asUsageError(thrown, args);
  if (error instanceof PipeweaveError) nameOptions(error, call);
  const terminal = call?.terminal;
  terminal?.progress.stop();
  const json = terminal ? terminal.json : args.some((arg) => /^--json(?:=|$)/.test(arg));
  const verbose = terminal ? terminal.verbose : args.includes("--verbose");
  const page = terminal?.errorPage ?? {
    columns: world.errIsTerminal ? world.size().columns : Infinity,
    style: styleFor(usesColor(world, world.errIsTerminal, args.includes("--no-color"))),
  };
  const tell = (one: unknown) => world.err(`${formatError(one, { verbose, page })}\n`);
  if (!json || verbose) tell(error);
  if (json) {
    const document = error instanceof PipeweaveError
      ? errorJson(error)
      : { code: "unexpected", message: String(error) };
    // A failed migration is in its own document already.
    const whole = error instanceof FailureReported
      ? terminal?.document
      : { ...terminal?.document, error: document };
    try {
      if (terminal) terminal.conclude(whole ?? { error: document });
      else world.out(`${JSON.stringify({ error: document })}\n`);
    } catch (lost) {
      // Nobody gets the document: the words go to stderr.
      if (!verbose) tell(error);
      if (lost instanceof PipeweaveError && lost.code !== (error as PipeweaveError).code) tell(lost);
    }
  }
  return error instanceof PipeweaveError ? EXIT_CODES[error.kind] : 1;
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

/** A command of ours in a hint. */
const COMMAND_IN_HINT = /\b(?:db|maintenance):[a-z]/;
/** A command line to copy, of one that reads folders of migrations. */
const READS_FOLDERS = /\bpipeweave db:(?:migrate|status|validate|lint|rollback|repair|baseline|new)\b/;

/** A command that a hint names has to be about the same folder, database and schema as the one that was typed. */
function nameOptions(error: PipeweaveError, call: Call | undefined): void {
  const { hint } = error.details;
  if (!call || !hint || !COMMAND_IN_HINT.test(hint)) return;
  const { input } = call;
  const schema = input.text("--schema");
  const folders = input.given(["--dir"]).length > 0 && READS_FOLDERS.test(hint) && !hint.includes("--dir")
    ? input.list<string>("--dir").map((folder) => `--dir ${shellQuoted(folder)}`)
    : [];
  const target = input.text("--target");
  const options = [
    ...folders,
    // Without it the command would be about another database.
    ...(target !== undefined && !hint.includes("--target") ? [`--target ${shellQuoted(target)}`] : []),
    ...(schema && schema !== "public" && !hint.includes("--schema")
      ? [`--schema ${shellQuoted(schema)}`]
      : []),
  ];
  if (options.length > 0) error.hint(`${hint} With ${options.join(" ")}.`);
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
