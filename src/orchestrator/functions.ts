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
import { migrate, type MigrateOptions } from "../commands/migrate.ts";
import { type DatabaseStatus, migrationStatus } from "../commands/status.ts";
import {
  validateMigrations as validate,
  type ValidateOptions,
  type ValidationResult,
} from "../commands/validate.ts";
import type { ApplyResult } from "../engine/apply_types.ts";
import { discover, type Discovery, type MigrationSources } from "../migrations/discover.ts";
import { type ChangeOptions, type OrchestratorState, readState } from "../maintenance/state.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { Bell } from "../maintenance/wait.ts";
import { type DatabaseTarget, openSession, withSession } from "./database.ts";

/**
 * Applies pending migrations, each in a transaction of its own, in order, up to the first that fails. A migration that
 * failed is in the result; what was applied before it stays applied.
 *
 * @example
 * ```ts no-assert
 * import { runMigrations } from "@pipeweave/cli";
 *
 * const databaseUrl = Deno.env.get("DATABASE_URL");
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
 * import { validateMigrations } from "@pipeweave/cli";
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
 * import { discoverMigrations } from "@pipeweave/cli";
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

/** Tells the status of maintenance, after completing a transition that is due. */
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
 * import { deploy } from "@pipeweave/cli";
 *
 * const databaseUrl = Deno.env.get("DATABASE_URL");
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

/** Completes a transition that is due, and tells whether the mode is `maintenance` now. */
export async function checkMaintenanceTransition(database: DatabaseTarget): Promise<boolean> {
  return (await getMaintenanceStatus(database)).mode === "maintenance";
}
