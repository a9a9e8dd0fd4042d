/** What else the binary promises: help, versions, JSON, selftest, AUTO_MIGRATE, completions, errors of a missing state. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { COMMANDS } from "../src/cli/commands.ts";
import { pipeweave } from "./support/binary.ts";
import { queueTasks, TestDatabase, withAdmin } from "./support/database.ts";

Deno.test("--licenses shows the licences of all that is inside, without an environment", async () => {
  const { code, stdout } = await pipeweave(["--licenses"]);
  assertEquals(code, 0);
  for (
    const name of ["The PipeWeave authors", "the Deno authors", "the V8 project authors", "Benjamin Fischer"]
  ) {
    assert(stdout.includes(name), name);
  }
  for (
    const name of [
      "Node.js contributors",
      "public domain",
      "Lukas Fittl",
      "PostgreSQL Global Development Group",
    ]
  ) {
    assert(stdout.includes(name), name);
  }
});

Deno.test("--version names release, commit and Deno", async () => {
  for (const flag of ["--version", "-V"]) {
    const { code, stdout } = await pipeweave([flag]);
    assertEquals(code, 0);
    assertMatch(
      stdout,
      /^pipeweave \d+\.\d+\.\d+\ncommit \S.*\ndeno \d+\.\d+\.\d+ \(\S+, denort .*\)\nunix sockets in /,
    );
  }
});

Deno.test("help is there in every spelling, and plain where stdout is no terminal", async () => {
  for (const args of [[], ["--help"], ["-h"], ["help"], ["db"], ["maintenance", "--help"]]) {
    const { code, stdout, stderr } = await pipeweave(args);
    assertEquals([code, stderr], [0, ""], args.join(" "));
    assertStringIncludes(stdout, "Usage: pipeweave <group>:<command> [options]");
    assert(!stdout.includes("\x1b"), stdout);
  }
  for (const { name } of COMMANDS) {
    for (const args of [[name, "--help"], ["help", name], [...name.split(":"), "--help"]]) {
      const { code, stdout } = await pipeweave(args);
      assertEquals(code, 0, args.join(" "));
      assertMatch(
        stdout,
        new RegExp(`^Usage: pipeweave ${name} ((?:<\\w+>|\\[\\w+\\.\\.\\.\\]) )?\\[options\\]\n`),
      );
      assertStringIncludes(stdout, "Examples:");
    }
  }
});

Deno.test("selftest runs the cycle and leaves nothing behind", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  const { code, stdout, stderr } = await pipeweave(["db:selftest"], { env });
  assertEquals([code, stderr], [0, ""]);
  for (
    const check of [
      "create a scratch schema",
      "a message is one transaction",
      "advisory locks",
      "triggers",
      "LISTEN and NOTIFY",
      "migrate",
      "re-run",
      "notice a changed",
      "queue tasks",
      "drain",
      "enter",
      "exit",
      "clean up",
      "remove schema",
    ]
  ) {
    assertMatch(stdout, new RegExp(`✓ .*${check}.* \\(\\d+(\\.\\d)?m?s\\)`));
  }
  const json = JSON.parse((await pipeweave(["db:selftest", "--json"], { env })).stdout);
  assertEquals([json.ok, json.checks.length], [true, 17]);
  const schemas = await database.sql`SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pipeweave%'`;
  assertEquals([
    schemas.length,
    (await database.sql`SELECT FROM pg_extension WHERE extname = 'uuid-ossp'`).length,
  ], [0, 0]);
});

Deno.test("selftest names what a server lacks, and what does not work without it: exit 1", async () => {
  await using database = await TestDatabase.empty();
  // As an engine would that speaks the protocol and has neither.
  await database.sql.unsafe(`
    CREATE FUNCTION public.lacks() RETURNS event_trigger LANGUAGE plpgsql AS
      $$BEGIN RAISE EXCEPTION SQLSTATE '0A000' USING MESSAGE = 'unimplemented: ' || tg_tag; END$$;
    CREATE EVENT TRIGGER lacks ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER', 'CREATE INDEX') EXECUTE FUNCTION public.lacks()`);
  const { code, stdout, stderr } = await pipeweave(["db:selftest"], { env: { DATABASE_URL: database.url } });
  assertEquals(code, 1, stderr);
  assertMatch(stdout, /✗ triggers .*unimplemented: CREATE TRIGGER/);
  assertMatch(stdout, /✓ advisory locks/);
  assertStringIncludes(stderr, "lacks 2 of the 7 features");
  assertStringIncludes(
    stderr,
    "triggers. What does not work without it: PipeWeave's own tables and the gate",
  );
  assertEquals((await database.sql`SELECT FROM pg_namespace WHERE nspname LIKE 'pipeweave%'`).length, 0);
});

Deno.test("selftest without privileges says what to grant: exit 1", async () => {
  await using database = await TestDatabase.empty();
  const role = `r_${database.name}`;
  await withAdmin((admin) => admin.unsafe(`CREATE ROLE ${role} LOGIN`));
  try {
    const { code, stdout, stderr } = await pipeweave(["db:selftest", "--user", role], {
      env: { DATABASE_URL: database.url },
    });
    assertEquals(code, 1);
    assertMatch(stdout, /✗ create a scratch schema .*permission denied/);
    assertStringIncludes(stderr, `GRANT CREATE ON DATABASE "${database.name}" TO "${role}"`);
  } finally {
    await withAdmin((admin) => admin.unsafe(`DROP ROLE ${role}`));
  }
});

Deno.test("without the schema every command that needs it names db:migrate; AUTO_MIGRATE applies it", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  const commands = [
    "maintenance:status",
    "maintenance:request",
    "maintenance:enter",
    "maintenance:exit",
    "db:cleanup",
  ];
  for (const command of commands) {
    const { code, stderr } = await pipeweave([command], { env });
    assertEquals(code, 1, command);
    assertStringIncludes(
      stderr,
      "next: PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded",
    );
  }
  const auto = await pipeweave(["maintenance:status"], { env: { ...env, AUTO_MIGRATE: "true" } });
  assertEquals(auto.code, 0, auto.stderr);
  assertMatch(auto.stdout, /^Mode: running\n/);
  assertStringIncludes(
    auto.stderr,
    "AUTO_MIGRATE: applied 000_migration_tracking, 001_initial_schema, 002_input_schemas_and_temp_uploads, 90003_migration_bookkeeping",
  );
  const again = await pipeweave(["db:cleanup"], { env: { ...env, AUTO_MIGRATE: "true" } });
  assertEquals([again.code, again.stderr], [0, ""]);
  const old = await pipeweave(["maintenance:status"], { env: { ...env, AUTO_INIT_DB: "true" } });
  assertEquals(
    old.stderr,
    "warning: AUTO_INIT_DB is no longer read; use AUTO_MIGRATE=true (development only)\n",
  );
  await database.sql`DELETE FROM orchestrator_state`;
  assertStringIncludes(
    (await pipeweave(["maintenance:status"], { env })).stderr,
    "next: PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded",
  );
  assertStringIncludes(
    (await pipeweave(["db:migrate"], { env })).stderr,
    "warning: the row of orchestrator_state was missing; restored",
  );
  assertEquals((await pipeweave(["maintenance:status"], { env })).code, 0);
});

Deno.test("db:init warns and migrates", async () => {
  await using database = await TestDatabase.empty();
  const { code, stdout, stderr } = await pipeweave(["db:init"], { env: { DATABASE_URL: database.url } });
  assertEquals([code, stderr], [0, "warning: db:init is deprecated: use db:migrate\n"]);
  assertStringIncludes(stdout, "✓ Applied 5 migration(s)");
});

Deno.test("db:cleanup reports, by text and by JSON", async () => {
  await using database = await TestDatabase.migrated();
  const env = { DATABASE_URL: database.url };
  await database
    .sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
    SELECT i, 't', 'r', 1, '/', now() - interval '1 hour' FROM generate_series(1, 7) i`;
  const dry = await pipeweave(["db:cleanup", "--dry-run"], { env });
  assertStringIncludes(dry.stdout, "Would remove expired idempotency cache entries: 7\n");
  const json = await pipeweave(["db:cleanup", "--json", "--batch-size", "3"], { env });
  assertEquals(JSON.parse(json.stdout), {
    dryRun: false,
    idempotencyCache: 7,
    dlq: 0,
    tempUploads: { expired: 0, archived: 0 },
  });
});

Deno.test("every report is one JSON document under --json, errors too", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const env = { DATABASE_URL: database.url };
  const cases: readonly (readonly [string, number])[] = [
    ["db:status", 0],
    ["db:wait", 0],
    ["db:wait --migrated", 0],
    ["db:history", 0],
    ["db:lint", 0],
    ["db:new some_name", 0],
    ["db:migrate --dry-run", 0],
    ["db:baseline 90003", 0],
    ["db:repair --version 001 --reason x", 0],
    ["db:repair --version 001", 2],
    ["db:rollback --yes", 5],
    ["db:migrate", 0],
    ["db:validate", 0],
    ["db:cleanup", 0],
    ["maintenance:status", 0],
    ["maintenance:request", 0],
    ["maintenance:enter", 3],
    ["maintenance:exit", 0],
    ["db:status --schema nowhere", 0],
    ["maintenance:status --schema nowhere", 1],
    ["db:status --check --schema nowhere", 3],
    ["maintenance:status --expect maintenance", 3],
    ["db:status --port x", 2],
    ["db:status --port 1", 6],
  ];
  for (const [line, code] of cases) {
    const outcome = await pipeweave([...line.split(" "), "--json"], { env });
    assertEquals([outcome.code, outcome.stderr], [code, ""], line);
    const document = JSON.parse(outcome.stdout);
    assertEquals(outcome.stdout, `${JSON.stringify(document)}\n`);
    if (code !== 0) assert(document.error.code && document.error.message, line);
  }
});

Deno.test("db:validate works without a database, and says so", async () => {
  const { code, stdout, stderr } = await pipeweave(["db:validate"], { env: { USER: "me" } });
  assertEquals([code, stdout], [0, "✓ 5 migration(s) are valid (files alone)\n"]);
  assertStringIncludes(stderr, "No database is named");
  assertEquals(
    (await pipeweave(["db:validate", "--offline"], { env: { DATABASE_URL: "postgres://u@127.0.0.1:1/x" } }))
      .code,
    0,
  );
  assertEquals(
    (await pipeweave(["db:validate"], { env: { DATABASE_URL: "postgres://u@127.0.0.1:1/x" } })).code,
    6,
  );
});
