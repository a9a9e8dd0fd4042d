/**
 * PipeWeave's orchestrator in small: a poller, workers, and the callback that they call, with the statements and the
 * commits of PipeWeave 1.1. A task ends in one commit; what follows is queued in later ones, up to 200 ms after it; a
 * statement that is refused is not repeated, since the worker does not look at the callback's answer.
 */

import postgres from "postgres";
import { connect } from "./database.ts";

/** The steps of each pipeline, and those that follow each. `join` waits for both of its predecessors. */
const NEXT: Readonly<Record<string, readonly string[]>> = {
  ...{ chain_a: ["chain_b"], chain_b: ["chain_c"], chain_c: [] },
  ...{ fan: ["left", "right"], left: ["join"], right: ["join"], join: [] },
};
const PREDECESSORS: Readonly<Record<string, readonly string[]>> = { join: ["left", "right"] };
/** Steps that make a whole run of each pipeline. */
const STEPS: Readonly<Record<string, readonly string[]>> = {
  chain_a: ["chain_a", "chain_b", "chain_c"],
  fan: ["fan", "join", "left", "right"],
};
const MAX_RETRIES = 3;
const LONGEST_GAP_MS = 200;

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const random = (below: number) => Math.floor(Math.random() * below);

interface TaskRun {
  readonly id: string;
  readonly task_id: string;
  readonly pipeline_run_id: string | null;
  readonly attempt: number;
  readonly max_retries: number;
}

/** An orchestrator with its workers, over connections of its own. */
export class SmallOrchestrator implements AsyncDisposable {
  /** What was refused, and so never done again. */
  readonly refused: string[] = [];
  readonly #sql: postgres.Sql;
  readonly #underWay = new Set<Promise<void>>();
  #count = 0;

  /** @param startsWhileWaiting whether its poller starts tasks although the mode is not running */
  constructor(url: string, readonly startsWhileWaiting: boolean) {
    this.#sql = connect(url, { max: 8 });
  }

  /** What the tasks are made from. */
  async register(): Promise<void> {
    await this.#sql`INSERT INTO services (id, version, base_url) VALUES ('s', '1', 'http://localhost')`;
    for (const id of [...Object.keys(NEXT), "fails", "fails_once"]) {
      await this.#sql`INSERT INTO tasks (id, service_id, code_hash) VALUES (${id}, 's', 'x')`;
    }
    await this.#sql`INSERT INTO pipelines (id, name, entry_tasks, structure) VALUES ('p', 'p', '{}', '{}')`;
  }

