/** Drains beside PipeWeave's own protocol: whenever they come, no step and no retry is lost, and no task slips past. */

import { assert, assertEquals } from "@std/assert";
import { drain } from "../src/commands/drain.ts";
import { exitMaintenance, requestMaintenance } from "../src/commands/maintenance.ts";
import { Bell } from "../src/maintenance/wait.ts";
import { TestDatabase } from "./support/database.ts";
import { SmallOrchestrator } from "./support/orchestrator.ts";

const ROUNDS = 200;
/** Databases in which rounds go on side by side. */
const LANES = 8;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const random = (below: number) => Math.floor(Math.random() * below);

/** How a round's drain was. */
interface Round {
  readonly reached: boolean;
  readonly held: number;
}

/** Work of every kind, a drain at a random moment, and the end of all the work. */
async function oneRound(database: TestDatabase, round: number): Promise<Round> {
  const { sql } = database;
  await sql.unsafe("TRUNCATE task_runs, pipeline_runs, dlq CASCADE");
  const drainsRunning = round % 3 === 0;
  await using orchestrator = new SmallOrchestrator(database.url, !drainsRunning);
  const bell = new Bell();
  const session = database.session({ onNotify: bell.ring });
  for (let i = 0; i < 2; i++) {
    await Promise.all([
      ...[orchestrator.trigger("chain_a"), orchestrator.trigger("fan")],
      ...[orchestrator.queue("fails"), orchestrator.queue("fails_once")],
    ]);
  }
  let polls = true;
  const polling = (async () => {
    while (polls) {
      await orchestrator.poll();
      await pause(5);
    }
  })();
  await pause(random(500));
  // Longer than a follow-up takes, and in every fourth round shorter than most: then what comes late is held back.
  const settleMs = round % 4 === 0 ? 20 : 300;
  let held = 0;
  try {
    await drain(session, bell, { drain: drainsRunning ? "running" : "all", settleMs }, {
      ...{ timeoutMs: 60_000, intervalMs: 100, onTimeout: "stay", onInterrupt: "stay" },
    });
    // New work is refused, and nothing is active.
    await orchestrator.queue("fails");
    for (let look = 0; look < 5; look++) {
      const [row] =
        await sql`SELECT o.mode, (SELECT count(*)::int FROM task_runs WHERE status = 'running' OR status = 'pending' AND o.drain = 'all') AS active,
        (SELECT count(*)::int FROM maintenance_held_tasks) AS held FROM orchestrator_state o`;
      assertEquals([row!["mode"], row!["active"]], ["maintenance", 0], `round ${round}`);
      held = row!["held"];
      await pause(random(60));
    }
  } finally {
    await exitMaintenance(session, { force: true });
    polls = false;
    await polling;
  }
  await orchestrator.finish();
  assertEquals(await orchestrator.problems(), [], `round ${round}`);
  await session.close();
  return { reached: true, held };
}

Deno.test(`${ROUNDS} drains beside PipeWeave's protocol: no step and no retry is lost, no attempt burnt, no task slips past`, async () => {
  const rounds = await Promise.all(Array.from({ length: LANES }, async (_, lane) => {
    await using database = await TestDatabase.migrated();
    await using registrar = new SmallOrchestrator(database.url, true);
    await registrar.register();
    const done: Round[] = [];
    for (let round = lane; round < ROUNDS; round += LANES) done.push(await oneRound(database, round));
    return done;
  }));
  const all = rounds.flat();
  const held = all.reduce((sum, round) => sum + round.held, 0);
  assertEquals(all.length, ROUNDS);
  assert(held > 0, "what comes late was never held back");
});

