/**
 * Writers, workers, operators and a killer at once: whenever the mode is maintenance nothing is active, and every task
 * that was accepted is completed exactly once.
 */

import { assert, assertEquals } from "@std/assert";
import type postgres from "postgres";
import type { PostgresServer } from "../scripts/postgres_server.ts";
import { enterMaintenance, exitMaintenance, requestMaintenance } from "../src/commands/maintenance.ts";
import { PipeweaveError } from "../src/errors.ts";
import type { Session } from "../src/database/session.ts";
import { lookAtState } from "../src/maintenance/state.ts";
import { queueTasks, sessionFor, withMigratedServer } from "./support/database.ts";

const ISOLATION = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] as const;
const WRITERS = 16;
const WORKERS = 4;
const OPERATORS = 2;
const STRESS_MS = 60_000;
const ROUNDS = 500;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const random = (below: number) => Math.floor(Math.random() * below);

async function withQueue(work: (server: PostgresServer, sql: postgres.Sql) => Promise<void>): Promise<void> {
  await withMigratedServer({}, async (server, sql) => {
    await queueTasks(sql, []);
    await sql`CREATE TABLE completions (id text)`;
    await work(server, sql);
  });
}

/** What became of a message: done; refused, by SQLSTATE; or nobody knows, since the connection was killed. */
async function outcome(session: Session, message: string): Promise<"done" | "unknown" | string> {
  try {
    await session.send(message);
    return "done";
  } catch (error) {
    if (!(error instanceof PipeweaveError)) return String(error);
    const { sqlstate } = error.details;
    if (error.kind === "connection" || sqlstate === "57P01") return "unknown";
    // What failed is an open transaction, since the message began one.
    await session.send("ROLLBACK").catch(() => {});
    return sqlstate ?? error.message;
  }
}

/** Inserts runs now and then, in transactions of any kind; the server itself pauses in the middle of them. */
class Writer {
  readonly accepted: string[] = [];
  /** Of whose commit nothing was heard. */
  readonly unknown: string[] = [];
  refused = 0;
  #count = 0;

  constructor(readonly session: Session, readonly name: string, readonly surprises: string[]) {}

