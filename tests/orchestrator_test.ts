/** The library, as a service uses it. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import * as library from "../src/mod.ts";
import { folderWith, until } from "./support/binary.ts";
import { queueTasks, TestDatabase, withMigratedServer } from "./support/database.ts";
import { SilentProxy } from "./support/silent_proxy.ts";

Deno.test("the library's functions do what the commands do, and leave no connection behind", async () => {
  await using database = await TestDatabase.empty();
  const { url, sql } = database;
  assertEquals((await library.getMigrationStatus(url)).pending.length, 5);
  const { applied, failed } = await library.runMigrations(url);
  assertEquals([applied.length, failed], [5, null]);
  assertEquals((await library.validateMigrations(url)).valid, true);
  assertEquals((await library.discoverMigrations()).migrations.length, 5);
  assertEquals(await library.canAcceptTasks(url), true);
  await queueTasks(sql, ["pending"]);
  assertEquals((await library.requestMaintenance(url)).mode, "waiting_for_maintenance");
  assertEquals([await library.canAcceptTasks(url), await library.checkMaintenanceTransition(url)], [
    false,
    false,
  ]);
  await assertRejects(() => library.enterMaintenance(url), library.PipeweaveError, "1 task still active");
  await sql`UPDATE task_runs SET status = 'completed'`;
  assertEquals(await library.checkMaintenanceTransition(url), true);
  assertEquals((await library.enterMaintenance(url)).mode, "maintenance");
  assertEquals((await library.exitMaintenance(url)).mode, "running");
  assertEquals((await library.getMaintenanceStatus({ databaseUrl: url, schema: "public" })).pendingTasks, 0);
  const state = await library.getOrchestratorState(url);
  assertEquals([state.mode, state.metadata, state.modeChangedAt instanceof Date], ["running", {}, true]);
  await until(
    async () =>
      (await sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pipeweave/%'`)
        .length === 0,
    "all sessions have ended",
  );
});

Deno.test("createOrchestrator: migrates when asked, reports the mode, completes the drain, stops", async () => {
  await using database = await TestDatabase.empty();
  const messages: string[] = [];
  const orchestrator = library.createOrchestrator({
    databaseUrl: database.url,
    autoMigrate: true,
    maintenanceCheckIntervalMs: 30,
    onMessage: (message) => messages.push(message),
  });
  await orchestrator.start();
  assertEquals(messages, ["Applied 5 migration(s)", "Mode: running (Orchestrator is running normally)"]);
  await queueTasks(database.sql, ["running"]);
  await orchestrator.requestMaintenance();
  assertEquals(await orchestrator.canAcceptTasks(), false);
  await database.sql`UPDATE task_runs SET status = 'completed'`;
  await until(
    async () => (await database.sql`SELECT mode FROM orchestrator_state`)[0]!["mode"] === "maintenance",
    "the check completes the drain",
  );
  await until(
    () => Promise.resolve(messages.at(-1)!.startsWith("Mode: maintenance")),
    "the mode is reported",
  );

  // The connection is lost: the next check connects anew.
  await database
    .sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pipeweave/%' AND datname = current_database()`;
  await orchestrator.exitMaintenance().catch(() => orchestrator.exitMaintenance());
  assertEquals((await orchestrator.getMaintenanceStatus()).mode, "running");
  await orchestrator.stop();
});

Deno.test("calls at once share one connection, and leave none behind", async () => {
  await using database = await TestDatabase.migrated();
  const orchestrator = library.createOrchestrator({ databaseUrl: database.url });
  assertEquals(
    await Promise.all(Array.from({ length: 5 }, () => orchestrator.canAcceptTasks())),
    Array.from({ length: 5 }, () => true),
  );
  const sessions = async () =>
    (await database.sql`SELECT FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE 'pipeweave/%'`).length;
  assertEquals(await sessions(), 1);
  await orchestrator.start();
  await orchestrator.stop();
  await until(async () => await sessions() === 0, "nothing is left");
});

Deno.test("stop() ends although the server does not answer any more", async () => {
  await withMigratedServer({}, async (server) => {
    const orchestrator = library.createOrchestrator({
      databaseUrl: server.url(),
      maintenanceCheckIntervalMs: 20,
    });
    await orchestrator.start();
    await server.freeze("SIGSTOP");
    try {
      await new Promise((resolve) => setTimeout(resolve, 200));
      const start = Date.now();
      await orchestrator.stop();
      assert(Date.now() - start < 10_000);
    } finally {
      await server.freeze("SIGCONT");
    }
  });
});

Deno.test("createOrchestrator without autoMigrate refuses to start on an empty database", async () => {
  await using database = await TestDatabase.empty();
  const orchestrator = library.createOrchestrator({ databaseUrl: database.url });
  await assertRejects(() => orchestrator.start(), library.PipeweaveError, "is not migrated");
  await orchestrator.stop();
});

Deno.test("a signal ends a migration of the library's user", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_slow.sql": "SELECT pg_sleep(60);" });
  const signal = AbortSignal.timeout(300);
  const { failed } = await library.runMigrations({ databaseUrl: database.url, signal }, {
    dirs: [folder.path],
    embedded: false,
    signal,
  });
  assertEquals(failed?.error.kind, "interrupted");
});

Deno.test("a wrong URL is refused without being repeated", async () => {
  const error = await assertRejects(
    () => library.canAcceptTasks("postgres//u:secret@h"),
    library.PipeweaveError,
  );
  assertEquals([error.kind, error.details.problems?.[0]], [
    "usage",
    "databaseUrl must start with postgres:// or postgresql://",
  ]);
});

Deno.test("createOrchestrator hears of changes at once, survives the loss of its connection, and stops whole", async () => {
  await using database = await TestDatabase.migrated();
  const messages: string[] = [];
  const changes: string[] = [];
  const orchestrator = library.createOrchestrator({
    databaseUrl: database.url,
    // So long that only a notification can be the reason.
    maintenanceCheckIntervalMs: 60_000,
    onMessage: (message) => messages.push(message),
  });
  orchestrator.addEventListener("modechange", (event) => {
    const { status, previous } = event as library.ModeChangeEvent;
    changes.push(`${previous} → ${status.mode}`);
  });
  await orchestrator.start();
  const sessions = () =>
    database.sql`SELECT pid, query FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE 'pipeweave/%' AND state = 'idle'`;
  await until(
    async () => (await sessions()).some(({ query }) => query.includes("has_expired")),
    "it listens",
  );
  await new Promise((resolve) => setTimeout(resolve, 200));
  await library.requestMaintenance(database.url);
  await until(() => Promise.resolve(changes.length === 2), "it hears of the request");
  // The connection is lost, and the mode changes meanwhile.
  await database.sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'pipeweave/%'`;
  await library.exitMaintenance(database.url);
  await until(() => Promise.resolve(changes.length === 3), "it has connected again and looked");
  assertEquals(changes, ["undefined → running", "running → maintenance", "maintenance → running"]);
  await new Promise((resolve) => setTimeout(resolve, 300));
  await library.requestMaintenance(database.url, { reason: "again" });
  await until(() => Promise.resolve(changes.length === 4), "it listens on the new connection");
  await orchestrator.stop();
  await until(async () => (await sessions()).length === 0, "nothing is left running");
});

Deno.test("a connection that goes silent is told within three intervals; no call hangs; the next connection works", async () => {
  await using database = await TestDatabase.migrated();
  await using proxy = await SilentProxy.to(database.url);
  const messages: string[] = [];
  await using orchestrator = library.createOrchestrator({
    databaseUrl: proxy.url,
    maintenanceCheckIntervalMs: 1000,
    onMessage: (message) => messages.push(message),
  });
  await orchestrator.start();
  proxy.silence();
  const since = Date.now();
  const calls = [
    orchestrator.canAcceptTasks(),
    orchestrator.getMaintenanceStatus(),
    orchestrator.requestMaintenance({ lockWaitMs: 500 }),
  ];
  const outcomes = await Promise.allSettled(calls);
  assertEquals(outcomes.map(({ status }) => status), ["rejected", "rejected", "rejected"]);
  await until(
    () => Promise.resolve(messages.some((message) => message.startsWith("Check failed"))),
    "the silence is told",
  );
  assert(Date.now() - since < 6000, `${Date.now() - since} ms`);
  proxy.speak();
  await until(() => orchestrator.canAcceptTasks().catch(() => false), "a new connection is made");
});

Deno.test("start again after stop works; start twice throws; stop during start leaves nothing behind", async () => {
  await using database = await TestDatabase.migrated();
  const changes: string[] = [];
  const orchestrator = library.createOrchestrator({
    databaseUrl: database.url,
    maintenanceCheckIntervalMs: 50,
  });
  orchestrator.addEventListener("modechange", ({ status }) => changes.push(status.mode));
  await orchestrator.start();
  const twice = await assertRejects(() => orchestrator.start(), library.PipeweaveError);
  assertEquals([twice.kind, twice.code], ["usage", "already_started"]);
  await orchestrator.stop();
  await orchestrator.start();
  await library.requestMaintenance(database.url);
  await until(() => Promise.resolve(changes.at(-1) === "maintenance"), "it watches again");
  await orchestrator.stop();
  const starting = orchestrator.start().then(() => "started", ({ kind }) => kind);
  await orchestrator.stop();
  assert(["started", "interrupted"].includes(await starting));
  await until(
    async () =>
      (await database
        .sql`SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pipeweave/%'`)
        .length === 0,
    "no session is left",
  );
});
