/** The migration engine against a real server, in process. */

import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects } from "@std/assert";
import { migrate } from "../src/commands/migrate.ts";
import { migrationStatus } from "../src/commands/status.ts";
import { PipeweaveError } from "../src/errors.ts";
import { lockKey } from "../src/engine/history.ts";
import { folderWith, Run, until } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const NODE_CHECKSUMS = [
  ["000", "migration_tracking", "47949e3ddde295a1fb054b563810ad0704db212a18aede25a774641c31e8de58"],
  ["001", "initial_schema", "e6d6c11d0cfa1cd052976cc1857b94912cb6a9663359755a570820450aef44aa"],
  [
    "002",
    "input_schemas_and_temp_uploads",
    "c4985514d2aca505d722b23b0085f3e3bab10cf41cc4b8d24152609e37fa0480",
  ],
] as const;

/** Tables that are made with the first migration, whatever it is. */
const BOOKKEEPING = ["migration_journal", "migration_lease", "migration_log", "schema_migrations"];

Deno.test("a database of the Node tool is up to date", async () => {
  await using database = await TestDatabase.migrated();
  for (const [version, , checksum] of NODE_CHECKSUMS) {
    await database.sql`UPDATE schema_migrations SET checksum = ${checksum} WHERE version = ${version}`;
  }
  await database.sql`UPDATE schema_migrations SET execution_time_ms = NULL`;
  const { applied, status } = await migrate(database.session());
  assertEquals([applied.length, status.pending.length, status.current], [0, 0, "90004"]);
  assertEquals(status.applied.map(({ drift }) => drift), [false, false, false, false, false]);
});

Deno.test("a database with the tables and no history is taken over, and keeps its rows", async () => {
  await using database = await TestDatabase.migrated();
  await database.sql`INSERT INTO services (id, version, base_url) VALUES ('old', '1', 'http://x')`;
  await database.sql`UPDATE orchestrator_state SET mode = 'maintenance'`;
  await database.sql`DROP TABLE schema_migrations`;
  const { applied, failed } = await migrate(database.session());
  assertEquals([applied.length, failed], [5, null]);
  assertEquals((await database.sql`SELECT id FROM services`).map(({ id }) => id), ["old"]);
  assertEquals((await database.sql`SELECT mode FROM orchestrator_state`)[0]!["mode"], "maintenance");
});

Deno.test("the schema is what the Node orchestrator relies on", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const columns = await sql`
    SELECT table_name || '.' || column_name || ' ' || data_type || CASE is_nullable WHEN 'YES' THEN '?' ELSE '' END AS line
      FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position`;
  const lines = columns.map(({ line }) => line as string);
  const has = (line: string) => assert(lines.includes(line), `${line} is not among:\n${lines.join("\n")}`);
  for (
    const line of [
      "schema_migrations.execution_time_ms integer?",
      "schema_migrations.checksum text",
      "orchestrator_state.pending_tasks_count integer?",
      "services.last_heartbeat timestamp with time zone?",
      "tasks.allowed_next ARRAY?",
      "tasks.idempotency_ttl_seconds integer?",
      "tasks.input_schema jsonb?",
      "task_code_history.service_version text",
      "pipelines.entry_tasks ARRAY",
      "pipeline_runs.structure_snapshot jsonb",
      "task_runs.pipeline_run_id text?",
      "task_runs.heartbeat_timeout_ms integer?",
      "task_runs.previous_attempts jsonb?",
      "dlq.previous_attempts jsonb",
      "idempotency_cache.expires_at timestamp with time zone",
      "temp_uploads.size_bytes bigint?",
    ]
  ) has(line);

  const counts = await sql`
    SELECT (SELECT count(*)::int FROM pg_indexes WHERE schemaname = 'public') AS indexes,
           (SELECT count(*)::int FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace) AS foreign_keys,
           (SELECT count(*)::int FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace) AS checks,
           (SELECT count(*)::int FROM pg_extension WHERE extname = 'uuid-ossp') AS extensions`;
  // Eleven primary keys, one unique version, and the secondary indexes that schema.md lists; and of what the engine keeps
  // beside the history three primary keys and three checks; of the gate four primary keys, an index and three checks.
  assertEquals({ ...counts[0] }, { indexes: 42 + 3 + 5, foreign_keys: 6, checks: 6 + 3 + 3, extensions: 0 });

  await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
            VALUES ('a', 't', 'r', 1, '/', now() - interval '1s'), ('b', 't', 'r', 1, '/', now() + interval '1h')`;
  assertEquals((await sql`SELECT cleanup_expired_idempotency_cache() AS n`)[0]!["n"], 1);
  await sql`INSERT INTO temp_uploads (id, storage_path, storage_backend_id, expires_at, deleted_at)
            VALUES ('1', '/', 's', now() - interval '1s', NULL), ('2', '/', 's', now(), now() - interval '31 days')`;
  assertEquals({ ...(await sql`SELECT * FROM cleanup_expired_temp_uploads()`)[0] }, {
    deleted_count: 1,
    archived_count: 1,
  });
  const [before] = await sql`SELECT mode_changed_at FROM orchestrator_state`;
  await sql`UPDATE orchestrator_state SET metadata = '{"a":1}'`;
  assertEquals((await sql`SELECT mode_changed_at FROM orchestrator_state`)[0], before);
  await sql`UPDATE orchestrator_state SET mode = 'maintenance'`;
  const [after] = await sql`SELECT mode_changed_at > ${
    before!["mode_changed_at"]
  } AS later FROM orchestrator_state`;
  assertEquals(after!["later"], true);
});

Deno.test("all of it works in a schema of any name, and leaves public alone", async () => {
  await using database = await TestDatabase.empty();
  const session = database.session({}, { schema: `We"ird Schema` });
  assertEquals((await migrate(session)).applied.length, 5);
  assertEquals((await migrate(session)).applied.length, 0);
  const rows = await database.sql`SELECT schemaname, count(*)::int AS n FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema') GROUP BY 1`;
  assertEquals(rows.map((row) => ({ ...row })), [{ schemaname: `We"ird Schema`, n: 19 }]);
});

