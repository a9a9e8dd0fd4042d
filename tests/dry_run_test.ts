/** `db:migrate --dry-run`, by the binary: a plan, and what each statement takes; nothing is written. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { folderWith, type Outcome, pipeweave, Run, until } from "./support/binary.ts";
import { queueTasks, TestDatabase } from "./support/database.ts";

interface Planned {
  readonly version: string;
  readonly transaction: boolean;
  readonly statements: readonly {
    line: number;
    durationMs?: number;
    locks?: readonly { table: string; mode: string }[];
    rewritten?: readonly string[];
  }[];
  readonly findings: readonly { code: string }[];
}

const run = (database: TestDatabase, ...args: string[]): Promise<Outcome> =>
  pipeweave(["db:migrate", "--no-embedded", ...args], { env: { DATABASE_URL: database.url } });

/** All that a schema consists of. */
async function fingerprint({ sql }: TestDatabase): Promise<unknown> {
  const rows = await sql`
    SELECT relname, relkind, relfilenode, (SELECT count(*)::int FROM pg_attribute WHERE attrelid = c.oid) AS columns
      FROM pg_class c WHERE relnamespace = 'public'::regnamespace ORDER BY 1`;
  return rows.map((row) => ({ ...row }));
}

Deno.test("a dry run of any kind writes nothing to an empty database, not even the history", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "101_a.sql": "CREATE TABLE a (id int);\nINSERT INTO a VALUES (1);",
  });
  const env = { DATABASE_URL: database.url };
  for (const mode of ["--dry-run", "--dry-run=execute"]) {
    const embedded = await pipeweave(["db:migrate", mode, "--embedded", "--dir", folder.path], { env });
    assertEquals(embedded.code, 0, embedded.stderr);
    assertStringIncludes(embedded.stdout, "Pending migrations: 6");
    assertEquals((await run(database, mode, "--dir", folder.path)).code, 0);
    assertEquals(await fingerprint(database), []);
  }
});

Deno.test("--dry-run=execute: per statement the time, the strongest lock on each table, and rewrites", async () => {
  await using database = await TestDatabase.empty();
  await database.sql`CREATE TABLE users (id int, name text)`;
  await database.sql`INSERT INTO users SELECT i, 'n' || i FROM generate_series(1, 20000) i`;
  await database.sql`CREATE TABLE orders (id int PRIMARY KEY)`;
  await using folder = await folderWith({
    "001_index.sql": "SELECT pg_sleep(0.2);\nCREATE INDEX ON users (id);",
    "002_type.sql": "ALTER TABLE users ADD COLUMN email text;\nALTER TABLE users ALTER id TYPE bigint;",
    "003_new.sql": "CREATE TABLE mine (order_id int REFERENCES orders);\nALTER TABLE mine ADD x int;",
  });
  const before = await fingerprint(database);
  const { code, stdout, stderr } = await run(database, "--dir", folder.path, "--dry-run=execute", "--json");
  assertEquals(code, 0, stderr);
  const plan = JSON.parse(stdout);
  assertEquals([plan.dryRun, plan.executed, plan.failed], [true, true, null]);
  const [index, type, fresh] = plan.migrations as [Planned, Planned, Planned];
  assert(index.statements[0]!.durationMs! >= 200 && index.statements[1]!.durationMs! < 200);
  assertEquals(index.statements.map(({ locks, rewritten }) => ({ locks, rewritten })), [
    { locks: [], rewritten: [] },
    { locks: [{ table: "users", mode: "SHARE" }], rewritten: [] },
  ]);
  assertEquals(type.statements.map(({ line, locks, rewritten }) => ({ line, locks, rewritten })), [
    { line: 1, locks: [{ table: "users", mode: "ACCESS EXCLUSIVE" }], rewritten: [] },
    { line: 2, locks: [], rewritten: ["users"] },
  ]);
  // Tables that the migration itself makes are nobody else's.
  assertEquals(fresh.statements.map(({ locks }) => locks), [
    [{ table: "orders", mode: "SHARE ROW EXCLUSIVE" }],
    [],
  ]);
  assertEquals(type.findings.map(({ code }) => code), ["change-column-type"]);
  assertEquals(await fingerprint(database), before);

  const text = await run(database, "--dir", folder.path, "--dry-run=execute");
  for (const part of ["locks users: SHARE\n", "REWRITES users\n", "Everything was rolled back"]) {
    assertStringIncludes(text.stdout, part);
  }
});

