/**
 * The program: puts the real world together, and ends the process. Nothing else does.
 *
 * @module
 */

import type { FoundFile } from "./src/config/connection.ts";
import { dirname, resolve } from "node:path";
import { readEnvironment } from "./src/config/environment.ts";
import { EXIT_CODES, messageOf, PipeweaveError } from "./src/errors.ts";
import { run } from "./src/cli/run.ts";

const encoder = new TextEncoder();

/** Writes all of a text; a reader that went away (`| head`) is no error, and on stderr nothing is. */
function writer(stream: { writeSync(data: Uint8Array): number }): (text: string) => void {
  return (text) => {
    try {
      for (let data = encoder.encode(text); data.length > 0;) data = data.subarray(stream.writeSync(data));
    } catch (error) {
      // After a hangup there is no terminal to write to.
      const isLost = error instanceof Deno.errors.BrokenPipe || signalCode === HANGUP;
      if (stream === Deno.stderr || isLost) return;
      throw new PipeweaveError(
        "database",
        "report_not_written",
        `The report cannot be written: ${messageOf(error)}`,
        {
          hint: "What was done stays done: see where stdout goes.",
          cause: error,
        },
      );
    }
  };
}

/** Longer than any file of settings, passwords or certificates is. */
const LONGEST_FILE = 16 * 1024 * 1024;

function readFile(path: string): FoundFile | undefined {
  try {
    const { mode, isFile, size, uid } = Deno.statSync(path);
    if (path === "/dev/null") return { text: "" };
    // A pipe would be waited for, and a device read for ever.
    if (!isFile) throw new Error("it is not a file");
    if (size > LONGEST_FILE) throw new Error("it is larger than 16 MB");
    // Whoever may put the name there, or a link on the way, chooses which file is read.
    const folder = Deno.statSync(dirname(path));
    const owners = [uid, folder.uid, ...linksTo(path).flatMap((link) => [link.uid, link.folder])];
    return {
      text: Deno.readTextFileSync(path),
      mode: mode ?? undefined,
      folderMode: folder.mode ?? undefined,
      owners: owners.filter((owner) => owner !== null),
    };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw error;
  }
}

/** No file system follows more. */
const MOST_LINKS = 40;

/** The owners of the links that lead to a file, and of the folders that they are in. */
function linksTo(path: string): { uid: number | null; folder: number | null }[] {
  const links: { uid: number | null; folder: number | null }[] = [];
  for (let at = path; links.length < MOST_LINKS;) {
    const { isSymlink, uid } = Deno.lstatSync(at);
    if (!isSymlink) break;
    links.push({ uid, folder: Deno.statSync(dirname(at)).uid });
    at = resolve(dirname(at), Deno.readLinkSync(at));
  }
  return links;
}

function size(): { columns: number; rows: number } {
  try {
    const { columns, rows } = Deno.consoleSize();
    return { columns: columns || 80, rows: rows || 24 };
  } catch {
    return { columns: 80, rows: 24 };
  }
}

/** Keys as they are pressed: the terminal neither waits for a line nor shows them, nor makes signals of them. */
function keys(onKey: (key: string) => void): () => void {
  Deno.stdin.setRaw(true);
  const reader = Deno.stdin.readable.getReader();
  const decoder = new TextDecoder();
  (async () => {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      for (const key of decoder.decode(value, { stream: true })) onKey(key);
    }
  })().catch(() => {});
  return () => {
    Deno.stdin.setRaw(false);
    reader.cancel().catch(() => {});
  };
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

const HANGUP = 129;
const SIGNALS: readonly (readonly [Deno.Signal, number])[] = Deno.build.os === "windows"
  ? [["SIGINT", 130]]
  // SIGHUP: the terminal is closed, or the SSH session was dropped.
  : [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", HANGUP]];
const LAST_WORD_MS = 200;
const interruption = new AbortController();
let signalCode: number | undefined;
for (const [signal, code] of SIGNALS) {
  Deno.addSignalListener(signal, () => {
    // The first signal lets the work clean up after itself. A second one is not swallowed; it leaves just the time to
    // send what asks the server to stop.
    if (signalCode !== undefined) {
      writer(Deno.stderr)(
        "\nEnded before it had cleaned up. See how things stand: pipeweave db:status, pipeweave maintenance:status\n",
      );
      return void setTimeout(() => Deno.exit(code), LAST_WORD_MS);
    }
    signalCode = code;
    interruption.abort();
  });
}

/** Commands that may write files, below the working folder; what the binary does besides has no leave to write any. */
const WRITERS = /^(?:db:)?(?:import|new|create)$/;
try {
  const isWriter = Deno.args.some((arg) => WRITERS.test(arg));
  if (!isWriter && !mayHoldSockets(Deno.cwd())) Deno.permissions.revokeSync({ name: "write", path: "." });
} catch {
  // A working folder that was removed: nothing can be written there.
}

/** Whether a folder is above those of Unix sockets, for which leave to write is needed, too. */
function mayHoldSockets(folder: string): boolean {
  return folder === "/" || /^\/(?:run|var|var\/run|cloudsql)(?:\/postgresql)?$/.test(folder);
}

const code = await run(Deno.args, {
  env: readEnvironment((name) => Deno.env.get(name)),
  out: writer(Deno.stdout),
  err: writer(Deno.stderr),
  outIsTerminal: Deno.stdout.isTerminal(),
  errIsTerminal: Deno.stderr.isTerminal(),
  ask: Deno.stdin.isTerminal() && Deno.stderr.isTerminal() ? ask : undefined,
  size,
  keys: Deno.stdin.isTerminal() ? keys : undefined,
  readFile,
  user: Deno.uid() ?? undefined,
  signal: interruption.signal,
});
Deno.exit(code === EXIT_CODES.interrupted ? signalCode ?? code : code);
