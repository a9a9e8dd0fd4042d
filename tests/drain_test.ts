/** Draining by the binary: waiting, timing out, being interrupted, killed, called off; a deployment as one command. */

import { fileURLToPath } from "node:url";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { PostgresServer } from "../scripts/postgres_server.ts";
import { cellsOf } from "../src/output/cells.ts";
import { folderWith, pipeweave, Run, Terminal, until } from "./support/binary.ts";
import { PgBouncer } from "./support/pgbouncer.ts";
import { connect, queueTasks, sessionFor, TestDatabase, withMigratedServer } from "./support/database.ts";
import { migrate } from "../src/commands/migrate.ts";
import { lockKey } from "../src/engine/history.ts";
import type postgres from "postgres";

async function mode(sql: postgres.Sql): Promise<string> {
  return (await sql`SELECT mode FROM orchestrator_state`)[0]!["mode"];
}

async function refused(sql: postgres.Sql): Promise<boolean> {
  return await sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries)
    VALUES (${crypto.randomUUID()}, 't', 1, 'x', 3)`.then(() => false, ({ code }) => code === "PW101");
}

Deno.test("request --wait: goes on when the last task ends, at once, and says how long it took", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["running", "running"]);
  // So long an interval that only the notification can be the reason.
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "60000" };
  const run = new Run(["maintenance:request", "--wait", "--reason", "release 42", "--json"], { env });
  await until(() => mode(sql).then((found) => found === "waiting_for_maintenance"), "it waits");
  await new Promise((resolve) => setTimeout(resolve, 300));
  const start = performance.now();
  await sql`UPDATE task_runs SET status = 'completed'`;
  const { code, stdout, stderr } = await run.outcome;
  assert(performance.now() - start < 10_000);
  assertEquals([code, stderr], [0, ""]);
  const document = JSON.parse(stdout);
  assertEquals([document.mode, document.reason, document.canEnterMaintenance], [
    "maintenance",
    "release 42",
    true,
  ]);
  assert(document.drainedMs >= 300);
  assert(await refused(sql));
});

Deno.test("request --wait: without a terminal a line every 5 s, with what is left; a stuck drain is told", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["pending", "pending"]);
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "200" };
  const { code, stdout, stderr } = await pipeweave(["maintenance:request", "--wait", "--timeout", "6s"], {
    env,
  });
  assertEquals([code, stdout], [4, ""]);
  assertMatch(stderr, /^Waiting for 2 tasks to complete\n/);
  assertMatch(stderr, /Nothing moves: 2 tasks pending, none running.*--drain running\n/);
  assertMatch(
    stderr,
    /Draining: 2 tasks left ░+ 0% \(5(\.\d+)?s\): 0 running, 2 pending; oldest: \S+ \(t, pending for/,
  );
  assertMatch(stderr, /error: Not drained within 6(\.\d+)?s: 2 tasks still active \(0 running, 2 pending/);
  assertStringIncludes(stderr, "The mode stays waiting_for_maintenance");
  assertEquals(await mode(database.sql), "waiting_for_maintenance");
  const off = await pipeweave(
    ["maintenance:request", "--wait", "--timeout", "300ms", "--on-timeout", "exit"],
    { env },
  );
  // The request stood before this command, so it is not this command's to call off.
  assertEquals([off.code, await mode(database.sql)], [4, "waiting_for_maintenance"]);
  assertStringIncludes(off.stderr, "as it was before this command");
  await pipeweave(["maintenance:exit"], { env });
  const mine = await pipeweave(
    ["maintenance:request", "--wait", "--timeout", "300ms", "--on-timeout", "exit"],
    { env },
  );
  assertEquals([mine.code, await mode(database.sql)], [4, "running"]);
});

Deno.test("request --wait: SIGINT calls the request off, or leaves it as told; kill -9 leaves it, and a re-run resumes", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["running"]);
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "60000" };
  const waiting = async (...args: string[]) => {
    const run = new Run(["maintenance:request", "--wait", ...args], { env });
    await run.printed("Waiting for 1 task");
    await until(() => mode(sql).then((found) => found === "waiting_for_maintenance"), "it waits");
    return run;
  };
  const called = await waiting();
  called.kill("SIGINT");
  const off = await called.outcome;
  assertEquals([off.code, await mode(sql)], [130, "running"], off.stderr);
  assertStringIncludes(off.stderr, "The request was called off: the mode is running");

  const staying = await waiting("--on-interrupt", "stay");
  staying.kill("SIGTERM");
  const stayed = await staying.outcome;
  assertEquals([stayed.code, await mode(sql)], [143, "waiting_for_maintenance"], stayed.stderr);

  const killed = await waiting();
  killed.kill("SIGKILL");
  await killed.outcome;
  assertEquals(await mode(sql), "waiting_for_maintenance");
  const resumed = await waiting();
  await sql`UPDATE task_runs SET status = 'completed'`;
  assertEquals((await resumed.outcome).code, 0);
  assertEquals(await mode(sql), "maintenance");
});

Deno.test("request --wait: SIGHUP, as of a dropped SSH session, calls the request off like SIGTERM: exit 129", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  for (const [signal, expected] of [["SIGHUP", 129], ["SIGTERM", 143]] as const) {
    const run = new Run(["maintenance:request", "--wait"], { env: { DATABASE_URL: database.url } });
    await run.printed("Waiting for 1 task");
    run.kill(signal);
    const { code, stderr } = await run.outcome;
    assertEquals([code, await mode(database.sql)], [expected, "running"], stderr);
    assertStringIncludes(stderr, "The request was called off: the mode is running");
  }
});

Deno.test("request --wait: a closed terminal calls the request off", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const terminal = new Terminal("maintenance:request --wait", database.url, 80);
  await terminal.shows("Draining");
  // Its master side goes, and the kernel hangs up on who is left.
  await terminal[Symbol.asyncDispose]();
  await until(async () => await mode(database.sql) === "running", "the request is called off");
});

Deno.test("request --wait --drain running: a running task that may wait for a queued one is told as stuck", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running", "pending"]);
  const run = new Run(["maintenance:request", "--wait", "--drain", "running", "--timeout", "60s"], {
    env: { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "100" },
  });
  await run.printed("Nothing moves: 1 task running, 1 queued, and none starts under --drain running");
  run.kill("SIGTERM");
  assertEquals((await run.outcome).code, 143);
});

Deno.test("request --wait: on the smallest terminal, and with wide ids, it is drawn in place", async () => {
  for (const [columns, rows] of [[20, 5], [60, 26]] as const) {
    await using database = await TestDatabase.migrated();
    await queueTasks(database.sql, ["running"]);
    await database.sql`UPDATE task_runs SET id = ${"日本語のタスク".repeat(20)}`;
    await using terminal = new Terminal("maintenance:request --wait", database.url, columns, rows);
    await terminal.shows("\x1b[J");
    await terminal.shows("日本");
    for (const frame of terminal.drawn.split("\x1b[J").slice(1, -1)) {
      // deno-lint-ignore no-control-regex -- what moves the cursor back
      const lines = frame.split("\r\n").map((line) => line.replace(/\r|\x1b\[\d+A/g, ""));
      assert(lines.length < rows, frame);
      for (const line of lines) assert(cellsOf(line) < columns || !line.includes("日"), line);
    }
  }
});

Deno.test("request --wait: somebody's exit ends it at once: exit 3, saying who", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "60000", USER: "alice" };
  const run = new Run(["maintenance:request", "--wait"], { env });
  await run.printed("Waiting for 1 task");
  await new Promise((resolve) => setTimeout(resolve, 300));
  const bob = { ...env, USER: "bob" };
  assertEquals((await pipeweave(["maintenance:exit"], { env: bob })).code, 3);
  assertEquals((await pipeweave(["maintenance:exit", "--force", "--reason", "no"], { env: bob })).code, 0);
  const { code, stderr } = await run.outcome;
  assertEquals(code, 3);
  assertMatch(stderr, /The wait for maintenance is over, and the mode is running: bob on \S+ called it off/);
  const history = await pipeweave(["maintenance:history"], { env });
  assertMatch(history.stdout, /exit: waiting_for_maintenance → running.*bob on/);
  assertMatch(history.stdout, /reason: no\n {4}forced: it was alice@/);
});

Deno.test("request --wait: a server that does not answer any more keeps neither --timeout nor a signal from ending it", async () => {
  await withMigratedServer({}, async (server, sql) => {
    await queueTasks(sql, ["running"]);
    const env = { DATABASE_URL: server.url(), MAINTENANCE_CHECK_INTERVAL_MS: "200" };
    for (
      const [args, signal, expected] of [
        [["--timeout", "1500ms", "--on-timeout", "exit"], undefined, 4],
        [["--timeout", "60s"], "SIGINT", 130],
      ] as const
    ) {
      const run = new Run(["maintenance:request", "--wait", ...args, "--json"], { env });
      let pid = 0;
      await until(async () => {
        const [row] = await sql`SELECT pid FROM pg_stat_activity
          WHERE state = 'idle' AND application_name LIKE '%maintenance:request' AND query LIKE '%has_expired%'`;
        pid = row?.["pid"] ?? 0;
        return pid !== 0;
      }, "it looks");
      Deno.kill(pid, "SIGSTOP");
      try {
        if (signal) {
          await new Promise((resolve) => setTimeout(resolve, 500));
          run.kill(signal);
        }
        const { code, stdout } = await run.outcome;
        const { error } = JSON.parse(stdout);
        assertEquals([code, error.status?.mode, await mode(sql)], [expected, "running", "running"], stdout);
      } finally {
        Deno.kill(pid, "SIGCONT");
      }
    }
  });
});

Deno.test("maintenance:wait: a migration that has the table for longer than a look waits is no reason to end", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "200" };
  await pipeweave(["maintenance:request"], { env });
  const migration = await database.hold("LOCK TABLE task_runs IN ACCESS EXCLUSIVE MODE");
  const run = new Run(["maintenance:wait", "--for", "running", "--timeout", "60s"], { env });
  // A look waits for a lock for five seconds.
  await run.printed("looking again");
  await migration.release();
  assertEquals((await pipeweave(["maintenance:exit"], { env })).code, 0);
  assertEquals((await run.outcome).code, 0);
  assertEquals(await mode(sql), "running");
});

Deno.test("request --wait: an exit that a later request hides is not taken for the end of this one", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  // By polling alone, and so seldom that both changes lie between two looks.
  const server = new URL(database.url);
  await using bouncer = await PgBouncer.start(server, 1);
  const env = {
    DATABASE_URL: bouncer.url(server, database.name),
    MAINTENANCE_CHECK_INTERVAL_MS: "2000",
    USER: "alice",
  };
  const run = new Run(["maintenance:request", "--wait", "--json"], { env });
  await until(() => mode(database.sql).then((found) => found === "waiting_for_maintenance"), "it waits");
  await new Promise((resolve) => setTimeout(resolve, 300));
  const bob = { DATABASE_URL: database.url, USER: "bob" };
  for (const command of [["maintenance:exit", "--force"], ["maintenance:request", "--reason", "mine"]]) {
    assertEquals((await pipeweave(command, { env: bob })).code, 0);
  }
  const { code, stdout } = await run.outcome;
  const { error } = JSON.parse(stdout);
  assertEquals([code, error.code], [3, "called_off"]);
  assertMatch(
    error.message,
    /mode is waiting_for_maintenance by a later request of bob@\S+: bob on \S+ called it off/,
  );
});

Deno.test("request --wait: to close the gate counts as waiting: transactions under way are named, and --timeout is for them too", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["completed"]);
  const env = { DATABASE_URL: database.url };
  const writing = await database.hold("UPDATE task_runs SET priority = 1");
  const { code, stderr } = await pipeweave(["maintenance:request", "--wait", "--timeout", "1s"], { env });
  assertEquals([code, await mode(sql)], [4, "running"], stderr);
  assertMatch(stderr, /stays as it was: it has to wait for pid \d+ \(postgres, .*idle in transaction, for/);
  await writing.release();

  // Due, and held up: the last task has ended, and another transaction has written to the table.
  const [id] = await queueTasks(sql, ["running"]);
  const run = new Run(["maintenance:request", "--wait"], { env });
  await run.printed("Waiting for 1 task");
  await using other = await database.hold("UPDATE task_runs SET priority = 2 WHERE status = 'completed'");
  await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${id!}`;
  await run.printed("0 running, 0 pending; held up by pid");
  await other.run("COMMIT");
  assertEquals([(await run.outcome).code, await mode(sql)], [0, "maintenance"]);
});

