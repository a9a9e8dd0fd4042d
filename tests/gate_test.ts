/** Admission control by PostgreSQL itself: what is refused, what goes on, at every isolation level, whoever asks. */

import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import type postgres from "postgres";
import {
  enterMaintenance,
  exitMaintenance,
  getMaintenanceStatus,
  requestMaintenance,
} from "../src/commands/maintenance.ts";
import { PipeweaveError } from "../src/errors.ts";
import { readMaintenanceLog } from "../src/maintenance/log.ts";
import { until } from "./support/binary.ts";
import { connect, queueTasks, sessionFor, TestDatabase, withMigratedServer } from "./support/database.ts";

const ISOLATION = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] as const;
const ALICE = { osUser: "alice", host: "one", tool: "test" };
const BOB = { osUser: "bob", host: "two", tool: "test" };

/** The SQLSTATE that a statement fails with; undefined when it does not. */
function refusal(answer: PromiseLike<unknown>): Promise<string | undefined> {
  return Promise.resolve(answer).then(() => undefined, ({ code }) => code);
}

/** Inserts a run. */
function insert(sql: postgres.Sql, status: string, pipelineRun: string | null = null): Promise<unknown> {
  return sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries, status, pipeline_run_id)
    VALUES (${crypto.randomUUID()}, 't', 1, 'x', 3, ${status}, ${pipelineRun})`.then((rows) => rows);
}

async function pipelineRun(sql: postgres.Sql, id: string): Promise<void> {
  await sql`INSERT INTO pipelines (id, name, entry_tasks, structure) VALUES ('p', 'p', '{t}', '{}') ON CONFLICT DO NOTHING`;
  await sql`INSERT INTO pipeline_runs (id, pipeline_id, pipeline_version, structure_snapshot, status)
            VALUES (${id}, 'p', '1', '{}', 'running')`;
}

Deno.test("waiting: new tasks are refused with PW101, what was accepted goes on", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await pipelineRun(sql, "old");
  const [pending, running] = await queueTasks(sql, ["pending", "running", "running"]);
  await insert(sql, "completed", "old");
  const session = database.session();
  await requestMaintenance(session, { actor: ALICE, reason: "release 42", ttlMs: 60_000 });

  const error = await insert(sql, "pending").then(() => assert(false), (error) => error);
  assertEquals(error.code, "PW101");
  assertMatch(error.message, /^draining for maintenance: task \S+ may not become pending$/);
  assertMatch(
    error.detail,
    /^mode waiting_for_maintenance since \d{4}-\S+Z, requested by alice@one: release 42$/,
  );
  assertMatch(error.hint, /^Try again when the mode is running, at the latest in (59|60) seconds\.$/);
  assertEquals(await refusal(insert(sql, "running")), "PW101");
  // The whole statement: no row of a hundred gets in.
  const rows = Array.from({ length: 100 }, (_, i) => `('many-${i}', 't', 1, 'x', 3)`).join();
  assertEquals(
    await refusal(
      sql.unsafe(`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries) VALUES ${rows}`),
    ),
    "PW101",
  );
  // A pipeline run that begins now, and one that was under way.
  await pipelineRun(sql, "new");
  assertEquals(await refusal(insert(sql, "pending", "new")), "PW101");
  assertEquals(await refusal(insert(sql, "waiting", "new")), undefined);
  assertEquals(await refusal(insert(sql, "pending", "new")), "PW101");
  assertEquals(await refusal(insert(sql, "pending", "old")), undefined);
  // Records of what is over are no work.
  assertEquals(await refusal(insert(sql, "completed")), undefined);
  // Accepted work: start, end, failure, retry.
  await sql`UPDATE task_runs SET status = 'running' WHERE id = ${pending!}`;
  await sql`UPDATE task_runs SET status = 'failed' WHERE id = ${running!}`;
  await sql`UPDATE task_runs SET status = 'pending', attempt = 2 WHERE id = ${running!}`;
  assertEquals((await getMaintenanceStatus(session)).mode, "waiting_for_maintenance");
  await sql`UPDATE task_runs SET status = 'completed'`;
  // A step of the pipeline run may follow; PipeWeave says that it is over, and then none can.
  assertEquals((await getMaintenanceStatus(session)).mode, "waiting_for_maintenance");
  await sql`UPDATE pipeline_runs SET status = 'completed'`;
  assertEquals((await getMaintenanceStatus(session)).mode, "maintenance");
});

Deno.test("maintenance: nothing becomes active, by any statement or protocol; other changes pass", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const [done] = await queueTasks(sql, ["completed", "failed"]);
  const prepared = connect(database.url);
  const byName = () =>
    prepared`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries)
             VALUES (${crypto.randomUUID()}, 't', 1, 'x', 3)`.then((rows) => rows);
  // Planned and run before the gate was closed.
  await byName();
  await sql`UPDATE task_runs SET status = 'completed' WHERE status = 'pending'`;
  const session = database.session();
  assertEquals((await requestMaintenance(session)).mode, "maintenance");
  try {
    assertEquals(await refusal(byName()), "PW101");
    assertEquals(await refusal(insert(sql, "pending")), "PW101");
    assertEquals(await refusal(insert(sql, "running")), "PW101");
    assertEquals(
      await refusal(sql`UPDATE task_runs SET status = 'pending' WHERE id = ${done!}`.then((rows) => rows)),
      "PW101",
    );
    assertEquals(
      await refusal(
        sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries) VALUES (${done!}, 't', 1, 'x', 3)
            ON CONFLICT (id) DO UPDATE SET status = 'running'`.then((rows) => rows),
      ),
      "PW101",
    );
    const copy = () =>
      sql.unsafe(
        "COPY task_runs (id, task_id, code_version, code_hash, max_retries) FROM PROGRAM 'printf \"a\\tt\\t1\\tx\\t3\\n\"'",
      ).then((rows) => rows);
    assertEquals(await refusal(copy()), "PW101");
    // For triggers that replication turns off, too.
    assertEquals(
      await refusal(sql.begin(async (transaction) => {
        await transaction`SET LOCAL session_replication_role = replica`;
        await transaction`UPDATE task_runs SET status = 'running' WHERE id = ${done!}`;
      })),
      "PW101",
    );
    await sql`UPDATE task_runs SET priority = 1, status = 'cancelled' WHERE id = ${done!}`;
    assertEquals((await exitMaintenance(session)).mode, "running");
    assertEquals(await refusal(byName()), undefined);
  } finally {
    await prepared.end({ timeout: 1 });
  }
});

