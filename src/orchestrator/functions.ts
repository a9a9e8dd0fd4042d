/**
 * The library's functions: each takes a database, does one thing, and leaves no connection behind.
 *
 * @module
 */

import {
  enterMaintenance as enter,
  exitMaintenance as exit,
  getMaintenanceStatus as status,
  requestMaintenance as request,
  type RequestResult,
} from "../commands/maintenance.ts";
import { deploy as deployOver, type DeployOptions, type DeployResult } from "../commands/deploy.ts";
import {
  baseline,
  type BaselineResult,
  type ByHand,
  repairMigration as repair,
  type RepairResult,
  showHistory,
} from "../commands/history.ts";
import { migrate, type MigrateOptions } from "../commands/migrate.ts";
import { rollback, type RollbackCommandOptions } from "../commands/rollback.ts";
import { type DatabaseStatus, migrationStatus } from "../commands/status.ts";
import {
  validateMigrations as validate,
  type ValidateOptions,
  type ValidationResult,
} from "../commands/validate.ts";
import { cleanup as cleanUp, type CleanupOptions, type CleanupResult } from "../cleanup/cleanup.ts";
import type { ApplyResult } from "../engine/apply_types.ts";
import type { LogRow } from "../engine/log.ts";
import type { RollbackResult } from "../engine/rollback.ts";
import { discover, type Discovery, type MigrationSources } from "../migrations/discover.ts";
import { type ChangeOptions, lookWith, type OrchestratorState, readState } from "../maintenance/state.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { Bell } from "../maintenance/wait.ts";
import { type DatabaseTarget, openSession, withSession } from "./database.ts";

/** Entries of the log that {@linkcode getMigrationHistory} returns unless told otherwise. */
const HISTORY_ROWS = 50;

/**
 * Applies pending migrations, each in a transaction of its own, in order, up to the first that fails. A migration that
 * failed is in the result; what was applied before it stays applied.
 *
 * @example
 * ```ts no-assert
 * import { runMigrations } from "@pipeweave/orchestrator";
 *
 * const databaseUrl = process.env.DATABASE_URL;
 * if (databaseUrl) {
 *   const { applied, failed } = await runMigrations(databaseUrl);
 *   if (failed) throw failed.error;
 *   console.log(`${applied.length} applied`);
 * }
 * ```
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid or contradict the history, `condition` when a
 *   migration needs maintenance, `timeout` when another migrator is at work for too long, `connection`
 */
export function runMigrations(database: DatabaseTarget, options: MigrateOptions = {}): Promise<ApplyResult> {
  return withSession(database, (session) => migrate(session, options));
}

/**
 * Compares a database with the migration files; changes nothing.
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid, `connection`
 */
export function getMigrationStatus(
  database: DatabaseTarget,
  sources: MigrationSources = {},
): Promise<DatabaseStatus> {
  return withSession(database, (session) => migrationStatus(session, sources));
}

/**
 * Checks migration files, and compares them with a database's history.
 *
 * @param database undefined to check the files alone
 *
 * @example
 * ```ts
 * import { validateMigrations } from "@pipeweave/orchestrator";
 *
 * const { valid, findings } = await validateMigrations(undefined);
 * if (!valid) throw new Error(findings[0]?.message);
 * ```
 *
 * @throws {PipeweaveError} of kind `usage` when a folder cannot be read, `connection`
 */
export function validateMigrations(
  database: DatabaseTarget | undefined,
  options: ValidateOptions = {},
): Promise<ValidationResult> {
  return database === undefined
    ? validate(undefined, options)
    : withSession(database, (session) => validate(session, options));
}

/**
 * Finds migration files, PipeWeave's own and others', in the order in which they apply.
 *
 * @example
 * ```ts
 * import { discoverMigrations } from "@pipeweave/orchestrator";
 *
 * const { migrations } = await discoverMigrations();
 * if (migrations[0]?.name !== "migration_tracking") throw new Error("not found");
 * ```
 *
 * @throws {PipeweaveError} of kind `usage` when a folder cannot be read or holds no `.sql` file
 */
export function discoverMigrations(sources: MigrationSources = {}): Promise<Discovery> {
  return new Promise((resolve) => resolve(discover(sources)));
}

/**
 * Reads the state of the orchestrator and counts the active tasks; changes nothing.
 *
 * @throws {PipeweaveError} of kind `database` when the schema is not migrated, `connection`
 */
export function getOrchestratorState(database: DatabaseTarget): Promise<OrchestratorState> {
  return withSession(database, readState);
}

/** Reads the maintenance status; completes a pending transition first. */
export function getMaintenanceStatus(database: DatabaseTarget): Promise<MaintenanceStatus> {
  return withSession(database, status);
}

/**
 * Asks for maintenance; enters at once when nothing is active. From then on PostgreSQL refuses new tasks (SQLSTATE
 * `PW101`).
 *
 * @throws {PipeweaveError} of kind `timeout` when transactions that have written to `task_runs` do not end
 */