Deno.test("request --wait --drain running: a running task that is queued again ends the drain, at once", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["running"]);
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "60000" };
  const run = new Run(["maintenance:request", "--wait", "--drain", "running"], { env });
  await run.printed("Waiting for 1 task");
  await new Promise((resolve) => setTimeout(resolve, 300));
  await sql`UPDATE task_runs SET status = 'pending', attempt = 2`;
  const { code, stdout } = await run.outcome;
  assertEquals([code, await mode(sql)], [0, "maintenance"]);
  assertStringIncludes(stdout, "1 task stay queued");
});

Deno.test("request --wait on a terminal: a bar and the oldest tasks, no wider than the terminal; it goes when it is over", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const ids = await queueTasks(sql, ["running", "running", "pending"]);
  await sql`UPDATE task_runs SET started_at = now() - interval '40 s', heartbeat_at = now() - interval '3 s'
             WHERE status = 'running'`;
  await using terminal = new Terminal("maintenance:request --wait", database.url, 60);
  await terminal.shows("1 pending");
  await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${ids[0]!}`;
  await terminal.shows("33%");
  await terminal.shows(", about ");
  const frame = terminal.drawn.split("\x1b[J").at(-1)!.split("\r\n");
  assertMatch(frame[0]!, /^. \S+ █{4}░{8} 33% Draining: 2 tasks left, about \d+s$/);
  assertMatch(frame[1]!, /^ {2}1 running, 1 pending; \d\.\d\/s$/);
  assertMatch(frame[2]!, /^ {2}· running \S+ \(t\)$/);
  assertMatch(frame[3]!, /^ {6}for 4\d\.?\d?s, heartbeat \d\.?\d?s ago$/);
  // Between the sequences that move the cursor there is nothing but lines.
  for (const part of terminal.drawn.split("\x1b[").slice(1)) {
    for (const line of part.replace(/^\d*[A-Z]/, "").split("\r\n")) assert([...line].length < 60, line);
  }
  await sql`UPDATE task_runs SET status = 'completed'`;
  assertEquals(await terminal.ends(), 0);
  assert(
    terminal.drawn.endsWith("\x1b[JOrchestrator is in maintenance: safe to migrate\r\n"),
    terminal.drawn,
  );
});

Deno.test("request --wait: a server that restarts is waited for, and what it finds then counts", async () => {
  const server = await PostgresServer.start();
  try {
    const session = sessionFor(server.url());
    await migrate(session);
    await session.close();
    const sql = connect(server.url());
    await queueTasks(sql, ["running"]);
    const env = { DATABASE_URL: server.url(), MAINTENANCE_CHECK_INTERVAL_MS: "60000" };
    const run = new Run(["maintenance:request", "--wait", "--timeout", "60s"], { env });
    await run.printed("Waiting for 1 task");
    await new Promise((resolve) => setTimeout(resolve, 300));
    await sql.end({ timeout: 1 });
    await server.down();
    await run.printed("looking again");
    await server.up();
    const after = connect(server.url());
    assertEquals(await mode(after), "waiting_for_maintenance");
    assert(await refused(after));
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await after`UPDATE task_runs SET status = 'completed'`;
    const { code, stderr } = await run.outcome;
    assertEquals(code, 0, stderr);
    assertEquals(await mode(after), "maintenance");
    await after.end({ timeout: 1 });
  } finally {
    await server.stop();
  }
});

Deno.test("request --wait: through PgBouncer, where nothing is heard, polling finds the end, and no pooled connection listens", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const server = new URL(database.url);
  await using bouncer = await PgBouncer.start(server, 1);
  const url = bouncer.url(server, database.name);
  const env = { DATABASE_URL: url, MAINTENANCE_CHECK_INTERVAL_MS: "200" };
  const run = new Run(["maintenance:request", "--wait"], { env });
  await run.printed("Waiting for 1 task");
  await new Promise((resolve) => setTimeout(resolve, 500));
  await database.sql`UPDATE task_runs SET status = 'completed'`;
  const { code, stderr } = await run.outcome;
  assertEquals([code, await mode(database.sql)], [0, "maintenance"], stderr);
  const client = connect(url, { prepare: false });
  const listening = await client`SELECT pg_listening_channels() AS channel`;
  await client.end({ timeout: 1 });
  assertEquals(listening.length, 0);
});

Deno.test("maintenance:wait: for an entrypoint: until running, and no longer than told", async () => {
  await using database = await TestDatabase.migrated();
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "60000" };
  assertEquals((await pipeweave(["maintenance:wait"], { env })).code, 0);
  await pipeweave(["maintenance:request", "--reason", "disk"], { env });
  const late = await pipeweave(["maintenance:wait", "--timeout", "300ms"], { env });
  assertEquals(late.code, 4);
  assertMatch(
    late.stderr,
    /did not become running within .*: it is maintenance since .*requested by .* \(disk\)/,
  );
  // Containers have another host each time: they say who they are.
  const other = await pipeweave(["maintenance:exit"], { env: { ...env, PIPEWEAVE_OWNER: "ci" } });
  assertEquals(other.code, 3);
  assertStringIncludes(other.stderr, "PIPEWEAVE_OWNER");
  const run = new Run(["maintenance:wait", "--for", "running"], { env });
  await new Promise((resolve) => setTimeout(resolve, 500));
  assertEquals((await pipeweave(["maintenance:exit"], { env })).code, 0);
  const { code, stdout } = await run.outcome;
  assertEquals([code, stdout.split("\n")[0]], [0, "Mode: running"]);
});

Deno.test("maintenance:tasks: what is active, what is stale", async () => {
  await using database = await TestDatabase.migrated();
  const [running] = await queueTasks(database.sql, ["running", "pending"]);
  await database
    .sql`UPDATE task_runs SET heartbeat_at = now() - interval '1 h', started_at = now() - interval '2 h' WHERE id = ${running!}`;
  const env = { DATABASE_URL: database.url };
  const all = JSON.parse((await pipeweave(["maintenance:tasks", "--json"], { env })).stdout);
  assertEquals(all.tasks.map(({ status, stale }: { status: string; stale: boolean }) => [status, stale]), [
    ["running", true],
    ["pending", false],
  ]);
  const stale = await pipeweave(["maintenance:tasks", "--stale"], { env });
  assertMatch(stale.stdout, new RegExp(`^! running ${running} \\(t\\)  for 2h, heartbeat 1h ago, STALE\n$`));
  const cut = await pipeweave(["maintenance:tasks", "--limit", "1"], { env });
  assertStringIncludes(cut.stderr, "There are more");
});

const MARKED = { "101_a.sql": "-- pipeweave: requires maintenance\nCREATE TABLE a (n int);" };

Deno.test("db:migrate --maintenance: drains, migrates, goes back to running; a worker finishes what it has", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const ids = await queueTasks(sql, ["running", "pending", "pending"]);
  await using folder = await folderWith(MARKED);
  const env = { DATABASE_URL: database.url, PIPEWEAVE_MIGRATIONS_DIR: folder.path };
  const run = new Run(["db:migrate", "--maintenance"], { env });
  await run.printed("Waiting for 3 tasks");
  for (const id of ids) {
    await sql`UPDATE task_runs SET status = 'running' WHERE id = ${id}`;
    await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${id}`;
  }
  const { code, stdout, stderr } = await run.outcome;
  assertEquals([code, await mode(sql)], [0, "running"], stderr);
  assertStringIncludes(stdout, "✓ Applied 101_a");
  assertMatch(
    stderr,
    /^\[maintenance\] Requesting maintenance\n {2}101_a: it is marked requires maintenance\nWaiting for 3 tasks to complete\n\[maintenance\] In maintenance: migrating\n\[maintenance\] Orchestrator is now running normally\n$/,
  );
  const log = await sql`SELECT action, reason FROM maintenance_log ORDER BY id`;
  assertEquals(log.map(({ action, reason }) => [action, reason]), [
    ["request", "db:migrate"],
    ["enter", "db:migrate"],
    ["exit", null],
  ]);
  // Nothing needs it: no maintenance. Asked for always: only when something is pending.
  assertEquals((await pipeweave(["db:migrate", "--maintenance=always"], { env })).stderr, "");
  await Deno.writeTextFile(`${folder.path}/102_b.sql`, "CREATE TABLE b (n int);");
  assertEquals((await pipeweave(["db:migrate", "--maintenance"], { env })).stderr, "");
  await Deno.writeTextFile(`${folder.path}/103_c.sql`, "CREATE TABLE c (n int);");
  const always = await pipeweave(["db:migrate", "--maintenance=always", "--json"], { env });
  assertEquals([always.code, JSON.parse(always.stdout).maintenance.exited], [0, true]);
  assertEquals((await sql`SELECT count(*)::int AS n FROM maintenance_log`)[0]!["n"], 5);
});

