/**
 * `createOrchestrator`: maintenance for a service that keeps running.
 *
 * @module
 */

import { emitWarning } from "node:process";
import type { Session } from "../database/session.ts";
import { interrupted, messageOf, PipeweaveError } from "../errors.ts";
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
import { answered, Bell, waitUntil } from "../maintenance/wait.ts";
import { type DatabaseOptions, openSession } from "./database.ts";
import { type RetiredSettings, unusedSettings } from "./retired_settings.ts";

/** Configuration of an orchestrator. Either `databaseUrl` or `databaseConfig` names the database. */
export interface OrchestratorConfig extends Omit<DatabaseOptions, "signal">, RetiredSettings {
  /** Whether `start()` applies pending migrations; meant for development. Default: false */
  readonly autoMigrate?: boolean | undefined;
  /** Milliseconds between two checks for a transition that is due. Default: 5000 */
  readonly maintenanceCheckIntervalMs?: number | undefined;
  /** Told what happens, a line at a time: the mode at the start, its changes, failed checks. Default: nobody is */
  readonly onMessage?: ((message: string) => void) | undefined;
}

/** The settings that are used. */
const USED: ReadonlySet<string> = new Set<keyof OrchestratorConfig>([
  ...["databaseUrl", "databaseConfig", "schema"] as const,
  ...["autoMigrate", "maintenanceCheckIntervalMs", "onMessage"] as const,
]);

/** Events of an {@linkcode Orchestrator}, by name. */
export interface OrchestratorEvents {
  /** The mode is another than at the last look. */
  readonly modechange: ModeChangeEvent;
}

/** The mode is another than at the last look. */
export class ModeChangeEvent extends Event {
  /** As it was just read. */
  readonly status: MaintenanceStatus;
  /** The mode of the last look; undefined at the first. */
  readonly previous: MaintenanceStatus["mode"] | undefined;

  /**
   * Describes a change.
   *
   * @param status as it was just read
   * @param previous the mode of the last look; undefined at the first
   */
  constructor(status: MaintenanceStatus, previous: MaintenanceStatus["mode"] | undefined) {
    super("modechange");
    this.status = status;
    this.previous = previous;
  }
}

/**
 * A running service's hold on maintenance. Dispatches {@linkcode ModeChangeEvent} "modechange" whenever it has read a
 * mode that differs from the one before, the first one included.
 */
