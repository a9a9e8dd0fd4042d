/**
 * `createOrchestrator`: maintenance for a service that keeps running.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { messageOf } from "../errors.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import {
  enterMaintenance,
  exitMaintenance,
  getMaintenanceStatus,
  requestMaintenance,
} from "../commands/maintenance.ts";
import { migrate } from "../commands/migrate.ts";
import { readState } from "../maintenance/state.ts";
import { openSession } from "./database.ts";

/** What an orchestrator needs to know. */
export interface OrchestratorConfig {
  /** Connection URL, as libpq reads it. */
  readonly databaseUrl: string;
  /** Whether `start()` applies pending migrations; meant for development. Default: false */
  readonly autoMigrate?: boolean;
  /** Milliseconds between two checks for a transition that is due. Default: 5000 */
  readonly maintenanceCheckIntervalMs?: number;
  /** Schema that PipeWeave's tables live in. Default: `public` */
  readonly schema?: string;
  /** Told what happens, a line at a time: the mode at the start, its changes, failed checks. Default: nobody is */
  readonly onMessage?: (message: string) => void;
}

/** A running service's hold on maintenance. */
export interface Orchestrator {
  /**
   * Migrates if asked to, reports the mode, and starts to check for transitions.
   *
   * @throws {PipeweaveError} when the database cannot be reached, is not migrated, or a migration fails
   */
  start(): Promise<void>;
  /** Ends the checks and the connection; resolves when nothing is left running. */
  stop(): Promise<void>;
  /** Tells the status, after completing a transition that is due. */
  getMaintenanceStatus(): Promise<MaintenanceStatus>;
  /** Asks for maintenance; enters at once when nothing is active. */
  requestMaintenance(): Promise<MaintenanceStatus>;
  /**
   * Enters maintenance.
   *
   * @throws {PipeweaveError} of kind `condition` when tasks are active, or nobody requested it
   */
  enterMaintenance(): Promise<MaintenanceStatus>;
  /** Ends maintenance, or the wait for it. */
  exitMaintenance(): Promise<void>;
  /**
   * Whether the mode is `running`. A hint: the mode may change before the answer arrives.
   */
  canAcceptTasks(): Promise<boolean>;
}

/** Default of {@linkcode OrchestratorConfig.maintenanceCheckIntervalMs}. */
const CHECK_INTERVAL_MS = 5000;

/**
 * Makes an orchestrator. It does nothing before `start()`; its other methods work without it.
 *
 * @example Migrate in development, drain before a deployment
 * ```ts no-assert
 * import { createOrchestrator } from "@pipeweave/cli";
 *
 * const databaseUrl = Deno.env.get("DATABASE_URL");
 * if (databaseUrl) {
 *   const orchestrator = createOrchestrator({ databaseUrl, autoMigrate: true });
 *   await orchestrator.start();
 *   const { message } = await orchestrator.requestMaintenance();
 *   console.log(message);
 *   await orchestrator.exitMaintenance();
 *   await orchestrator.stop();
 * }
 * ```
 */
export function createOrchestrator(config: OrchestratorConfig): Orchestrator {
  return new DatabaseOrchestrator(config);
}

class DatabaseOrchestrator implements Orchestrator {
  readonly #session: Session;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #check: Promise<void> = Promise.resolve();
  #stopped = false;
  #mode: MaintenanceStatus["mode"] | undefined;

  constructor(readonly config: OrchestratorConfig) {
    this.#session = openSession(config);
  }

  async start(): Promise<void> {
    if (this.config.autoMigrate) {
      const { applied, failed } = await migrate(this.#session);
      if (failed) throw failed.error;
      if (applied.length > 0) this.#tell(`Applied ${applied.length} migration(s)`);
    }
    await this.#look();
    this.#schedule();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#check;
    await this.#session.close();
  }

  getMaintenanceStatus(): Promise<MaintenanceStatus> {
    return getMaintenanceStatus(this.#session);
  }

  requestMaintenance(): Promise<MaintenanceStatus> {
    return requestMaintenance(this.#session);
  }

  enterMaintenance(): Promise<MaintenanceStatus> {
    return enterMaintenance(this.#session);
  }

  async exitMaintenance(): Promise<void> {
    await exitMaintenance(this.#session);
  }

  async canAcceptTasks(): Promise<boolean> {
    return (await readState(this.#session)).mode === "running";
  }

  async #look(): Promise<void> {
    const { mode, message } = await this.getMaintenanceStatus();
    if (mode !== this.#mode) this.#tell(`Mode: ${mode} (${message})`);
    this.#mode = mode;
  }

  /** One check at a time: the next is due an interval after the last has ended. */
  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      // A lost connection is no reason to end: the next check connects anew.
      this.#check = this.#look().catch((error) => this.#tell(`Check failed: ${messageOf(error)}`)).then(() =>
        this.#schedule()
      );
    }, this.config.maintenanceCheckIntervalMs ?? CHECK_INTERVAL_MS);
  }

  #tell(message: string): void {
    this.config.onMessage?.(message);
  }
}
