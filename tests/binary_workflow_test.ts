/** The seed's two workflows, word for word, through the compiled binary. */

import { assertEquals, assertMatch } from "@std/assert";
import { pipeweave } from "./support/binary.ts";
import { queueTasks, TestDatabase } from "./support/database.ts";

const untimed = (text: string) => text.replace(/\(\d+(?:\.\d+)?m?s\)/g, "(…)");

Deno.test("workflow: status, validate, migrate, migrate again", async () => {
  await using database = await TestDatabase.empty();
  const env = { DATABASE_URL: database.url };
  const before = await pipeweave(["db:status"], { env });
  assertEquals(before.code, 0, before.stderr);
  assertEquals(before.stdout.split("\n").slice(0, 3), [
    "Current version: none",
    "Applied migrations: 0",
    "Pending migrations: 5",
  ]);
  assertEquals((await pipeweave(["db:validate"], { env })).code, 0);

  const migrated = await pipeweave(["db:migrate"], { env });
  assertEquals([migrated.code, migrated.stderr], [0, ""]);
  assertEquals(
    untimed(migrated.stdout),
    `[migrations] Checking migration status...
[migrations] Found 5 migration files
[migrations] Current version: none
[migrations] Pending migrations: 5

[migrations] Applying 000_migration_tracking...
[migrations] ✓ Applied 000_migration_tracking (…)
[migrations] Applying 001_initial_schema...
[migrations] ✓ Applied 001_initial_schema (…)
[migrations] Applying 002_input_schemas_and_temp_uploads...
[migrations] ✓ Applied 002_input_schemas_and_temp_uploads (…)
[migrations] Applying 90003_migration_bookkeeping...
[migrations] ✓ Applied 90003_migration_bookkeeping (…)
[migrations] Applying 90004_maintenance_gate...
[migrations] ✓ Applied 90004_maintenance_gate (…)

[migrations] ✓ Applied 5 migration(s)
`,
  );
  const again = await pipeweave(["db", "migrate"], { env });
  assertEquals(again.code, 0);
  assertEquals(again.stdout.trimEnd().split("\n").at(-1), "[migrations] ✓ All migrations up to date");
  const after = await pipeweave(["db:status", "--check"], { env });
  assertEquals(after.code, 0, after.stderr);
  assertMatch(after.stdout, /^Current version: 90004\nApplied migrations: 5\nPending migrations: 0\n/);
});

Deno.test("workflow: request maintenance, drain, migrate, exit", async () => {
  await using database = await TestDatabase.migrated();
  const env = { DATABASE_URL: database.url };
  await queueTasks(database.sql, ["pending", "pending", "pending", "running", "running"]);

  const requested = await pipeweave(["maintenance:request"], { env });
  assertEquals(
    [requested.code, requested.stdout],
    [0, "Waiting for 5 tasks to complete\n"],
    requested.stderr,
  );

  const waiting = await pipeweave(["maintenance:status"], { env });
  assertMatch(
    waiting.stdout,
    /^Mode: waiting_for_maintenance\nPending tasks: 3\nRunning tasks: 2\nCan enter maintenance: No\nStatus: Waiting for 5 tasks to complete\nMode changed at: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\nRequested by: \S.*@\S+\n$/,
  );
  assertEquals((await pipeweave(["maintenance:enter"], { env })).code, 3);
  assertEquals((await pipeweave(["maintenance:status", "--expect", "maintenance"], { env })).code, 3);

  await database.sql`UPDATE task_runs SET status = 'completed'`;
  const drained = await pipeweave(["maintenance:status", "--expect", "maintenance"], { env });
  assertEquals([drained.code, drained.stdout.split("\n")[0]], [0, "Mode: maintenance"], drained.stderr);
  assertEquals((await pipeweave(["db:migrate"], { env })).code, 0);

  const exited = await pipeweave(["maintenance:exit"], { env });
  assertEquals([exited.code, exited.stdout], [0, "Orchestrator is now running normally\n"]);
  const running = await pipeweave(["maintenance:status", "--json"], { env });
  const { modeChangedAt, ...rest } = JSON.parse(running.stdout);
  assertMatch(modeChangedAt, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assertEquals(rest, {
    mode: "running",
    pendingTasks: 0,
    runningTasks: 0,
    canEnterMaintenance: true,
    message: "Orchestrator is running normally",
    ...{
      requestedAt: null,
      owner: null,
      reason: null,
      drain: "all",
      waitExpiresAt: null,
      staleTasks: 0,
      gate: "open",
      isSafe: false,
      settlesInMs: 0,
      heldTasks: 0,
      deployment: null,
      ignoredTasks: [],
    },
  });
});
