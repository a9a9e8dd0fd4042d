/**
 * Which migrations need maintenance, and whether they may be applied now.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { lookAtState, readQueue } from "../maintenance/state.ts";
import { tasks } from "../maintenance/status.ts";
import { lintAll, type LintFinding } from "../lint/lint.ts";
import { measureOn } from "./measured_alter.ts";
import { EMBEDDED, labelOf, type Migration } from "../migrations/migration.ts";

/** Reasons for maintenance, by migration. */
export type Needs = ReadonlyMap<Migration, readonly string[]>;

/** What lint finds in migrations that are to be applied to a database, which it asks. PipeWeave's own are judged by review. */
export async function findingsIn(
  session: Session,
  pending: readonly Migration[],
): Promise<readonly LintFinding[]> {
  return await lintAll(pending.filter(({ source }) => source !== EMBEDDED), { measure: measureOn(session) });
}

/** The migrations that need maintenance: marked so, or with a finding that keeps others waiting. */
export function needsOf(pending: readonly Migration[], findings: readonly LintFinding[]): Needs {
  const needs = pending.map(({ file, directives }) => [
    ...(directives.requiresMaintenance ? ["it is marked requires maintenance"] : []),
    ...findings.filter((finding) => finding.file === file && finding.blocks !== "nobody").map((
      { code, message, blocks, location },
    ) => `line ${location?.line}: ${message}, which blocks ${blocks} (${code})`),
  ]);
  return new Map(
    pending.map((migration, index) => [migration, needs[index]!] as const).filter(([, reasons]) =>
      reasons.length > 0
    ),
  );
}

/** Result of the check for maintenance. */
export interface MaintenanceCheck {
  /** What `allowOnline` overrode, if anything. */
  readonly overridden: { readonly mode: string; readonly activeTasks: number } | undefined;
  /** Whether migrations that need maintenance have it. */
  readonly isInMaintenance: boolean;
}

/**
 * Refuses migrations that need maintenance while tasks are active and the orchestrator is not in maintenance.
 *
 * @param allowOnline go on all the same
 * @throws {PipeweaveError} of kind `condition`, naming each need
 */
export async function assertMaintenance(
  session: Session,
  needs: Needs,
  allowOnline: boolean,
): Promise<MaintenanceCheck> {
  const state = needs.size === 0 ? undefined : await readQueue(session);
  const isInMaintenance = state?.mode === "maintenance";
  // Repairs a gate that does not follow the mode; each migration's transaction finds out whether it does.
  if (isInMaintenance) await lookAtState(session);
  if (!state || isInMaintenance || state.activeTasks === 0) return { overridden: undefined, isInMaintenance };
  const { activeTasks } = state;
  if (allowOnline) return { overridden: { mode: state.mode, activeTasks }, isInMaintenance };
  const names = [...needs.keys()].map(labelOf);
  throw new PipeweaveError(
    "condition",
    "needs_maintenance",
    `${names.join(", ")} ${
      names.length === 1 ? "needs" : "need"
    } maintenance, but the mode is ${state.mode} and ${tasks(activeTasks)} ${
      activeTasks === 1 ? "is" : "are"
    } active. Nothing was applied.`,
    {
      problems: needLines(needs),
      hint:
        "Run: pipeweave db:migrate --maintenance, which drains, migrates and goes back to running. Or step by step: " +
        "maintenance:request --wait, db:migrate, maintenance:exit. " +
        "Or write it the safe way (pipeweave db:lint tells how), or go on with --allow-online, which the log keeps.",
      data: {
        needs: Object.fromEntries([...needs].map(([migration, reasons]) => [labelOf(migration), reasons])),
      },
    },
  );
}

/** Lists the reasons, one per line. */
export function needLines(needs: Needs): readonly string[] {
  return [...needs].flatMap(([migration, reasons]) =>
    reasons.map((reason) => `${labelOf(migration)}: ${reason}`)
  );
}

/** Whether the database has a task queue that can be drained. */
export async function hasQueue(session: Session): Promise<boolean> {
  return await readQueue(session) !== undefined;
}
