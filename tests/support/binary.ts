/** Runs the compiled binary as a user would. */

import { fileURLToPath } from "node:url";

/** The binary that scripts/build.sh made. */
export const BINARY = fileURLToPath(new URL("../../dist/pipeweave", import.meta.url));

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** The whole environment. */
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  readonly binary?: string;
}

/** A run that goes on: to be waited for or signalled. */
export class Run {
  readonly outcome: Promise<Outcome>;
  readonly #child: Deno.ChildProcess;
  #stdout = "";
  #stderr = "";

  constructor(args: readonly string[], { env = {}, cwd, binary = BINARY }: RunOptions = {}) {
    const child = this.#child = new Deno.Command(binary, {
      args: [...args],
      clearEnv: true,
      env,
      ...(cwd ? { cwd } : {}),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const read = async (stream: ReadableStream<Uint8Array>, add: (text: string) => void) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) add(text);
    };
    this.outcome = (async () => {
      const [status] = await Promise.all([
        child.status,
        read(child.stdout, (text) => this.#stdout += text),
        read(child.stderr, (text) => this.#stderr += text),
      ]);
      return { code: status.code, stdout: this.#stdout, stderr: this.#stderr };
    })();
  }

  kill(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Waits until something was printed. */
  async printed(text: string, limitMs = 10_000): Promise<void> {
    for (let waited = 0; waited < limitMs; waited += 10) {
      if ((this.#stdout + this.#stderr).includes(text)) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`"${text}" was not printed within ${limitMs} ms: ${this.#stdout}${this.#stderr}`);
  }
}

/** A run on a terminal of its own, which script(1) makes. */
export class Terminal implements AsyncDisposable {
  /** All that was drawn so far. */
  drawn = "";
  readonly #child: Deno.ChildProcess;
  readonly #keys: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<void>;

  constructor(command: string, databaseUrl: string, columns: number, rows = 24, cwd?: string) {
    const child = this.#child = new Deno.Command("script", {
      args: [
        ...["--quiet", "--return", "--command", `stty cols ${columns} rows ${rows} && ${BINARY} ${command}`],
        "/dev/null",
      ],
      clearEnv: true,
      env: {
        ...{ DATABASE_URL: databaseUrl, PATH: Deno.env.get("PATH") ?? "" },
        ...{ TERM: "xterm", SHELL: "/bin/sh" },
      },
      ...{ stdin: "piped", stdout: "piped", stderr: "null" },
      ...(cwd ? { cwd } : {}),
    }).spawn();
    this.#keys = child.stdin.getWriter();
    this.#reading = (async () => {
      for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) this.drawn += text;
    })();
  }

  async types(keys: string): Promise<void> {
    await this.#keys.write(new TextEncoder().encode(keys));
  }

  /** What was drawn so far, without its colours. */
  get text(): string {
    // deno-lint-ignore no-control-regex
    return this.drawn.replaceAll(/\x1b\[[\d;]*m/g, "");
  }

  /** Waits until something has been drawn, in whatever colour. */
  shows(text: string): Promise<void> {
    return until(() => Promise.resolve(this.text.includes(text)), `it shows ${text}: ${this.drawn}`);
  }

  /** Waits for the end, and tells the exit code. */
  async ends(): Promise<number> {
    const { code } = await this.#child.status;
    await this.#reading;
    return code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await this.ends();
    await this.#keys.close().catch(() => {});
  }
}

/** Runs the binary to its end. */
export function pipeweave(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  return new Run(args, options).outcome;
}

/** A folder with the given files, removed when it goes out of scope. */
export async function folderWith(
  files: Readonly<Record<string, string | Uint8Array>>,
): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await Deno.makeTempDir({ prefix: "pipeweave-test-" });
  for (const [name, content] of Object.entries(files)) {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    await Deno.writeFile(`${path}/${name}`, bytes);
  }
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** Waits until a condition holds. */
export async function until(
  condition: () => Promise<boolean>,
  what: string,
  limitMs = 15_000,
): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!await condition()) {
    if (Date.now() > deadline) throw new Error(`not within ${limitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
