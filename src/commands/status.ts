/**
 * `db:status`: where the database stands.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { discover, type MigrationSources } from "../migrations/discover.ts";
import { readHistory } from "../engine/history.ts";
import { labelOf } from "../migrations/migration.ts";
import { assertApplicable, type MigrationStatus, planMigrations } from "../migrations/plan.ts";
import { assertNoErrors } from "../migrations/validate.ts";

/**
 * Compares the database with the migration files.
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid
 */
export async function migrationStatus(
  session: Session,
  sources: MigrationSources = {},
): Promise<MigrationStatus> {
  const { migrations, findings } = discover(sources);
  assertNoErrors(findings, "The database was not asked");
  return planMigrations(migrations, (await readHistory(session)).rows);
}

/**
 * Holds a status against what a deployment needs: everything applied, nothing changed.
 *
 * @throws {PipeweaveError} of kind `integrity` when files and history contradict each other, `condition` when
 *   migrations are pending
 */
export function checkStatus(status: MigrationStatus): void {
  assertApplicable(status);
  if (status.pending.length === 0) return;
  throw new PipeweaveError(
    "condition",
    "pending",
    `${status.pending.length} migration(s) are pending: ${status.pending.map(labelOf).join(", ")}`,
    {
      hint: "Run: pipeweave db:migrate",
    },
  );
}