Deno.test("db:migrate --maintenance: when the migration fails the mode stays, or goes back as told; a drain that does not end is called off", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await using folder = await folderWith({
    "101_a.sql": "-- pipeweave: requires maintenance\nDROP TABLE nowhere;",
  });
  const env = { DATABASE_URL: database.url, PIPEWEAVE_MIGRATIONS_DIR: folder.path };
  const stays = await pipeweave(["db:migrate", "--maintenance"], { env });
  assertEquals([stays.code, await mode(sql)], [1, "maintenance"]);
  assertStringIncludes(stays.stderr, "The mode stays maintenance");
  const back = await pipeweave(["db:migrate", "--maintenance", "--on-failure", "exit", "--json"], { env });
  assertEquals([back.code, await mode(sql)], [1, "running"]);
  const document = JSON.parse(back.stdout);
  assertEquals([document.failed.version, document.maintenance.exited], ["101", true]);
  await queueTasks(sql, ["running"]);
  const undrained = await pipeweave(["db:migrate", "--maintenance", "--drain-timeout", "300ms"], { env });
  assertEquals([undrained.code, await mode(sql)], [4, "running"], undrained.stderr);
  assertMatch(
    undrained.stderr,
    /called off: the mode is running\n {2}- Nothing was applied\n.*longer --drain-timeout/,
  );
  const stray = await pipeweave(["db:migrate", "--drain", "running"], { env });
  assertEquals(stray.code, 2);
  assertStringIncludes(stray.stderr, "--drain needs --maintenance");
  assertEquals((await pipeweave(["maintenance:request", "--ttl", "0s"], { env })).code, 2);
});

