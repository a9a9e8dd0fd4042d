/** The mode and the gate are one truth: whatever turns a trigger off or leaves it out, nobody is told that it is safe. */

import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  enterMaintenance,
  exitMaintenance,
  getMaintenanceStatus,
  requestMaintenance,
} from "../src/commands/maintenance.ts";
import { migrate } from "../src/commands/migrate.ts";
import { PipeweaveError } from "../src/errors.ts";
import { PostgresServer } from "../scripts/postgres_server.ts";
import { folderWith, pipeweave, until } from "./support/binary.ts";
import { connect, queueTasks, sessionFor, TestDatabase } from "./support/database.ts";

const insert = (table = "task_runs") =>
  `INSERT INTO ${table} (id, task_id, code_version, code_hash, max_retries) VALUES (gen_random_uuid()::text, 't', 1, 'x', 3)`;
const refusal = (answer: PromiseLike<unknown>): Promise<string | undefined> =>
  Promise.resolve(answer).then(() => undefined, ({ code }) => code);

/** Ways to open the gate behind the mode's back. A look of the owner mends them. */
const OPENED: Readonly<Record<string, string>> = {
  "triggers switched off": "ALTER TABLE task_runs DISABLE TRIGGER ALL",
  "triggers switched off and on, which leaves them off for replicas":
    "ALTER TABLE task_runs DISABLE TRIGGER ALL; ALTER TABLE task_runs ENABLE TRIGGER ALL",
  "a trigger dropped": "DROP TRIGGER maintenance_gate_closed_insert ON task_runs",
  "the mode changed while triggers do not fire":
    "SET session_replication_role = replica; UPDATE orchestrator_state SET mode = 'running'; UPDATE orchestrator_state SET mode = 'maintenance', requested_at = now(); RESET session_replication_role; DROP TRIGGER maintenance_gate_closed_update ON task_runs",
  "the table made anew by a migration":
    "CREATE TABLE task_runs_2 (LIKE task_runs INCLUDING ALL); DROP TABLE task_runs CASCADE; ALTER TABLE task_runs_2 RENAME TO task_runs",
  "a child added": "CREATE TABLE task_runs_2026 () INHERITS (task_runs)",
};

for (const [how, statements] of Object.entries(OPENED)) {
  Deno.test(`the gate opened behind the mode's back, ${how}: a look closes it; a role that may not is told, exit 3`, async () => {
    await using database = await TestDatabase.migrated();
    const { sql, url } = database;
    await queueTasks(sql, []);
    const session = database.session();
    await requestMaintenance(session);
    await sql.unsafe(statements);
    const role = `looker_${database.name}`;
    await sql.unsafe(`CREATE ROLE ${role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${role}`);
    try {
      const env = { DATABASE_URL: url.replace("postgres@", `${role}@`) };
      for (
        const args of [["maintenance:status"], ["maintenance:status", "--expect", "maintenance", "--quiet"]]
      ) {
        const told = await pipeweave(args, { env });
        assertEquals(told.code, 3, told.stdout + told.stderr);
        assertStringIncludes(told.stderr, "the gate is open");
        assert(!/safe to migrate/.test(told.stdout + told.stderr));
      }
      const json = JSON.parse((await pipeweave(["maintenance:status", "--json"], { env })).stdout);
      assertEquals([json.mode, json.gate, json.isSafe, json.error.code], [
        "maintenance",
        "open",
        false,
        "gate_open",
      ]);
    } finally {
      await sql.unsafe(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
    }
    const { gate, isSafe } = await getMaintenanceStatus(session);
    assertEquals([gate, isSafe], ["closed", true]);
    const tables = how === "a child added" ? ["task_runs", "task_runs_2026"] : ["task_runs"];
    for (const table of tables) assertEquals(await refusal(sql.unsafe(insert(table))), "PW101");
    assertEquals(
      await refusal(sql.begin(async (transaction) => {
        await transaction`SET LOCAL session_replication_role = replica`;
        await transaction.unsafe(insert());
      })),
      "PW101",
    );
    await exitMaintenance(session);
    for (const table of tables) assertEquals(await refusal(sql.unsafe(insert(table))), undefined);
  });
}

Deno.test("a task that came in while the gate was open is told, exit 3, and migrations are not applied beside it", async () => {
  await using database = await TestDatabase.migrated();
  const { sql, url } = database;
  await queueTasks(sql, []);
  await requestMaintenance(database.session());
  await sql.unsafe(`ALTER TABLE task_runs DISABLE TRIGGER ALL; ${insert()}`);
  const env = { DATABASE_URL: url };
  const told = await pipeweave(["maintenance:status"], { env });
  assertEquals(told.code, 3);
  assertStringIncludes(told.stdout, "1 task came in behind its back");
  await using folder = await folderWith({
    "101_a.sql": "-- pipeweave: requires maintenance\nCREATE TABLE a (id int);",
  });
  const refused = await pipeweave(["db:migrate", "--dir", folder.path], { env });
  assertEquals(refused.code, 3);
  const [row] = await sql`SELECT to_regclass('a') IS NULL AS missing`;
  assertEquals(row!["missing"], true);
  await sql`UPDATE task_runs SET status = 'completed'`;
  assertEquals((await pipeweave(["db:migrate", "--dir", folder.path], { env })).code, 0);
});

Deno.test("a migration checks the gate in its own transaction, whatever the mode says", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, []);
  const session = database.session();
  await requestMaintenance(session);
  await using folder = await folderWith({
    "101_opens.sql": "-- pipeweave: requires maintenance\nALTER TABLE task_runs DISABLE TRIGGER ALL;",
    "102_needs.sql": "-- pipeweave: requires maintenance\nCREATE TABLE b (id int);",
  });
  const error = await assertRejects(() => migrate(session, { dirs: [folder.path] }), PipeweaveError);
  assertEquals([error.kind, error.code], ["condition", "gate_open"]);
  const [row] = await sql`SELECT to_regclass('b') IS NULL AS missing`;
  assertEquals(row!["missing"], true);
});

