/** The measurements of scripts/bench_maintenance.sh. */

import type postgres from "postgres";
import type { PostgresServer } from "../postgres_server.ts";
import { cleanup } from "../../src/cleanup/cleanup.ts";
import { changeMode, readState } from "../../src/maintenance/state.ts";
import { connect, queueTasks, sessionFor, withMigratedServer } from "../../tests/support/database.ts";
import { writePart } from "./document.ts";
import { median } from "./report.ts";

const root = new URL("../..", import.meta.url).pathname;
const PAIRS = 9;
const SECONDS = 4;
const DRAINS = 100;
const LOOKS = 300;
const FINISHED = 10_000_000;
const ACTIVE = 1000;
const EXPIRED = 1_000_000;

interface Measure {
  readonly what: string;
  readonly measured: string;
  readonly bound: string;
  readonly holds: boolean;
}

const note = (text: string) => console.error(text);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
}

/** A server with one task to run, big enough for what is measured. */
async function withServer<T>(work: (server: PostgresServer, sql: postgres.Sql) => Promise<T>): Promise<T> {
  return await withMigratedServer({ shared_buffers: "512MB" }, async (server, sql) => {
    await queueTasks(sql, []);
    return await work(server, sql);
  });
}

/** Transactions per second of pgbench with one script. */
async function pgbench(server: PostgresServer, clients: number, script: string): Promise<number> {
  const file = await Deno.makeTempFile({ suffix: ".sql" });
  await Deno.writeTextFile(file, script);
  const { stdout, stderr, success } = await new Deno.Command(Deno.env.get("PGBENCH")!, {
    args: [
      ...["-n", "-f", file, "-c", String(clients), "-j", "2", "-T", String(SECONDS)],
      ...["-h", "127.0.0.1", "-p", String(server.port), "-U", "postgres", "postgres"],
    ],
  }).output();
  await Deno.remove(file);
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return Number(/tps = ([\d.]+)/.exec(new TextDecoder().decode(stdout))![1]);
}

/** Insert throughput into `task_runs`, in mode `running`, and into a table that never had a gate, in turn. */
async function gatePrice(): Promise<Measure[]> {
  return await withServer(async (server, sql) => {
    // Two tables alike, but for the gate; both are emptied before each run.
    const operator = sessionFor(server.url());
    await changeMode(operator, "request");
    await changeMode(operator, "exit");
    await operator.close();
    await sql`CREATE TABLE ungated (LIKE task_runs INCLUDING ALL)`;
    await sql`ALTER TABLE ungated ADD FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE`;
    await sql`ALTER TABLE ungated ADD FOREIGN KEY (pipeline_run_id) REFERENCES pipeline_runs (id) ON DELETE CASCADE`;
    // As temp_uploads refers to task_runs.
    await sql`CREATE TABLE referring (id text REFERENCES ungated (id) ON DELETE SET NULL)`;
    const measures: Measure[] = [];
    for (const rows of [1, 100]) {
      for (const clients of [1, 8]) {
        const ratios: number[] = [];
        const speeds: Record<string, number[]> = { task_runs: [], ungated: [] };
        for (let pair = 0; pair < PAIRS; pair++) {
          const order = pair % 2 === 0 ? ["task_runs", "ungated"] : ["ungated", "task_runs"];
          for (const table of order) {
            await sql.unsafe(`TRUNCATE ${table} CASCADE; CHECKPOINT`);
            const speed = await pgbench(
              server,
              clients,
              `INSERT INTO ${table} (id, task_id, code_version, code_hash, max_retries)
               SELECT gen_random_uuid()::text, 't', 1, 'x', 3 FROM generate_series(1, ${rows});`,
            );
            speeds[table]!.push(speed);
          }
          ratios.push(speeds["ungated"]!.at(-1)! / speeds["task_runs"]!.at(-1)!);
          note(`gate, ${rows} rows, ${clients} clients, pair ${pair + 1}: ${ratios.at(-1)!.toFixed(3)}`);
        }
        const ratio = median(ratios);
        measures.push({
          what: `inserts of ${rows} row(s) by ${clients} client(s): time with the gate to time without (${
            Math.round(median(speeds["task_runs"]!))
          } and ${Math.round(median(speeds["ungated"]!))} a second; the pairs from ${
            Math.min(...ratios).toFixed(3)
          } to ${Math.max(...ratios).toFixed(3)})`,
          measured: ratio.toFixed(3),
          bound: "≤ 1.02",
          holds: ratio <= 1.02,
        });
      }
    }
    return measures;
  });
}