for (const isolation of ISOLATION) {
  Deno.test(`${isolation}: a transaction that began before the request is refused after it, or waited for`, async () => {
    await using database = await TestDatabase.migrated();
    const { sql } = database;
    await queueTasks(sql, ["completed"]);
    const session = database.session();
    const row = (id: string) =>
      `INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries) VALUES ('${id}', 't', 1, 'x', 3)`;

    // Its snapshot is older than the mode, and it has written to other tables.
    await using early = await database.hold(
      `SET TRANSACTION ISOLATION LEVEL ${isolation}; SELECT mode FROM orchestrator_state; SELECT count(*) FROM task_runs`,
    );
    assertEquals((await requestMaintenance(session)).mode, "maintenance");
    const late = await early.run(row("late")).then(() => undefined, (error) => error);
    assertEquals(late?.code, "PW101");
    await early.release();
    await exitMaintenance(session);

    // It has written to task_runs: the request waits for it, and finds its row.
    await using writer = await database.hold(`SET TRANSACTION ISOLATION LEVEL ${isolation}; ${row("first")}`);
    let waited = false;
    const requested = requestMaintenance(session, { onLockWait: () => waited = true });
    const limit = Date.now() + 5000;
    while (!waited && Date.now() < limit) await new Promise((resolve) => setTimeout(resolve, 10));
    await writer.run("COMMIT");
    assertEquals([(await requested).mode, waited], ["waiting_for_maintenance", true]);
    assertEquals(await refusal(sql.unsafe(row("second"))), "PW101");
    await sql`UPDATE task_runs SET status = 'completed'`;
    assertEquals((await getMaintenanceStatus(session)).mode, "maintenance");
    const [left] = await sql`SELECT count(*)::int AS n FROM task_runs WHERE status IN ('pending', 'running')`;
    assertEquals(left!["n"], 0);
  });
}

