/** Migration files that are wrong, histories that do not match, signals and races, through the compiled binary. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { folderWith, pipeweave, Run, until } from "./support/binary.ts";
import { connect, TestDatabase } from "./support/database.ts";

const GOOD = {
  "001_first.sql": "CREATE TABLE first (id int PRIMARY KEY);\n",
  "002_second.sql": "CREATE TABLE second (id int);\n",
};

function tables({ sql }: TestDatabase): Promise<string[]> {
  return sql`SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename !~ '^migration_' ORDER BY 1`
    .then((
      rows,
    ) => rows.map(({ tablename }) => tablename));
}

Deno.test("files that are no migrations: exit 2 for the folder, 5 for the file, nothing applied", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  const latin1 = Uint8Array.from([
    ...new TextEncoder().encode("SELECT '"),
    0xe9,
    ...new TextEncoder().encode("';"),
  ]);
  const table: readonly (readonly [Record<string, string | Uint8Array>, number, string])[] = [
    [{}, 2, "holds no .sql file"],
    [{ ...GOOD, "nonsense.sql": "SELECT 1;" }, 5, "nonsense.sql is not named like a migration"],
    [{ ...GOOD, "003_CamelCase.sql": "SELECT 1;" }, 5, "003_CamelCase.sql is not named like a migration"],
    [{ ...GOOD, "002_again.sql": "SELECT 1;" }, 5, "has the same version as"],
    [{ "1_a.sql": "SELECT 1;", "001_b.sql": "SELECT 1;" }, 5, "has the same version as"],
    [{ ...GOOD, "003_latin.sql": latin1 }, 5, "003_latin.sql is not UTF-8 (byte 8)"],
    [{ ...GOOD, "003_empty.sql": "" }, 5, "003_empty.sql is empty"],
    [{ ...GOOD, "003_blank.sql": " \n\n" }, 5, "003_blank.sql is empty"],
    [{ ...GOOD, "003_zero.sql": "SELECT '\0';" }, 5, "zero byte"],
    [
      { ...GOOD, "003_directive.sql": "-- pipeweave: faster\nSELECT 1;" },
      5,
      '003_directive.sql:1:1: unknown directive "faster"',
    ],
    [
      { ...GOOD, "003_syntax.sql": "SELECT 1;\nSELEKT 2;" },
      5,
      '003_syntax.sql:2:1: syntax error at or near "SELEKT"',
    ],
    [{ ...GOOD, "003_commit.sql": "SELECT 1;\nCOMMIT;" }, 5, "003_commit.sql:2:1: COMMIT is not allowed"],
  ];
  for (const [files, code, part] of table) {
    await using folder = await folderWith(files);
    const args = ["--no-embedded", "--dir", folder.path];
    for (const command of ["db:migrate", "db:validate"]) {
      const outcome = await pipeweave([command, ...args], { env });
      assertEquals(outcome.code, code, `${command} ${part}: ${outcome.stderr}`);
      assertStringIncludes(outcome.stdout + outcome.stderr, part, command);
    }
    assertEquals(await tables(database), [], part);
  }
  const missing = await pipeweave(["db:migrate", "--dir", "/no/such/folder"], { env });
  assertEquals(missing.code, 2);
  assertStringIncludes(missing.stderr, "The folder /no/such/folder does not exist");
  const none = await pipeweave(["db:migrate", "--no-embedded"], { env });
  assertEquals(none.code, 2);
  assertStringIncludes(none.stderr, "Add a folder with --dir");
});

Deno.test("a byte-order mark and CRLF are the same migration", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  const text = GOOD["001_first.sql"];
  await using unix = await folderWith({ "001_first.sql": text });
  await using windows = await folderWith({ "001_first.sql": `\uFEFF${text.replaceAll("\n", "\r\n")}` });
  assertEquals((await pipeweave(["db:migrate", "--no-embedded", "--dir", windows.path], { env })).code, 0);
  const check = await pipeweave(["db:status", "--check", "--no-embedded", "--dir", unix.path], { env });
  assertEquals([check.code, check.stderr], [0, ""]);
});

Deno.test("gaps: a warning in a folder of the user's, none between dates", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  await using gap = await folderWith({ "001_a.sql": "SELECT 1;", "003_c.sql": "SELECT 1;" });
  const warned = await pipeweave(["db:migrate", "--no-embedded", "--dir", gap.path], { env });
  assertEquals(warned.code, 0);
  assertMatch(warned.stderr, /^warning: .*003_c\.sql follows 001_a: the versions between are missing\n$/);
  await using dates = await folderWith({ "20240101_a.sql": "SELECT 1;", "20250101_b.sql": "SELECT 1;" });
  const quiet = await pipeweave(["db:validate", "--offline", "--no-embedded", "--dir", dates.path], { env });
  assertEquals([quiet.code, quiet.stderr], [0, ""]);
});

Deno.test("a migration that fails in the middle: reported whole, and the next run goes on", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  await using folder = await folderWith({
    ...GOOD,
    "003_bad.sql": "CREATE TABLE third (id int);\nINSERT INTO first VALUES (1), (1);\n",
    "004_later.sql": "CREATE TABLE fourth (id int);",
  });
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path];
  const failed = await pipeweave(args, { env });
  assertEquals(failed.code, 1);
  assertStringIncludes(failed.stdout, "✓ Applied 002_second");
  assertStringIncludes(failed.stdout, "✗ Failed 003_bad");
  assertStringIncludes(
    failed.stderr,
    `error: 003_bad failed: duplicate key value violates unique constraint "first_pkey"
  at ${folder.path}/003_bad.sql:2:1
  2 | INSERT INTO first VALUES (1), (1);
    | ^
  - 003_bad was rolled back: nothing of it stays
  - applied by this run: 001_first, 002_second
  - not tried: 004_later
  SQLSTATE: 23505
  DETAIL: Key (id)=(1) already exists.
  next: Correct the file, and run db:migrate again: it goes on where it stopped.
`,
  );
  assertEquals(await tables(database), ["first", "schema_migrations", "second"]);

  const json = await pipeweave([...args, "--json"], { env });
  assertEquals([json.code, json.stderr], [1, ""]);
  const document = JSON.parse(json.stdout);
  assertEquals([document.applied, document.current, document.failed.version], [[], "002", "003"]);
  assertEquals(document.pending.map(({ version }: { version: string }) => version), ["003", "004"]);
  assertEquals([document.failed.error.sqlstate, document.failed.error.line], ["23505", 2]);

  await Deno.writeTextFile(`${folder.path}/003_bad.sql`, "CREATE TABLE third (id int);\n");
  assertEquals((await pipeweave(args, { env })).code, 0);
  assertEquals(await tables(database), ["first", "fourth", "schema_migrations", "second", "third"]);
});

Deno.test("a changed file, a removed file, an unknown row: exit 5, nothing applied", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  await using folder = await folderWith(GOOD);
  const set = ["--no-embedded", "--dir", folder.path];
  assertEquals((await pipeweave(["db:migrate", ...set], { env })).code, 0);
  await Deno.writeTextFile(`${folder.path}/003_third.sql`, "CREATE TABLE third (id int);");
  const refused = async (...parts: string[]) => {
    for (const args of [["db:migrate"], ["db:status", "--check"], ["db:validate"]]) {
      const { code, stdout, stderr } = await pipeweave([...args, ...set], { env });
      assertEquals(code, 5, `${args}: ${stderr}`);
      for (const part of parts) assertStringIncludes(stdout + stderr, part, args.join(" "));
    }
    assertEquals((await pipeweave(["db:status", ...set], { env })).code, 0);
    assertEquals(await tables(database), ["first", "schema_migrations", "second"]);
  };
  await Deno.writeTextFile(`${folder.path}/001_first.sql`, "CREATE TABLE first (id bigint);");
  await refused("was changed after it was applied");
  await Deno.writeTextFile(`${folder.path}/001_first.sql`, GOOD["001_first.sql"]);
  await Deno.remove(`${folder.path}/002_second.sql`);
  await refused("002_second");
  await Deno.writeTextFile(`${folder.path}/002_second.sql`, GOOD["002_second.sql"]);
  await database
    .sql`INSERT INTO schema_migrations (version, name, checksum, migration_set) VALUES ('900', 'from_the_future', 'x', 'user')`;
  await refused("900_from_the_future");

  const allowed = await pipeweave(["db:migrate", "--allow-missing", ...set], { env });
  assertEquals(allowed.code, 0);
  assertStringIncludes(allowed.stderr, "warning: applied, but not known here: 900_from_the_future");
  const status = await pipeweave(["db:status", "--json", ...set], { env });
  assertEquals(JSON.parse(status.stdout).missing[0].version, "900");
});

Deno.test("status --check: 3 while anything is pending", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  const check = await pipeweave(["db:status", "--check", "--quiet"], { env });
  assertEquals([check.code, check.stdout], [3, ""]);
  assertStringIncludes(check.stderr, "5 migration(s) are pending: 000_migration_tracking");
});

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  Deno.test(`${signal} in the middle of a migration: rolled back, exit ${code}`, async () => {
    await using database = await TestDatabase.empty();
    await using folder = await folderWith({
      "001_slow.sql": "CREATE TABLE slow (id int);\nSELECT pg_sleep(60);",
      "002_next.sql": "SELECT 1;",
    });
    const run = new Run(["db:migrate", "--no-embedded", "--dir", folder.path], {
      env: { DATABASE_URL: database.url },
    });
    const active = async () =>
      (await database
        .sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '-- pipeweave: 001_slow%' AND state = 'active'`)
        .length;
    await until(async () => await active() === 1, "the migration runs");
    const sent = Date.now();
    run.kill(signal);
    const outcome = await run.outcome;
    assertEquals(outcome.code, code, outcome.stderr);
    assert(Date.now() - sent < 3000);
    assertStringIncludes(outcome.stderr, "error: 001_slow was interrupted\n");
    // Whoever ended it is not asked to find out why.
    assertStringIncludes(outcome.stderr, "next: Run db:migrate again: it goes on where it stopped.\n");
    assertStringIncludes(outcome.stderr, "001_slow was rolled back: nothing of it stays");
    assertStringIncludes(outcome.stderr, "not tried: 002_next");
    assertEquals(await active(), 0);
    assertEquals(await tables(database), []);
  });
}

Deno.test("an interruption is in the log, where there is one", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_quick.sql": "SELECT 1;",
    "002_slow.sql": "SELECT pg_sleep(60);",
  });
  const run = new Run(["db:migrate", "--dir", folder.path], { env: { DATABASE_URL: database.url } });
  await run.printed("Applying 002_slow");
  await until(
    async () =>
      (await database
        .sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`)
        .length === 1,
    "it sleeps",
  );
  run.kill("SIGHUP");
  assertEquals((await run.outcome).code, 129);
  const failed = await pipeweave(["db:history", "--failed"], { env: { DATABASE_URL: database.url } });
  assertMatch(failed.stdout, /apply 002_slow: failed {2}by /);
  const none = await pipeweave(["db:history", "--action", "rollback"], {
    env: { DATABASE_URL: database.url },
  });
  assertEquals(none.stdout, "Nothing like that is logged.\n");
  const first = await pipeweave(["db:history", "--limit", "1"], { env: { DATABASE_URL: database.url } });
  assertEquals(first.stderr, "There are older entries: --limit <n> shows more.\n");
});

Deno.test("a second signal is not swallowed", async () => {
  // A server that takes the connection and then says nothing at all cannot be asked to cancel.
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const connections: Deno.Conn[] = [];
  const serving = (async () => {
    for await (const connection of listener) connections.push(connection);
  })();
  const run = new Run(["db:status", "--connect-timeout", "0"], {
    env: { DATABASE_URL: `postgres://u@127.0.0.1:${(listener.addr as Deno.NetAddr).port}/d` },
  });
  await until(() => Promise.resolve(connections.length > 0), "it connects");
  run.kill("SIGINT");
  await new Promise((resolve) => setTimeout(resolve, 50));
  try {
    run.kill("SIGINT");
  } catch {
    // The first one was enough.
  }
  assertEquals((await run.outcome).code, 130);
  listener.close();
  await serving.catch(() => {});
  for (const connection of connections) connection.close();
});

Deno.test("a migrator that is killed leaves nothing behind", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_slow.sql": "CREATE TABLE slow (id int); SELECT pg_sleep(1.5);",
  });
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path];
  const run = new Run(args, { env: { DATABASE_URL: database.url } });
  await until(
    async () =>
      (await database
        .sql`SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
        .length === 1,
    "it holds the lock",
  );
  run.kill("SIGKILL");
  await run.outcome;
  assertEquals((await pipeweave(args, { env: { DATABASE_URL: database.url } })).code, 0);
  assertEquals((await database.sql`SELECT version FROM schema_migrations`).length, 1);
});

Deno.test("20 migrators at once on an empty database: all exit 0, every migration once", async () => {
  await using database = await TestDatabase.empty();
  const runs = await Promise.all(
    Array.from({ length: 20 }, () => pipeweave(["db:migrate"], { env: { DATABASE_URL: database.url } })),
  );
  assertEquals(runs.map(({ code }) => code), runs.map(() => 0), runs.map(({ stderr }) => stderr).join(""));
  const rows = await database
    .sql`SELECT version, count(*)::int AS n FROM schema_migrations GROUP BY 1 ORDER BY 1`;
  assertEquals(
    rows.map((row) => ({ ...row })),
    ["000", "001", "002", "90003", "90004"].map((version) => ({ version, n: 1 })),
  );
  const applied = runs.flatMap(({ stdout }) => stdout.match(/✓ Applied \d+_/g) ?? []);
  assertEquals(applied.length, 5);
});

Deno.test("waiting for another migrator ends in time: exit 4, and says who it is", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_slow.sql": "SELECT pg_sleep(60);" });
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path];
  const env = { DATABASE_URL: database.url };
  const first = new Run(args, { env });
  await first.printed("Applying 001_slow");
  await until(
    async () =>
      (await database
        .sql`SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
        .length === 1,
    "it holds the lock",
  );
  const second = await pipeweave([...args, "--lock-wait", "500ms"], { env });
  first.kill("SIGINT");
  await first.outcome;
  assertEquals(second.code, 4);
  assertMatch(
    second.stderr,
    /Another migrator was at work for more than 500ms: pid \d+, user postgres, host 127\.0\.0\.1\S*, application pipeweave\/\S+ db:migrate, since /,
  );
});

Deno.test("a reader that a deadlock with a migrator's DDL ended reads again", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const ddl = connect(database.url);
  try {
    await ddl.unsafe("BEGIN; LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE").simple();
    const status = pipeweave(["db:status"], { env: { DATABASE_URL: database.url } });
    await until(
      async () =>
        (await sql`SELECT FROM pg_locks WHERE relation = 'schema_migrations'::regclass AND NOT granted`)
          .length === 1,
      "the reader waits, and has read the journal",
    );
    // Whom of the two PostgreSQL ends is its choice: the reader has to live with it, and a migrator tries again anyway.
    await ddl.unsafe(
      "SET LOCAL deadlock_timeout = '60s'; LOCK TABLE migration_journal IN ACCESS EXCLUSIVE MODE",
    ).simple();
    await ddl.unsafe("COMMIT").simple();
    const { code, stderr } = await status;
    assertEquals(code, 0, stderr);
  } finally {
    await ddl.end({ timeout: 1 });
  }
});