Deno.test("what follows an accepted step late is held during maintenance, and queued by the exit: whoever exits", async () => {
  await using database = await TestDatabase.migrated();
  await using orchestrator = new SmallOrchestrator(database.url, true);
  await orchestrator.register();
  const { sql } = database;
  const session = database.session();
  for (
    const exit of [() => exitMaintenance(session), () => sql`UPDATE orchestrator_state SET mode = 'running'`]
  ) {
    await sql.unsafe("TRUNCATE task_runs, pipeline_runs CASCADE");
    await sql`INSERT INTO pipeline_runs (id, pipeline_id, pipeline_version, structure_snapshot, status, created_at)
      VALUES ('run', 'p', '1', '{}', 'running', now() + interval '1 hour')`;
    await sql`INSERT INTO task_runs (id, task_id, pipeline_run_id, status, code_version, code_hash, max_retries, created_at) VALUES
      ('step', 'chain_a', 'run', 'completed', 1, 'x', 3, now() + interval '1 hour'), ('again', 'fails', NULL, 'failed', 1, 'x', 3, now())`;
    assertEquals((await requestMaintenance(session, { settleMs: 0 })).mode, "maintenance");
    await sql`INSERT INTO task_runs (id, task_id, pipeline_run_id, status, code_version, code_hash, max_retries)
              VALUES ('next', 'chain_b', 'run', 'pending', 1, 'x', 3)`;
    await sql`UPDATE task_runs SET status = 'pending', attempt = 2 WHERE id = 'again'`;
    const statuses = () =>
      sql`SELECT id, status, attempt FROM task_runs ORDER BY id`.then((rows) =>
        rows.map((row) => Object.values(row).join())
      );
    assertEquals(await statuses(), ["again,waiting,2", "next,waiting,1", "step,completed,1"]);
    await exit();
    assertEquals(await statuses(), ["again,pending,2", "next,pending,1", "step,completed,1"]);
  }
});

Deno.test("a task held by a transaction that ends after the exit, and one that somebody has locked, are queued all the same", async () => {
  await using database = await TestDatabase.migrated();
  await using orchestrator = new SmallOrchestrator(database.url, true);
  await orchestrator.register();
  const { sql } = database;
  const session = database.session();
  await sql`INSERT INTO pipeline_runs (id, pipeline_id, pipeline_version, structure_snapshot, status) VALUES ('run', 'p', '1', '{}', 'running')`;
  const step = (id: string) =>
    `INSERT INTO task_runs (id, task_id, pipeline_run_id, status, code_version, code_hash, max_retries) VALUES ('${id}', 'chain_b', 'run', 'pending', 1, 'x', 3)`;
  await requestMaintenance(session, { settleMs: 0 });
  await sql.unsafe(step("locked"));
  await using late = await database.hold(step("late"));
  await using lock = await database.hold("SELECT FROM task_runs WHERE id = 'locked' FOR UPDATE");
  const exiting = exitMaintenance(session);
  await late.run("COMMIT");
  await lock.release();
  assertEquals([(await exiting).mode, (await exiting).heldTasks], ["running", 0]);
  const rows = await sql`SELECT id, status FROM task_runs ORDER BY id`;
  assertEquals(rows.map((row) => Object.values(row).join()), ["late,pending", "locked,pending"]);
});

Deno.test("an INSERT that meets a join which is not ready queues it neither in maintenance nor after it", async () => {
  await using database = await TestDatabase.migrated();
  await using orchestrator = new SmallOrchestrator(database.url, true);
  await orchestrator.register();
  const { sql } = database;
  const session = database.session();
  await sql`INSERT INTO pipeline_runs (id, pipeline_id, pipeline_version, structure_snapshot, status) VALUES ('run', 'p', '1', '{}', 'running')`;
  const insert = (status: string, conflict: string) =>
    sql.unsafe(
      `INSERT INTO task_runs (id, task_id, pipeline_run_id, status, code_version, code_hash, max_retries)
      VALUES ('join', 'join', 'run', '${status}', 1, 'x', 3) ${conflict}`,
    );
  await insert("waiting", "");
  await requestMaintenance(session, { settleMs: 0 });
  await insert("pending", "ON CONFLICT DO NOTHING");
  await insert("pending", "ON CONFLICT (id) DO UPDATE SET priority = 5");
  await exitMaintenance(session);
  assertEquals((await sql`SELECT status, priority FROM task_runs`)[0], { status: "waiting", priority: 5 });
});
