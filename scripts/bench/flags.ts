/** What flags of V8 do to the binary: each of a folder's binaries runs the same commands, interleaved. */

import postgres from "postgres";
import { PostgresServer } from "../postgres_server.ts";
import { median } from "./report.ts";

const [work, runs] = [Deno.args[0]!, Number(Deno.args[1])];
const binaries = [...Deno.readDirSync(work)].map(({ name }) => name).sort();

/** Measures of one run: milliseconds of wall and CPU time, and peak memory in MB. */
type Sample = readonly [wall: number, cpu: number, peak: number];

const server = await PostgresServer.start();
const admin = postgres(server.url(), { max: 1, onnotice: () => {} });

/** Files of one table each, and one of 20 MB. */
async function folderOf(files: number): Promise<string> {
  const folder = await Deno.makeTempDir({ dir: work, prefix: ".files" });
  for (let i = 1; i <= files; i++) {
    await Deno.writeTextFile(
      `${folder}/${String(i).padStart(3, "0")}_t.sql`,
      `CREATE TABLE t${i} (id int PRIMARY KEY, name text);\n`,
    );
  }
  return folder;
}
const [ten, hundred, large] = [
  await folderOf(10),
  await folderOf(100),
  await folderOf(1),
];
const rows = Array.from(
  { length: 1000 },
  (_, i) => `(${i}, 'a row of some length, as a dump has it')`,
).join(
  ",",
);
await Deno.writeTextFile(
  `${large}/002_rows.sql`,
  `INSERT INTO t1 VALUES ${rows.replaceAll("(", "(1000 + ")} ON CONFLICT DO NOTHING;\n`.repeat(400),
);

/** Commands, with whether their database is made anew for each run. */
const scenarios: readonly (readonly [
  name: string,
  args: readonly string[],
  isFresh: boolean,
])[] = [
  ["--version", ["--version"], false],
  ["db:status", ["db:status", "--no-embedded", "--dir", hundred], false],
  ["nothing to do", ["db:migrate", "--no-embedded", "--dir", hundred], false],
  ["10 migrations", ["db:migrate", "--no-embedded", "--dir", ten], true],
  ["100 migrations", ["db:migrate", "--no-embedded", "--dir", hundred], true],
  ["20 MB", ["db:migrate", "--no-embedded", "--dir", large], true],
];

/** Runs a command under bash's `time`, and asks the kernel for the most memory that it had. */
async function run(
  binary: string,
  args: readonly string[],
  database: string,
): Promise<Sample> {
  const url = server.url().replace(/\/postgres$/, `/${database}`);
  const script = 'TIMEFORMAT="%R %U %S"; exec 3>&2; time { "$@" >/dev/null 2>&1 & echo $! >&3; wait $!; }';
  const child = new Deno.Command("bash", {
    args: ["-c", script, "bash", `${work}/${binary}`, ...args],
    env: { DATABASE_URL: url, NO_COLOR: "1" },
    stderr: "piped",
  }).spawn();
  let [text, peak] = ["", 0];
  let pid: string | undefined;
  const timer = setInterval(() => {
    try {
      const kb = pid &&
        /VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))
          ?.[1];
      if (kb) peak = Number(kb) / 1024;
    } catch {
      // It has ended.
    }
  }, 5);
  for await (const chunk of child.stderr.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    pid ??= /^(\d+)\n/.exec(text)?.[1];
  }
  clearInterval(timer);
  if (!(await child.status).success) {
    throw new Error(`${binary} ${args.join(" ")}: ${text}`);
  }
  const [wall, user, system] = text.trim().split("\n").at(-1)!.split(" ").map(
    Number,
  ) as [
    number,
    number,
    number,
  ];
  return [wall * 1000, (user + system) * 1000, peak];
}

try {
  console.log(
    "| command | flags | wall ms | CPU ms | peak MB |\n| --- | --- | ---: | ---: | ---: |",
  );
  await admin.unsafe("CREATE DATABASE kept");
  await run(binaries[0]!, scenarios[2]![1], "kept");
  for (const [name, args, isFresh] of scenarios) {
    const samples = new Map<string, Sample[]>(
      binaries.map((binary) => [binary, []]),
    );
    for (let i = 0; i < runs; i++) {
      for (const binary of binaries) {
        if (isFresh) await admin.unsafe("CREATE DATABASE fresh");
        samples.get(binary)!.push(
          await run(binary, args, isFresh ? "fresh" : "kept"),
        );
        if (isFresh) await admin.unsafe("DROP DATABASE fresh WITH (FORCE)");
      }
    }
    for (const [binary, all] of samples) {
      const of = (index: number) => median(all.map((sample) => sample[index]!)).toFixed(0);
      console.log(
        `| ${name} | \`${binary}\` | ${of(0)} | ${of(1)} | ${of(2)} |`,
      );
    }
  }
} finally {
  await admin.end();
  await server.stop();
}