export function requestMaintenance(
  database: DatabaseTarget,
  options: ChangeOptions = {},
): Promise<RequestResult> {
  return withSession(database, (session) => request(session, options));
}

/**
 * Enters maintenance, which was requested before.
 *
 * @throws {PipeweaveError} of kind `condition` when tasks are active, or nobody requested it
 */
export function enterMaintenance(
  database: DatabaseTarget,
  options: ChangeOptions = {},
): Promise<MaintenanceStatus> {
  return withSession(database, (session) => enter(session, options));
}

/**
 * Ends maintenance, or the wait for it.
 *
 * @throws {PipeweaveError} of kind `condition` when it is somebody else's, unless forced
 */
export function exitMaintenance(
  database: DatabaseTarget,
  options: ChangeOptions = {},
): Promise<MaintenanceStatus> {
  return withSession(database, (session) => exit(session, options));
}

/**
 * Whether the mode is `running`. A hint, to save the attempt: the mode may change before the answer arrives. The truth
 * is the gate: an INSERT that comes too late fails with SQLSTATE `PW101`.
 */
export async function canAcceptTasks(database: DatabaseTarget): Promise<boolean> {
  return (await getOrchestratorState(database)).mode === "running";
}

/**
 * Deploys: applies what is pending, in maintenance where that is needed, and ends the maintenance that it asked for. A
 * migration that failed is in the result, with what became of the mode.
 *
 * @example
 * ```ts no-assert
 * import { deploy } from "@pipeweave/orchestrator";
 *
 * const databaseUrl = process.env.DATABASE_URL;
 * if (databaseUrl) {
 *   const { applied, failed, maintenance } = await deploy(databaseUrl, {
 *     dirs: ["./migrations"],
 *     request: { reason: "release 42" },
 *     drainTimeoutMs: 600_000,
 *   });
 *   if (failed) throw failed.error;
 *   console.log(`${applied.length} applied; the mode is ${maintenance?.mode ?? "running"}`);
 * }
 * ```
 *
 * @throws {PipeweaveError} as {@linkcode runMigrations}; of kind `timeout` when the drain takes too long, `condition` when
 *   somebody called it off. It says what became of the mode.
 */
export async function deploy(database: DatabaseTarget, options: DeployOptions = {}): Promise<DeployResult> {
  const bell = new Bell();
  const session = openSession(database, { onNotify: bell.ring });
  try {
    return await deployOver(session, bell, options);
  } finally {
    await session.close();
  }
}

/**
 * Enters maintenance if it was requested and nothing is active any more.
 *
 * @returns whether this call entered it; false where it was on already
 */
export async function checkMaintenanceTransition(database: DatabaseTarget): Promise<boolean> {
  return (await withSession(database, (session) => lookWith(session, {}))).entered;
}

/**
 * Rolls back the migrations that were applied last, by their down files, each in a transaction of its own. A roll-back
 * that failed is in the result; what was rolled back before it stays so.
 *
 * @throws {PipeweaveError} of kind `integrity` when a down file is missing, `condition` when a roll-back needs
 *   maintenance and tasks are active, `connection`
 */
export function rollbackMigrations(
  database: DatabaseTarget,
  options: RollbackCommandOptions = {},
): Promise<RollbackResult> {
  return withSession(database, (session) => rollback(session, options));
}

/**
 * Reads the log of migrations: what was applied, rolled back, repaired and adopted, by whom, and how it ended.
 *
 * @returns the latest first
 * @throws {PipeweaveError} of kind `connection`
 */
export function getMigrationHistory(
  database: DatabaseTarget,
  { limit = HISTORY_ROWS }: { readonly limit?: number | undefined } = {},
): Promise<readonly LogRow[]> {
  return withSession(database, (session) => showHistory(session, { limit }));
}

/**
 * Records migrations as applied without running them: for a database that has their objects already.
 *
 * @param version the last one; those before it of the same set are recorded too
 * @throws {PipeweaveError} of kind `usage` when there is no such version, `integrity` when the history contradicts the
 *   files, `connection`
 */
export function baselineMigrations(
  database: DatabaseTarget,
  version: string,
  options: ByHand = {},
): Promise<BaselineResult> {
  return withSession(database, (session) => baseline(session, version, options));
}

/**
 * Accepts a file that was edited after it was applied: its checksum goes to the history.
 *
 * @throws {PipeweaveError} of kind `usage` when there is no such version, `connection`
 */
export function repairMigration(
  database: DatabaseTarget,
  version: string,
  options: ByHand = {},
): Promise<RepairResult> {
  return withSession(database, (session) => repair(session, version, options));
}

/**
 * Removes what has expired: cached results, old entries of the dead letter queue, records of uploads whose files are
 * gone. In batches, each in a transaction of its own.
 *
 * @throws {PipeweaveError} of kind `database` when a table cannot be cleaned; the others were, and the error says what
 *   went; `connection`
 */
export function cleanup(database: DatabaseTarget, options: CleanupOptions = {}): Promise<CleanupResult> {
  return withSession(database, (session) => cleanUp(session, options));
}
