/**
 * `db:rollback`: undoes migrations by their down files.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import type { MigrationSources } from "../migrations/discover.ts";
import {
  planRollback,
  rollBack,
  type RollbackOptions,
  type RollbackRange,
  type RollbackResult,
  type RollbackStep,
} from "../engine/rollback.ts";
import { assertRunnable } from "../migrations/validate.ts";
import { compare } from "./status.ts";
import { assertMaintenance, findingsIn, needsOf } from "./maintenance_need.ts";

/** Options of {@linkcode rollback}. */
export interface RollbackCommandOptions extends MigrationSources, RollbackRange, RollbackOptions {
  /** Do also what needs maintenance while tasks are active; the log keeps that. Default: false */
  readonly allowOnline?: boolean | undefined;
  /** Asked before anything is done; throws to leave it. */
  readonly confirm?: ((steps: readonly RollbackStep[]) => Promise<void>) | undefined;
}

/**
 * Rolls back the last applied migrations.
 *
 * @throws {PipeweaveError} of kind `integrity` when a down file is missing, `condition` when a roll-back needs
 *   maintenance and tasks are active: nothing was changed then
 */
export async function rollback(session: Session, options: RollbackCommandOptions): Promise<RollbackResult> {
  const { migrations, history } = await compare(session, options, "Nothing was changed");
  const steps = planRollback(migrations, history, options);
  if (steps.length === 0) return { rolledBack: [], failed: null };
  const downs = steps.map(({ down }) => down);
  await assertRunnable(downs, session.settings);
  const needs = needsOf(downs, await findingsIn(session, downs));
  const { overridden } = await assertMaintenance(session, needs, options.allowOnline === true);
  await options.confirm?.(steps);
  const details = overridden && { allowedOnline: { ...overridden, needs: [...needs.values()].flat() } };
  return await rollBack(session, steps, history, { ...options, ...(details ? { details } : {}) });
}
