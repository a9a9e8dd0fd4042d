/** The engine when things die: clients, servers, connections; and through a pooler. */

import { assert, assertEquals } from "@std/assert";
import { PostgresServer } from "../scripts/postgres_server.ts";
import { migrate } from "../src/commands/migrate.ts";
import { PipeweaveError } from "../src/errors.ts";
import { folderWith, pipeweave, Run } from "./support/binary.ts";
import { sessionFor, TestDatabase, urlOf } from "./support/database.ts";
import { Proxy } from "./support/proxy.ts";

const numbered = (count: number, text: (i: number) => string) =>
  Object.fromEntries(
    Array.from({ length: count }, (_, i) => [`${String(i + 1).padStart(3, "0")}_m.sql`, text(i + 1)]),
  );

async function versions({ sql }: TestDatabase): Promise<string[]> {
  const [table] = await sql`SELECT to_regclass('schema_migrations') AS t`;
  if (table!["t"] === null) return [];
  return (await sql`SELECT version FROM schema_migrations ORDER BY id`).map(({ version }) => version);
}

Deno.test("the connection cut after every message of the server: applied once, and told truly", async () => {
  await using folder = await folderWith(
    numbered(3, (i) => `CREATE TABLE m${i} (id int); INSERT INTO m${i} VALUES (${i});`),
  );
  const all = ["001", "002", "003"];
  let inStartup = 0;
  let recovered = 0;
  for (let cutAfter = 1;; cutAfter++) {
    await using database = await TestDatabase.empty();
    await using proxy = new Proxy(new URL(urlOf("x")), { cutAfter });
    const session = sessionFor(proxy.url(database.name));
    const outcome = await migrate(session, { dirs: [folder.path], embedded: false }).catch((error: unknown) =>
      error
    );
    await session.close();
    const found = await versions(database);
    if (outcome instanceof PipeweaveError) {
      // Cut before the first message was answered: nothing can have been applied.
      assertEquals([outcome.kind, found], ["connection", []], `cut after ${cutAfter}`);
      inStartup++;
    } else {
      const { applied, failed } = outcome as Awaited<ReturnType<typeof migrate>>;
      assertEquals(
        [failed, applied.map(({ migration }) => migration.version), found],
        [null, all, all],
        `cut after ${cutAfter}`,
      );
      if (proxy.cut) recovered++;
    }
    if (!proxy.cut) break;
  }
  assert(inStartup > 0 && recovered > 50, `${inStartup} in the startup, ${recovered} recovered`);
});

Deno.test("round trips do not grow with the number of migrations", async () => {
  const turns = async (count: number) => {
    await using database = await TestDatabase.empty();
    await using folder = await folderWith(numbered(count, (i) => `CREATE TABLE m${i} (id int);`));
    const session = database.session();
    let pending = 0;
    let waits = 0;
    const send = session.send.bind(session);
    session.send = (message) => {
      if (pending++ === 0) waits++;
      return send(message).finally(() => pending--);
    };
    assertEquals((await migrate(session, { dirs: [folder.path], embedded: false })).applied.length, count);
    return waits;
  };
  assertEquals([await turns(1), await turns(60)], [2, 2]);
});

Deno.test("a crash of the server in the middle: what was committed is there, the next run goes on", async () => {
  // A commit that was reported has to survive, so it has to be written before it is.
  const server = await PostgresServer.start({ settings: { synchronous_commit: "on" } });
  try {
    await using folder = await folderWith(
      numbered(4, (i) => `CREATE TABLE m${i} (id int); SELECT pg_sleep(0.4);`),
    );
    const args = ["db:migrate", "--no-embedded", "--dir", folder.path];
    const env = { DATABASE_URL: server.url() };
    const run = new Run(args, { env });
    await run.printed("✓ Applied 001_m");
    await server.down("SIGQUIT");
    const outcome = await run.outcome;
    assertEquals(outcome.code, 6, outcome.stderr);
    await server.up();
    const status = JSON.parse(
      (await pipeweave(["db:status", "--json", "--no-embedded", "--dir", folder.path], { env })).stdout,
    );
    const reported = outcome.stdout.match(/✓ Applied \d+/g)!.length;
    assert(status.applied.length >= reported, `${reported} reported, ${status.applied.length} applied`);
    assertEquals((await pipeweave(args, { env })).code, 0);
    const after = JSON.parse(
      (await pipeweave(["db:status", "--json", "--no-embedded", "--dir", folder.path], { env })).stdout,
    );
    assertEquals([after.applied.length, after.pending.length], [4, 0]);
  } finally {
    await server.stop();
  }
});

Deno.test("racers: what is applied is reported by exactly one of them", async () => {
  await using folder = await folderWith(numbered(15, (i) => `CREATE TABLE m${i} (id int);`));
  for (let round = 0; round < 15; round++) {
    await using database = await TestDatabase.empty();
    const sessions = Array.from({ length: 6 }, () => database.session());
    const results = await Promise.all(
      sessions.map((session) => migrate(session, { dirs: [folder.path], embedded: false })),
    );
    const reported = results.flatMap(({ applied }) => applied.map(({ migration }) => migration.version));
    assertEquals(reported.sort(), await versions(database), `round ${round}`);
    await Promise.all(sessions.map((session) => session.close()));
  }
});

Deno.test("migrators that are killed at random moments: each version applied exactly once, no lock left", async () => {
  await using folder = await folderWith(
    numbered(12, (i) => `CREATE TABLE m${i} (id int); INSERT INTO m${i} SELECT generate_series(1, 2000);`),
  );
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path];
  for (let round = 0; round < 8; round++) {
    await using database = await TestDatabase.empty();
    const env = { DATABASE_URL: database.url };
    const runs = Array.from({ length: 6 }, () => new Run(args, { env }));
    const victims = runs.slice(0, 4).map(async (run) => {
      await new Promise((resolve) => setTimeout(resolve, 60 + Math.random() * 200));
      try {
        run.kill("SIGKILL");
      } catch {
        // It has ended already.
      }
    });
    await Promise.all(victims);
    const outcomes = await Promise.all(runs.map(({ outcome }) => outcome));
    for (const { code, stderr } of outcomes.slice(4)) assertEquals(code, 0, stderr);
    assertEquals((await versions(database)).length, 12);
    const rows = await database
      .sql`SELECT (SELECT count(*)::int FROM m1) AS first, (SELECT count(*)::int FROM m12) AS last,
      (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS locks`;
    assertEquals({ ...rows[0] }, { first: 2000, last: 2000, locks: 0 });
  }
});
