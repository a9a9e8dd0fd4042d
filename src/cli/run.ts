/**
 * From arguments to an exit code. Nothing below ends the process.
 *
 * @module
 */

import { EXIT_CODES, PipeweaveError } from "../errors.ts";
import { formatError } from "../output/error_text.ts";
import { errorJson } from "../output/json.ts";
import { styleFor } from "../output/style.ts";
import type { Invocation, World } from "./invocation.ts";

/**
 * Runs what the arguments ask for.
 *
 * @returns the exit code; an interruption's is decided by whoever knows the signal
 */
export async function run(args: readonly string[], world: World): Promise<number> {
  if (args.length === 1 && (args[0] === "--version" || args[0] === "-V")) {
    const { versionText } = await import("../version.ts");
    world.out(`${versionText()}\n`);
    return 0;
  }
  let invocation: Invocation | undefined;
  try {
    const [{ runTree }, { COMMANDS }, { normalize }] = await Promise.all([
      import("./tree.ts"),
      import("./commands.ts"),
      import("./arguments.ts"),
    ]);
    await runTree(normalize(args, COMMANDS.map(({ name }) => name)), world, (call) => invocation = call);
    return 0;
  } catch (thrown) {
    const error = await asUsageError(thrown, args);
    invocation?.progress.stop();
    const json = invocation ? invocation.json : args.includes("--json");
    const documentPrinted = (error as { documentPrinted?: boolean }).documentPrinted === true;
    if (json && !documentPrinted) {
      const document = error instanceof PipeweaveError
        ? errorJson(error)
        : { code: "unexpected", message: String(error) };
      world.out(`${JSON.stringify({ error: document })}\n`);
    }
    const verbose = invocation ? invocation.verbose : args.includes("--verbose");
    const color = world.errIsTerminal && !world.env["NO_COLOR"] && invocation?.options["color"] !== false;
    if (!json || verbose) world.err(`${formatError(error, { verbose, paint: styleFor(color).bad })}\n`);
    return error instanceof PipeweaveError ? EXIT_CODES[error.kind] : 1;
  } finally {
    await invocation?.close().catch(() => {});
  }
}

/** What Cliffy says about arguments, as an error of ours. */
async function asUsageError(error: unknown, args: readonly string[]): Promise<unknown> {
  const { ValidationError } = await import("@cliffy/command");
  if (!(error instanceof ValidationError)) return error;
  const command = args.find((arg) => !arg.startsWith("-"));
  // A mistyped option may hold a value, and the value may be a secret.
  const message = error.message.replace(/("--?[^"=]*)=[^"]*"/g, '$1=…"');
  return new PipeweaveError("usage", "bad_arguments", message, {
    hint: `See: pipeweave ${command?.includes(":") ? `${command} ` : ""}--help`,
  });
}