Deno.test("--dry-run=execute: a failure is told with its place, and what would be applied before it", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE a (id int PRIMARY KEY);\nINSERT INTO a VALUES (1);",
    "002_b.sql":
      "CREATE TABLE b (id int);\n\nINSERT INTO a VALUES (2);\nINSERT INTO a\n  VALUES (1);\nSELECT 1;",
    "003_c.sql": "SELECT 1;",
  });
  const { code, stdout, stderr } = await run(database, "--dir", folder.path, "--dry-run=execute");
  assertEquals(code, 1);
  assertStringIncludes(stderr, "002_b would fail: duplicate key value");
  assertStringIncludes(stderr, "002_b.sql:4:1");
  assertStringIncludes(stdout, "002_b failed; what follows it was not tried");
  assertEquals(await fingerprint(database), []);
});

Deno.test("--dry-run=execute: what is checked at the commit is checked", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE a (id int PRIMARY KEY, up int REFERENCES a DEFERRABLE INITIALLY DEFERRED);",
    "002_b.sql": "INSERT INTO a VALUES (1, 2);",
  });
  const { code, stderr } = await run(database, "--dir", folder.path, "--dry-run=execute");
  assertEquals(code, 1);
  assertStringIncludes(stderr, "foreign key");
});

Deno.test("--dry-run=execute never calls a failure what is one of its one transaction alone; what follows is counted", async () => {
  for (
    const [files, tried] of [
      [{
        "001_a.sql": "SELECT 1;",
        "002_b.sql": "ALTER TYPE mood ADD VALUE 'b';",
        "003_c.sql": "INSERT INTO m VALUES ('b');",
        "004_d.sql": "SELECT 1;",
      }, 2],
      [{
        "001_a.sql":
          "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED);",
        "002_b.sql": "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1);",
        "003_c.sql":
          "INSERT INTO c VALUES (2); INSERT INTO p VALUES (2); ALTER TABLE p ADD UNIQUE (id) DEFERRABLE;",
        "004_d.sql": "CREATE TEMP TABLE t (id int); SELECT 1;",
        "005_e.sql": "CREATE TEMP TABLE t (id int); PREPARE q AS SELECT 1;",
        "006_f.sql": "PREPARE q AS SELECT 1;",
      }, 6],
    ] as [Record<string, string>, number][]
  ) {
    await using database = await TestDatabase.empty();
    await database.sql.unsafe("CREATE TYPE mood AS ENUM ('a'); CREATE TABLE m (x mood)");
    await using folder = await folderWith(files);
    const dry = await run(database, "--dir", folder.path, "--dry-run=execute");
    assertEquals(dry.code, 0, dry.stderr);
    assertStringIncludes(dry.stdout, `Tried: ${tried} of ${Object.keys(files).length}`);
    if (tried === 2) {
      assertStringIncludes(dry.stdout, "003_c cannot be tried in one transaction with those before it");
    }
    const real = await run(database, "--dir", folder.path);
    assertEquals(real.code, 0, real.stderr);
  }
  await using database = await TestDatabase.empty();
  await database.sql.unsafe("CREATE TYPE mood AS ENUM ('a')");
  await using folder = await folderWith({
    "001_a.sql": "SELECT 1;",
    "002_b.sql": "ALTER TYPE mood ADD VALUE 'b'; SELECT 'b'::mood;",
  });
  for (const more of [["--dry-run=execute"], []]) {
    assertEquals((await run(database, "--dir", folder.path, ...more)).code, 1, more.join());
  }
});