Deno.test("db:migrate --maintenance: applies in the maintenance that it asked for alone, and keeps it from ending meanwhile", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["completed"]);
  const slow = "-- pipeweave: requires maintenance\nCREATE TABLE slow AS SELECT 1 AS n FROM pg_sleep(2);";
  const alone =
    "-- pipeweave: no-transaction\n-- pipeweave: requires maintenance\nCREATE TABLE alone (n int);";
  await using folder = await folderWith({ "101_slow.sql": slow });
  const env = { DATABASE_URL: database.url, PIPEWEAVE_MIGRATIONS_DIR: folder.path, PIPEWEAVE_OWNER: "ci" };
  const run = new Run(["db:migrate", "--maintenance"], { env });
  await run.printed("Applying 101_slow");
  await until(() => mode(sql).then((found) => found === "maintenance"), "it is in maintenance");
  await new Promise((resolve) => setTimeout(resolve, 300));
  const exit = pipeweave(["maintenance:exit"], { env });
  await new Promise((resolve) => setTimeout(resolve, 500));
  assertEquals(await mode(sql), "maintenance");
  assertEquals([(await exit).code, (await run.outcome).code, await mode(sql)], [0, 0, "running"]);

  // With the migrators' lock in others' hands it waits, in a maintenance that is ended before it comes to apply anything.
  for (
    const [name, text, ending] of [
      ["102_b.sql", slow.replace("slow", "b").replace("2)", "0)"), ["maintenance:exit"]],
      ["103_c.sql", alone, ["maintenance:exit"]],
      ["104_d.sql", alone.replace("alone", "d"), ["maintenance:exit", "--force"]],
    ] as const
  ) {
    await Deno.writeTextFile(`${folder.path}/${name}`, text);
    const other = await database.hold(`SELECT pg_advisory_xact_lock(${lockKey("public")})`);
    const late = new Run(["db:migrate", "--maintenance", "--json"], { env });
    await until(() => mode(sql).then((found) => found === "maintenance"), "it is in maintenance");
    assertEquals((await pipeweave([...ending], { env })).code, 0);
    // Another one is none of its business.
    if (name === "104_d.sql") await pipeweave(["maintenance:request", "--reason", "another"], { env });
    await other.release();
    const { code, stdout } = await late.outcome;
    const { error, maintenance } = JSON.parse(stdout);
    const left = name === "104_d.sql" ? "maintenance" : "running";
    assertEquals([code, error.code, maintenance.exited, maintenance.mode, await mode(sql)], [
      ...[3, "maintenance_ended", false, left, left],
    ]);
    const [row] = await sql`SELECT count(*)::int AS n FROM schema_migrations WHERE version = ${
      name.slice(0, 3)
    }`;
    assertEquals(row!["n"], 0);
    if (name === "104_d.sql") await pipeweave(["maintenance:exit"], { env });
    assertEquals((await pipeweave(["db:migrate", "--maintenance"], { env })).code, 0);
  }
});

