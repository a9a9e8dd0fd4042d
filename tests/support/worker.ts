/** A worker process: takes pending runs one by one, works on each for a while with a heartbeat, and completes it. */

import postgres from "postgres";

const [url, workMs] = Deno.args as [string, string];
const sql = postgres(url, { max: 1, onnotice: () => {}, fetch_types: false });
for (;;) {
  const [run] = await sql`UPDATE task_runs SET status = 'running', started_at = now(), heartbeat_at = now(),
      heartbeat_timeout_ms = 1000 WHERE id = (
        SELECT id FROM task_runs WHERE status = 'pending' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id`;
  if (!run) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    continue;
  }
  await new Promise((resolve) => setTimeout(resolve, Number(workMs)));
  await sql`UPDATE task_runs SET status = 'completed', completed_at = now() WHERE id = ${run["id"]}`;
}
