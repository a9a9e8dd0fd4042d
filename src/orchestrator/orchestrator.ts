/**
 * `createOrchestrator`: maintenance for a service that keeps running.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { messageOf } from "../errors.ts";
import { type MaintenanceStatus, maintenanceStatus } from "../maintenance/status.ts";
import {
  enterMaintenance,
  exitMaintenance,
  getMaintenanceStatus,
  requestMaintenance,
  type RequestResult,
} from "../commands/maintenance.ts";
import { migrate } from "../commands/migrate.ts";
import { type ChangeOptions, readState } from "../maintenance/state.ts";
import { Bell, waitUntil } from "../maintenance/wait.ts";
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

/** The mode is another than at the last look. */
export class ModeChangeEvent extends Event {
  /**
   * Describes a change.
   *
   * @param status as it was just read
   * @param previous the mode of the last look; undefined at the first
   */
  constructor(readonly status: MaintenanceStatus, readonly previous: MaintenanceStatus["mode"] | undefined) {
    super("modechange");
  }
}

/**
 * A running service's hold on maintenance. Dispatches {@linkcode ModeChangeEvent} "modechange" whenever it has read a
 * mode that differs from the one before, the first one included.
 */
export interface Orchestrator extends EventTarget {
  /**
   * Migrates if asked to, reports the mode, and starts to listen and to check for transitions. A connection that is lost
   * later is made again, with growing pauses.
   *
   * @throws {PipeweaveError} when the database cannot be reached, is not migrated, or a migration fails
   */
  start(): Promise<void>;
  /** Ends the checks and the connection; resolves when nothing is left running. */
  stop(): Promise<void>;
  /** Tells the status, after completing a transition that is due. */
  getMaintenanceStatus(): Promise<MaintenanceStatus>;
  /** Asks for maintenance; enters at once when nothing is active. */
  requestMaintenance(options?: ChangeOptions): Promise<RequestResult>;
  /**
   * Enters maintenance.
   *
   * @throws {PipeweaveError} of kind `condition` when tasks are active, or nobody requested it
   */
  enterMaintenance(options?: ChangeOptions): Promise<MaintenanceStatus>;
  /**
   * Ends maintenance, or the wait for it.
   *
   * @throws {PipeweaveError} of kind `condition` when it is somebody else's, unless forced
   */
  exitMaintenance(options?: ChangeOptions): Promise<void>;
  /**
   * Whether the mode is `running`. A hint, to save the attempt: the mode may change before the answer arrives. The
   * truth is the gate: an INSERT that comes too late fails with SQLSTATE `PW101`.
   */
  canAcceptTasks(): Promise<boolean>;
}

/** Default of {@linkcode OrchestratorConfig.maintenanceCheckIntervalMs}. */
const CHECK_INTERVAL_MS = 5000;
/** How long `stop()` lets a look under way end by itself, in milliseconds. */
const LAST_LOOK_MS = 1000;

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

class DatabaseOrchestrator extends EventTarget implements Orchestrator {
  readonly #bell = new Bell();
  readonly #session: Session;
  readonly #stopping = new AbortController();
  #watching: Promise<void> = Promise.resolve();
  #mode: MaintenanceStatus["mode"] | undefined;

  constructor(readonly config: OrchestratorConfig) {
    super();
    this.#session = openSession(config, { onNotify: this.#bell.ring });
  }

  async start(): Promise<void> {
    if (this.config.autoMigrate) {
      const { applied, failed } = await migrate(this.#session);
      if (failed) throw failed.error;
      if (applied.length > 0) this.#tell(`Applied ${applied.length} migration(s)`);
    }
    this.#seen(await this.getMaintenanceStatus());
    this.#watching = this.#watch();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    // A look may be under way, on a connection that does not answer any more: closing it is what ends the look then.
    let closing: Promise<void> | undefined;
    const late = setTimeout(() => closing = this.#session.close(), LAST_LOOK_MS);
    await this.#watching;
    clearTimeout(late);
    await (closing ?? this.#session.close());
  }

  getMaintenanceStatus(): Promise<MaintenanceStatus> {
    return getMaintenanceStatus(this.#session);
  }

  requestMaintenance(options: ChangeOptions = {}): Promise<RequestResult> {
    return requestMaintenance(this.#session, options);
  }

  enterMaintenance(options: ChangeOptions = {}): Promise<MaintenanceStatus> {
    return enterMaintenance(this.#session, options);
  }

  async exitMaintenance(options: ChangeOptions = {}): Promise<void> {
    await exitMaintenance(this.#session, options);
  }

  async canAcceptTasks(): Promise<boolean> {
    return (await readState(this.#session)).mode === "running";
  }

  /** Looks whenever it is told to, and every interval, until {@linkcode stop}. */
  async #watch(): Promise<void> {
    const { signal } = this.#stopping;
    const intervalMs = this.config.maintenanceCheckIntervalMs ?? CHECK_INTERVAL_MS;
    const onTrouble = (reason: string) => this.#tell(`Check failed: ${reason}`);
    while (!signal.aborted) {
      try {
        await waitUntil(this.#session, this.#bell, () => signal.aborted, {
          ...{ deadline: Infinity, intervalMs, signal, onTrouble },
          onLook: ({ state }) => this.#seen(maintenanceStatus(state)),
        });
      } catch (error) {
        // Somebody may be at the schema just now: no reason to give up.
        if (signal.aborted) return;
        onTrouble(messageOf(error));
        await this.#bell.wait(intervalMs, signal).catch(() => {});
      }
    }
  }

  #seen(status: MaintenanceStatus): void {
    const previous = this.#mode;
    if (status.mode === previous) return;
    this.#mode = status.mode;
    this.#tell(`Mode: ${status.mode} (${status.message})`);
    this.dispatchEvent(new ModeChangeEvent(status, previous));
  }

  #tell(message: string): void {
    this.config.onMessage?.(message);
  }
}
