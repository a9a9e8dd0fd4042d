/**
 * Starts PostgreSQL servers of their own for tests, the demo and benchmarks, and removes them again.
 *
 * As a program it runs a command beside a server: `deno run -A scripts/postgres_server.ts <command> [arguments…]`
 * with PIPEWEAVE_TEST_SERVER set to the server's URL, and ends with the command's exit code.
 */

import { fileURLToPath } from "node:url";

/** The programs of PIPEWEAVE_POSTGRES (scripts/postgres.sh), or those that setup.sh got. */
const NATIVE = Deno.env.get("PIPEWEAVE_POSTGRES") ??
  fileURLToPath(new URL("../.toolchain/postgres", import.meta.url));
/** PostgreSQL refuses to run as root; this is the id of "nobody" wherever that name exists. */
const UNPRIVILEGED = 65_534;
const asRoot = Deno.uid() === 0;
const identity = asRoot ? { uid: UNPRIVILEGED, gid: UNPRIVILEGED } : {};

export interface ServerOptions {
  /** Settings for postgresql.conf, beside those that suit throw-away data. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Authentication of connections from 127.0.0.1. Default: trust. */
  readonly auth?: "trust" | "scram-sha-256";
  /** Data folder of a stopped server to start as a standby that nobody feeds. */
  readonly standbyOf?: string;
  readonly port?: number;
}

/** The superuser of every such server, and its password. */
export const ADMIN = {
  user: "postgres",
  password: "s3cret @/:%'\\ word",
} as const;

export class PostgresServer {
  #process: Deno.ChildProcess | undefined;

  private constructor(
    readonly folder: string,
    readonly port: number,
    readonly binaries: string,
  ) {}

  /** Makes a data folder and starts a server on it. */
  static async start(
    { settings = {}, auth = "trust", standbyOf, port = freePort() }: ServerOptions = {},
  ): Promise<PostgresServer> {
    const folder = await Deno.makeTempDir({ prefix: "pipeweave-postgres-" });
    await Deno.chmod(folder, 0o755);
    const server = new PostgresServer(
      folder,
      port,
      await usableBinaries(folder),
    );
    try {
      if (asRoot) await Deno.chown(folder, UNPRIVILEGED, UNPRIVILEGED);
      if (standbyOf) await command("cp", ["-a", `${standbyOf}/.`, server.data]);
      else {
        await Deno.writeTextFile(`${folder}/password`, ADMIN.password, {
          mode: 0o644,
        });
        const local = [
          "-U",
          ADMIN.user,
          "--pwfile",
          `${folder}/password`,
          "-E",
          "UTF8",
          "--locale",
          "C",
        ];
        await command(`${server.binaries}/initdb`, [
          "-D",
          server.data,
          "-N",
          "--auth-local",
          "trust",
          "--auth-host",
          auth,
          ...local,
        ], folder);
      }
      if (standbyOf) await server.write("standby.signal", "");
      await server.configure({
        listen_addresses: "127.0.0.1",
        port: String(port),
        unix_socket_directories: folder,
        max_connections: "200",
        shared_buffers: "64MB",
        fsync: "off",
        synchronous_commit: "off",
        full_page_writes: "off",
        autovacuum: "off",
        log_min_messages: "fatal",
        ...settings,
      });
      await server.up();
      return server;
    } catch (error) {
      await server.stop();
      throw error;
    }
  }

  get data(): string {
    return `${this.folder}/data`;
  }

  get pid(): number {
    return this.#process!.pid;
  }

  /** A URL of a database on this server. */
  url(database = "postgres", user: string = ADMIN.user): string {
    return `postgres://${user}@127.0.0.1:${this.port}/${database}`;
  }

  /** Writes a file of the data folder that the server can read. */
  async write(name: string, text: string): Promise<void> {
    const path = `${this.data}/${name}`;
    await Deno.writeTextFile(path, text, { mode: 0o600 });
    if (asRoot) await Deno.chown(path, UNPRIVILEGED, UNPRIVILEGED);
  }

  /** Sets settings; they hold from the next start, or from {@linkcode reload} on. */
  async configure(settings: Readonly<Record<string, string>>): Promise<void> {
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'\n`);
    await Deno.writeTextFile(`${this.data}/postgresql.conf`, lines.join(""), {
      append: true,
    });
  }

