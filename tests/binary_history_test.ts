/** `db:history`, `db:rollback`, `db:repair`, `db:baseline`, `db:wait`, `--to`, `--out-of-order`, `--json=stream`. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { folderWith, type Outcome, pipeweave, Run } from "./support/binary.ts";
import { queueTasks, TestDatabase } from "./support/database.ts";

/** Calls for one folder on one database. */
function callsOn(database: TestDatabase, folder: string): (line: string) => Promise<Outcome> {
  return (line) =>
    pipeweave([...line.split(" "), "--no-embedded", "--dir", folder], {
      env: { DATABASE_URL: database.url },
    });
}

/** Three tables, each with its way back. */
function threeTables(): Record<string, string> {
  return Object.fromEntries(
    [1, 2, 3].flatMap((i) => [
      [`00${i}_t${i}.sql`, `CREATE TABLE t${i} (id int);`],
      [`00${i}_t${i}.down.sql`, `DROP TABLE t${i};`],
    ]),
  );
}

async function state({ sql }: TestDatabase): Promise<{ versions: string[]; tables: string[] }> {
  const versions = await sql`SELECT version FROM schema_migrations ORDER BY id`;
  const tables = await sql`SELECT relname FROM pg_class WHERE relname ~ '^t[0-9]$' ORDER BY 1`;
  return { versions: versions.map(({ version }) => version), tables: tables.map(({ relname }) => relname) };
}

Deno.test("db:rollback: one step, several, back to a version; the log tells of all of it", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith(threeTables());
  const call = callsOn(database, folder.path);
  assertEquals((await call("db:migrate")).code, 0);

  const one = await call("db:rollback --yes");
  assertEquals(one.code, 0, one.stderr);
  assertMatch(one.stdout, /^✓ Rolled back 003_t3 \(\d+ms\)\n$/);
  assertEquals(await state(database), { versions: ["001", "002"], tables: ["t1", "t2"] });

  assertEquals((await call("db:migrate --quiet")).code, 0);
  const back = await call("db:rollback --to 001 --yes --json");
  const done = JSON.parse(back.stdout).rolledBack.map(({ version }: { version: string }) => version);
  assertEquals([back.code, done], [0, ["003", "002"]]);
  assertEquals(await state(database), { versions: ["001"], tables: ["t1"] });
  assertEquals((await call("db:rollback --to 001 --yes")).stdout, "Nothing to roll back\n");
  assertEquals((await call("db:rollback --steps 5 --yes")).code, 0);
  assertEquals(await state(database), { versions: [], tables: [] });

  const log = JSON.parse(
    (await pipeweave(["db:history", "--json"], { env: { DATABASE_URL: database.url } })).stdout,
  );
  const lines = log.history.map(({ action, version }: Record<string, string>) => `${action} ${version}`);
  assertEquals(lines.toReversed(), [
    ...["apply 001", "apply 002", "apply 003", "rollback 003", "apply 003", "rollback 003", "rollback 002"],
    "rollback 001",
  ]);
});

Deno.test("db:rollback: a down file that fails changes nothing, and is logged", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    ...threeTables(),
    "002_t2.down.sql": "DROP TABLE t2;\nDROP TABLE nowhere;",
  });
  const call = callsOn(database, folder.path);
  assertEquals((await call("db:migrate")).code, 0);
  const { code, stderr } = await call("db:rollback --steps 3 --yes");
  assertEquals(code, 1);
  for (
    const part of [
      'Rolling back 002_t2 failed: table "nowhere" does not exist',
      "002_t2.down.sql:2:1",
      "002_t2 stays applied: nothing of its down file stays",
      "rolled back by this run: 003_t3",
    ]
  ) assertStringIncludes(stderr, part);
  assertEquals(await state(database), { versions: ["001", "002"], tables: ["t1", "t2"] });
  const [last] = await database
    .sql`SELECT action, version, outcome FROM migration_log ORDER BY id DESC LIMIT 1`;
  assertEquals({ ...last }, { action: "rollback", version: "002", outcome: "failed" });
});

