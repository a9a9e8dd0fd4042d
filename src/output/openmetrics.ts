/**
 * Gauges as OpenMetrics text, for node_exporter's textfile collector: https://openmetrics.io
 *
 * @module
 */

import type { DatabaseStatus } from "../commands/status.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { MODES } from "../maintenance/transitions.ts";

interface Gauge {
  readonly name: string;
  readonly help: string;
  readonly samples: readonly (readonly [labels: Readonly<Record<string, string>>, value: number])[];
}

function render(gauges: readonly Gauge[]): string {
  return [
    ...gauges.flatMap(({ name, help, samples }) => [
      `# HELP ${name} ${help}`,
      `# TYPE ${name} gauge`,
      ...samples.map(([labels, value]) => {
        const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escaped(text)}"`).join(",");
        return `${name}${pairs === "" ? "" : `{${pairs}}`} ${value}`;
      }),
    ]),
    "# EOF",
  ].join("\n");
}

const escaped = (text: string) => text.replace(/[\\"\n]/g, (one) => one === "\n" ? "\\n" : `\\${one}`);

/** What `db:status` knows. */
export function statusMetrics({ applied, pending, missing, partial, current }: DatabaseStatus): string {
  const last = applied.at(-1);
  return render([
    {
      name: "pipeweave_migrations",
      help: "Migrations by their state.",
      samples: [
        [{ state: "applied" }, applied.length],
        [{ state: "pending" }, pending.length],
        [{ state: "changed" }, applied.filter(({ drift }) => drift).length],
        [{ state: "missing" }, missing.length],
        [{ state: "half_done" }, partial.length],
      ],
    },
    ...(current === null || !last ? [] : [{
      name: "pipeweave_migration_last_applied_timestamp_seconds",
      help: "When the last migration was applied.",
      samples: [[{ version: current }, last.appliedAt.getTime() / 1000]] as const,
    }]),
  ]);
}

/** What `maintenance:status` knows. */
export function maintenanceMetrics(status: MaintenanceStatus): string {
  return render([
    {
      name: "pipeweave_maintenance_mode",
      help: "1 for the mode that the queue is in.",
      samples: MODES.map((mode) => [{ mode }, status.mode === mode ? 1 : 0] as const),
    },
    {
      name: "pipeweave_maintenance_mode_changed_timestamp_seconds",
      help: "Since when.",
      samples: [[{}, status.modeChangedAt.getTime() / 1000]],
    },
    {
      name: "pipeweave_tasks",
      help: "Active tasks by their status.",
      samples: [[{ status: "pending" }, status.pendingTasks], [{ status: "running" }, status.runningTasks]],
    },
  ]);
}