/** From the last task's commit to the end of `maintenance:request --wait`. */
async function drainLatency(): Promise<Measure[]> {
  return await withServer(async (server, sql) => {
    const times: number[] = [];
    const [id] = await queueTasks(sql, ["completed"]);
    for (let i = 0; i < DRAINS; i++) {
      await sql`UPDATE task_runs SET status = 'running' WHERE id = ${id!}`;
      const child = new Deno.Command(`${root}dist/pipeweave`, {
        args: ["maintenance:request", "--wait", "--quiet"],
        env: { DATABASE_URL: server.url(), MAINTENANCE_CHECK_INTERVAL_MS: "60000" },
        ...{ stdin: "null", stdout: "null", stderr: "inherit" },
      }).spawn();
      let ended = 0;
      const status = child.status.then((status) => (ended = performance.now(), status));
      // It listens once it has said so, and looks once more after that.
      for (;;) {
        const [row] = await sql`SELECT count(*)::int AS n FROM pg_stat_activity
          WHERE application_name LIKE '%maintenance:request' AND state = 'idle' AND query LIKE '%has_expired%'
            AND state_change < now() - interval '100 ms'`;
        if (row!["n"] > 0) break;
        await pause(10);
      }
      await sql`UPDATE task_runs SET status = 'completed' WHERE id = ${id!}`;
      const committed = performance.now();
      if ((await status).code !== 0) throw new Error("the wait failed");
      times.push(ended - committed);
      const exit = await new Deno.Command(`${root}dist/pipeweave`, {
        args: ["maintenance:exit"],
        env: { DATABASE_URL: server.url() },
        stdout: "null",
      }).output();
      if (!exit.success) throw new Error("the exit failed");
    }
    const [middle, high] = [median(times), quantile(times, 0.99)];
    note(`drain: median ${middle.toFixed(1)} ms, 99th percentile ${high.toFixed(1)} ms`);
    return [
      {
        what: `last commit to the end of \`--wait\`, median of ${DRAINS}`,
        measured: `${middle.toFixed(1)} ms`,
        bound: "≤ 50 ms",
        holds: middle <= 50,
      },
      {
        what: "the same, 99th percentile",
        measured: `${high.toFixed(1)} ms`,
        bound: "≤ 150 ms",
        holds: high <= 150,
      },
    ];
  });
}

