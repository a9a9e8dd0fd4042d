/** Every way to stand between pipeweave and a server: PgBouncer in its three modes, and Pgpool-II. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { PostgresServer } from "../scripts/postgres_server.ts";
import { folderWith, pipeweave, Run } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";
import { PgBouncer } from "./support/pgbouncer.ts";
import { Pgpool } from "./support/pgpool.ts";

type Pooler = AsyncDisposable & { url(server: URL, database: string): string };

/** Without pauses after a failed login, so that a server that is back is found soon. */
const SOON = "server_login_retry = 1\nserver_connect_timeout = 2";

const POOLERS: readonly (readonly [name: string, start: (server: URL) => Promise<Pooler>])[] = [
  ["PgBouncer, session mode", (server) => PgBouncer.start(server, 10, "session", SOON)],
  ["PgBouncer, transaction mode", (server) => PgBouncer.start(server, 3, "transaction", SOON)],
  ["PgBouncer, statement mode", (server) => PgBouncer.start(server, 3, "statement", SOON)],
  ["Pgpool-II", (server) => Pgpool.start(server)],
];

for (const [name, start] of POOLERS) {
  Deno.test(`${name}: the whole cycle, and nothing is left`, async () => {
    await using database = await TestDatabase.empty();
    const server = new URL(database.url);
    await using pooler = await start(server);
    await using folder = await folderWith({
      "101_big.sql": "CREATE TABLE big (id int); INSERT INTO big SELECT generate_series(1, 1000);",
      "102_index.sql": "-- pipeweave: no-transaction\nCREATE INDEX CONCURRENTLY big_id ON big (id);",
      "103_more.sql": "ALTER TABLE big ADD COLUMN x int;",
      "103_more.down.sql": "ALTER TABLE big DROP COLUMN x;",
    });
    const env = { DATABASE_URL: pooler.url(server, database.name) };
    const call = async (line: string, code = 0): Promise<string> => {
      const outcome = await pipeweave(line.split(" "), { env });
      assertEquals(outcome.code, code, `${line}: ${outcome.stderr}`);
      return outcome.stdout;
    };
    const set = `--embedded --dir ${folder.path}`;
    assertStringIncludes(await call(`db:migrate ${set}`), "✓ Applied 8 migration(s)");
    assertStringIncludes(await call(`db:migrate ${set}`), "All migrations up to date");
    await call(`db:validate ${set}`);
    await call(`db:rollback ${set} --yes`);
    await call(`db:status --check ${set}`, 3);
    await call("maintenance:request --wait --timeout 20s");
    await call(`db:migrate ${set}`);
    await call("maintenance:exit");
    await call("db:cleanup");
    await call("db:selftest");
    const [left] = await database
      .sql`SELECT (SELECT count(*)::int FROM migration_lease WHERE holder IS NOT NULL) AS leases,
      (SELECT count(*)::int FROM migration_journal) AS journal, (SELECT mode FROM orchestrator_state) AS mode`;
    assertEquals({ ...left }, { leases: 0, journal: 0, mode: "running" });
  });

  Deno.test(`${name}: whoever waits for a database waits for the server behind it, and for no other reason`, async () => {
    const server = await PostgresServer.start();
    try {
      await using pooler = await start(new URL(server.url()));
      const env = { DATABASE_URL: pooler.url(new URL(server.url()), "postgres") };
      assertEquals((await pipeweave(["db:migrate"], { env })).code, 0);
      await server.down();
      // Without a wait: an end with words, and the pooler's own reason.
      const refused = await pipeweave(["db:status"], { env: { ...env, PGCONNECT_TIMEOUT: "3" } });
      assertEquals(refused.code, 6, refused.stderr);
      assert(!refused.stderr.includes("    at "), refused.stderr);
      const late = await pipeweave(["db:wait", "--timeout", "2s"], { env });
      assertEquals(late.code, 4, late.stderr);
      assertMatch(late.stderr, /did not come up within 2s/);
      const runs = [
        new Run(["db:wait", "--timeout", "60s"], { env }),
        new Run(["db:status", "--wait-for-db", "60s"], { env }),
        new Run(["maintenance:wait", "--for", "running", "--timeout", "60s"], { env }),
      ];
      await runs[1]!.printed("Waiting for the database");
      await server.up();
      for (const run of runs) {
        const { code, stderr } = await run.outcome;
        assertEquals(code, 0, stderr);
      }
      const since = Date.now();
      const nowhere = await pipeweave(["db:wait", "--timeout", "60s"], {
        env: { DATABASE_URL: pooler.url(new URL(server.url()), "nowhere") },
      });
      assertEquals(nowhere.code, 6, nowhere.stderr);
      assert(Date.now() - since < 30_000);
    } finally {
      await server.stop();
    }
  });
}
