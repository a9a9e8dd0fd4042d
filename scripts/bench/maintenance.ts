/** The measurements of scripts/bench_maintenance.sh. */

import { fileURLToPath } from "node:url";
import type postgres from "postgres";
import type { PostgresServer } from "../postgres_server.ts";
import { cleanup } from "../../src/cleanup/cleanup.ts";
import { changeMode, readState } from "../../src/maintenance/state.ts";
import { connect, queueTasks, sessionFor, withMigratedServer } from "../../tests/support/database.ts";
import { writePart } from "./document.ts";
import { median } from "./report.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const ROUNDS = 25;
const SECONDS = 2;
const DRAINS = 100;
const LOOKS = 300;
const FINISHED = 10_000_000;
const ACTIVE = 1000;
const EXPIRED = 1_000_000;

/** How many pairs of drains of many tasks, and how long each is watched, in seconds. */
const BUSY_PAIRS = 5;
const BUSY_SECONDS = 3;
const BUSY_TASKS = 100_000;

interface Measure {
  readonly what: string;
  readonly measured: string;
  readonly bound: string;
  /** Undefined where there is no bound, and the figure is for comparison. */
  readonly holds: boolean | undefined;
}

const NO_BOUND = { bound: "–", holds: undefined };
const note = (text: string) => console.error(text);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
}

