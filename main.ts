/**
 * The program: puts the real world together, and ends the process. Nothing else does.
 *
 * @module
 */

import type { FoundFile } from "./src/config/connection.ts";
import { readEnvironment } from "./src/config/environment.ts";
import { EXIT_CODES } from "./src/errors.ts";
import { run } from "./src/cli/run.ts";

const encoder = new TextEncoder();

/** Writes all of a text; a reader that went away (`| head`) is no error, and on stderr nothing is. */
function writer(stream: { writeSync(data: Uint8Array): number }): (text: string) => void {
  return (text) => {
    try {
      for (let data = encoder.encode(text); data.length > 0;) data = data.subarray(stream.writeSync(data));
    } catch (error) {
      if (stream !== Deno.stderr && !(error instanceof Deno.errors.BrokenPipe)) throw error;
    }
  };
}

function readFile(path: string): FoundFile | undefined {
  try {
    return { text: Deno.readTextFileSync(path), mode: Deno.statSync(path).mode ?? undefined };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}

function columns(): number {
  try {
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

/** Asks on stderr, since stdout may be piped, and reads a line from the terminal. */
async function ask(question: string): Promise<string> {
  writer(Deno.stderr)(question);
  const decoder = new TextDecoder();
  let line = "";
  for await (const chunk of Deno.stdin.readable) {
    line += decoder.decode(chunk, { stream: true });
    if (line.includes("\n")) break;
  }
  return line.split("\n")[0]!.trim();
}

const SIGNALS: readonly (readonly [Deno.Signal, number])[] = Deno.build.os === "windows"
  ? [["SIGINT", 130]]
  : [["SIGINT", 130], ["SIGTERM", 143]];
const LAST_WORD_MS = 200;
const interruption = new AbortController();
let signalCode: number | undefined;
for (const [signal, code] of SIGNALS) {
  Deno.addSignalListener(signal, () => {
    // The first signal lets the work clean up after itself. A second one is not swallowed; it leaves just the time to
    // send what asks the server to stop.
    if (signalCode !== undefined) return void setTimeout(() => Deno.exit(code), LAST_WORD_MS);
    signalCode = code;
    interruption.abort();
  });
}

const code = await run(Deno.args, {
  env: readEnvironment(),
  out: writer(Deno.stdout),
  err: writer(Deno.stderr),
  outIsTerminal: Deno.stdout.isTerminal(),
  errIsTerminal: Deno.stderr.isTerminal(),
  ask: Deno.stdin.isTerminal() && Deno.stderr.isTerminal() ? ask : undefined,
  columns: columns(),
  readFile,
  signal: interruption.signal,
});
Deno.exit(code === EXIT_CODES.interrupted ? signalCode ?? code : code);
