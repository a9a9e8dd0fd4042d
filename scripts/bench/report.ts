/** The report: what was measured, as Markdown, and whether the bounds hold. */

import type { Facts, Sample, Scenario } from "./scenario.ts";

export const RIVALS = ["dbmate", "graphile-migrate", "node-pg-migrate"];
const VERSIONS = [
  "dbmate 2.36.0",
  "graphile-migrate 1.4.1",
  "node-pg-migrate 9.0.0",
];

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Median milliseconds of a tool. */
export function msOf(
  { samples }: Facts,
  scenario: string,
  tool: string,
): number {
  return median(samples.get(scenario)!.get(tool)!.map(({ ms }) => ms));
}

/** The fastest rival's median. */
export function bestRival(facts: Facts, scenario: string): number {
  return Math.min(...RIVALS.map((name) => msOf(facts, scenario, name)));
}

function turnsOf({ samples }: Facts, scenario: string, tool: string): number {
  return median(
    samples.get(scenario)!.get(tool)!.map(({ turns }) => turns ?? 0),
  );
}

/** What has to hold, with what was measured. */
function bounds(
  facts: Facts,
): readonly { what: string; value: string; bound: string; holds: boolean }[] {
  const ours = (scenario: string) => msOf(facts, scenario, "pipeweave");
  const floor = (scenario: string) => msOf(facts, scenario, "floor");
  const same = (scenario: string) => msOf(facts, scenario, "floor, same statements");
  const ratio = (what: string, value: number, bound: number) => ({
    what,
    value: value.toFixed(2),
    bound: `≤ ${bound.toFixed(2)}`,
    holds: value <= bound,
  });
  const turns = ["10@100", "100@100", "1000@100"].map((id) => turnsOf(facts, id, "pipeweave"));
  const schemaTurns = turnsOf(facts, "schema@100", "pipeweave");
  return [
    ratio(
      "100 migrations at 100 ms, to the fastest rival",
      ours("100@100") / bestRival(facts, "100@100"),
      0.1,
    ),
    ratio(
      "100 migrations at 100 ms, to the floor",
      ours("100@100") / floor("100@100"),
      1.5,
    ),
    ...["100@0", "1000@0"].flatMap((id) => {
      const count = id === "100@0" ? "100" : "1,000";
      return [
        ratio(
          `${count} migrations directly, to the fastest rival`,
          ours(id) / bestRival(facts, id),
          1,
        ),
        ratio(
          `${count} migrations directly, to the floor + start-up`,
          ours(id) / (floor(id) + facts.startUp),
          1.3,
        ),
        ratio(
          `${count} migrations directly, to the floor with the same statements + start-up`,
          ours(id) / (same(id) + facts.startUp),
          1.3,
        ),
      ];
    }),
    {
      what:
        "round trips for 10, 100 and 1,000 migrations (SCRAM, no TLS, connecting counted); for the schema",
      value: `${turns.join(", ")}; ${schemaTurns}`,
      bound: "≤ 8, the first three the same",
      holds: turns.every((count) => count <= 8 && count === turns[0]) &&
        schemaTurns <= 8,
    },
    ratio(
      "nothing to do at 100 ms, to the fastest rival",
      ours("current@100") / bestRival(facts, "current@100"),
      1,
    ),
  ];
}

export function report(facts: Facts): { markdown: string; broken: boolean } {
  const held = bounds(facts);
  const lines = [
    "## Migrating",
    "",
    `Measured by \`./scripts/bench.sh ${facts.runs}\`: ${facts.runs} runs of each tool, interleaved, each on a fresh database of PostgreSQL ${facts.postgres}, with SCRAM and without TLS. ${
      VERSIONS.join(", ")
    }, from npm. The server does not wait for the disk (\`fsync = off\`), so that what the clients do is what is seen. The round-trip time comes from a proxy that delays what passes in both directions, and counts a round trip whenever a client had to wait for the server before it sent more; opening the connection is one.`,
    "",
    "The *floor* is a minimal client, compiled by the same Deno: it sends every file together with a row for a history table, all in one pipeline, and checks, locks, logs and reports nothing. The *floor, same statements* sends what pipeweave sends, guard and log included, and does nothing else either. *Small* migrations are one statement each: a table, a column, an index, a comment, a row. The *schema* is PipeWeave's own, 196 lines with tables, indexes, functions and triggers.",
    "",
    "### What has to hold",
    "",
    "| measure | measured | bound | |",
    "| --- | ---: | ---: | --- |",
    ...held.map(({ what, value, bound, holds }) =>
      `| ${what} | ${value} | ${bound} | ${holds ? "✓" : "✗"} |`
    ),
    "",
    `Start-up, the median of \`pipeweave --version\`: ${facts.startUp.toFixed(0)} ms.`,
    "",
    "![Times of 100 migrations](benchmarks.svg)",
  ];
  for (const scenario of facts.scenarios) {
    lines.push("", `### ${scenario.title}`, "", ...table(facts, scenario));
  }
  return {
    markdown: `${lines.join("\n")}\n`,
    broken: held.some(({ holds }) => !holds),
  };
}

function table(facts: Facts, { id, rttMs }: Scenario): readonly string[] {
  const rows = facts.samples.get(id)!;
  const best = rows.has(RIVALS[0]!) ? bestRival(facts, id) : undefined;
  const slow = rttMs > 0;
  return [
    `| tool | median ms | min | max | to the fastest rival |${slow ? " round trips |" : ""} peak MB |`,
    `| --- | ---: | ---: | ---: | ---: |${slow ? " ---: |" : ""} ---: |`,
    ...[...rows].map(([name, samples]) => row(name, samples, best, slow)),
  ];
}

function row(
  name: string,
  samples: readonly Sample[],
  best: number | undefined,
  slow: boolean,
): string {
  const ms = samples.map((sample) => sample.ms);
  const peaks = samples.flatMap(({ peakMb }) => peakMb ?? []);
  const cells = [
    name,
    ...[median(ms), Math.min(...ms), Math.max(...ms)].map((value) => value.toFixed(0)),
    best === undefined ? "" : (median(ms) / best).toFixed(2),
    ...(slow ? [String(median(samples.map(({ turns }) => turns ?? 0)))] : []),
    peaks.length === 0 ? "" : median(peaks).toFixed(0),
  ];
  return `| ${cells.join(" | ")} |`;
}