Deno.test("a migration that fails leaves nothing, and the error points at the statement", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_good.sql": "CREATE TABLE good (id int PRIMARY KEY);",
    "002_bad.sql":
      "-- é😀\nCREATE TABLE half (id int);\nINSERT INTO good VALUES (1);\n\n  -- again\n  INSERT INTO good VALUES (1);\nSELECT 1;",
    "003_later.sql": "CREATE TABLE later (id int);",
  });
  const { applied, failed, status } = await migrate(database.session(), {
    dirs: [folder.path],
    embedded: false,
  });
  assertEquals(applied.map(({ migration }) => migration.version), ["001"]);
  assertEquals(failed?.migration.version, "002");
  const { location, sqlstate, detail } = failed!.error.details;
  assertEquals([sqlstate, detail], ["23505", "Key (id)=(1) already exists."]);
  assertEquals([location?.line, location?.column], [6, 3]);
  assertEquals(status.pending.map(({ version }) => version), ["002", "003"]);
  const tables = await database.sql`SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`;
  assertEquals(tables.map(({ tablename }) => tablename), ["good", ...BOOKKEEPING]);
  assertEquals((await database.sql`SELECT version FROM schema_migrations`).map(({ version }) => version), [
    "001",
  ]);
});

Deno.test("an error with a position points at the very character", async () => {
  await using database = await TestDatabase.empty();
  const cases: readonly (readonly [string, string, number, number])[] = [
    ["SELECT 1;\nSELECT 'é😀', nope FROM pg_class;", "42703", 2, 14],
    ["CREATE TABLE a (x int);\nALTER TABLE b ADD y int;", "42P01", 2, 1],
    ["DO $$ BEGIN\n  PERFORM 1/0;\nEND $$;", "22012", 1, 1],
  ];
  for (const [text, sqlstate, line, column] of cases) {
    await using folder = await folderWith({ "001_x.sql": text });
    const { failed } = await migrate(database.session(), { dirs: [folder.path], embedded: false });
    const { details } = failed!.error;
    assertEquals([details.sqlstate, details.location?.line, details.location?.column], [
      sqlstate,
      line,
      column,
    ], text);
  }
});

Deno.test("invalid SQL is refused before anything is applied", async () => {
  await using database = await TestDatabase.empty();
  for (
    const text of ["SELEKT;", "CREATE TABLE a (x int); COMMIT; SELECT 1/0;", "COPY a TO STDOUT;", "VACUUM;"]
  ) {
    await using folder = await folderWith({ "001_ok.sql": "CREATE TABLE ok (x int);", "002_bad.sql": text });
    const error = await assertRejects(
      () => migrate(database.session(), { dirs: [folder.path], embedded: false }),
      PipeweaveError,
    );
    assertEquals(error.kind, "integrity", text);
    assertEquals((await database.sql`SELECT FROM pg_tables WHERE schemaname = 'public'`).length, 0);
  }
});

