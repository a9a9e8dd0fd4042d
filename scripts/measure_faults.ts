/**
 * Measures how every class of command ends on a server that goes wrong: phase × fault × command, with exit code and time.
 * Prints a table in Markdown, and ends with 1 where a cell took longer than its limit and five seconds, or did not end
 * with words and a code of its own.
 *
 * Usage: deno run -A scripts/measure_faults.ts
 */

import { folderWith, Run } from "../tests/support/binary.ts";
import { type Fault, FAULTS, FaultyServer, type Phase, PHASES } from "../tests/support/faulty_server.ts";

/** Given to every command: connecting may take 3 s, and a server that was connected may be silent for 4 s. */
const CONNECTING_S = 3;
const SILENT_S = 4;
const PARAMETERS =
  `connect_timeout=${CONNECTING_S}&keepalives_idle=2&keepalives_interval=1&keepalives_count=2`;
const ALLOWED_BEYOND_S = 5;
const AT_ONCE = 8;

/** Command lines, and the limit that they have of their own, in seconds. */
const COMMANDS: readonly (readonly [line: string, limitS?: number])[] = [
  ["db:status"],
  ["db:migrate"],
  ["db:migrate --timeout 2s", 2],
  ["db:migrate --lock-wait 2s"],
  ["db:migrate --wait-for-db 5s", 5],
  ["db:migrate --maintenance --drain-timeout 2s"],
  ["db:validate"],
  ["db:history"],
  ["db:wait --timeout 5s", 5],
  ["db:wait --migrated --timeout 5s", 5],
  ["db:cleanup"],
  ["db:selftest"],
  ["maintenance:status"],
  ["maintenance:request --wait --timeout 5s", 5],
  ["maintenance:exit"],
  ["maintenance:wait --timeout 5s", 5],
  ["maintenance:watch --once"],
];

interface Cell {
  readonly phase: Phase;
  readonly fault: Fault;
  readonly line: string;
  readonly code: number;
  readonly seconds: number;
  readonly words: string;
}

async function measure(phase: Phase, fault: Fault, line: string, folder: string): Promise<Cell> {
  await using server = new FaultyServer(phase, fault);
  const sslmode = phase === "answering the request for TLS" || phase === "the handshake of TLS"
    ? "require"
    : "disable";
  const env = {
    DATABASE_URL: `postgres://u:p@127.0.0.1:${server.port}/d?sslmode=${sslmode}&${PARAMETERS}`,
  };
  const start = performance.now();
  const own = line.startsWith("db:migrate") || line === "db:validate" ? ["--dir", folder] : [];
  const run = new Run([...line.split(" "), ...own], { env });
  const late = setTimeout(() => run.kill("SIGKILL"), 60_000);
  const { code, stderr } = await run.outcome;
  clearTimeout(late);
  return { phase, fault, line, code, seconds: (performance.now() - start) / 1000, words: stderr };
}

await using folder = await folderWith({ "001_one.sql": "SELECT 1;" });
const jobs = PHASES.flatMap((phase) =>
  FAULTS.flatMap((fault) => COMMANDS.map(([line, limitS]) => ({ phase, fault, line, limitS })))
);
const cells: (Cell & { readonly limitS: number | undefined })[] = [];
await Promise.all(Array.from({ length: AT_ONCE }, async () => {
  for (let job; (job = jobs.shift());) {
    cells.push({ ...await measure(job.phase, job.fault, job.line, folder.path), limitS: job.limitS });
  }
}));

let failures = 0;
console.log(`| Phase | Fault | ${COMMANDS.map(([line]) => `\`${line}\``).join(" | ")} |`);
console.log(`|---|---|${COMMANDS.map(() => "---:").join("|")}|`);
for (const phase of PHASES) {
  for (const fault of FAULTS) {
    const row = COMMANDS.map(([line]) => {
      const cell = cells.find((one) => one.phase === phase && one.fault === fault && one.line === line)!;
      const limit = Math.max(cell.limitS ?? 0, CONNECTING_S, SILENT_S) + ALLOWED_BEYOND_S;
      const isSpoken = [4, 6].includes(cell.code) && /^error: /m.test(cell.words) &&
        !cell.words.includes("    at ");
      if (cell.seconds > limit || !isSpoken) {
        failures++;
        console.error(
          `${phase}, ${fault}, ${line}: exit ${cell.code} after ${cell.seconds.toFixed(1)} s\n${cell.words}`,
        );
      }
      return `${cell.code}, ${cell.seconds.toFixed(1)} s`;
    });
    console.log(`| ${phase} | ${fault} | ${row.join(" | ")} |`);
  }
}
const longest = Math.max(...cells.map(({ seconds }) => seconds));
console.log(
  `\n${cells.length} runs, the longest ${longest.toFixed(1)} s; ${failures} not as they should be.`,
);
if (failures > 0) Deno.exitCode = 1;