  async write(longestPauseMs: number): Promise<void> {
    const [first, last] = [this.#count, this.#count += random(4) === 0 ? 100 : 1];
    const rests = (chance: number) =>
      random(chance) === 0 ? `SELECT pg_sleep(${random(longestPauseMs) / 1000});` : "";
    const ends = random(8) === 0 ? "ROLLBACK" : "COMMIT";
    // The first SELECT fixes the snapshot, where there is one for the whole transaction.
    const result = await outcome(
      this.session,
      `BEGIN ISOLATION LEVEL ${
        ISOLATION[random(ISOLATION.length)]
      }; SELECT count(*) FROM orchestrator_state; ${rests(2)}
       INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries)
       SELECT '${this.name}-' || i, 't', 1, 'x', 3 FROM generate_series(${first}, ${last - 1}) i; ${
        rests(3)
      } ${ends};`,
    );
    const ids = Array.from({ length: last - first }, (_, i) => `${this.name}-${first + i}`);
    if (result === "PW101") this.refused++;
    else if (result === "unknown") this.unknown.push(...ids);
    else if (result === "done") { if (ends === "COMMIT") this.accepted.push(...ids); }
    else if (!["40001", "40P01"].includes(result)) this.surprises.push(`writer: ${result}`);
  }
}

/** Starts pending runs and completes running ones; says whether there are more. */
async function work(session: Session, surprises: string[]): Promise<boolean> {
  const start = `UPDATE task_runs SET status = 'running' WHERE id IN (
    SELECT id FROM task_runs WHERE status = 'pending' LIMIT 100 FOR UPDATE SKIP LOCKED);`;
  const complete = `WITH done AS (
      UPDATE task_runs SET status = 'completed' WHERE status = 'running' AND id IN (
        SELECT id FROM task_runs WHERE status = 'running' LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING id
    ) INSERT INTO completions SELECT id FROM done;`;
  for (const message of [start, complete]) {
    const result = await outcome(session, message);
    if (!["done", "unknown", "PW101", "40P01"].includes(result)) surprises.push(`worker: ${result}`);
  }
  const [[row] = []] = await session.send(
    "SELECT EXISTS (SELECT FROM task_runs WHERE status IN ('pending', 'running')) AS more",
  )
    .catch(() => [[{ more: true }]]);
  return row!["more"] as boolean;
}

/** Requests, looks, enters and exits at random. Returns whether maintenance was reached. */
async function operate(session: Session, surprises: string[]): Promise<boolean> {
  const actions = [
    () => requestMaintenance(session),
    ...Array.from({ length: 6 }, () => () => lookAtState(session)),
    () => enterMaintenance(session),
    () => exitMaintenance(session),
  ];
  try {
    return (await actions[random(actions.length)]!()).mode === "maintenance";
  } catch (error) {
    const expected = error instanceof PipeweaveError &&
      ["condition", "timeout", "connection"].includes(error.kind);
    if (!expected && !/57P01/.test(JSON.stringify(error))) surprises.push(`operator: ${error}`);
    return false;
  }
}

/** The mode and the active tasks, as one snapshot sees them. */
async function assertGateHolds(sql: postgres.Sql): Promise<boolean> {
  const [row] =
    await sql`SELECT o.mode, (SELECT count(*)::int FROM task_runs WHERE status IN ('pending', 'running')) AS active
    FROM orchestrator_state o`;
  if (row!["mode"] === "maintenance") assertEquals(row!["active"], 0, "tasks are active in maintenance");
  return row!["mode"] === "maintenance";
}

Deno.test(`${STRESS_MS / 1000} s of ${WRITERS} writers, workers, operators, connections killed: maintenance is idle, every accepted task is completed once`, async () => {
  await withQueue(async (server, sql) => {
    const url = server.url();
    const surprises: string[] = [];
    const until = Date.now() + STRESS_MS;
    const writers = Array.from(
      { length: WRITERS },
      (_, i) => new Writer(sessionFor(url), `w${i}`, surprises),
    );
    const workers = Array.from({ length: WORKERS }, () => sessionFor(url));
    const operators = Array.from({ length: OPERATORS }, () => sessionFor(url));
    const loop = async (step: () => Promise<unknown>, restMs: number) => {
      while (Date.now() < until) {
        await step();
        await pause(random(restMs));
      }
    };
    let [reached, seen, kills] = [0, 0, 0];
    const judge = loop(async () => seen += await assertGateHolds(sql) ? 1 : 0, 5);
    const others = Promise.all([
      ...writers.map((writer) => loop(() => writer.write(30), 100)),
      ...workers.map((worker) => loop(() => work(worker, surprises), 3)),
      ...operators.map((session) =>
        loop(async () => reached += await operate(session, surprises) ? 1 : 0, 100)
      ),
      loop(async () => {
        await pause(200);
        kills += (await sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE application_name = 'pipeweave test' ORDER BY random() LIMIT 1`).length;
      }, 400),
    ]);
    await Promise.all([judge, others]);

    await exitMaintenance(operators[0]!).catch(() => exitMaintenance(operators[0]!));
    while (await work(workers[0]!, surprises));
    assertEquals(surprises, []);
    const completions = await sql`SELECT id, count(*)::int AS n FROM completions GROUP BY id`;
    assertEquals(completions.filter(({ n }) => n !== 1), []);
    const completed = new Set(completions.map(({ id }) => id as string));
    const accepted = writers.flatMap((writer) => writer.accepted);
    assertEquals(accepted.filter((id) => !completed.has(id)), [], "accepted and not completed");
    const known = new Set([...accepted, ...writers.flatMap((writer) => writer.unknown)]);
    assertEquals([...completed].filter((id) => !known.has(id)), [], "completed and never accepted");
    const refused = writers.reduce((sum, writer) => sum + writer.refused, 0);
    // What was tried did happen.
    assert(accepted.length > 100 && refused > 100, `${accepted.length} accepted, ${refused} refused`);
    assert(reached > 10 && seen > 10 && kills > 20, `${reached} reached, ${seen} seen, ${kills} kills`);
    await Promise.all([
      ...writers.map(({ session }) => session.close()),
      ...[...workers, ...operators].map((session) => session.close()),
    ]);
  });
});

Deno.test(`${ROUNDS} rounds of ${WRITERS} writers racing one request: maintenance is idle`, async () => {
  await withQueue(async (server, sql) => {
    const url = server.url();
    const surprises: string[] = [];
    const writers = Array.from(
      { length: WRITERS },
      (_, i) => new Writer(sessionFor(url), `r${i}`, surprises),
    );
    const operator = sessionFor(url);
    let waits = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const writing = Promise.all(writers.map(async (writer) => {
        await pause(random(4));
        await writer.write(3);
      }));
      await pause(random(6));
      const { mode } = await requestMaintenance(operator, { drain: "all" });
      if (mode === "waiting_for_maintenance") {
        waits++;
        await sql`UPDATE task_runs SET status = 'completed' WHERE status IN ('pending', 'running')`;
        for (let tries = 0; (await lookAtState(operator)).mode !== "maintenance"; tries++) {
          assert(tries < 50, "never drained");
          await sql`UPDATE task_runs SET status = 'completed' WHERE status IN ('pending', 'running')`;
        }
      }
      assert(await assertGateHolds(sql));
      await writing;
      assert(await assertGateHolds(sql));
      await exitMaintenance(operator);
    }
    assertEquals(surprises, []);
    const refused = writers.reduce((sum, writer) => sum + writer.refused, 0);
    assert(waits > ROUNDS / 20 && refused > ROUNDS, `${waits} waits, ${refused} refused`);
    await Promise.all([...writers.map(({ session }) => session.close()), operator.close()]);
  });
});
