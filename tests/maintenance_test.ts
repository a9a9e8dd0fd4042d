/** The maintenance commands' use cases against a real server. */

import { assertEquals, assertRejects } from "@std/assert";
import {
  enterMaintenance,
  exitMaintenance,
  getMaintenanceStatus,
  requestMaintenance,
} from "../src/commands/maintenance.ts";
import { PipeweaveError } from "../src/errors.ts";
import { changeMode } from "../src/maintenance/state.ts";
import { type Intent, MODES, nextMode } from "../src/maintenance/transitions.ts";
import { queueTasks, TestDatabase } from "./support/database.ts";

Deno.test("PostgreSQL decides every transition as the table does", async () => {
  await using database = await TestDatabase.migrated();
  const session = database.session();
  const [id] = await queueTasks(database.sql, ["completed"]);
  for (const status of ["completed", "pending", "running"]) {
    await database.sql`UPDATE task_runs SET status = ${status} WHERE id = ${id!}`;
    for (const mode of MODES) {
      for (const intent of ["look", "request", "enter", "exit"] as readonly Intent[]) {
        await setMode(database, mode);
        const { before, state } = await changeMode(session, intent);
        const expected = nextMode(intent, {
          mode,
          blockers: status === "completed" ? 0 : 1,
          expired: false,
        });
        assertEquals([before, state.mode], [mode, expected], `${intent} from ${mode} with a task ${status}`);
        const [row] = await database
          .sql`SELECT mode, pending_tasks_count AS p, running_tasks_count AS r FROM orchestrator_state`;
        assertEquals({ ...row }, {
          mode: expected,
          p: status === "pending" ? 1 : 0,
          r: status === "running" ? 1 : 0,
        });
      }
    }
  }
});

/** Sets the mode behind the gate's back, so that states can be tried which it would not allow. */
async function setMode({ sql }: TestDatabase, mode: string): Promise<void> {
  await sql.begin(async (transaction) => {
    await transaction`SET LOCAL session_replication_role = replica`;
    await transaction`UPDATE orchestrator_state SET mode = ${mode}`;
  });
}

Deno.test("other statuses are not active", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["completed", "failed", "timeout", "cancelled", "waiting"]);
  assertEquals((await requestMaintenance(database.session())).mode, "maintenance");
});

Deno.test("commands at once agree: each sees the other's change whole", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["running"]);
  for (let round = 0; round < 10; round++) {
    await setMode(database, "running");
    const sessions = Array.from({ length: 6 }, () => database.session());
    const befores = await Promise.all(sessions.map((session) => changeMode(session, "request")));
    assertEquals(befores.filter(({ before }) => before === "running").length, 1);
    await Promise.all(sessions.map((session) => session.close()));
  }
});

Deno.test("a row that somebody holds is waited for with a limit", async () => {
  await using database = await TestDatabase.migrated();
  const session = database.session();
  await database.sql.begin(async (holder) => {
    await holder`SELECT FROM orchestrator_state FOR UPDATE`;
    // A look needs no lock.
    assertEquals((await getMaintenanceStatus(session)).mode, "running");
    const error = await assertRejects(() => exitMaintenance(session), PipeweaveError);
    assertEquals([error.kind, error.code], ["timeout", "lock_timeout"]);
  });
});

Deno.test("enter: refusals name the reason and the next command", async () => {
  await using database = await TestDatabase.migrated();
  const session = database.session();
  const early = await assertRejects(() => enterMaintenance(session), PipeweaveError);
  assertEquals([early.kind, early.code, early.details.hint], [
    "condition",
    "not_requested",
    "Run: pipeweave maintenance:request",
  ]);
  await queueTasks(database.sql, ["running", "pending"]);
  assertEquals((await requestMaintenance(session)).message, "Waiting for 2 tasks to complete");
  const busy = await assertRejects(() => enterMaintenance(session), PipeweaveError);
  assertEquals([busy.kind, busy.code], ["condition", "tasks_active"]);
  await database.sql`UPDATE task_runs SET status = 'failed' WHERE status = 'pending'`;
  assertEquals((await getMaintenanceStatus(session)).message, "Waiting for 1 task to complete");
});

Deno.test("without the schema or the row the error names db:migrate", async () => {
  await using empty = await TestDatabase.empty();
  const missing = await assertRejects(() => getMaintenanceStatus(empty.session()), PipeweaveError);
  assertEquals([missing.code, missing.details.hint], [
    "not_migrated",
    "PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded",
  ]);
  const schema = await assertRejects(
    () => requestMaintenance(empty.session({}, { schema: "pw" })),
    PipeweaveError,
  );
  assertEquals(
    schema.details.hint,
    "PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded --schema pw",
  );

  await using database = await TestDatabase.migrated();
  await database.sql`DELETE FROM orchestrator_state`;
  for (const call of [getMaintenanceStatus, requestMaintenance, enterMaintenance, exitMaintenance]) {
    const error = await assertRejects(() => call(database.session()), PipeweaveError);
    assertEquals([error.code, error.details.hint], [
      "not_migrated",
      "PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded",
    ]);
  }
});