Deno.test("db:migrate: what needs maintenance is not applied when it has ended since it was found", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["completed"]);
  await using folder = await folderWith({
    "101_plain.sql": "CREATE TABLE plain (n int);",
    "102_marked.sql": "-- pipeweave: requires maintenance\nCREATE TABLE marked (n int);",
  });
  const env = { DATABASE_URL: database.url, PIPEWEAVE_MIGRATIONS_DIR: folder.path };
  await pipeweave(["maintenance:request"], { env });
  const other = await database.hold(`SELECT pg_advisory_xact_lock(${lockKey("public")})`);
  const run = new Run(["db:migrate"], { env });
  await run.printed("Pending migrations: 2");
  await new Promise((resolve) => setTimeout(resolve, 500));
  await pipeweave(["maintenance:exit"], { env });
  await other.release();
  const { code, stderr } = await run.outcome;
  assertEquals(code, 3, stderr);
  assertMatch(
    stderr,
    /102_marked was not applied: the maintenance .* was ended meanwhile\n {2}- applied by this run: 101_plain/,
  );
});

Deno.test("db:migrate --maintenance: ends what an earlier run left behind, and not what was asked for by hand", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await using folder = await folderWith({ ...MARKED, "102_bad.sql": "DROP TABLE nowhere;" });
  const env = { DATABASE_URL: database.url, PIPEWEAVE_MIGRATIONS_DIR: folder.path };
  const failed = await pipeweave(["db:migrate", "--maintenance", "--quiet"], { env });
  assertEquals([failed.code, await mode(sql)], [1, "maintenance"]);
  assertMatch(failed.stderr, / {2}- The mode stays maintenance, asked for by \S.*\(db:migrate\)\n/);
  assertMatch(failed.stderr, /next: .*db:migrate --maintenance goes on/);
  await Deno.remove(`${folder.path}/102_bad.sql`);
  const again = await pipeweave(["db:migrate", "--maintenance"], { env });
  assertEquals([again.code, await mode(sql)], [0, "running"]);
  assertStringIncludes(again.stderr, "an earlier run had left it in maintenance");

  await pipeweave(["maintenance:request", "--reason", "by hand"], { env });
  const idle = await pipeweave(["db:migrate", "--maintenance", "--json"], { env });
  assertEquals([idle.code, JSON.parse(idle.stdout).maintenance], [0, { exited: false, mode: "maintenance" }]);
  await Deno.writeTextFile(`${folder.path}/102_b.sql`, MARKED["101_a.sql"].replace("a (", "b ("));
  const applied = await pipeweave(["db:migrate", "--maintenance"], { env });
  assertEquals([applied.code, await mode(sql)], [0, "maintenance"]);
  assertMatch(applied.stderr, /The mode stays maintenance, asked for by .*\(by hand\)/);
});

