/** A Pgpool-II of a test's own, in front of one server. */

import { freePort } from "../../scripts/postgres_server.ts";
import { listens } from "./listening.ts";

export class Pgpool implements AsyncDisposable {
  private constructor(
    readonly port: number,
    readonly folder: string,
    readonly process: Deno.ChildProcess,
  ) {}

  /** Starts one in front of a server. */
  static async start(server: URL): Promise<Pgpool> {
    const program = Deno.env.get("PIPEWEAVE_PGPOOL");
    if (!program) throw new Error("This test needs Pgpool-II: run it by ./scripts/test.sh");
    const port = freePort();
    const folder = await Deno.makeTempDir({ prefix: "pipeweave-pgpool-" });
    await Deno.chmod(folder, 0o777);
    await Deno.writeTextFile(
      `${folder}/conf`,
      `backend_clustering_mode = 'raw'
listen_addresses = '127.0.0.1'
port = ${port}
pcp_port = ${freePort()}
socket_dir = '${folder}'
pcp_socket_dir = '${folder}'
pid_file_name = '${folder}/pid'
logdir = '${folder}'
backend_hostname0 = '${server.hostname}'
backend_port0 = ${server.port}
num_init_children = 32
enable_pool_hba = off
pool_passwd = ''
failover_on_backend_error = off
health_check_period = 0
`,
    );
    for (const empty of ["pcp", "hba"]) await Deno.writeTextFile(`${folder}/${empty}`, "");
    const log = await Deno.open(`${folder}/log`, { write: true, create: true });
    const process = new Deno.Command(program, {
      args: ["-n", "-f", `${folder}/conf`, "-F", `${folder}/pcp`, "-a", `${folder}/hba`],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
      // As PgBouncer, and PostgreSQL itself.
      ...(Deno.uid() === 0 ? { uid: 65_534, gid: 65_534 } : {}),
    }).spawn();
    void process.stderr.pipeTo(log.writable).catch(() => {});
    const pool = new Pgpool(port, folder, process);
    if (await listens(port, 15_000)) return pool;
    const said = await Deno.readTextFile(`${folder}/log`).catch(() => "");
    await pool[Symbol.asyncDispose]();
    throw new Error(`Pgpool-II did not start: ${said}`);
  }

  /** The server's URL by way of the pooler. */
  url(server: URL, database: string): string {
    return `postgres://${server.username}@127.0.0.1:${this.port}/${database}?sslmode=disable`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      // Its immediate shutdown, which ends the children too.
      this.process.kill("SIGQUIT");
    } catch {
      // It has ended already.
    }
    const late = setTimeout(() => this.process.kill("SIGKILL"), 10_000);
    await this.process.status;
    clearTimeout(late);
    await Deno.remove(this.folder, { recursive: true });
  }
}
