/**
 * `db:migrate --maintenance`: one command with one report and one exit code. What it does is in `commands/deploy.ts`.
 *
 * @module
 */

import type { DeployedMode, DeployOptions } from "../commands/deploy.ts";
import type { Ending } from "../commands/drain.ts";
import type { MigrateOptions } from "../commands/migrate.ts";
import { formatDuration } from "../config/duration.ts";
import type { DeploymentSeen } from "../maintenance/deployments.ts";
import { printable } from "../printable.ts";
import { describeRequest } from "../maintenance/status.ts";
import { Bell } from "../maintenance/wait.ts";
import { connect } from "./connect.ts";
import { drainEvents, lookEveryMs, requestOptions } from "./drain.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { reportMigrated } from "./migrate.ts";

/** Runs the command. */
export async function runDeployment(
  input: Input,
  terminal: Terminal,
  applying: MigrateOptions,
  when: "auto" | "always",
): Promise<void> {
  const options = deployOptions(input, terminal, applying, when);
  const bell = new Bell();
  await using session = await connect(input, terminal, {}, bell.ring);
  const { deploy } = await import("../commands/deploy.ts");
  const { maintenance, ...result } = await deploy(session, bell, options);
  reportMigrated(terminal, result);
  if (maintenance) terminal.note(`[maintenance] ${describeEnd(maintenance)}`);
}

/** The deployment that the command line describes. */
function deployOptions(
  input: Input,
  terminal: Terminal,
  applying: MigrateOptions,
  when: "auto" | "always",
): DeployOptions {
  const intervalMs = input.checkIntervalMs();
  return {
    ...applying,
    when,
    request: requestOptions(input, terminal),
    drainTimeoutMs: input.duration("--drain-timeout"),
    ...{ intervalMs, lookEveryMs: lookEveryMs(terminal, intervalMs) },
    onFailure: input.choice<Ending>("--on-failure"),
    events: {
      ...drainEvents(input, terminal),
      onRequesting: (needs) => {
        terminal.note("[maintenance] Requesting maintenance");
        for (const need of needs) terminal.note(`  ${need}`);
      },
      onEntered: () => {
        terminal.progress.stop();
        terminal.note("[maintenance] In maintenance: migrating");
      },
      onSettled: ({ drainedMs, exited, mode, other }) => {
        if (!terminal.json) return;
        terminal.document = {
          maintenance: {
            ...(drainedMs === undefined ? {} : { drainedMs }),
            ...{ exited, mode },
            ...(other ? { deployment: { id: other.id, owner: other.owner, state: other.state } } : {}),
          },
        };
      },
      onWaitingFor: (other) =>
        terminal.note(
          `[maintenance] Everything is applied. It is the maintenance of ${
            describeRun(other)
          }: waiting for a sign of life`,
        ),
    },
  };
}

function describeEnd({ exited, mode, status, other }: DeployedMode): string {
  if (exited) {
    return "Orchestrator is now running normally" +
      (other
        ? `: an earlier run had left it in maintenance: ${describeRun(other)} ${
          other.state === "dead" ? "is dead" : "had failed"
        }`
        : "");
  }
  if (mode === "running") return "Orchestrator is now running normally";
  return `The mode stays ${describeRequest(status)}. ` +
    (other?.state === "alive"
      ? `${describeRun(other)} is at work, and ends it`
      : "It ends with: pipeweave maintenance:exit");
}

/** `deployment 3f2a… of alice@build-7 (last sign of life 4s ago)` */
function describeRun({ id, owner, heartbeatAt }: DeploymentSeen): string {
  const ago = Math.max(0, Date.now() - heartbeatAt.getTime());
  const sign = heartbeatAt.getTime() === 0 ? "" : ` (last sign of life ${formatDuration(ago)} ago)`;
  return printable(`deployment ${id}${owner ? ` of ${owner}` : ""}${sign}`);
}