Deno.test("others never queue behind a request for long while it waits for a writer; it gives up in time, naming who", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["completed"]);
  await using _writer = await database.hold("UPDATE task_runs SET priority = 1");
  const session = database.session();
  const request = requestMaintenance(session, { lockWaitMs: 3000 }).then(
    () => undefined,
    (error: unknown) => error,
  );
  let over = false;
  void request.then(() => over = true);
  let longest = 0;
  while (!over) {
    const start = performance.now();
    await insert(database.sql, "completed");
    longest = Math.max(longest, performance.now() - start);
  }
  const error = await request;
  assert(error instanceof PipeweaveError);
  assertEquals([error.kind, error.code], ["timeout", "lock_timeout"]);
  assertMatch(error.message, /stays as it was.*pid \d+ \(postgres, .*idle in transaction, for \d/);
  assertEquals((await getMaintenanceStatus(session)).mode, "running");
  // 200 ms is the limit of one attempt; the rest is what a busy machine adds.
  assert(longest < 1000, `${longest} ms`);
});

Deno.test("an autovacuum of the table does not keep the mode from being changed: PostgreSQL ends it for who waits long enough", async () => {
  const settings = { autovacuum: "on", autovacuum_naptime: "1s", autovacuum_vacuum_threshold: "1" };
  await withMigratedServer(settings, async (server, sql) => {
    await queueTasks(sql, []);
    await sql`ALTER TABLE task_runs SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)`;
    await sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries, status)
              SELECT 'r' || i, 't', 1, 'x', 3, 'completed' FROM generate_series(1, 20000) i`;
    await sql`DELETE FROM task_runs`;
    const vacuums = () =>
      sql`SELECT FROM pg_locks WHERE relation = 'task_runs'::regclass AND mode = 'ShareUpdateExclusiveLock'`;
    await until(async () => (await vacuums()).length > 0, "an autovacuum is at work", 60_000);
    const session = sessionFor(server.url());
    // One that is not ended takes minutes.
    assertEquals((await requestMaintenance(session, { lockWaitMs: 5000 })).mode, "maintenance");
    await session.close();
  });
});

Deno.test("an exit waits for nobody: a writer that stays keeps no one out, and the next look cleans up behind it", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const [id] = await queueTasks(sql, ["completed"]);
  const session = database.session();
  const triggers = async () =>
    (await sql`SELECT FROM pg_trigger WHERE tgrelid = 'task_runs'::regclass AND NOT tgisinternal`).length;
  for (const isolation of ISOLATION) {
    assertEquals((await requestMaintenance(session)).mode, "maintenance");
    await using writer = await database.hold("UPDATE task_runs SET priority = 1");
    assertEquals((await exitMaintenance(session, { lockWaitMs: 1000 })).mode, "running");
    assert(await triggers() > 0);
    // Let in by the state as it is now; one that began before the exit may only know the state before it.
    const insertion = sql.begin(
      `ISOLATION LEVEL ${isolation}`,
      (transaction) => insert(transaction as unknown as postgres.Sql, "pending"),
    );
    assertEquals(await refusal(insertion), undefined);
    // The gate closes again, whatever is left of it.
    await writer.release();
    assertEquals((await requestMaintenance(session)).mode, "waiting_for_maintenance");
    assertEquals(await refusal(insert(sql, "pending")), "PW101");
    await sql`UPDATE task_runs SET status = 'completed' WHERE id <> ${id!}`;
    assertEquals((await getMaintenanceStatus(session)).mode, "maintenance");
    await using reader = await database.hold("UPDATE task_runs SET priority = 2");
    await exitMaintenance(session);
    assert(await triggers() > 0);
    await reader.release();
    assertEquals((await getMaintenanceStatus(session)).mode, "running");
    assertEquals(await triggers(), 0);
  }
});

Deno.test("what runs with the owner's rights is nobody else's to call, and the state has one row", async () => {
  await using database = await TestDatabase.migrated();
  const role = `r_${crypto.randomUUID().slice(0, 8)}`;
  await database.sql.unsafe(`CREATE ROLE ${role} LOGIN`);
  const stranger = connect(database.url.replace("postgres@", `${role}@`), { max: 1 });
  try {
    await stranger`CREATE TEMP TABLE mine (id text, status text, pipeline_run_id text)`;
    for (const call of ["maintenance_gate('new tasks')", "maintenance_follow_mode()"]) {
      const created = stranger.unsafe(
        `CREATE TRIGGER x BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION public.${call}`,
      );
      assertEquals(await refusal(created), "42501", call);
    }
    assertEquals(
      await refusal(stranger`SELECT public.maintenance_set_gate('public', 'running', 'all')`),
      "42501",
    );
    // A worker's role needs the tables alone.
    await database.sql.unsafe(`GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO ${role}`);
    await queueTasks(database.sql, []);
    assertEquals((await requestMaintenance(database.session())).mode, "maintenance");
    assertEquals(await refusal(insert(stranger, "pending")), "PW101");
    assertEquals(await refusal(stranger`INSERT INTO orchestrator_state (id) VALUES ('other')`), "23514");
    assertEquals(await refusal(stranger`UPDATE orchestrator_state SET id = 'other'`), "23514");
    assertEquals(await refusal(insert(stranger, "pending")), "PW101");
  } finally {
    await stranger.end({ timeout: 1 });
    await database.sql.unsafe(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  }
});

Deno.test("drain running: pending tasks stay queued, and nothing starts", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const [pending, running] = await queueTasks(sql, ["pending", "running"]);
  const session = database.session();
  const asked = await requestMaintenance(session, { drain: "running" });
  assertEquals([asked.mode, asked.message], [
    "waiting_for_maintenance",
    "Waiting for 1 task to complete",
  ]);
  const start = () =>
    refusal(sql`UPDATE task_runs SET status = 'running' WHERE id = ${pending!}`.then((rows) => rows));
  assertEquals(await start(), "PW101");
  await sql`UPDATE task_runs SET heartbeat_at = now() WHERE id = ${running!}`;
  await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${running!}`;
  const found = await getMaintenanceStatus(session);
  assertEquals([found.mode, found.pendingTasks], ["maintenance", 1]);
  assertStringIncludes(found.message, "1 task stay queued");
  assertEquals(await start(), "PW101");
  await exitMaintenance(session);
  assertEquals(await start(), undefined);
});

Deno.test("--ttl: the gate lets in when a wait has run out, if no command ever runs; the next look says so", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["running"]);
  const session = database.session();
  await requestMaintenance(session, { actor: ALICE, ttlMs: 400 });
  assertEquals(await refusal(insert(sql, "pending")), "PW101");
  await new Promise((resolve) => setTimeout(resolve, 500));
  assertEquals(await refusal(insert(sql, "pending")), undefined);
  assertEquals((await getMaintenanceStatus(session)).mode, "running");
  const [line] = await readMaintenanceLog(session, 1);
  assertEquals([line!.action, line!.modeBefore, line!.modeAfter, line!.owner], [
    "expire",
    "waiting_for_maintenance",
    "running",
    "alice@one",
  ]);
  // A wait that ran out cannot be entered.
  await requestMaintenance(session, { actor: ALICE, ttlMs: 100 });
  await sql`UPDATE task_runs SET status = 'completed'`;
  await new Promise((resolve) => setTimeout(resolve, 200));
  const error = await assertRejects(() => enterMaintenance(session), PipeweaveError);
  assertEquals(error.code, "not_requested");
});

