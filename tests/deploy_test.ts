/** Deployments know each other: a maintenance is ended by the run that asked for it, or after that one is proven dead. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { deploy } from "../src/commands/deploy.ts";
import { Bell } from "../src/maintenance/wait.ts";
import { folderWith, pipeweave, Run, until } from "./support/binary.ts";
import { queueTasks, TestDatabase } from "./support/database.ts";

const NEEDS = "-- pipeweave: requires maintenance\n";
const mode = async ({ sql }: TestDatabase) =>
  (await sql`SELECT mode FROM orchestrator_state`)[0]!["mode"] as string;
const inMaintenance = (database: TestDatabase) =>
  until(async () => await mode(database) === "maintenance", "it is in maintenance");
/** Everybody of the same name. */
const environment = ({ url }: TestDatabase) => ({
  DATABASE_URL: url,
  PIPEWEAVE_OWNER: "deploy",
  MAINTENANCE_CHECK_INTERVAL_MS: "200",
});
/** A migration that goes on until a row of `go` is there. */
const waits = (table: string) =>
  `DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM go) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$; CREATE TABLE ${table} (id int);`;

Deno.test("a deployment with nothing pending leaves at once, exit 0, whatever another one of its name does", async () => {
  for (const how of ["drains", "migrates", "runs outside a transaction"]) {
    await using database = await TestDatabase.migrated();
    const { sql } = database;
    const env = environment(database);
    await sql`CREATE TABLE go (id int)`;
    await queueTasks(sql, how === "drains" ? ["running"] : []);
    const head = how === "runs outside a transaction" ? "-- pipeweave: no-transaction\n" : "";
    await using slow = await folderWith({ "101_slow.sql": `${head}${NEEDS}${waits("slow")}` });
    await using other = await folderWith({ "101_slow.sql": `${head}${NEEDS}${waits("slow")}` });
    await Deno.writeTextFile(`${other.path}/README.md`, "the same set");
    const first = new Run(["db:migrate", "--maintenance", "--dir", slow.path], { env });
    await until(
      async () => await mode(database) === (how === "drains" ? "waiting_for_maintenance" : "maintenance"),
      "the first one is at work",
    );
    const second = await pipeweave(["db:migrate", "--maintenance", "--json"], { env });
    const { maintenance } = JSON.parse(second.stdout);
    assertEquals(
      [second.code, maintenance.exited, maintenance.deployment.state],
      [0, false, "alive"],
      second.stderr,
    );
    assert(await mode(database) !== "running");
    await sql`UPDATE task_runs SET status = 'completed'`;
    await sql`INSERT INTO go VALUES (1)`;
    const { code, stderr } = await first.outcome;
    assertEquals([code, await mode(database)], [0, "running"], stderr);
    const log = await sql`SELECT action FROM maintenance_log ORDER BY id`;
    assertEquals(log.filter(({ action }) => ["request", "exit"].includes(action)).length, 2);
    assertEquals((await sql`SELECT FROM maintenance_deployments`).length, 0);
  }
});

Deno.test("five deployments of one name at once, two of them killed: one request, one exit, every migration once", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await sql`CREATE TABLE go (id int); CREATE TABLE counted (n int)`.simple();
  const [running] = await queueTasks(sql, ["running"]);
  await using folder = await folderWith({
    "101_a.sql": `${NEEDS}INSERT INTO counted VALUES (101);`,
    "102_b.sql": `${NEEDS}${waits("b")} INSERT INTO counted VALUES (102);`,
    "103_c.sql": `${NEEDS}INSERT INTO counted VALUES (103);`,
  });
  const env = environment(database);
  const args = ["db:migrate", "--maintenance", "--dir", folder.path];
  const runs = Array.from({ length: 5 }, () => new Run(args, { env }));
  await until(
    // A deployment registers before it asks: five rows may stand there while nobody has asked yet.
    async () =>
      (await sql`SELECT FROM maintenance_deployments`).length === 5 &&
      await mode(database) === "waiting_for_maintenance",
    "all of them wait for the drain",
  );
  const [asking] = await sql`SELECT deployment FROM orchestrator_state`;
  await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${running!}`;
  await inMaintenance(database);
  await until(
    async () =>
      (await sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 102_b%' AND state = 'active' AND datname = current_database()`)
        .length === 1,
    "one of them applies the second migration",
  );
  // The one that applies it, and the one that asked, if that is another.
  const [applying] =
    await sql`SELECT pid FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 102_b%' AND state = 'active' AND datname = current_database()`;
  await sql`SELECT pg_terminate_backend(${applying!["pid"]})`;
  runs[0]!.kill("SIGKILL");
  runs[1]!.kill("SIGKILL");
  await sql`INSERT INTO go VALUES (1)`;
  const outcomes = await Promise.all(runs.map(({ outcome }) => outcome));
  // Where nobody is left who may end it yet, the next deployment does, when the one that asked is proven dead.
  await until(
    async () => {
      if (await mode(database) === "running") return true;
      return (await pipeweave(args, { env })).code === 0 && await mode(database) === "running";
    },
    "the maintenance is ended",
    60_000,
  );
  assertEquals(
    (await sql`SELECT array_agg(n ORDER BY n)::text AS n FROM counted`)[0]!["n"],
    "{101,102,103}",
    JSON.stringify(outcomes),
  );
  const log =
    await sql`SELECT mode_before, mode_after, details->>'deployment' AS deployment FROM maintenance_log
    WHERE 'running' IN (mode_before, mode_after) ORDER BY id`;
  assertEquals(log.map((row) => `${row["mode_before"]} → ${row["mode_after"]}`), [
    "running → waiting_for_maintenance",
    "maintenance → running",
  ]);
  assertEquals(log[0]!["deployment"], asking!["deployment"]);
});

