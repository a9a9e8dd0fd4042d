/**
 * Measures pipeweave, its rivals and the floor side by side: the same migrations, interleaved, each on a database of its
 * own. Writes its part of docs/benchmarks.md, and docs/benchmarks.svg; exits 1 when a bound is broken.
 *
 * `deno run -A scripts/bench/bench.ts <floor binary> [runs] [scenario…]`; with scenarios it writes no file.
 */

import postgres from "postgres";
import { PostgresServer } from "../postgres_server.ts";
import { chart } from "./chart.ts";
import { writePart } from "./document.ts";
import { median, report, RIVALS } from "./report.ts";
import { RttProxy } from "./rtt_proxy.ts";
import type { Sample, Samples, Scenario } from "./scenario.ts";
import {
  type BenchMigration,
  indexesConcurrently,
  realisticSchema,
  smallMigrations,
  type Tool,
  tools,
} from "./tools.ts";

const SLOW_RTT_MS = 100;
const [floor, runsText = "5", ...chosen] = Deno.args;
const runs = Number(runsText);
if (!floor || !Number.isInteger(runs) || runs < 1) {
  throw new Error("usage: bench.ts <floor binary> [runs]");
}

const small = [10, 100, 1000].map(smallMigrations) as [
  BenchMigration[],
  BenchMigration[],
  BenchMigration[],
];
const all: readonly Scenario[] = [
  {
    id: "10@100",
    title: "10 migrations, 100 ms",
    rttMs: SLOW_RTT_MS,
    migrations: small[0],
  },
  {
    id: "100@100",
    title: "100 migrations, 100 ms",
    rttMs: SLOW_RTT_MS,
    migrations: small[1],
  },
  {
    id: "1000@100",
    title: "1,000 migrations, 100 ms",
    rttMs: SLOW_RTT_MS,
    migrations: small[2],
    // A rival takes minutes for each run of this.
    only: ["pipeweave", "floor", "floor, same statements"],
  },
  {
    id: "schema@100",
    title: "a schema in one file, 100 ms",
    rttMs: SLOW_RTT_MS,
    migrations: await realisticSchema(),
  },
  {
    id: "current@100",
    title: "100 migrations, all applied, 100 ms",
    rttMs: SLOW_RTT_MS,
    migrations: small[1],
    current: true,
    // The floor looks at no history.
    only: ["pipeweave", ...RIVALS],
  },
  {
    id: "10@0",
    title: "10 migrations, direct",
    rttMs: 0,
    migrations: small[0],
  },
  {
    id: "100@0",
    title: "100 migrations, direct",
    rttMs: 0,
    migrations: small[1],
  },
  {
    id: "1000@0",
    title: "1,000 migrations, direct",
    rttMs: 0,
    migrations: small[2],
  },
  {
    id: "schema@0",
    title: "a schema in one file, direct",
    rttMs: 0,
    migrations: await realisticSchema(),
  },
  {
    id: "outside@0",
    title: "76 indexes built concurrently, a file each, direct",
    rttMs: 0,
    migrations: indexesConcurrently(76),
    only: ["pipeweave", "dbmate"],
  },
  {
    id: "current@0",
    title: "100 migrations, all applied, direct",
    rttMs: 0,
    migrations: small[1],
    current: true,
    only: ["pipeweave", ...RIVALS],
  },
];

const scenarios = chosen.length === 0 ? all : all.filter(({ id }) => chosen.includes(id));

const ROLE = "bench";
const server = await PostgresServer.start({
  auth: "scram-sha-256",
  settings: { max_wal_size: "4GB" },
});
const work = await Deno.makeTempDir({ prefix: "pipeweave-bench-" });
let broken = false;
try {
  const admin = postgres({
    host: server.folder,
    port: server.port,
    user: "postgres",
    database: "postgres",
    max: 1,
    onnotice: () => {},
  });
  try {
    await admin.unsafe(
      `CREATE ROLE ${ROLE} LOGIN SUPERUSER PASSWORD '${ROLE}'`,
    );
    const [shown] = await admin`SELECT current_setting('server_version') AS version`;
    await using proxy = new RttProxy(server.port, SLOW_RTT_MS);
    const samples = await measureAll(admin, proxy);
    if (chosen.length > 0) {
      for (const [id, byTool] of samples) {
        for (const [name, rows] of byTool) {
          const [ms, turns] = [
            rows.map((row) => row.ms),
            rows.map((row) => row.turns ?? 0),
          ];
          console.log(
            id,
            name,
            Math.round(median(ms)),
            "ms",
            median(turns),
            "turns",
          );
        }
      }
    } else {
      const startUp = await measureStartUp();
      const facts = {
        runs,
        startUp,
        postgres: String(shown!["version"]),
        samples,
        scenarios,
      };
      const written = report(facts);
      broken = written.broken;
      await writePart("bench.sh", written.markdown);
      await Deno.writeTextFile(
        new URL("../../docs/benchmarks.svg", import.meta.url),
        chart(facts),
      );
      console.log(written.markdown);
    }
  } finally {
    await admin.end();
  }
} finally {
  await server.stop();
  await Deno.remove(work, { recursive: true });
}
Deno.exit(broken ? 1 : 0);