Deno.test("a migration starts with a clean session, whatever the one before did to it", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_dump.sql":
      "SELECT pg_catalog.set_config('search_path', '', false); SET standard_conforming_strings = off;" +
      "SET lock_timeout = 0; CREATE TABLE public.first (x text); SET ROLE pg_monitor;",
    "002_after.sql":
      "CREATE TABLE second AS SELECT current_user::text AS who, current_setting('lock_timeout') AS lock," +
      " 'a\\b'::text AS b, current_setting('search_path') AS path;",
  });
  const { failed } = await migrate(database.session(), { dirs: [folder.path], embedded: false });
  assertEquals(failed, null);
  assertEquals({ ...(await database.sql`SELECT * FROM public.second`)[0] }, {
    who: "postgres",
    lock: "5s",
    b: "a\\b",
    path: '"$user", public',
  });
});

Deno.test("directives set the limits of their own migration", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "-- pipeweave: lock-timeout 7s\n-- pipeweave: statement-timeout 200ms\nSELECT pg_sleep(5);",
  });
  const { failed } = await migrate(database.session(), { dirs: [folder.path], embedded: false });
  assertEquals(failed?.error.details.sqlstate, "57014");
});

Deno.test("a lock that is not free is tried again, blockers are named, and others never queue for longer than the limit", async () => {
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({ "100_a.sql": "ALTER TABLE services ADD x int;" });
  const blocked: string[] = [];
  const retries: string[] = [];
  let waitedMs = 0;
  const { sql } = database;
  await using reader = await database.hold("LOCK TABLE services IN ACCESS SHARE MODE");
  const running = migrate(database.session(), {
    dirs: [folder.path],
    lockTimeoutMs: 1500,
    onActivity: (_, { blockers }) => blockers && blocked.push(blockers),
    onRetry: (_, reason) => retries.push(reason),
  });
  const started = Date.now();
  while (retries.length < 2) {
    const before = performance.now();
    await sql`SELECT count(*) FROM services`;
    waitedMs = Math.max(waitedMs, performance.now() - before);
    assert(Date.now() - started < 20_000, "it should have tried again");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await reader.release();
  const { applied, failed } = await running;
  assertEquals([applied.length, failed], [1, null]);
  assertMatch(
    blocked[0] ?? "",
    /^pid \d+ \(postgres, .*idle in transaction for .*: BEGIN; LOCK TABLE services/,
  );
  assertMatch(retries[0]!, /^a lock was not free in time, held by pid \d+ .*; attempt 2 in \d+ms$/);
  assert(waitedMs < 1500 + 500, `a reader waited ${waitedMs} ms`);
});

Deno.test("a deadlock is tried again", async () => {
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({
    "100_a.sql":
      "SET LOCAL deadlock_timeout = '50ms'; ALTER TABLE services ADD x int; SELECT pg_sleep(1); ALTER TABLE tasks ADD x int;",
  });
  const retries: string[] = [];
  // It is the migration that looks for circles, however long this one waits.
  await using other = await database.hold(
    "SET LOCAL deadlock_timeout = '1min'; LOCK TABLE tasks IN ACCESS SHARE MODE",
  );
  const running = migrate(database.session(), {
    dirs: [folder.path],
    onRetry: (_, reason) => retries.push(reason),
  });
  const sleeps = () =>
    database.sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`;
  await until(async () => (await sleeps()).length === 1, "the migration has the first lock");
  // Closes the circle: it waits for the migration, which is about to wait for it.
  const circle = other.run("LOCK TABLE services IN ACCESS SHARE MODE");
  await until(() => Promise.resolve(retries.length > 0), "the deadlock ends the migration's attempt");
  await circle;
  await other.release();
  assertEquals((await running).applied.length, 1);
  assertEquals(retries[0]!.startsWith("a deadlock ended it; attempt 2 in "), true, retries[0]);
});

Deno.test("--timeout ends the tries", async () => {
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({ "100_a.sql": "ALTER TABLE services ADD x int;" });
  await using _reader = await database.hold("LOCK TABLE services IN ACCESS SHARE MODE");
  const error = await assertRejects(
    () => migrate(database.session(), { dirs: [folder.path], lockTimeoutMs: 100, timeoutMs: 600 }),
    PipeweaveError,
  );
  assertEquals([error.kind, error.code], ["timeout", "timeout"]);
});

Deno.test("a lock that is not free in time is a time-out, and nothing stays", async () => {
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({
    "100_a.sql": "CREATE TABLE first (x int); ALTER TABLE services ADD x int;",
  });
  await database.sql.begin(async (holder) => {
    await holder`LOCK TABLE services IN ACCESS SHARE MODE`;
    const { failed } = await migrate(database.session(), {
      dirs: [folder.path],
      lockTimeoutMs: 100,
      lockRetries: 1,
    });
    assertEquals([failed?.error.kind, failed?.error.details.sqlstate], ["timeout", "55P03"]);
  });
  assertEquals((await database.sql`SELECT to_regclass('first') AS t`)[0]!["t"], null);
});

Deno.test("another migrator is waited for, up to the limit, and named", async () => {
  await using database = await TestDatabase.empty();
  const key = lockKey("public");
  await database.sql.begin(async (holder) => {
    await holder`SELECT pg_advisory_xact_lock(${String(key)})`;
    const error = await assertRejects(
      () => migrate(database.session(), { lockWaitMs: 300 }),
      PipeweaveError,
    );
    assertEquals([error.kind, error.code], ["timeout", "migration_lock"]);
    assertMatch(error.message, /pid \d+, user postgres/);
  });
  assertEquals((await migrate(database.session())).applied.length, 5);
});

Deno.test("two migrators, ours and one without a lock: what the other applied is not applied again", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE a (x int); SELECT pg_sleep(0.5);",
    "002_b.sql": "CREATE TABLE b (x int);",
  });
  const session = database.session();
  const ours = migrate(session, { dirs: [folder.path], embedded: false });
  await until(
    async () =>
      (await database
        .sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 001_a%' AND state = 'active'`)
        .length >
        0,
    "our migration runs",
  );
  const theirs = migrate(database.session(), { dirs: [folder.path], embedded: false });
  const counts = (await Promise.all([ours, theirs])).map(({ applied }) => applied.length);
  assertEquals(counts.reduce((sum, n) => sum + n), 2);
  assertEquals(
    (await database.sql`SELECT version FROM schema_migrations ORDER BY 1`).map(({ version }) => version),
    ["001", "002"],
  );
});