Deno.test("a killed deployment is left alone while its time runs, and ended by the next one after that, which says whose it was", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const env = environment(database);
  await sql`CREATE TABLE go (id int)`;
  await using folder = await folderWith({ "101_slow.sql": `${NEEDS}${waits("slow")}` });
  const killed = new Run(["db:migrate", "--maintenance", "--dir", folder.path], { env });
  await inMaintenance(database);
  killed.kill("SIGKILL");
  await killed.outcome;
  const early = await pipeweave(["db:migrate", "--maintenance"], { env });
  assertEquals([early.code, await mode(database)], [0, "maintenance"]);
  assertMatch(
    early.stderr,
    /The mode stays maintenance.*deployment [0-9a-f-]{36} of deploy \(last sign of life \S+ ago\) is at work/,
  );
  // As time does.
  await sql`UPDATE maintenance_deployments SET expires_at = now() - interval '1 second'`;
  const late = await pipeweave(["db:migrate", "--maintenance"], {
    env: { ...env, PIPEWEAVE_OWNER: "somebody else" },
  });
  assertEquals([late.code, await mode(database)], [0, "running"], late.stderr);
  assertMatch(
    late.stderr,
    /an earlier run had left it in maintenance: deployment [0-9a-f-]{36} of deploy .* is dead/,
  );
  const [line] =
    await sql`SELECT reason, details->'forced' AS forced FROM maintenance_log ORDER BY id DESC LIMIT 1`;
  assertMatch(line!["reason"], /^deployment [0-9a-f-]{36} is dead$/);
});

Deno.test("what a failed deployment left on is not ended by one of another name, nor what was asked for by hand by any", async () => {
  await using database = await TestDatabase.migrated();
  const env = environment(database);
  await using folder = await folderWith({ "101_bad.sql": `${NEEDS}DROP TABLE nowhere;` });
  const failed = await pipeweave(["db:migrate", "--maintenance", "--dir", folder.path], { env });
  assertEquals([failed.code, await mode(database)], [1, "maintenance"]);
  const other = await pipeweave(["db:migrate", "--maintenance"], {
    env: { ...env, PIPEWEAVE_OWNER: "other" },
  });
  assertEquals([other.code, await mode(database)], [0, "maintenance"]);
  assertStringIncludes(other.stderr, "It ends with: pipeweave maintenance:exit");
  const same = await pipeweave(["db:migrate", "--maintenance"], { env });
  assertEquals([same.code, await mode(database)], [0, "running"]);
  assertEquals((await pipeweave(["maintenance:request"], { env })).code, 0);
  const byHand = await pipeweave(["db:migrate", "--maintenance"], { env });
  assertEquals([byHand.code, await mode(database)], [0, "maintenance"]);
});

Deno.test("deploy() of the library: drains, migrates and opens again, and tells each step", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  const [running] = await queueTasks(sql, ["running"]);
  await using folder = await folderWith({ "101_a.sql": `${NEEDS}CREATE TABLE a (id int);` });
  const told: string[] = [];
  const bell = new Bell();
  const result = await deploy(database.session({ onNotify: bell.ring }), bell, {
    dirs: [folder.path],
    events: {
      onRequesting: (needs) => told.push(`requesting: ${needs.length}`),
      onRequested: ({ mode }) => {
        told.push(`requested: ${mode}`);
        void sql`UPDATE task_runs SET status = 'completed' WHERE id = ${running!}`.then(() => {});
      },
      onEntered: ({ status }) => told.push(`entered: ${status.isSafe}`),
      onSettled: ({ exited }) => told.push(`settled: ${exited}`),
    },
  });
  assertEquals(told, [
    "requesting: 1",
    "requested: waiting_for_maintenance",
    "entered: true",
    "settled: true",
  ]);
  assertEquals([result.applied.length, result.failed, result.maintenance?.mode], [1, null, "running"]);
});