  /** Triggers a pipeline run; refused, it is never begun. */
  async trigger(entry: "chain_a" | "fan"): Promise<void> {
    const id = `run-${this.#count++}-${entry}`;
    await this.#sql`INSERT INTO pipeline_runs (id, pipeline_id, pipeline_version, structure_snapshot, status)
                    VALUES (${id}, 'p', '1', ${this.#sql.json({ entry })}, 'running')`;
    await this.#enqueue(entry, id).catch(() =>
      this.#sql`DELETE FROM pipeline_runs WHERE id = ${id}`.then(() => {})
    );
  }

  /** Queues a task without a pipeline; refused, it is none. */
  async queue(task: "fails" | "fails_once"): Promise<void> {
    await this.#enqueue(task, null).catch(() => {});
  }

  async #enqueue(task: string, run: string | null): Promise<void> {
    await this
      .#sql`INSERT INTO task_runs (id, task_id, pipeline_run_id, status, code_version, code_hash, attempt, max_retries,
        priority, created_at, previous_attempts)
      VALUES (${`t-${this
      .#count++}-${task}`}, ${task}, ${run}, 'pending', 1, 'x', 1, ${MAX_RETRIES}, 100, now(), '[]')`;
  }

  /** One round of the poller: starts what is queued. */
  async poll(): Promise<void> {
    const [state] = await this.#sql`SELECT mode FROM orchestrator_state WHERE id = 'singleton'`;
    if (state!["mode"] !== "running" && !this.startsWhileWaiting) return;
    const batch = await this.#sql<
      TaskRun[]
    >`SELECT id, task_id, pipeline_run_id, attempt, max_retries FROM task_runs
      WHERE status = 'pending' AND (scheduled_for IS NULL OR scheduled_for <= now()) ORDER BY priority, created_at LIMIT 10`;
    // The gate may be closed between the reading and the starting.
    await pause(random(10));
    await Promise.all(batch.map((task) => this.#start(task)));
  }

  async #start(task: TaskRun): Promise<void> {
    try {
      await this.#sql`UPDATE task_runs SET status = 'running', started_at = now() WHERE id = ${task.id}`;
    } catch (error) {
      await this.#dispatchFailed(task, (error as Error).message);
      return;
    }
    const working = pause(random(40)).then(() => this.#callback(task)).finally(() =>
      this.#underWay.delete(working)
    );
    this.#underWay.add(working);
  }

  async #dispatchFailed(task: TaskRun, error: string): Promise<void> {
    if (task.attempt < task.max_retries) return await this.#retry(task, error);
    await this.#deadLetter(task, error);
    await this.#sql`UPDATE task_runs SET status = 'failed', error = ${error}, error_code = 'DISPATCH_FAILED',
      completed_at = now() WHERE id = ${task.id}`;
  }

  /** As `POST /api/callback/:runId`: what throws is answered with 500, and that is the end of it. */
  async #callback(task: TaskRun): Promise<void> {
    const fails = task.task_id === "fails" || task.task_id === "fails_once" && task.attempt === 1;
    try {
      if (fails) await this.#failed(task);
      else await this.#completed(task);
    } catch (error) {
      this.refused.push(`${task.id}: ${(error as Error).message}`);
    }
  }

  async #completed(task: TaskRun): Promise<void> {
    await this.#sql`UPDATE task_runs SET status = 'completed', completed_at = now() WHERE id = ${task.id}`;
    await pause(random(LONGEST_GAP_MS));
    const run = task.pipeline_run_id;
    if (run === null) return;
    for (const next of NEXT[task.task_id]!) {
      const before = PREDECESSORS[next] ?? [];
      const [done] = await this.#sql`SELECT count(DISTINCT task_id)::int AS n FROM task_runs
        WHERE pipeline_run_id = ${run} AND task_id = ANY(string_to_array(${before.join()}, ',')) AND status = 'completed'`;
      if (done!["n"] === before.length) await this.#enqueue(next, run);
    }
    if (NEXT[task.task_id]!.length > 0) return;
    const [left] = await this.#sql`SELECT count(*)::int AS n FROM task_runs
      WHERE pipeline_run_id = ${run} AND status IN ('pending', 'running', 'waiting')`;
    if (left!["n"] > 0) return;
    await this.#sql`UPDATE pipeline_runs SET status = 'completed', completed_at = now() WHERE id = ${run}`;
  }

  async #failed(task: TaskRun): Promise<void> {
    await this
      .#sql`UPDATE task_runs SET status = 'failed', error = 'no', completed_at = now() WHERE id = ${task.id}`;
    await pause(random(LONGEST_GAP_MS));
    if (task.attempt < task.max_retries) await this.#retry(task, "no");
    else await this.#deadLetter(task, "no");
  }

  async #retry({ id, attempt }: TaskRun, error: string): Promise<void> {
    await this.#sql`UPDATE task_runs SET status = 'pending', attempt = ${attempt + 1}, scheduled_for = now(),
      previous_attempts = previous_attempts || ${
      this.#sql.json({ attempt, error })
    }, error = NULL, error_code = NULL
      WHERE id = ${id}`;
  }

  async #deadLetter({ id, task_id, attempt }: TaskRun, error: string): Promise<void> {
    await this
      .#sql`INSERT INTO dlq (id, task_run_id, task_id, code_version, code_hash, error, attempts, previous_attempts)
                    VALUES (${`dlq-${this
      .#count++}`}, ${id}, ${task_id}, 1, 'x', ${error}, ${attempt}, '[]')`;
  }

  /** Polls until nothing is queued or under way, held back or about to follow. */
  async finish(): Promise<void> {
    for (;;) {
      await this.poll();
      while (this.#underWay.size > 0) await Promise.race(this.#underWay);
      const [left] = await this
        .#sql`SELECT count(*)::int AS n FROM task_runs WHERE status IN ('pending', 'running', 'waiting')`;
      if (left!["n"] === 0) return;
    }
  }

  /** What is wrong with what it has done: a step or a retry that is lost, a run whose state is not right. */
  async problems(): Promise<readonly string[]> {
    const runs = await this.#sql<{ id: string; status: string; entry: string; steps: string | null }[]>`
      SELECT p.id, p.status, p.structure_snapshot->>'entry' AS entry, string_agg(DISTINCT r.task_id, ',' ORDER BY r.task_id) AS steps
        FROM pipeline_runs p LEFT JOIN task_runs r ON r.pipeline_run_id = p.id AND r.status = 'completed' GROUP BY 1, 2, 3`;
    const tasks = await this.#sql<
      { id: string; task_id: string; status: string; attempt: number; dead: number }[]
    >`
      SELECT r.id, r.task_id, r.status, r.attempt, (SELECT count(*)::int FROM dlq d WHERE d.task_run_id = r.id) AS dead
        FROM task_runs r WHERE r.pipeline_run_id IS NULL`;
    return [
      ...this.refused,
      ...runs.flatMap(({ id, status, entry, steps }) => {
        const done = steps ?? "";
        return status === "completed" && done === STEPS[entry]!.join()
          ? []
          : [`${id} is ${status} after ${done}`];
      }),
      ...tasks.flatMap(({ id, task_id, status, attempt, dead }) => {
        const found = `${status}, attempt ${attempt}, ${dead} dead letters`;
        const expected = task_id === "fails"
          ? `failed, attempt ${MAX_RETRIES}, 1 dead letters`
          : "completed, attempt 2, 0 dead letters";
        return found === expected ? [] : [`${id}: ${found}`];
      }),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#underWay);
    await this.#sql.end({ timeout: 1 });
  }
}
