/**
 * `db:migrate`: applies what is pending.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { activeCount, readState, restoreState } from "../maintenance/state.ts";
import { tasks } from "../maintenance/status.ts";
import { applyMigrations, type ApplyOptions, type ApplyResult } from "../migrations/apply.ts";
import { discover, EMBEDDED, type MigrationSources } from "../migrations/discover.ts";
import type { Finding } from "../migrations/finding.ts";
import { historyTable, readHistory } from "../migrations/history.ts";
import { labelOf, type Migration, versionKey } from "../migrations/migration.ts";
import { assertApplicable, type MigrationStatus, planMigrations, upTo } from "../migrations/plan.ts";
import { assertNoErrors, assertRunnable } from "../migrations/validate.ts";

/** What to apply, how, and whom to tell. */
export interface MigrateOptions extends MigrationSources, ApplyOptions {
  /** Told what there is to do, before anything is applied. */
  readonly onPlan?: (status: MigrationStatus, files: number) => void;
  /** Told of each finding that is no error. */
  readonly onWarning?: (finding: Finding) => void;
}

/**
 * Applies pending migrations, each in a transaction of its own, in order, up to the first that fails.
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid or contradict the history, `condition` when a
 *   migration needs maintenance and the orchestrator runs: nothing was applied then
 */
export async function migrate(session: Session, options: MigrateOptions = {}): Promise<ApplyResult> {
  const { migrations, findings } = await discover(options);
  assertNoErrors(findings, "Nothing was applied");
  for (const finding of findings) options.onWarning?.(finding);

  const { schema } = session.settings;
  const tracking = migrations.find(({ source, version }) =>
    source === EMBEDDED && versionKey(version) === "0"
  );
  const restore = tracking && restoreState(schema, historyTable(schema), tracking.sql);
  const history = await readHistory(session, restore);
  const status = planMigrations(migrations, history.rows);
  assertApplicable(status, options.tolerance);
  const pending = upTo(options.to, migrations, status.pending);
  options.onPlan?.({ ...status, pending }, migrations.length);
  if (pending.length === 0) return { applied: [], failed: null, status };
  if (session.parameter("in_hot_standby") === "on") throw readOnlyServer(session, status);
  // PipeWeave's own were checked when the binary was made.
  await assertRunnable(pending.filter(({ source }) => source !== EMBEDDED));
  await assertMaintenance(session, pending);
  return await applyMigrations(session, migrations, history, options);
}

function readOnlyServer(session: Session, status: MigrationStatus): PipeweaveError {
  return new PipeweaveError(
    "database",
    "read_only",
    `${session.target} is a read-only standby; ${status.pending.length} migration(s) are pending`,
    {
      hint: "Connect to the primary, or name all hosts and set PGTARGETSESSIONATTRS=read-write.",
    },
  );
}

async function assertMaintenance(session: Session, pending: readonly Migration[]): Promise<void> {
  const marked = pending.filter(({ directives }) => directives.requiresMaintenance);
  if (marked.length === 0) return;
  const state = await readState(session);
  const active = activeCount(state);
  if (state.mode === "maintenance" || (state.mode === "waiting_for_maintenance" && active === 0)) return;
  if (active === 0) return;
  throw new PipeweaveError(
    "condition",
    "needs_maintenance",
    `${marked.map(labelOf).join(", ")} needs maintenance, but the mode is ${state.mode} and ${
      tasks(active)
    } are active. Nothing was applied.`,
    {
      hint:
        "Run: pipeweave maintenance:request, wait until maintenance:status says maintenance, then db:migrate and maintenance:exit.",
    },
  );
}