Deno.test("--ttl: a request after a wait that nobody saw run out is a new one, and the log has both", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const session = database.session();
  const first = await requestMaintenance(session, { actor: ALICE, reason: "disk", ttlMs: 50 });
  await new Promise((resolve) => setTimeout(resolve, 100));
  const second = await requestMaintenance(session, { actor: BOB, reason: "release" });
  assertEquals([second.requested, second.joined, second.owner, second.waitExpiresAt], [
    true,
    false,
    "bob@two",
    null,
  ]);
  assert(second.modeChangedAt > first.modeChangedAt && second.requestedAt! > first.requestedAt!);
  const log = await readMaintenanceLog(session, 10);
  assertEquals(
    log.map(({ action, modeBefore, modeAfter, owner, reason }) => [
      action,
      modeBefore,
      modeAfter,
      owner,
      reason,
    ]),
    [
      ["request", "running", "waiting_for_maintenance", "bob@two", "release"],
      ["expire", "waiting_for_maintenance", "running", "alice@one", "disk"],
      ["request", "running", "waiting_for_maintenance", "alice@one", "disk"],
    ],
  );
  assertEquals(await refusal(insert(database.sql, "pending")), "PW101");
});

Deno.test("a look that completes a transition is logged with who looked", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const session = database.session();
  const { requestedAt } = await requestMaintenance(session, { actor: ALICE });
  await database.sql`UPDATE task_runs SET status = 'completed'`;
  const entered = await getMaintenanceStatus(session, { actor: BOB });
  assertEquals([entered.mode, entered.requestedAt], ["maintenance", requestedAt]);
  const [line] = await readMaintenanceLog(session, 1);
  assertEquals([line!.action, line!.osUser, line!.host, line!.owner], ["enter", "bob", "two", "alice@one"]);
});