Deno.test("db:rollback refuses as a whole: no down file, a changed file, nobody to ask, no such version", async () => {
  await using database = await TestDatabase.empty();
  const { "002_t2.down.sql": _, ...files } = threeTables();
  await using folder = await folderWith(files);
  const call = callsOn(database, folder.path);
  assertEquals((await call("db:migrate")).code, 0);
  const before = await state(database);
  const refusals: readonly (readonly [string, number, string])[] = [
    ["db:rollback --steps 2 --yes", 5, "002_t2 has no down file (002_t2.down.sql)"],
    ["db:rollback", 2, "--yes is needed"],
    ["db:rollback --to 009 --yes", 2, "no migration with the version 009"],
    ["db:rollback --to 001 --steps 1 --yes", 2, "exclude each other"],
  ];
  for (const [line, code, text] of refusals) {
    const outcome = await call(line);
    assertEquals(outcome.code, code, line);
    assertStringIncludes(outcome.stderr, text);
  }
  await Deno.writeTextFile(`${folder.path}/003_t3.sql`, "CREATE TABLE other (id int);");
  assertEquals((await call("db:rollback --yes")).code, 5);
  assertEquals(await state(database), before);
});

Deno.test("rollers back at once: each migration is undone once", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith(threeTables());
  const call = callsOn(database, folder.path);
  assertEquals((await call("db:migrate")).code, 0);
  const outcomes = await Promise.all(Array.from({ length: 5 }, () => call("db:rollback --yes")));
  const done = outcomes.filter(({ stdout }) => stdout.includes("✓ Rolled back 003_t3"));
  assert(done.length >= 1);
  const [{ undone }] = await database
    .sql`SELECT count(*)::int AS undone FROM migration_log WHERE action = 'rollback' AND version = '003'` as [
      { undone: number },
    ];
  assertEquals(undone, 1);
  for (const { code, stderr } of outcomes) {
    assert(code === 0 || stderr.includes("no longer the last"), stderr);
  }
});

Deno.test("db:repair accepts an edited file, with a reason, and db:migrate goes on", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith(threeTables());
  const call = callsOn(database, folder.path);
  assertEquals((await call("db:migrate --to 002")).code, 0);
  assertEquals((await state(database)).versions, ["001", "002"]);
  await Deno.writeTextFile(`${folder.path}/001_t1.sql`, "CREATE TABLE t1 (id int); -- the first");
  assertEquals((await call("db:migrate")).code, 5);
  const args = ["--no-embedded", "--dir", folder.path];
  const env = { DATABASE_URL: database.url };
  assertEquals((await pipeweave(["db:repair", "--version", "001", ...args], { env })).code, 2);
  const repaired = await pipeweave(
    ["db:repair", "--version", "1", "--reason", "a comment", ...args, "--json"],
    { env },
  );
  assertEquals([repaired.code, JSON.parse(repaired.stdout).repaired], [0, true], repaired.stderr);
  const again = await pipeweave(["db:repair", "--version", "1", "--reason", "x", ...args], { env });
  assertStringIncludes(again.stdout, "needs no repair");
  assertEquals((await call("db:repair --version 003 --reason x")).code, 3);
  assertEquals((await call("db:migrate")).code, 0);
  const [logged] = await database.sql`SELECT reason, details->>'from' <> details->>'to' AS changed
    FROM migration_log WHERE action = 'repair'`;
  assertEquals({ ...logged }, { reason: "a comment", changed: true });
});

Deno.test("the log is append-only, for its owner too, and keeps who did it", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith(threeTables());
  const env = { DATABASE_URL: database.url, USER: "alice" };
  await pipeweave(["db:migrate", "--no-embedded", "--dir", folder.path], { env });
  for (
    const change of [
      "UPDATE migration_log SET name = 'x'",
      "DELETE FROM migration_log",
      "TRUNCATE migration_log",
    ]
  ) {
    const error = await database.sql.unsafe(change).then(() => undefined, ({ code }) => code);
    assertEquals(error, "PW005", change);
  }
  const [row] =
    JSON.parse((await pipeweave(["db:history", "--json", "--limit", "1"], { env })).stdout).history;
  assertEquals([row.action, row.version, row.outcome, row.osUser, row.host, row.databaseUser], [
    ...["apply", "003", "done", "alice", Deno.hostname(), "postgres"],
  ]);
  assertMatch(row.tool, /^pipeweave\/\d/);
  const { stdout } = await pipeweave(["db:history"], { env });
  assertMatch(stdout, /^\d{4}-\S+Z {2}apply 003_t3: done \(\d+ms\) {2}by postgres, alice on /);
});