/** Starts a worker process; it is killed when it goes out of scope. */
function startWorker(url: string, workMs: number): AsyncDisposable & { kill(): Promise<void> } {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", "--quiet", `${root}tests/support/worker.ts`, url, String(workMs)],
    ...{ cwd: root, stdin: "null", stdout: "null", stderr: "inherit" },
  }).spawn();
  const kill = async () => {
    try {
      child.kill("SIGKILL");
    } catch {
      // It was killed before.
    }
    await child.status;
  };
  return { kill, [Symbol.asyncDispose]: kill };
}

Deno.test("the transcript of the seed, with a real worker: request, wait, migrate, exit, and work goes on", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await queueTasks(sql, ["pending", "pending", "pending", "pending", "pending"]);
  await using _worker = startWorker(database.url, 400);
  const env = { DATABASE_URL: database.url };
  const started = async () => (await sql`SELECT FROM task_runs WHERE status = 'running'`).length > 0;
  await until(started, "the worker has a task");
  const requested = await pipeweave(["maintenance:request"], { env });
  assertMatch(requested.stdout, /^Waiting for [45] tasks to complete\n$/);
  assert(await refused(sql));
  const shell = "pipeweave maintenance:status | grep Mode: | awk '{print $2}'".replace(
    "pipeweave",
    fileURLToPath(new URL("../dist/pipeweave", import.meta.url)),
  );
  const modeByShell = async () => {
    const { stdout } = await new Deno.Command("sh", { args: ["-c", shell], env }).output();
    return new TextDecoder().decode(stdout);
  };
  await until(
    async () => await modeByShell() === "maintenance\n",
    "the worker has finished what was accepted",
  );
  assert(await refused(sql));
  assertEquals((await sql`SELECT count(*)::int AS n FROM task_runs WHERE status = 'completed'`)[0]!["n"], 5);
  assertEquals((await pipeweave(["db:migrate"], { env })).code, 0);
  const exited = await pipeweave(["maintenance:exit"], { env });
  assertEquals(exited.stdout, "Orchestrator is now running normally\n");
  const [id] = await queueTasks(sql, ["pending"]);
  await until(
    async () => (await sql`SELECT status FROM task_runs WHERE id = ${id!}`)[0]!["status"] === "completed",
    "new work is done",
  );
});