Deno.test("a migration that an administrator ends has failed, and is not started again", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE a (x int);",
    "002_b.sql": "CREATE TABLE b (x int); SELECT pg_sleep(1);",
    "003_c.sql": "CREATE TABLE c (x int);",
  });
  const running = migrate(database.session(), { dirs: [folder.path], embedded: false });
  await until(async () => {
    const rows = await database.sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE application_name LIKE 'pipeweave test%' AND query LIKE '-- pipeweave: 002_b%' AND datname = current_database()`;
    return rows.length > 0;
  }, "the session is cut off");
  const { applied, failed, status } = await running;
  assertEquals([applied.map(({ migration }) => migration.version), failed?.error.code], [
    ["001"],
    "terminated",
  ]);
  assertEquals(status.pending.map(({ version }) => version), ["002", "003"]);
  assertEquals((await database.sql`SELECT version FROM schema_migrations`).map(({ version }) => version), [
    "001",
  ]);
});

Deno.test("a migration that records itself fails, and does not go round for ever", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql":
      "CREATE TABLE a (x int); DO $$ BEGIN EXECUTE 'INSERT INTO schema_' || 'migrations (version, name, checksum) VALUES (''001'', ''a'', ''x'')'; END $$;",
  });
  const { failed } = await migrate(database.session(), { dirs: [folder.path], embedded: false });
  assertEquals(failed?.error.details.sqlstate, "23505");
});

Deno.test("a migration's own SQLSTATE is not taken for the guard's", async () => {
  await using database = await TestDatabase.empty();
  for (const code of ["PW001", "PW002", "PW003"]) {
    await using folder = await folderWith({
      "001_a.sql": `DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = '${code}'; END $$;`,
    });
    const { failed } = await migrate(database.session(), { dirs: [folder.path], embedded: false });
    assertEquals([failed?.error.message, failed?.error.details.sqlstate], ["mine", code]);
  }
});

Deno.test("temporary tables, encodings and read-only defaults end with their migration", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql":
      "CREATE TEMP TABLE scratch (x int); SET client_encoding = 'LATIN1'; SET default_transaction_read_only = on;",
    "002_b.sql": "CREATE TEMP TABLE scratch (x int); CREATE TABLE t AS SELECT 'é😀'::text AS s;",
  });
  const { failed } = await migrate(database.session(), { dirs: [folder.path], embedded: false });
  assertEquals(failed, null);
  assertEquals((await database.sql`SELECT s FROM t`)[0]!["s"], "é😀");
});

Deno.test("times are read right under any DateStyle", async () => {
  await using database = await TestDatabase.migrated();
  await database.sql.unsafe(`ALTER DATABASE ${database.name} SET datestyle = 'SQL, DMY'`);
  await database.sql`UPDATE schema_migrations SET applied_at = '2026-03-04T05:06:07Z' WHERE version = '000'`;
  const { applied } = await migrationStatus(database.session());
  assertEquals(applied[0]!.appliedAt.toISOString(), "2026-03-04T05:06:07.000Z");
});

Deno.test("a client that died is noticed by the server, and its transaction ends", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE a (x int); SELECT pg_sleep(60);",
    "002_b.sql": "CREATE TABLE b (x int);",
  });
  const run = new Run(["db:migrate", "--no-embedded", "--dir", folder.path], {
    env: { DATABASE_URL: database.url },
  });
  const active = async () =>
    (await database
      .sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '-- pipeweave: %' AND state = 'active'`)
      .length;
  await until(async () => await active() === 1, "the migration runs");
  run.kill("SIGKILL");
  await until(async () => await active() === 0, "the server notices", 5000);
  assertEquals((await database.sql`SELECT FROM pg_tables WHERE schemaname = 'public'`).length, 0);
});