Deno.test("--ttl: a renewal counts for transactions whose snapshot is older than it", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const session = database.session();
  await requestMaintenance(session, { actor: ALICE, ttlMs: 500 });
  await using old = await database.hold(
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT mode FROM orchestrator_state",
  );
  const renewed = await requestMaintenance(session, { actor: ALICE, ttlMs: 60_000 });
  assertEquals([renewed.requested, renewed.joined], [false, false]);
  await new Promise((resolve) => setTimeout(resolve, 600));
  const error = await old.run(
    "INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries) VALUES ('x', 't', 1, 'x', 3)",
  ).then(() => undefined, (error) => error);
  assertEquals(error?.code, "PW101");
});

Deno.test("whose it is: joined by others, ended by its owner, or by force, which the log keeps", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const session = database.session();
  assertEquals((await requestMaintenance(session, { actor: ALICE, reason: "disk" })).requested, true);
  const joined = await requestMaintenance(session, { actor: BOB, reason: "mine", ttlMs: 5 });
  assertEquals([joined.joined, joined.owner, joined.reason, joined.waitExpiresAt], [
    true,
    "alice@one",
    "disk",
    null,
  ]);
  const error = await assertRejects(() => exitMaintenance(session, { actor: BOB }), PipeweaveError);
  assertEquals([error.kind, error.code], ["condition", "not_owner"]);
  assertMatch(error.message, /alice@one's \(disk\).*stays waiting_for_maintenance/);
  await exitMaintenance(session, { actor: BOB, owner: "night shift", force: true, reason: "urgent" });
  await requestMaintenance(session, { actor: ALICE, owner: "release-42" });
  await exitMaintenance(session, { actor: BOB, owner: "release-42" });
  const log = await readMaintenanceLog(session, 10);
  assertEquals(
    log.map(({ action, osUser, owner, reason, details }) => [action, osUser, owner, reason, details]),
    [
      ["exit", "bob", "release-42", null, {}],
      ["request", "alice", "release-42", null, { drain: "all" }],
      ["exit", "bob", "alice@one", "urgent", { forced: true, as: "night shift" }],
      ["request", "alice", "alice@one", "disk", { drain: "all" }],
    ],
  );
  for (const change of ["UPDATE maintenance_log SET action = 'x'", "DELETE FROM maintenance_log"]) {
    assertEquals(await refusal(database.sql.unsafe(change)), "PW005");
  }
});

Deno.test("--ignore-stale: tasks that nothing was heard of are left out, and recorded", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const [silent, late, alive] = await queueTasks(sql, ["running", "pending", "running"]);
  await sql`UPDATE task_runs SET heartbeat_at = now() - interval '10 s', heartbeat_timeout_ms = 5000 WHERE id = ${silent!}`;
  await sql`UPDATE task_runs SET scheduled_for = now() - interval '2 h' WHERE id = ${late!}`;
  await sql`UPDATE task_runs SET heartbeat_at = now() WHERE id = ${alive!}`;
  const session = database.session();
  const before = await getMaintenanceStatus(session);
  assertEquals([before.staleTasks, before.pendingTasks, before.runningTasks], [2, 1, 2]);
  const asked = await requestMaintenance(session, { ignoreStale: true });
  assertEquals([asked.mode, asked.message, asked.ignoredTasks.length], [
    "waiting_for_maintenance",
    "Waiting for 1 task to complete",
    2,
  ]);
  await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${alive!}`;
  assertEquals((await getMaintenanceStatus(session)).mode, "maintenance");
  const [, request] = await readMaintenanceLog(session, 5);
  assertEquals(request!.details["ignoredTasks"], [silent, late].sort());
  await exitMaintenance(session);

  // One that gives a sign of life is waited for: a late one that starts, a silent one that is heard of again.
  assertEquals((await requestMaintenance(session, { ignoreStale: true })).mode, "maintenance");
  await exitMaintenance(session);
  const [another] = await queueTasks(sql, ["running"]);
  await requestMaintenance(session, { ignoreStale: true });
  await sql`UPDATE task_runs SET status = 'running', started_at = now() WHERE id = ${late!}`;
  await sql`UPDATE task_runs SET heartbeat_at = now() WHERE id = ${silent!}`;
  await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${another!}`;
  assertEquals((await getMaintenanceStatus(session)).message, "Waiting for 2 tasks to complete");
  await sql`UPDATE task_runs SET status = 'completed' WHERE id IN (${late!}, ${silent!})`;
  assertEquals((await getMaintenanceStatus(session)).mode, "maintenance");
});