async function measureAll(
  admin: postgres.Sql,
  proxy: RttProxy,
): Promise<Samples> {
  const samples = new Map<string, Map<string, Sample[]>>();
  for (const scenario of scenarios) {
    const taking = tools(floor!).filter(({ name }) => scenario.only?.includes(name) ?? true);
    const folders = new Map<Tool, string>();
    for (const tool of taking) {
      const folder = `${work}/${scenario.id}-${tool.name}`;
      await Deno.mkdir(folder);
      await tool.prepare(folder, scenario.migrations);
      folders.set(tool, folder);
    }
    const bySample = new Map<string, Sample[]>(
      taking.map(({ name }) => [name, []]),
    );
    samples.set(scenario.id, bySample);
    for (let run = 0; run < runs; run++) {
      // Interleaved, and each in turn the first, so that no tool has the warmer machine.
      for (let i = 0; i < taking.length; i++) {
        const tool = taking[(run + i) % taking.length]!;
        const sample = await measure(
          admin,
          proxy,
          scenario,
          tool,
          folders.get(tool)!,
        );
        bySample.get(tool.name)!.push(sample);
        console.error(
          `${scenario.id} run ${run + 1} ${tool.name}: ${sample.ms.toFixed(0)} ms`,
        );
      }
    }
  }
  return samples;
}

async function measure(
  admin: postgres.Sql,
  proxy: RttProxy,
  scenario: Scenario,
  tool: Tool,
  folder: string,
): Promise<Sample> {
  await admin.unsafe(`CREATE DATABASE bench OWNER ${ROLE}`);
  try {
    const url = (port: number) => `postgres://${ROLE}:${ROLE}@127.0.0.1:${port}/bench?sslmode=disable`;
    if (scenario.current) await runOnce(tool, folder, url(server.port));
    const before = await relations();
    proxy.reset();
    const slow = scenario.rttMs > 0;
    const sample = await runOnce(
      tool,
      folder,
      url(slow ? proxy.port : server.port),
    );
    // A tool that did nothing would be the fastest.
    const after = await relations();
    if (scenario.current ? after !== before : after === before) {
      throw new Error(
        `${tool.name} made ${after - before} relations in ${scenario.id}`,
      );
    }
    return { ...sample, turns: slow ? proxy.turns : null };
  } finally {
    await admin.unsafe("DROP DATABASE bench WITH (FORCE)");
  }
}

/** How many relations there are, besides the tools' own. */
async function relations(): Promise<number> {
  const sql = postgres({
    host: server.folder,
    port: server.port,
    user: "postgres",
    database: "bench",
    max: 1,
  });
  try {
    const [row] = await sql`
      SELECT count(*)::int AS n FROM pg_class WHERE relname ~ '^bench_' OR relname IN ('task_runs', 'dlq')`;
    return row!["n"];
  } finally {
    await sql.end();
  }
}

async function runOnce(
  tool: Tool,
  folder: string,
  url: string,
): Promise<Omit<Sample, "turns">> {
  const [program, ...args] = tool.command(folder);
  const since = performance.now();
  const child = new Deno.Command(program!, {
    args,
    cwd: folder,
    env: { DATABASE_URL: url, NO_COLOR: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const memory = watchMemory(child.pid);
  const errors = new Response(child.stderr).text();
  const { code } = await child.status;
  const ms = performance.now() - since;
  const peakMb = memory.stop();
  if (code !== 0) throw new Error(`${tool.name} failed: ${await errors}`);
  await errors;
  return { ms, peakMb };
}

/** The kernel keeps the most that a process had; it is asked until the process is gone. */
function watchMemory(pid: number): { stop(): number | null } {
  let peak: number | null = null;
  const look = () => {
    try {
      const kb = /VmHWM:\s+(\d+)/.exec(
        Deno.readTextFileSync(`/proc/${pid}/status`),
      )?.[1];
      if (kb) peak = Number(kb) / 1024;
    } catch {
      // It has ended, or this is no Linux.
    }
  };
  const timer = setInterval(look, 20);
  return {
    stop() {
      clearInterval(timer);
      return peak;
    },
  };
}

/** Milliseconds that the binary takes to start and end: the median of twenty. */
async function measureStartUp(): Promise<number> {
  const [program] = tools(floor!)[0]!.command("");
  const times: number[] = [];
  for (let i = 0; i < 20; i++) {
    const since = performance.now();
    await new Deno.Command(program!, { args: ["--version"], stdout: "null" })
      .output();
    times.push(performance.now() - since);
  }
  return times.sort((a, b) => a - b)[10]!;
}