Deno.test("a table of another tool with the same name is not touched", async () => {
  await using database = await TestDatabase.empty();
  await database.sql`CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean)`;
  const error = await assertRejects(() => migrate(database.session()), PipeweaveError);
  assertEquals([error.kind, error.code], ["integrity", "foreign_history"]);
});

Deno.test("requires maintenance: refused while tasks are active, applied when none is", async () => {
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({
    "100_a.sql": "-- pipeweave: requires maintenance\nCREATE TABLE a (x int);",
  });
  await database.sql`INSERT INTO services (id, version, base_url) VALUES ('s', '1', '')`;
  await database.sql`INSERT INTO tasks (id, service_id, code_hash) VALUES ('t', 's', '')`;
  await database
    .sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries) VALUES ('r', 't', 1, '', 1)`;
  const error = await assertRejects(
    () => migrate(database.session(), { dirs: [folder.path] }),
    PipeweaveError,
  );
  assertEquals([error.kind, error.code], ["condition", "needs_maintenance"]);
  await database.sql`UPDATE task_runs SET status = 'completed'`;
  assertEquals((await migrate(database.session(), { dirs: [folder.path] })).applied.length, 1);
});

Deno.test("db:migrate puts a missing row of orchestrator_state back", async () => {
  await using database = await TestDatabase.migrated();
  await database.sql`DELETE FROM orchestrator_state`;
  const warnings: string[] = [];
  const session = database.session({
    onNotice: ({ severity, message }) => severity === "WARNING" && warnings.push(message),
  });
  await migrate(session);
  assertEquals((await database.sql`SELECT id, mode FROM orchestrator_state`).map((row) => ({ ...row })), [{
    id: "singleton",
    mode: "running",
  }]);
  assertEquals(warnings.length, 1);

  await database.sql`DROP TABLE orchestrator_state`;
  await migrate(session);
  assertEquals((await database.sql`SELECT mode FROM orchestrator_state`).map(({ mode }) => mode), [
    "running",
  ]);
  assertEquals(warnings[1], "the table of orchestrator_state was missing; restored, with mode running");
});

Deno.test("roles with unusual defaults", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(
    `ALTER DATABASE ${database.name} SET default_transaction_isolation = 'serializable'`,
  );
  const results = await Promise.all(Array.from({ length: 4 }, () => migrate(database.session())));
  assertEquals(results.reduce((sum, { applied }) => sum + applied.length, 0), 5);
});

Deno.test("an up-to-date status is one message", async () => {
  await using database = await TestDatabase.migrated();
  const session = database.session();
  const messages: string[] = [];
  const send = session.send.bind(session);
  session.send = (message) => {
    messages.push(message);
    return send(message);
  };
  assertEquals((await migrationStatus(session)).pending.length, 0);
  assertEquals((await migrate(session)).applied.length, 0);
  assertEquals(messages.length, 2);
});

Deno.test("an interruption rolls back, and is told apart from a failure", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE a (x int); SELECT pg_sleep(30);",
    "002_b.sql": "SELECT 1;",
  });
  const controller = new AbortController();
  const running = migrate(database.session({ signal: controller.signal }), {
    dirs: [folder.path],
    embedded: false,
    signal: controller.signal,
    onApplying: () => setTimeout(() => controller.abort(), 100),
  });
  const { failed, applied } = await running;
  assertInstanceOf(failed?.error, PipeweaveError);
  assertEquals([failed.error.kind, applied.length], ["interrupted", 0]);
  assertEquals((await database.sql`SELECT to_regclass('a') AS t`)[0]!["t"], null);
});