Deno.test("--dry-run=execute refuses what db:migrate refuses: a history that takes no row", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_a.sql": "SELECT 1;" });
  assertEquals((await run(database, "--dir", folder.path)).code, 0);
  await database.sql.unsafe("ALTER TABLE schema_migrations ADD CONSTRAINT no_more CHECK (version < '002')");
  await Deno.writeTextFile(`${folder.path}/002_b.sql`, "SELECT 2;");
  for (const more of [["--dry-run=execute"], []]) {
    const { code, stderr } = await run(database, "--dir", folder.path, ...more);
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, "no_more");
  }
});

Deno.test("--dry-run=execute shows the lock of a table that is dropped, in the words of the search_path", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(
    'CREATE TABLE old_one (id int); CREATE SCHEMA app; CREATE TABLE app."Other" (id int)',
  );
  await using folder = await folderWith({
    "001_a.sql": 'DROP TABLE old_one;\nALTER TABLE app."Other" ADD x int;',
  });
  const { code, stdout } = await run(database, "--dir", folder.path, "--dry-run=execute");
  assertEquals(code, 0);
  assertStringIncludes(stdout, "locks old_one: ACCESS EXCLUSIVE");
  assertStringIncludes(stdout, 'locks app."Other": ACCESS EXCLUSIVE');
});

Deno.test("a dry run that is interrupted is not a file that fails", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_a.sql": "SELECT pg_sleep(60);" });
  const process = new Run(["db:migrate", "--dry-run=execute", "--dir", folder.path], {
    env: { DATABASE_URL: database.url },
  });
  await until(async () => {
    const rows = await database
      .sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: dry run%' AND wait_event = 'PgSleep'
      AND datname = current_database()`;
    return rows.length > 0;
  }, "it runs");
  process.kill("SIGINT");
  const { code, stderr } = await process.outcome;
  assertEquals(code, 130);
  assert(!/would fail|Correct the file/.test(stderr), stderr);
});

Deno.test("--dry-run=execute leaves out what runs outside a transaction, and says so", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE a (id int);",
    "002_b.sql": "-- pipeweave: no-transaction\nCREATE INDEX CONCURRENTLY b ON a (id);",
    "003_c.sql": "SELECT 1;",
  });
  const { code, stdout } = await run(database, "--dir", folder.path, "--dry-run=execute", "--json");
  assertEquals(code, 0);
  const plan = JSON.parse(stdout);
  const tried = (plan.migrations as Planned[]).map(({ statements }) =>
    statements[0]!.durationMs !== undefined
  );
  assertEquals([tried, plan.migrations[1].transaction], [[true, false, false], false]);
  assertStringIncludes(plan.untried, "002_b runs outside a transaction");
  assertEquals(await fingerprint(database), []);
});

Deno.test("a dry run ends as the run would: exit 3 where maintenance is needed, 5 where files are changed, 2 for a wrong mode", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  await using folder = await folderWith({ "101_a.sql": "-- pipeweave: requires maintenance\nSELECT 1;" });
  const env = { DATABASE_URL: database.url };
  const args = ["db:migrate", "--dir", folder.path];
  const refused = await pipeweave([...args, "--dry-run"], { env });
  assertEquals(refused.code, 3);
  assertStringIncludes(refused.stdout, "101_a: 1 statement(s), in one transaction, requires maintenance");
  assertEquals((await pipeweave([...args, "--dry-run", "--allow-online"], { env })).code, 0);
  assertEquals((await pipeweave([...args, "--dry-run=maybe"], { env })).code, 2);
  await database.sql`UPDATE schema_migrations SET checksum = 'x' WHERE version = '001'`;
  assertEquals((await pipeweave([...args, "--dry-run"], { env })).code, 5);
});
