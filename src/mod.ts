/**
 * PipeWeave's database and maintenance tools as a library.
 *
 * Every function takes a connection URL (or {@linkcode DatabaseOptions}) and leaves no connection behind; for a service
 * that keeps running there is {@linkcode createOrchestrator}. What fails in an expected way throws a
 * {@linkcode PipeweaveError}, whose `kind` and `code` are stable.
 *
 * @module
 */

export {
  baselineMigrations,
  canAcceptTasks,
  checkMaintenanceTransition,
  cleanup,
  deploy,
  discoverMigrations,
  enterMaintenance,
  exitMaintenance,
  getMaintenanceStatus,
  getMigrationHistory,
  getMigrationStatus,
  getOrchestratorState,
  repairMigration,
  requestMaintenance,
  rollbackMigrations,
  runMigrations,
  validateMigrations,
} from "./orchestrator/functions.ts";
export {
  createOrchestrator,
  ModeChangeEvent,
  type Orchestrator,
  type OrchestratorConfig,
  type OrchestratorEvents,
} from "./orchestrator/orchestrator.ts";
export type { DatabaseConfig, DatabaseOptions, DatabaseTarget } from "./orchestrator/database.ts";
export type { RetiredSettings } from "./orchestrator/retired_settings.ts";
export type { CleanupProgress } from "./cleanup/batches.ts";
export type { CleanupOptions, CleanupResult, KeptRows } from "./cleanup/cleanup.ts";
export type { BaselineResult, ByHand, RepairResult } from "./commands/history.ts";
export type { RollbackCommandOptions } from "./commands/rollback.ts";
export type { LogAction, LogRow } from "./engine/log.ts";
export type { RollbackOptions, RollbackRange, RollbackResult, RollbackStep } from "./engine/rollback.ts";
export { type ErrorDetails, type ErrorKind, PipeweaveError, type SqlLocation } from "./errors.ts";
export type {
  DeployedMode,
  DeployEvents,
  DeployOptions,
  DeployRequest,
  DeployResult,
} from "./commands/deploy.ts";
export type { Drained, DrainEvents, Ending } from "./commands/drain.ts";
export type { RequestResult, StuckDrain } from "./commands/maintenance.ts";
export type { MaintenanceEntry, MigrateOptions } from "./commands/migrate.ts";
export type { OtherHistory } from "./engine/other_tools.ts";
export type { DatabaseStatus } from "./commands/status.ts";
export type { ValidateOptions, ValidationResult } from "./commands/validate.ts";
export type { Activity } from "./engine/activity.ts";
export type { AppliedNow, ApplyOptions, ApplyResult, FailedMigration } from "./engine/apply_types.ts";
export type { Actor } from "./config/actor.ts";
export type { LockWaitOptions } from "./engine/lock_wait.ts";
export type { Limits } from "./engine/message.ts";
export type { Directives } from "./migrations/directives.ts";
export type { Discovery, MigrationSources, SetOfFiles } from "./migrations/discover.ts";
export type { Finding } from "./migrations/finding.ts";
export type { AppliedMigration, Migration, MigrationSet } from "./migrations/migration.ts";
export type {
  Contradiction,
  HistoryRow,
  MigrationStatus,
  PartialMigration,
  TakenNumber,
  Tolerance,
} from "./migrations/plan.ts";
export type { GateLockOptions } from "./maintenance/gate_lock.ts";
export type { DeploymentSeen } from "./maintenance/deployments.ts";
export type { ChangeOptions, Drain, OrchestratorState } from "./maintenance/state.ts";
export type { MaintenanceStatus } from "./maintenance/status.ts";
export type { ActiveTask } from "./maintenance/tasks.ts";
export type { Look } from "./maintenance/wait.ts";
export type { OrchestratorMode } from "./maintenance/transitions.ts";
