/** The part of the demo that runs beside a server: prints each command, runs it, and plays the workers. */

import { fileURLToPath } from "node:url";
import postgres from "postgres";

const url = Deno.env.get("PIPEWEAVE_TEST_SERVER");
if (!url) throw new Error("run it by ./scripts/demo.sh");
const binary = fileURLToPath(new URL("../dist/pipeweave", import.meta.url));
const sql = postgres(url, { max: 1, onnotice: () => {}, fetch_types: false });

async function run(...args: string[]): Promise<number> {
  console.log(`\n$ pipeweave ${args.join(" ")}`);
  const { code } = await new Deno.Command(binary, {
    args,
    env: { DATABASE_URL: url! },
  }).spawn().status;
  if (code !== 0) console.log(`(exit code ${code})`);
  return code;
}

/** Runs a command that has to succeed. */
async function must(...args: string[]): Promise<void> {
  const code = await run(...args);
  if (code !== 0) {
    throw new Error(`pipeweave ${args.join(" ")} ended with ${code}`);
  }
}

function say(text: string): void {
  console.log(`\n# ${text}`);
}

try {
  say("An empty database: everything is pending.");
  await must("db:status");
  await must("db:migrate");
  await must("db:status");

  say("Five tasks are in the queue, two of them running.");
  await sql`INSERT INTO services (id, version, base_url) VALUES ('demo', '1.0.0', 'http://localhost')`;
  await sql`INSERT INTO tasks (id, service_id, code_hash) VALUES ('resize', 'demo', 'abc')`;
  await sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries, status)
    SELECT 'run-' || i, 'resize', 1, 'abc', 3, CASE WHEN i <= 2 THEN 'running' ELSE 'pending' END FROM generate_series(1, 5) i`;
  await must("maintenance:request");
  await must("maintenance:status");

  say("Too early: tasks are active, so this refuses.");
  if (await run("maintenance:enter") !== 3) {
    throw new Error("maintenance:enter should have refused");
  }

  say("The workers finish one task after the other.");
  for (let left = 5; left > 0; left--) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    await sql`UPDATE task_runs SET status = 'completed', completed_at = now() WHERE id = ${`run-${left}`}`;
    const [row] = await sql`SELECT count(*)::int AS n FROM task_runs WHERE status IN ('pending', 'running')`;
    console.log(`  run-${left} completed, ${row!["n"]} left`);
  }

  say("The drain is over: looking completes the transition.");
  await must("maintenance:status", "--expect", "maintenance");
  say("Safe to migrate now; and then back to work.");
  await must("db:migrate");
  await must("maintenance:exit");
  await must("db:cleanup", "--dry-run");
  await must("db:selftest");
  say(
    "Done. Now on your own database:  DATABASE_URL=postgres://… ./dist/pipeweave db:migrate",
  );
} finally {
  await sql.end({ timeout: 1 });
}