export interface Orchestrator extends EventTarget, AsyncDisposable {
  /**
   * Calls a listener for an event, whose type follows from its name.
   *
   * @param type of the event
   * @param listener called with the event
   * @param options as of `EventTarget`
   */
  addEventListener<Name extends keyof OrchestratorEvents>(
    type: Name,
    listener: (event: OrchestratorEvents[Name]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  /**
   * Calls a listener for any event.
   *
   * @param type of the event
   * @param listener called with the event
   * @param options as of `EventTarget`
   */
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  /**
   * Migrates if asked to, reports the mode, and starts to listen and to check for transitions. A connection that is lost
   * later, or on which nothing is answered within three intervals, is made again, with growing pauses. After
   * {@linkcode stop} it may be started again.
   *
   * @throws {PipeweaveError} when the database cannot be reached, is not migrated, or a migration fails; of kind `usage`
   *   when it runs already
   */
  start(): Promise<void>;
  /** Ends the checks and the connection, also of a start that is under way; resolves when nothing is left running. */
  stop(): Promise<void>;
  /** Reads the maintenance status; completes a pending transition first. */
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
/** Lower bound of the time that an answer may take, in milliseconds, however short the interval is. */
const LEAST_ANSWER_MS = 1000;
/** Default limit for the locks of a change of the mode, in milliseconds. The same as in `GateLockOptions`. */
const LOCK_WAIT_MS = 10_000;
/** Time that `stop()` gives a look that is under way, in milliseconds. */
const LAST_LOOK_MS = 1000;

/**
 * Makes an orchestrator. It does nothing before `start()`; its other methods work without it.
 *
 * @example Migrate in development, drain before a deployment
 * ```ts no-assert
 * import { createOrchestrator } from "@pipeweave/orchestrator";
 *
 * const databaseUrl = process.env.DATABASE_URL;
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
  /** Present from `start()` to the end of `stop()`. */
  #running:
    | { readonly stopping: AbortController; started: Promise<void>; watching: Promise<void> }
    | undefined;
  #mode: MaintenanceStatus["mode"] | undefined;

  readonly config: OrchestratorConfig;

  constructor(config: OrchestratorConfig) {
    super();
    this.config = config;
    this.#session = openSession(config, { onNotify: this.#bell.ring });
  }

  async start(): Promise<void> {
    if (this.#running) {
      throw new PipeweaveError("usage", "already_started", "The orchestrator runs already", {
        hint: "Call start() once, and again only after stop() has resolved.",
      });
    }
    const running = {
      stopping: new AbortController(),
      started: Promise.resolve(),
      watching: Promise.resolve(),
    };
    this.#running = running;
    running.started = this.#start(running.stopping.signal);
    try {
      await running.started;
    } catch (error) {
      if (this.#running === running) this.#running = undefined;
      throw error;
    }
    running.watching = this.#watch(running.stopping.signal);
  }

  async #start(signal: AbortSignal): Promise<void> {
    this.#mode = undefined;
    this.#tellUnused();
    if (this.config.autoMigrate) {
      const { applied, failed } = await migrate(this.#session, { signal });
      if (failed) throw failed.error;
      if (applied.length > 0) this.#tell(`Applied ${applied.length} migration(s)`);
    }
    const status = await this.getMaintenanceStatus();
    if (signal.aborted) throw interrupted("The orchestrator was stopped before it had started");
    this.#seen(status);
  }

  async stop(): Promise<void> {
    const running = this.#running;
    running?.stopping.abort();
    // A look may be under way, on a connection that does not answer any more: closing it is what ends the look then.
    let closing: Promise<void> | undefined;
    const late = setTimeout(() => {
      this.#session.abandon();
      closing = this.#session.close();
    }, LAST_LOOK_MS);
    await running?.started.catch(() => {});
    await running?.watching;
    clearTimeout(late);
    await (closing ?? this.#session.close());
    if (this.#running === running) this.#running = undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  getMaintenanceStatus(): Promise<MaintenanceStatus> {
    return this.#answered(getMaintenanceStatus(this.#session));
  }

  requestMaintenance(options: ChangeOptions = {}): Promise<RequestResult> {
    return this.#answered(requestMaintenance(this.#session, options), options.lockWaitMs ?? LOCK_WAIT_MS);
  }

  enterMaintenance(options: ChangeOptions = {}): Promise<MaintenanceStatus> {
    return this.#answered(enterMaintenance(this.#session, options), options.lockWaitMs ?? LOCK_WAIT_MS);
  }

  async exitMaintenance(options: ChangeOptions = {}): Promise<void> {
    await this.#answered(exitMaintenance(this.#session, options), options.lockWaitMs ?? LOCK_WAIT_MS);
  }

  async canAcceptTasks(): Promise<boolean> {
    return (await this.#answered(readState(this.#session))).mode === "running";
  }

  /** Looks whenever it is told to, and every interval, until {@linkcode stop}. */
  async #watch(signal: AbortSignal): Promise<void> {
    const intervalMs = this.#intervalMs;
    const onTrouble = (reason: string) => this.#tell(`Check failed: ${reason}`);
    while (!signal.aborted) {
      try {
        await waitUntil(this.#session, this.#bell, () => signal.aborted, {
          ...{ deadline: Infinity, intervalMs, signal, onTrouble, answerWithinMs: this.#answerWithinMs },
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

  /**
   * What a call comes to. It fails where nothing is answered in time: a connection that has gone silent (NAT, a load
   * balancer, a failover) would hang for ever.
   *
   * @param moreMs what else it may wait for
   */
  #answered<T>(work: Promise<T>, moreMs = 0): Promise<T> {
    return answered(work, this.#session, {
      ...{ deadline: Infinity, answerWithinMs: this.#answerWithinMs + moreMs },
    });
  }

  /** A look comes an interval after the one before, and so a silence is told within three intervals. */
  get #answerWithinMs(): number {
    return Math.max(2 * this.#intervalMs, LEAST_ANSWER_MS);
  }

  get #intervalMs(): number {
    return this.config.maintenanceCheckIntervalMs ?? CHECK_INTERVAL_MS;
  }

  #seen(status: MaintenanceStatus): void {
    const previous = this.#mode;
    if (status.mode === previous) return;
    this.#mode = status.mode;
    this.#tell(`Mode: ${status.mode} (${status.message})`);
    this.dispatchEvent(new ModeChangeEvent(status, previous));
  }

  /** An old configuration goes on working, but nobody is to think that all of it does something. */
  #tellUnused(): void {
    const unused = unusedSettings(this.config, USED);
    if (unused.length === 0) return;
    const message = `Settings that are not used: ${unused.join(", ")}`;
    if (this.config.onMessage) this.#tell(message);
    else emitWarning(message, { type: "PipeweaveWarning" });
  }

  #tell(message: string): void {
    this.config.onMessage?.(message);
  }
}