Deno.test("a worker killed with -9 in the middle of a task: the drain says which is stale, and can leave it out", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const [id] = await queueTasks(sql, ["pending"]);
  await using worker = startWorker(database.url, 60_000);
  await until(
    async () => (await sql`SELECT status FROM task_runs WHERE id = ${id!}`)[0]!["status"] === "running",
    "the worker has the task",
  );
  await worker.kill();
  const env = { DATABASE_URL: database.url, MAINTENANCE_CHECK_INTERVAL_MS: "100" };
  await new Promise((resolve) => setTimeout(resolve, 1200));
  const waited = await pipeweave(["maintenance:request", "--wait", "--timeout", "500ms"], { env });
  assertEquals([waited.code, await mode(sql)], [4, "waiting_for_maintenance"]);
  assertMatch(waited.stderr, new RegExp(`oldest: ${id} \\(t, running for .*, STALE\\)`));
  const left = await pipeweave(["maintenance:request", "--wait", "--ignore-stale"], { env });
  assertEquals([left.code, await mode(sql)], [0, "maintenance"], left.stderr);
  assertMatch(
    (await pipeweave(["maintenance:history"], { env })).stdout,
    new RegExp(`ignored: ${id}`),
  );
});

Deno.test("maintenance:watch: --once is a report; without a terminal it says so; on one it draws, takes keys, and cleans up", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  const env = { DATABASE_URL: database.url };
  const once = await pipeweave(["maintenance:watch", "--once"], { env });
  assertMatch(once.stdout, /^Mode: running\n[\s\S]*· running \S+ \(t\)[\s\S]*Nothing is logged yet\.\n$/);
  const json = JSON.parse((await pipeweave(["maintenance:watch", "--json"], { env })).stdout);
  assertEquals([json.mode, json.tasks.length, json.history], ["running", 1, []]);
  const none = await pipeweave(["maintenance:watch"], { env });
  assertEquals(none.code, 2);
  assertStringIncludes(none.stderr, "--once is needed where there is no terminal");

  await using terminal = new Terminal("maintenance:watch", database.url, 60);
  await terminal.shows("Mode: running");
  // A key alone closes nothing.
  await terminal.types("r");
  await terminal.shows("Close the queue of");
  await terminal.types("n");
  await terminal.shows("Nothing was changed");
  assertEquals(await mode(database.sql), "running");
  await terminal.types("?");
  await terminal.shows("the mode stays as it is");
  // What was typed before the question was seen is no answer to it.
  await terminal.types("ry");
  await until(
    () => Promise.resolve(terminal.text.split("Nothing was changed").at(-1)!.includes("Close the queue of")),
    "it asks again",
  );
  assertEquals(await mode(database.sql), "running");
  await terminal.types("y");
  await terminal.shows("Mode: waiting_for_maintenance");
  await terminal.shows("Draining: 1 task left");
  await database.sql`UPDATE task_runs SET status = 'completed'`;
  await terminal.shows("Mode: maintenance");
  // One that opens it is asked about, too.
  await terminal.types("x");
  await terminal.shows("Open the queue of");
  assertEquals(await mode(database.sql), "maintenance");
  await terminal.types("y");
  await until(() => mode(database.sql).then((found) => found === "running"), "the key ends maintenance");
  await terminal.types("q");
  assertEquals(await terminal.ends(), 0);
  const { drawn } = terminal;
  assert(drawn.startsWith("\x1b[?1049h\x1b[?25l") && drawn.trimEnd().endsWith("\x1b[?25h\x1b[?1049l"), drawn);
});