Deno.test("db:baseline adopts a schema that is there, and only such", async () => {
  await using database = await TestDatabase.empty();
  await database.sql`CREATE TABLE t1 (id int)`;
  await database.sql`CREATE TABLE t2 (id int)`;
  await using folder = await folderWith(threeTables());
  const call = callsOn(database, folder.path);
  assertEquals((await call("db:baseline 009")).code, 2);
  assertEquals((await call("db:baseline")).code, 2);
  const adopted = await call("db:baseline 002");
  assertEquals(
    [adopted.code, adopted.stdout],
    [0, "✓ Adopted 001_t1, without running it\n✓ Adopted 002_t2, without running it\n"],
    adopted.stderr,
  );
  assertEquals((await call("db:baseline 002")).stdout, "002 is applied already\n");
  assertEquals((await call("db:migrate")).code, 0);
  assertEquals(await state(database), { versions: ["001", "002", "003"], tables: ["t1", "t2", "t3"] });
  const times = await database
    .sql`SELECT execution_time_ms IS NULL AS none FROM schema_migrations ORDER BY id`;
  assertEquals(times.map(({ none }) => none), [true, true, false]);
  await database.sql`DELETE FROM schema_migrations WHERE version = '003'`;
  assertEquals((await call("db:baseline 003")).code, 5);
});

Deno.test("out of order: an error that lists them, applied on request", async () => {
  await using database = await TestDatabase.empty();
  const { "002_t2.sql": late, "002_t2.down.sql": _, ...files } = threeTables();
  await using folder = await folderWith(files);
  const call = callsOn(database, folder.path);
  assertEquals((await call("db:migrate")).code, 0);
  await Deno.writeTextFile(`${folder.path}/002_t2.sql`, late!);
  const refused = await call("db:migrate");
  assertEquals(refused.code, 5);
  assertStringIncludes(refused.stderr, "002_t2 is pending, but a later one of its set is applied");
  assertStringIncludes(refused.stderr, "--out-of-order");
  const applied = await call("db:migrate --out-of-order");
  assertEquals(applied.code, 0, applied.stderr);
  assertEquals((await state(database)).tables, ["t1", "t2", "t3"]);
});

Deno.test("--json=stream: an event a line, the document last, also when it fails", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ ...threeTables(), "004_bad.sql": "DROP TABLE nowhere;" });
  const call = callsOn(database, folder.path);
  const { code, stdout } = await call("db:migrate --json=stream");
  assertEquals(code, 1);
  const events = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  assertEquals(events.map(({ event, version }) => [event, version].filter(Boolean).join(" ")), [
    "plan",
    ...["001", "002", "003"].flatMap((version) => [`applying ${version}`, `applied ${version}`]),
    "applying 004",
    "result",
  ]);
  const result = events.at(-1);
  assertEquals([result.applied.length, result.failed.version], [3, "004"]);
  assertEquals((await call("db:status --json=xml")).code, 2);
});

Deno.test("db:wait: until the server answers, until it is migrated, and no longer than told", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith(threeTables());
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "100" };
  const call = (line: string, url = database.url) =>
    pipeweave([...line.split(" "), "--no-embedded", "--dir", folder.path], {
      env: { ...env, DATABASE_URL: url },
    });
  assertEquals((await call("db:wait")).code, 0);
  const late = await call("db:wait --migrated --timeout 300ms");
  assertEquals(late.code, 4);
  assertStringIncludes(late.stderr, "3 migration(s) are pending");
  assertEquals((await call("db:wait --timeout 300ms", "postgres://u@127.0.0.1:1/x")).code, 4);

  const waiting = new Run(["db:wait", "--migrated", "--json", "--no-embedded", "--dir", folder.path], {
    env,
  });
  assertEquals((await call("db:migrate")).code, 0);
  const { code, stdout } = await waiting.outcome;
  const { ready, migrated, current } = JSON.parse(stdout);
  assertEquals([code, ready, migrated, current], [0, true, true, "003"]);
});

Deno.test("what blocks writes is not applied while tasks are active: exit 3; --allow-online does it, and the log has it", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  await using folder = await folderWith({ "101_index.sql": "CREATE INDEX another ON task_runs (id);" });
  const env = { DATABASE_URL: database.url };
  const args = ["db:migrate", "--dir", folder.path];
  const refused = await pipeweave(args, { env });
  assertEquals(refused.code, 3);
  for (
    const part of ["index-not-concurrently", "maintenance:request", "--allow-online", "Nothing was applied"]
  ) {
    assertStringIncludes(refused.stderr, part);
  }
  const applied = await pipeweave([...args, "--allow-online"], { env });
  assertEquals(applied.code, 0, applied.stderr);
  const [row] = await database
    .sql`SELECT details->'allowedOnline' AS allowed FROM migration_log WHERE version = '101'`;
  assertEquals([row!["allowed"].mode, row!["allowed"].activeTasks], ["running", 1]);
  assertStringIncludes(row!["allowed"].needs[0], "index-not-concurrently");
});