/** A server with one task to run, big enough for what is measured. */
async function withServer<T>(
  work: (server: PostgresServer, sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  return await withMigratedServer(
    { shared_buffers: "512MB" },
    async (server, sql) => {
      await queueTasks(sql, []);
      return await work(server, sql);
    },
  );
}

/** Transactions per second of pgbench with one script. */
async function pgbench(
  server: PostgresServer,
  clients: number,
  script: string,
  seconds = SECONDS,
): Promise<number> {
  const file = await Deno.makeTempFile({ suffix: ".sql" });
  await Deno.writeTextFile(file, script);
  const { stdout, stderr, success } = await new Deno.Command(
    Deno.env.get("PGBENCH")!,
    {
      args: [
        ...[
          "-n",
          "-f",
          file,
          "-c",
          String(clients),
          "-j",
          "2",
          "-T",
          String(seconds),
        ],
        ...[
          "-h",
          "127.0.0.1",
          "-p",
          String(server.port),
          "-U",
          "postgres",
          "postgres",
        ],
      ],
    },
  ).output();
  await Deno.remove(file);
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return Number(/tps = ([\d.]+)/.exec(new TextDecoder().decode(stdout))![1]);
}

/**
 * Insert throughput into `task_runs`, in mode `running`; into a table that never had a gate; and into one with the other
 * design, a statement trigger that is always on, takes a shared advisory lock and reads the mode. In turn.
 */
async function gatePrice(): Promise<Measure[]> {
  return await withServer(async (server, sql) => {
    // Tables alike, but for the gate; each is emptied before each run.
    const operator = sessionFor(server.url());
    await changeMode(operator, "request");
    await changeMode(operator, "exit");
    await operator.close();
    const [left] = await sql`SELECT count(*)::int AS n FROM pg_trigger
      WHERE tgrelid = 'task_runs'::regclass AND NOT tgisinternal`;
    if (left!["n"] !== 0) throw new Error("the gate has left triggers");
    for (const table of ["ungated", "always_on"]) {
      await sql.unsafe(`CREATE TABLE ${table} (LIKE task_runs INCLUDING ALL);
        ALTER TABLE ${table} ADD FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE;
        ALTER TABLE ${table} ADD FOREIGN KEY (pipeline_run_id) REFERENCES pipeline_runs (id) ON DELETE CASCADE;
        -- As temp_uploads refers to task_runs.
        CREATE TABLE refers_to_${table} (id text REFERENCES ${table} (id) ON DELETE SET NULL)`);
    }
    await sql.unsafe(
      `CREATE FUNCTION gate_always_on() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        PERFORM pg_advisory_xact_lock_shared(42);
        IF (SELECT mode FROM orchestrator_state WHERE id = 'singleton') <> 'running' THEN
          RAISE EXCEPTION 'closed';
        END IF;
        RETURN NULL;
      END $$;
      CREATE TRIGGER gate BEFORE INSERT ON always_on FOR EACH STATEMENT EXECUTE FUNCTION gate_always_on()`,
    );
    const measures: Measure[] = [];
    for (const rows of [1, 100]) {
      for (const clients of [1, 8]) {
        const ratios: number[] = [];
        const others: number[] = [];
        const speeds: Record<string, number[]> = {
          task_runs: [],
          ungated: [],
          always_on: [],
        };
        for (let round = 0; round < ROUNDS; round++) {
          // Each comes first, second and third as often as the others.
          const tables = Object.keys(speeds);
          const order = [0, 1, 2].map((place) => tables[(place + round) % 3]!);
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
          ratios.push(
            speeds["ungated"]!.at(-1)! / speeds["task_runs"]!.at(-1)!,
          );
          others.push(
            speeds["ungated"]!.at(-1)! / speeds["always_on"]!.at(-1)!,
          );
          note(
            `gate, ${rows} rows, ${clients} clients, round ${round + 1}: ${
              ratios.at(-1)!.toFixed(3)
            }, always on ${others.at(-1)!.toFixed(3)}`,
          );
        }
        const ratio = median(ratios);
        measures.push({
          what: `inserts of ${rows} row(s) by ${clients} client(s): time with the gate to time without (${
            Math.round(median(speeds["task_runs"]!))
          } and ${Math.round(median(speeds["ungated"]!))} a second; the rounds from ${
            Math.min(...ratios).toFixed(3)
          } to ${Math.max(...ratios).toFixed(3)})`,
          measured: ratio.toFixed(3),
          bound: "≤ 1.02",
          holds: ratio <= 1.02,
        }, {
          what: `the same with a gate that is always on (${
            Math.round(median(speeds["always_on"]!))
          } a second)`,
          measured: median(others).toFixed(3),
          ...NO_BOUND,
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
        env: {
          DATABASE_URL: server.url(),
          MAINTENANCE_CHECK_INTERVAL_MS: "60000",
        },
        ...{ stdin: "null", stdout: "null", stderr: "inherit" },
      }).spawn();
      let ended = 0;
      const status = child.status.then((
        status,
      ) => (ended = performance.now(), status));
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
    note(
      `drain: median ${middle.toFixed(1)} ms, 99th percentile ${high.toFixed(1)} ms`,
    );
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

/** How fast workers end tasks while a drain of many is waited for, to how fast they do while nothing is. */
async function busyDrain(): Promise<Measure[]> {
  // The disk counts here: a NOTIFY makes the commits of those who notify take turns.
  const settings = {
    shared_buffers: "512MB",
    fsync: "on",
    synchronous_commit: "on",
  };
  return await withMigratedServer(settings, async (server, sql) => {
    await queueTasks(sql, []);
    const speeds: Record<string, number[]> = { running: [], waiting: [] };
    for (let pair = 0; pair < BUSY_PAIRS; pair++) {
      for (
        const mode of pair % 2 === 0 ? ["running", "waiting"] : ["waiting", "running"]
      ) {
        await sql`TRUNCATE task_runs CASCADE`;
        await sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries, status)
          SELECT 'r' || i, 't', 1, 'x', 3, 'running' FROM generate_series(1, ${BUSY_TASKS}::int) i`;
        await sql`VACUUM ANALYZE task_runs`;
        await sql`CHECKPOINT`;
        const child = mode === "running" ? undefined : new Deno.Command(`${root}dist/pipeweave`, {
          args: ["maintenance:request", "--wait", "--quiet"],
          env: { DATABASE_URL: server.url() },
          ...{ stdin: "null", stdout: "null", stderr: "null" },
        }).spawn();
        if (child) await pause(1000);
        const speed = await pgbench(
          server,
          8,
          `WITH picked AS (SELECT id FROM task_runs WHERE status = 'running' LIMIT 1 FOR UPDATE SKIP LOCKED)
           UPDATE task_runs r SET status = 'completed' FROM picked WHERE r.id = picked.id;`,
          BUSY_SECONDS,
        );
        speeds[mode]!.push(speed);
        note(`busy drain, ${mode}: ${speed.toFixed(0)} a second`);
        child?.kill("SIGINT");
        await child?.status;
      }
    }
    const [running, waiting] = [
      median(speeds["running"]!),
      median(speeds["waiting"]!),
    ];
    return [{
      what:
        `tasks that 8 workers end in a second, ${
          BUSY_TASKS.toLocaleString("en")
        } active, with a disk that is ` +
        `waited for: while \`--wait\` goes on to while the mode is \`running\` (${Math.round(waiting)} and ${
          Math.round(running)
        })`,
      measured: (waiting / running).toFixed(2),
      ...NO_BOUND,
    }];
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
        const { pendingTasksCount, runningTasksCount } = await readState(
          session,
        );
        times.push(performance.now() - start);
        if (pendingTasksCount + runningTasksCount !== ACTIVE) {
          throw new Error("counted wrong");
        }
      }
      await session.close();
      return median(times);
    };
    const before = await look();
    note(`look, nothing finished: ${before.toFixed(2)} ms`);
    // Indexes are made anew after the rows: that is faster, and they are as they would be.
    const indexes = await sql`SELECT indexdef, indexname FROM pg_indexes WHERE tablename = 'task_runs'
                                AND indexname <> 'task_runs_pkey'`;
    for (const { indexname } of indexes) {
      await sql.unsafe(`DROP INDEX ${indexname}`);
    }
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

const PARTITIONS = 8;

/** A million expired rows, of a plain table or a partitioned one: in batches beside a writer, to one DELETE. */
async function cleanupCost(partitioned: boolean): Promise<Measure[]> {
  return await withServer(async (server, sql) => {
    if (partitioned) {
      await sql.unsafe(`ALTER TABLE idempotency_cache RENAME TO plain_cache;
        CREATE TABLE idempotency_cache (LIKE plain_cache INCLUDING DEFAULTS, PRIMARY KEY (idempotency_key)) PARTITION BY HASH (idempotency_key);
        CREATE INDEX ON idempotency_cache (task_id); CREATE INDEX ON idempotency_cache (expires_at)`);
      for (let i = 0; i < PARTITIONS; i++) {
        await sql.unsafe(
          `CREATE TABLE cache_${i} PARTITION OF idempotency_cache FOR VALUES WITH (MODULUS ${PARTITIONS}, REMAINDER ${i})`,
        );
      }
    }
    const fill = async () => {
      await sql`TRUNCATE idempotency_cache`;
      await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
        SELECT md5(i::text), 't', 'r', 1, '/', now() - interval '1 day' + i * interval '1 ms' FROM generate_series(1, ${EXPIRED}::int) i`;
      await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
        SELECT 'live' || i, 't', 'r', 1, '/', now() + interval '1 day' FROM generate_series(1, 1000) i`;
      await sql`VACUUM ANALYZE idempotency_cache`;
      await sql`CHECKPOINT`;
    };
    const [batched, plain, waits]: [number[], number[], number[]] = [
      [],
      [],
      [],
    ];
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
      if (idempotencyCache < EXPIRED * 0.99) {
        throw new Error(`removed ${idempotencyCache}`);
      }
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
        what: `rows a second of \`db:cleanup\` to one DELETE, ${EXPIRED.toLocaleString("en")} rows${
          partitioned ? ` in ${PARTITIONS} partitions` : ""
        } (${Math.round(EXPIRED / median(batched) * 1000).toLocaleString("en")} and ${
          Math.round(EXPIRED / median(plain) * 1000).toLocaleString("en")
        }), a writer beside the first`,
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

const PARTS = {
  gate: gatePrice,
  drain: drainLatency,
  busy: busyDrain,
  look: lookCost,
  cleanup: () => cleanupCost(false),
  partitioned: () => cleanupCost(true),
};
const wanted = Deno.args.length > 0 ? Deno.args : Object.keys(PARTS);
const measures: Measure[] = [];
for (const part of wanted) {
  const measure = PARTS[part as keyof typeof PARTS];
  if (!measure) {
    throw new Error(
      `no part ${part}; there are ${Object.keys(PARTS).join(", ")}`,
    );
  }
  measures.push(...await measure());
}
const table = [
  "| measure | measured | bound | |",
  "| --- | ---: | ---: | --- |",
  ...measures.map(({ what, measured, bound, holds }) =>
    `| ${what} | ${measured} | ${bound} | ${holds === undefined ? "" : holds ? "✓" : "✗"} |`
  ),
].join("\n");
console.log(table);
if (Deno.args.length === 0) {
  await writePart(
    "bench_maintenance.sh",
    `## Maintenance

Measured by \`./scripts/bench_maintenance.sh\` on PostgreSQL 18 (\`fsync\`, \`synchronous_commit\` off, so that the disk's
noise is out, but where the disk is named). The gate's price is the median of ${ROUNDS} rounds of pgbench runs of ${SECONDS} s in
turn, on \`task_runs\` in mode \`running\`, on a table like it that never had a gate, and on one with a gate of the other
design: a statement trigger that is always on, takes a shared advisory lock and reads the mode.

${table}
`,
  );
}
if (measures.some(({ holds }) => holds === false)) Deno.exit(1);