for (
  const [what, definition] of [
    ["partitions in another schema", "PARTITION BY HASH (id)"],
    ["partitions of partitions", "PARTITION BY LIST (task_id)"],
  ] as const
) {
  Deno.test(`task_runs with ${what}: refused on each of them, drained, and open again`, async () => {
    await using database = await TestDatabase.migrated();
    const { sql } = database;
    await queueTasks(sql, []);
    await sql.unsafe(`CREATE SCHEMA parts; DROP TABLE task_runs CASCADE;
      CREATE TABLE task_runs (id text NOT NULL, task_id text NOT NULL REFERENCES tasks, pipeline_run_id text, code_version integer NOT NULL,
        code_hash text NOT NULL, status text NOT NULL DEFAULT 'pending', attempt integer NOT NULL DEFAULT 1, max_retries integer NOT NULL,
        priority integer NOT NULL DEFAULT 100, started_at timestamptz, completed_at timestamptz, heartbeat_at timestamptz,
        heartbeat_timeout_ms integer, scheduled_for timestamptz, created_at timestamptz NOT NULL DEFAULT now(), error text) ${definition}`);
    const leaf = definition.includes("HASH") ? "parts.p0" : "parts.p0a";
    await sql.unsafe(
      definition.includes("HASH")
        ? "CREATE TABLE parts.p0 PARTITION OF task_runs FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
        : "CREATE TABLE parts.p0 PARTITION OF task_runs DEFAULT PARTITION BY HASH (id); CREATE TABLE parts.p0a PARTITION OF parts.p0 FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    );
    const session = database.session();
    await sql.unsafe(insert());
    assertEquals((await requestMaintenance(session)).mode, "waiting_for_maintenance");
    for (const table of ["task_runs", leaf]) assertEquals(await refusal(sql.unsafe(insert(table))), "PW101");
    await sql.unsafe("UPDATE task_runs SET status = 'completed'");
    assertEquals((await getMaintenanceStatus(session)).isSafe, true);
    for (const table of ["task_runs", leaf]) assertEquals(await refusal(sql.unsafe(insert(table))), "PW101");
    await sql.unsafe(`ALTER TABLE ${leaf} DISABLE TRIGGER ALL`);
    assertEquals((await getMaintenanceStatus(session)).isSafe, true);
    assertEquals(await refusal(sql.unsafe(insert(leaf))), "PW101");
    await exitMaintenance(session);
    for (const table of ["task_runs", leaf]) {
      assertEquals(await refusal(sql.unsafe(insert(table))), undefined);
    }
  });
}

Deno.test("a subscriber of logical replication: its gate follows the publisher's mode at the next look, and replication goes on", async () => {
  const server = await PostgresServer.start({ settings: { wal_level: "logical" } });
  const admin = connect(server.url());
  try {
    for (const name of ["publisher", "subscriber"]) {
      await admin.unsafe(`CREATE DATABASE ${name}`);
      const session = sessionFor(server.url(name));
      const { failed } = await migrate(session);
      await session.close();
      if (failed) throw failed.error;
    }
    const [publisher, subscriber] = [connect(server.url("publisher")), connect(server.url("subscriber"))];
    await queueTasks(publisher, []);
    await publisher.unsafe("CREATE PUBLICATION p FOR TABLE orchestrator_state, task_runs, services, tasks");
    await publisher`SELECT pg_create_logical_replication_slot('s', 'pgoutput')`;
    await subscriber.unsafe("TRUNCATE orchestrator_state");
    await subscriber.unsafe(
      `CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=${
        new URL(server.url()).port
      } dbname=publisher user=${new URL(server.url()).username}' PUBLICATION p WITH (create_slot = false)`,
    );
    const seen = (mode: string) =>
      until(
        async () => (await subscriber`SELECT mode FROM orchestrator_state`)[0]?.["mode"] === mode,
        `the subscriber has the mode ${mode}`,
      );
    await seen("running");
    const [source, copy] = [sessionFor(server.url("publisher")), sessionFor(server.url("subscriber"))];
    await requestMaintenance(source);
    await seen("maintenance");
    const status = await getMaintenanceStatus(copy);
    assertEquals([status.mode, status.gate, status.isSafe], ["maintenance", "closed", true]);
    assertEquals(await refusal(subscriber.unsafe(insert())), "PW101");
    // The publisher opens, and what it accepts arrives.
    await exitMaintenance(source);
    await publisher.unsafe(insert());
    await until(
      async () => (await subscriber`SELECT FROM task_runs`).length === 1,
      "the task is replicated",
    );
    await Promise.all([source.close(), copy.close()]);
    await subscriber.unsafe(
      "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    );
    await Promise.all([publisher.end({ timeout: 1 }), subscriber.end({ timeout: 1 })]);
  } finally {
    await admin.end({ timeout: 1 });
    await server.stop();
  }
});

/** What may keep the triggers from being dropped, or the way out from being told. */
const IN_THE_WAY: Readonly<Record<string, string>> = {
  "a freeze of DDL":
    "CREATE FUNCTION no_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'DDL is frozen'; END $$; CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION no_ddl()",
  "task_runs of another owner":
    "CREATE ROLE other_owner_of_tasks; ALTER TABLE task_runs OWNER TO other_owner_of_tasks",
  "a log that is gone": "DROP TABLE maintenance_log CASCADE",
  "a view that depends on nothing of it, and a log that refuses":
    "ALTER TABLE maintenance_log ADD CONSTRAINT is_full CHECK (false) NOT VALID",
  "held tasks that are gone": "DROP TABLE maintenance_held_tasks",
  "row security on task_runs": "ALTER TABLE task_runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
};

for (const [what, statements] of Object.entries(IN_THE_WAY)) {
  Deno.test(`the way back works with ${what} in the way`, async () => {
    await using database = await TestDatabase.migrated();
    const { sql, url } = database;
    await queueTasks(sql, []);
    await requestMaintenance(database.session());
    await sql.unsafe(statements);
    try {
      const { code, stderr, stdout } = await pipeweave(["maintenance:exit", "--force"], {
        env: { DATABASE_URL: url },
      });
      assertEquals([code, stdout], [0, "Orchestrator is now running normally\n"], stderr);
      assertEquals(await refusal(sql.unsafe(insert())), undefined);
    } finally {
      await sql.unsafe("DROP EVENT TRIGGER IF EXISTS no_ddl");
      if (statements.includes("other_owner")) {
        await sql.unsafe(
          "REASSIGN OWNED BY other_owner_of_tasks TO postgres; DROP ROLE other_owner_of_tasks",
        );
      }
    }
  });
}

Deno.test("row security: what would be counted without some of it is an error, never a number", async () => {
  await using database = await TestDatabase.empty();
  const { sql, url, name } = database;
  const owner = `owner_${name}`;
  await sql.unsafe(`CREATE ROLE ${owner} LOGIN; GRANT ALL ON SCHEMA public TO ${owner}`);
  try {
    const env = { DATABASE_URL: url.replace("postgres@", `${owner}@`) };
    assertEquals((await pipeweave(["db:migrate"], { env })).code, 0);
    await queueTasks(sql, ["running"]);
    await sql.unsafe(
      `ALTER TABLE task_runs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON task_runs USING (false)`,
    );
    for (const args of [["maintenance:request"], ["maintenance:status"], ["maintenance:tasks"]]) {
      const { code, stderr } = await pipeweave(args, { env });
      assertEquals([args, code], [args, 1]);
      assertStringIncludes(stderr, 'row-level security policy for table "task_runs"');
    }
    // PipeWeave's own Node tool, or by hand.
    const byHand = connect(env.DATABASE_URL);
    assertEquals(await refusal(byHand`UPDATE orchestrator_state SET mode = 'maintenance'`), "42501");
    await byHand.end({ timeout: 1 });
    assertEquals((await sql`SELECT mode FROM orchestrator_state`)[0]!["mode"], "running");
  } finally {
    await sql.unsafe(`DROP OWNED BY ${owner} CASCADE; DROP ROLE ${owner}`);
  }
});

Deno.test("--ttl holds against every client that writes the row: enters, counts, or asks again", async () => {
  for (
    const write of [
      "UPDATE orchestrator_state SET mode = 'maintenance' WHERE id = 'singleton' RETURNING mode",
      "UPDATE orchestrator_state SET pending_tasks_count = 0, running_tasks_count = 0 WHERE id = 'singleton' RETURNING mode",
      "UPDATE orchestrator_state SET mode = 'waiting_for_maintenance' WHERE id = 'singleton' RETURNING mode",
    ]
  ) {
    await using database = await TestDatabase.migrated();
    const { sql } = database;
    await queueTasks(sql, ["running"]);
    const session = database.session();
    await requestMaintenance(session, { ttlMs: 50 });
    await until(
      async () =>
        (await sql`SELECT wait_expires_at < clock_timestamp() AS over FROM orchestrator_state`)[0]!["over"],
      "the time to live is over",
    );
    await sql`UPDATE task_runs SET status = 'completed'`;
    assertEquals((await sql.unsafe(write))[0]!["mode"], "running");
    const [row] =
      await sql`SELECT mode, requested_at IS NULL AS over, mode_changed_at > now() - interval '1 minute' AS fresh FROM orchestrator_state`;
    assertEquals({ ...row }, { mode: "running", over: true, fresh: true });
    assertEquals(
      (await sql`SELECT action FROM maintenance_log ORDER BY id DESC LIMIT 1`)[0]!["action"],
      "expire",
    );
    assertEquals(await refusal(sql.unsafe(insert())), undefined);
  }
});

Deno.test("a renamed schema: migrating, draining, cleaning up and leaving go on", async () => {
  await using database = await TestDatabase.migrated();
  const { sql, url } = database;
  await queueTasks(sql, []);
  const session = database.session();
  await requestMaintenance(session);
  await sql.unsafe(`ALTER SCHEMA public RENAME TO "Rena med"; CREATE SCHEMA public`);
  await using folder = await folderWith({ "101_a.sql": "CREATE TABLE a (id int);" });
  const env = { DATABASE_URL: url };
  const schema = ["--schema", "Rena med"];
  assertEquals(await refusal(sql.unsafe(insert(`"Rena med".task_runs`))), "PW101");
  for (
    const args of [["maintenance:status"], ["db:migrate", "--dir", folder.path], ["maintenance:exit"], [
      "db:cleanup",
    ]]
  ) {
    const { code, stderr } = await pipeweave([...args, ...schema], { env });
    assertEquals([args, code], [args, 0], stderr);
  }
  assertEquals(await refusal(sql.unsafe(insert(`"Rena med".task_runs`))), undefined);
  assertEquals((await sql`SELECT "Rena med".cleanup_expired_idempotency_cache() AS n`)[0]!["n"], 0);
  assertEquals((await sql`SELECT * FROM "Rena med".cleanup_expired_temp_uploads()`).length, 1);
});

Deno.test("a trigger that does not follow the mode: the request says so and changes nothing; db:migrate mends it", async () => {
  for (
    const statement of [
      "ALTER TABLE orchestrator_state DISABLE TRIGGER ALL",
      "DROP TRIGGER maintenance_follow_mode ON orchestrator_state",
    ]
  ) {
    await using database = await TestDatabase.migrated();
    const { sql, url } = database;
    await queueTasks(sql, []);
    await sql.unsafe(statement);
    const error = await assertRejects(() => requestMaintenance(database.session()), PipeweaveError);
    assertEquals([error.code, (await sql`SELECT mode FROM orchestrator_state`)[0]!["mode"]], [
      "gate_does_not_follow",
      "running",
    ]);
    const { code, stderr } = await pipeweave(["db:migrate"], { env: { DATABASE_URL: url } });
    assertEquals(code, 0);
    assertStringIncludes(stderr, "was missing or off; restored");
    assertEquals((await requestMaintenance(database.session())).isSafe, true);
    assertEquals((await enterMaintenance(database.session())).isSafe, true);
  }
});

Deno.test("what others wrote is one line, short, and turns nothing: where it is stored, raised and printed", async () => {
  await using database = await TestDatabase.migrated();
  const { sql, url } = database;
  await queueTasks(sql, ["running"]);
  const nasty = `a\nMode: running\r\x1b[2J\u202eevil\u2066${"x".repeat(10_000)}`;
  await sql`UPDATE orchestrator_state SET mode = 'waiting_for_maintenance', reason = ${nasty}, owner = ${nasty}`;
  await sql.begin(async (transaction) => {
    await transaction`SELECT set_config('pipeweave.actor', ${
      JSON.stringify({ action: nasty, osUser: nasty, host: nasty, tool: nasty, reason: nasty, forced: nasty })
    }, true)`;
    await transaction`UPDATE orchestrator_state SET drain = 'running'`;
  });
  // deno-lint-ignore no-control-regex -- they are what it is about
  const bad = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/;
  const error = await sql.unsafe(insert()).catch((error) => error);
  const raised = `${error.message} ${error.detail}`;
  assert(!bad.test(raised) && !raised.includes("\n") && raised.length < 2000, raised);
  const stored = JSON.stringify(await sql`SELECT * FROM maintenance_log`);
  assert(!/\\[nrtu]|\\x/.test(stored.replaceAll('\\"', "")) && stored.length < 8000, stored);
  for (const command of ["maintenance:status", "maintenance:history", "maintenance:tasks"]) {
    const { stdout, stderr } = await pipeweave([command], { env: { DATABASE_URL: url } });
    assert(!bad.test(stdout + stderr), stdout + stderr);
    assertEquals(stdout.split("\n").filter((line) => line.startsWith("Mode: running")), []);
  }
});

Deno.test("what needs maintenance is applied without it where nothing is active, and not beside a task that comes meanwhile", async () => {
  await using database = await TestDatabase.migrated();
  const { sql, url } = database;
  await queueTasks(sql, []);
  await sql`CREATE TABLE go (id int)`;
  await using folder = await folderWith({
    "101_slow.sql":
      "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM go) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;",
    "102_needs.sql": "-- pipeweave: requires maintenance\nCREATE TABLE proof (id int);",
  });
  const env = { DATABASE_URL: url };
  const run = pipeweave(["db:migrate", "--dir", folder.path], { env });
  await until(
    async () =>
      (await sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 101%' AND state = 'active' AND datname = current_database()`)
        .length > 0,
    "the first one runs",
  );
  await sql.unsafe(insert());
  await sql`INSERT INTO go VALUES (1)`;
  const { code, stderr } = await run;
  assertEquals([code, (await sql`SELECT to_regclass('proof') IS NULL AS missing`)[0]!["missing"]], [3, true]);
  assertStringIncludes(stderr, "102_needs needs maintenance, and was not applied: a task has come meanwhile");
  await sql`UPDATE task_runs SET status = 'completed'`;
  assertEquals((await pipeweave(["db:migrate", "--dir", folder.path], { env })).code, 0);
});

Deno.test("a hint is about the schema that was asked about, quoted for a shell", async () => {
  await using database = await TestDatabase.empty();
  const { stderr } = await pipeweave(["maintenance:status", "--schema", `we"ird x`], {
    env: { DATABASE_URL: database.url },
  });
  assertStringIncludes(
    stderr,
    `next: PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded --schema 'we"ird x'\n`,
  );
});
