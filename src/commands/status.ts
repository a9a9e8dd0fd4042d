/**
 * `db:status`: where the database stands.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { type Discovery, type MigrationSources, readFiles, type SetOfFiles } from "../migrations/discover.ts";
import { type History, readHistory } from "../engine/history.ts";
import { findOtherHistory, type OtherHistory } from "../engine/other_tools.ts";
import { listOf, setOf } from "../migrations/migration.ts";
import {
  type Contradiction,
  contradictions,
  type MigrationStatus,
  planMigrations,
  refuse,
} from "../migrations/plan.ts";
import { assertNoErrors } from "../migrations/validate.ts";

/**
 * Compares the database with the migration files.
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid
 */
export async function migrationStatus(
  session: Session,
  sources: MigrationSources = {},
): Promise<DatabaseStatus> {
  const { migrations, sets, status } = await compare(session, sources);
  // Only a database in which nothing of this tool's is applied may be another tool's.
  const isNew = status.applied.every((row) => row.set !== "user") &&
    status.pending.some((one) => setOf(one) === "user");
  const otherHistories = isNew ? await findOtherHistory(session) : [];
  return { ...status, sets, contradictions: contradictions(migrations, status), otherHistories };
}

/** Migration status of a database, and the files that it was compared with. */
export interface DatabaseStatus extends MigrationStatus {
  /** The sets of files that take part. */
  readonly sets: readonly SetOfFiles[];
  /** Histories of other tools, where nothing of the user's was applied by this one. */
  readonly otherHistories: readonly OtherHistory[];
  /** In what files and history contradict each other. */
  readonly contradictions: readonly Contradiction[];
}

/** The files that take part, and the history that they were compared with. */
export interface Comparison extends Discovery {
  readonly history: History;
  readonly status: MigrationStatus;
}

/**
 * Reads files and history, and compares them.
 *
 * @param state the state that things are in now, for the error of invalid files
 * @throws {PipeweaveError} of kind `integrity` when files are invalid
 */
export async function compare(
  session: Session,
  sources: MigrationSources,
  state = "The database was not asked",
): Promise<Comparison> {
  const files = readFiles(sources);
  assertNoErrors(files.own.flatMap(({ findings }) => findings), state);
  const history = await readHistory(session);
  const found = files.takingPart(history.rows);
  assertNoErrors(found.findings, state);
  return { ...found, history, status: planMigrations(found.migrations, history) };
}

/**
 * Holds a status against what a deployment needs: everything applied, nothing changed.
 *
 * @throws {PipeweaveError} of kind `integrity` when files and history contradict each other, `condition` when
 *   migrations are pending
 */
export function checkStatus(status: DatabaseStatus): void {
  refuse(status.contradictions);
  if (status.pending.length === 0) return;
  throw new PipeweaveError(
    "condition",
    "pending",
    `${status.pending.length} migration(s) are pending: ${listOf(status.pending)}`,
    {
      hint: "Run: pipeweave db:migrate",
    },
  );
}
