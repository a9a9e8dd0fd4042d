/** A PgBouncer of a test's own. */

import { freePort } from "../../scripts/postgres_server.ts";
import { listens } from "./listening.ts";

/** When a server connection goes back to the pool: after the client, its transaction, its statement. */
export type PoolMode = "session" | "transaction" | "statement";

export class PgBouncer implements AsyncDisposable {
  private constructor(
    readonly port: number,
    readonly folder: string,
    readonly process: Deno.ChildProcess,
  ) {}

  /**
   * Starts one in front of a server.
   *
   * @param poolSize connections to the server, for each database and user
   */
  static async start(
    server: URL,
    poolSize: number,
    mode: PoolMode = "transaction",
    settings = "",
  ): Promise<PgBouncer> {
    const program = Deno.env.get("PIPEWEAVE_PGBOUNCER");
    if (!program) throw new Error("This test needs PgBouncer: run it by ./scripts/test.sh");
    const port = freePort();
    const folder = await Deno.makeTempDir({ prefix: "pipeweave-pgbouncer-" });
    await Deno.chmod(folder, 0o777);
    const user = decodeURIComponent(server.username);
    await Deno.writeTextFile(`${folder}/users`, `"${user}" ""\n`);
    await Deno.writeTextFile(
      `${folder}/ini`,
      `[databases]
* = host=${server.hostname} port=${server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
pool_mode = ${mode}
default_pool_size = ${poolSize}
max_client_conn = 200
auth_type = trust
auth_file = ${folder}/users
logfile = ${folder}/log
server_reset_query =${mode === "session" ? " DISCARD ALL" : ""}
${settings}
`,
    );
    const process = new Deno.Command(program, {
      // It refuses to run as root.
      args: [...(Deno.uid() === 0 ? ["-u", "nobody"] : []), `${folder}/ini`],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const bouncer = new PgBouncer(port, folder, process);
    if (await listens(port, 10_000)) return bouncer;
    const log = await Deno.readTextFile(`${folder}/log`).catch(() => "");
    await bouncer[Symbol.asyncDispose]();
    throw new Error(`PgBouncer did not start: ${log}`);
  }

  /** The server's URL by way of the pooler. */
  url(server: URL, database: string): string {
    return `postgres://${server.username}@127.0.0.1:${this.port}/${database}?sslmode=disable`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      // What SIGTERM means to it depends on its version, and SIGQUIT is ignored where a shell started us in the background.
      this.process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await this.process.status;
    await Deno.remove(this.folder, { recursive: true });
  }
}