/** What a look takes beside ten million finished runs, and beside none. */
async function lookCost(): Promise<Measure[]> {
  return await withServer(async (server, sql) => {
    const insert = (from: number, count: number, status: string) =>
      sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries, status)
          SELECT 'r' || i, 't', 1, 'x', 3, ${status} FROM generate_series(${from}::int, ${
        from + count - 1
      }::int) i`;
    await insert(1, ACTIVE / 2, "pending");
    await insert(1 + ACTIVE / 2, ACTIVE / 2, "running");
    const look = async () => {
      await sql`VACUUM ANALYZE task_runs`;
      const session = sessionFor(server.url());
      const times: number[] = [];
      for (let i = 0; i < LOOKS; i++) {
        const start = performance.now();
        const { pendingTasksCount, runningTasksCount } = await readState(session);
        times.push(performance.now() - start);
        if (pendingTasksCount + runningTasksCount !== ACTIVE) throw new Error("counted wrong");
      }
      await session.close();
      return median(times);
    };
    const before = await look();
    note(`look, nothing finished: ${before.toFixed(2)} ms`);
    // Indexes are made anew after the rows: that is faster, and they are as they would be.
    const indexes = await sql`SELECT indexdef, indexname FROM pg_indexes WHERE tablename = 'task_runs'
                                AND indexname <> 'task_runs_pkey'`;
    for (const { indexname } of indexes) await sql.unsafe(`DROP INDEX ${indexname}`);
    await sql`SET session_replication_role = replica`;
    await insert(1_000_000, FINISHED, "completed");
    await sql`SET maintenance_work_mem = '1GB'`;
    for (const { indexdef } of indexes) await sql.unsafe(indexdef);
    note("look: filled");
    const after = await look();
    note(`look, ${FINISHED} finished: ${after.toFixed(2)} ms`);
    return [{
      what: `a look with ${ACTIVE} active runs: beside ${
        FINISHED.toLocaleString("en")
      } finished ones to beside none (${after.toFixed(2)} ms, ${before.toFixed(2)} ms)`,
      measured: (after / before).toFixed(2),
      bound: "≤ 1.30",
      holds: after / before <= 1.3,
    }];
  });
}

/** A million expired rows: in batches beside a writer, to one DELETE. */
async function cleanupCost(): Promise<Measure[]> {
  return await withServer(async (server, sql) => {
    const fill = async () => {
      await sql`TRUNCATE idempotency_cache`;
      await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
        SELECT md5(i::text), 't', 'r', 1, '/', now() - interval '1 day' + i * interval '1 ms' FROM generate_series(1, ${EXPIRED}::int) i`;
      await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
        SELECT 'live' || i, 't', 'r', 1, '/', now() + interval '1 day' FROM generate_series(1, 1000) i`;
      await sql`VACUUM ANALYZE idempotency_cache`;
      await sql`CHECKPOINT`;
    };
    const [batched, plain, waits]: [number[], number[], number[]] = [[], [], []];
    for (let run = 0; run < 3; run++) {
      await fill();
      let start = performance.now();
      await sql`DELETE FROM idempotency_cache WHERE expires_at < now()`;
      plain.push(performance.now() - start);

      await fill();
      const writer = connect(server.url());
      const session = sessionFor(server.url());
      let over = false;
      let longest = 0;
      const writing = (async () => {
        for (let i = 0; !over; i++) {
          // Rows that stay, and rows that are about to go.
          const key = i % 2 === 0 ? `live${1 + i % 1000}` : undefined;
          const begun = performance.now();
          await (key
            ? writer`UPDATE idempotency_cache SET output_size = ${i} WHERE idempotency_key = ${key}`
            : writer`UPDATE idempotency_cache SET output_size = ${i} WHERE idempotency_key = md5(${
              String(1 + Math.floor(Math.random() * EXPIRED))
            })`);
          longest = Math.max(longest, performance.now() - begun);
          await pause(5);
        }
      })();
      start = performance.now();
      const { idempotencyCache } = await cleanup(session);
      batched.push(performance.now() - start);
      over = true;
      await writing;
      waits.push(longest);
      // A row that the writer held just then is left to the next run.
      if (idempotencyCache < EXPIRED * 0.99) throw new Error(`removed ${idempotencyCache}`);
      await session.close();
      await writer.end({ timeout: 1 });
      note(
        `cleanup: plain ${plain.at(-1)!.toFixed(0)} ms, batches ${batched.at(-1)!.toFixed(0)} ms, writer ${
          longest.toFixed(0)
        } ms`,
      );
    }
    const [rate, wait] = [median(plain) / median(batched), Math.max(...waits)];
    return [
      {
        what: `rows a second of \`db:cleanup\` to one DELETE, ${EXPIRED.toLocaleString("en")} rows (${
          Math.round(EXPIRED / median(batched) * 1000).toLocaleString("en")
        } and ${Math.round(EXPIRED / median(plain) * 1000).toLocaleString("en")}), a writer beside the first`,
        measured: rate.toFixed(2),
        bound: "≥ 0.70",
        holds: rate >= 0.7,
      },
      {
        what: "longest wait of that writer in all runs",
        measured: `${wait.toFixed(0)} ms`,
        bound: "≤ 250 ms",
        holds: wait <= 250,
      },
    ];
  });
}

const PARTS = { gate: gatePrice, drain: drainLatency, look: lookCost, cleanup: cleanupCost };
const wanted = Deno.args.length > 0 ? Deno.args : Object.keys(PARTS);
const measures: Measure[] = [];
for (const part of wanted) {
  const measure = PARTS[part as keyof typeof PARTS];
  if (!measure) throw new Error(`no part ${part}; there are ${Object.keys(PARTS).join(", ")}`);
  measures.push(...await measure());
}
const table = [
  "| measure | measured | bound | |",
  "| --- | ---: | ---: | --- |",
  ...measures.map(({ what, measured, bound, holds }) =>
    `| ${what} | ${measured} | ${bound} | ${holds ? "✓" : "✗"} |`
  ),
].join("\n");
console.log(table);
if (Deno.args.length === 0) {
  await writePart(
    "bench_maintenance.sh",
    `## Maintenance

Measured by \`./scripts/bench_maintenance.sh\` on PostgreSQL 18 (\`fsync\`, \`synchronous_commit\` off, so that the disk's
noise is out). The gate's price is the median of ${PAIRS} pairs of pgbench runs of ${SECONDS} s in turn, on \`task_runs\` in
mode \`running\` and on a table like it that never had a gate.

${table}
`,
  );
}
if (measures.some(({ holds }) => !holds)) Deno.exit(1);
