/** What the benchmark measures, and what of it the report and the chart are made from. */

import type { BenchMigration } from "./tools.ts";

/** What is measured. */
export interface Scenario {
  readonly id: string;
  readonly title: string;
  /** Milliseconds between client and server, there and back; 0 is a direct connection. */
  readonly rttMs: number;
  readonly migrations: readonly BenchMigration[];
  /** Whether all of them are applied already. */
  readonly current?: boolean;
  /** Names of the tools that take part. Default: all */
  readonly only?: readonly string[];
}

/** One run of one tool. */
export interface Sample {
  readonly ms: number;
  /** Times that it waited for the server; null where there was no proxy. */
  readonly turns: number | null;
  /** Its most resident memory in MB; null where the system does not tell. */
  readonly peakMb: number | null;
}

/** All runs, by scenario and tool. */
export type Samples = ReadonlyMap<
  string,
  ReadonlyMap<string, readonly Sample[]>
>;

/** A run of all scenarios. */
export interface Facts {
  readonly runs: number;
  /** Median milliseconds of `pipeweave --version`. */
  readonly startUp: number;
  /** The server's version. */
  readonly postgres: string;
  readonly samples: Samples;
  readonly scenarios: readonly Scenario[];
}