  reload(): void {
    this.#process!.kill("SIGHUP");
  }

  /** Starts the server, and waits until it takes connections. */
  async up(): Promise<void> {
    await this.launch();
    for (let waited = 0; waited < 30_000; waited += 50) {
      if (await this.#lastLineOfPid() === "ready") return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(
      `PostgreSQL did not start: ${await Deno.readTextFile(`${this.folder}/log`)
        .catch(() => "")}`,
    );
  }

  /** Starts the server, and does not wait. */
  async launch(): Promise<void> {
    await Deno.remove(`${this.data}/postmaster.pid`).catch(() => {});
    this.#process = new Deno.Command("/bin/sh", {
      args: [
        "-c",
        `exec "$0" -D "$1" >>"$2" 2>&1`,
        `${this.binaries}/postgres`,
        this.data,
        `${this.folder}/log`,
      ],
      cwd: this.folder,
      stdin: "null",
      ...identity,
    }).spawn();
  }

  /** Stops the server: SIGINT is PostgreSQL's fast shutdown, SIGQUIT its immediate one. */
  async down(signal: Deno.Signal = "SIGINT"): Promise<void> {
    const process = this.#process;
    this.#process = undefined;
    if (!process) return;
    try {
      process.kill("SIGCONT");
      process.kill(signal);
    } catch {
      // It has ended already.
    }
    const late = setTimeout(() => process.kill("SIGKILL"), 20_000);
    await process.status;
    clearTimeout(late);
  }

  /** Stops the server and removes its files. */
  async stop(): Promise<void> {
    await this.down("SIGQUIT");
    await Deno.remove(this.folder, { recursive: true }).catch(() => {});
  }

  /** Freezes the server's postmaster and all its sessions, or lets them go on. */
  async freeze(signal: "SIGSTOP" | "SIGCONT"): Promise<void> {
    const { stdout } = await new Deno.Command("/bin/sh", {
      args: [
        "-c",
        `for f in /proc/[0-9]*/stat; do read -r line <"$f" && echo "$line"; done 2>/dev/null`,
      ],
    }).output();
    const rows = new TextDecoder().decode(stdout).split("\n").map((line) =>
      /^(\d+) \(.*\) \S (\d+)/.exec(line)
    );
    const children = rows.filter((row) => row && Number(row[2]) === this.pid)
      .map((row) => Number(row![1]));
    for (const pid of [this.pid, ...children]) Deno.kill(pid, signal);
  }

  async #lastLineOfPid(): Promise<string | undefined> {
    // The last line of postmaster.pid is the server's own word on its state.
    const text = await Deno.readTextFile(`${this.data}/postmaster.pid`).catch(
      () => "",
    );
    return text.trimEnd().split("\n")[7]?.trim();
  }
}

/** The server's programs, where the unprivileged user can run them: a clone below /root is closed to it. */
async function usableBinaries(folder: string): Promise<string> {
  const inPlace = await new Deno.Command(`${NATIVE}/bin/postgres`, {
    args: ["--version"],
    cwd: "/",
    stdout: "null",
    stderr: "null",
    ...identity,
  })
    .output().then(({ success }) => success, () => false);
  if (inPlace) return `${NATIVE}/bin`;
  await command("cp", ["-RL", NATIVE, `${folder}/native`]);
  return `${folder}/native/bin`;
}

async function command(
  program: string,
  args: string[],
  cwd?: string,
): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, {
    args,
    ...(cwd ? { cwd, ...identity } : {}),
  })
    .output();
  if (!success) {
    throw new Error(`${program} failed: ${new TextDecoder().decode(stderr)}`);
  }
}

/** A TCP port of 127.0.0.1 that nobody listens on. */
export function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}

if (import.meta.main) {
  const [program, ...args] = Deno.args;
  if (!program) {
    throw new Error("usage: postgres_server.ts <command> [arguments…]");
  }
  const server = await PostgresServer.start();
  const child = new Deno.Command(program, {
    args,
    env: { PIPEWEAVE_TEST_SERVER: server.url() },
  }).spawn();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    Deno.addSignalListener(
      signal,
      () => child.kill(signal === "SIGHUP" ? "SIGTERM" : signal),
    );
  }
  const { code } = await child.status;
  await server.stop();
  Deno.exit(code);
}