Deno.test("the Node orchestrator's way: a plain UPDATE of the mode closes the gate, and cannot enter with tasks active", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["running"]);
  await sql`UPDATE orchestrator_state SET mode = 'waiting_for_maintenance' WHERE id = 'singleton'`;
  assertEquals(await refusal(insert(sql, "pending")), "PW101");
  const enter = () =>
    refusal(
      sql`UPDATE orchestrator_state SET mode = 'maintenance',
            running_tasks_count = (SELECT count(*) FROM task_runs WHERE status = 'running') WHERE id = 'singleton'`
        .then((rows) => rows),
    );
  assertEquals(await enter(), "PW102");
  await sql`UPDATE task_runs SET status = 'completed'`;
  assertEquals(
    await refusal(sql.begin("ISOLATION LEVEL REPEATABLE READ", async (transaction) => {
      await transaction`UPDATE orchestrator_state SET mode = 'maintenance'`;
    })),
    "PW103",
  );
  assertEquals(await enter(), undefined);
  assertEquals(await refusal(insert(sql, "pending")), "PW101");
  // What belonged to a request ends with it.
  await sql`UPDATE orchestrator_state SET owner = 'x', reason = 'y', drain = 'running', ignored_tasks = '{"a": ""}'`;
  await sql`UPDATE orchestrator_state SET mode = 'running'`;
  const [forgotten] =
    await sql`SELECT owner, reason, drain, ignored_tasks = '{}' AS none FROM orchestrator_state`;
  assertEquals({ ...forgotten }, { owner: null, reason: null, drain: "all", none: true });
  assertEquals(await enter(), undefined);
  // The row is lost and put back, with mode running: the gate goes with it.
  await sql`DELETE FROM orchestrator_state`;
  await sql`INSERT INTO orchestrator_state (id) VALUES ('singleton')`;
  assertEquals(await refusal(insert(sql, "pending")), undefined);
  const log = await readMaintenanceLog(database.session(), 10);
  assertEquals(log.map(({ action, tool }) => [action, tool]).at(-1), ["request", "postgres.js"]);
  assertEquals([log[0]!.action, log[0]!.modeBefore, log[0]!.modeAfter], [
    "restore",
    "maintenance",
    "running",
  ]);
});

Deno.test("while the mode is running the gate has no trigger; a reader that stays does not keep it from opening", async () => {
  await using database = await TestDatabase.migrated();
  const triggers = () =>
    database.sql`SELECT tgenabled FROM pg_trigger WHERE tgrelid = 'task_runs'::regclass AND NOT tgisinternal`
      .then((rows) => rows.map(({ tgenabled }) => tgenabled).join(""));
  assertEquals(await triggers(), "");
  const session = database.session();
  await queueTasks(database.sql, ["completed"]);
  for (const expected of ["", "DD", ""]) {
    await requestMaintenance(session);
    assertEquals(await triggers(), "AA");
    // Such as a dump: what cannot be dropped is disabled, and goes with the next change.
    await using _reader = await database.hold(
      expected === "DD" ? "SELECT count(*) FROM task_runs" : "SELECT 1",
    );
    await exitMaintenance(session);
    assertEquals(await triggers(), expected);
    assertEquals(await refusal(insert(database.sql, "completed")), undefined);
  }
});
