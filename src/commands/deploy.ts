/**
 * A deployment: request, drain, migrate, exit, as one. `db:migrate --maintenance`, and `deploy()` of the library.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { messageOf, PipeweaveError } from "../errors.ts";
import { DeploymentRun, type DeploymentSeen, seenDeployment } from "../maintenance/deployments.ts";
import { adoptRequest, type ChangeOptions, ownerIn } from "../maintenance/state.ts";
import { describeRequest, type MaintenanceStatus } from "../maintenance/status.ts";
import { answered, Bell } from "../maintenance/wait.ts";
import type { OrchestratorMode } from "../maintenance/transitions.ts";
import type { ApplyResult } from "../engine/apply_types.ts";
import { drain, DRAIN_TIMEOUT_MS, type Drained, type DrainEvents, type Ending } from "./drain.ts";
import { exitMaintenance, getMaintenanceStatus } from "./maintenance.ts";
import { migrate, type MigrateOptions } from "./migrate.ts";

/** Reason of a deployment that gives none. */
const REASON = "db:migrate";
/** Pause between two looks at another deployment that may be dead, in milliseconds. */
const LOOK_EVERY_MS = 500;
/** Limit for a look or an exit beside the migrations, in milliseconds. */
const BESIDE_MS = 15_000;
/** Attempts of a deployment that joined another one's maintenance to ask again after that has ended. */
const ATTEMPTS = 10;

/** How to ask for maintenance. */
export type DeployRequest = Pick<
  ChangeOptions,
  "owner" | "reason" | "drain" | "settleMs" | "ignoreStale" | "ttlMs" | "onLockWait"
>;

/** Options of {@linkcode deploy}. */
export interface DeployOptions extends Omit<MigrateOptions, "maintenance"> {
  /** "always" drains for any pending migration, "auto" only for those that need maintenance. Default: "auto" */
  readonly when?: "auto" | "always" | undefined;
  /** How to ask for maintenance. */
  readonly request?: DeployRequest | undefined;
  /** Limit for the drain, in milliseconds. Default: 15 minutes */
  readonly drainTimeoutMs?: number | undefined;
  /** Milliseconds between two looks without a notification. Default: 5000 */
  readonly intervalMs?: number | undefined;
  /** Milliseconds between two looks where somebody watches. Default: as `intervalMs` */
  readonly lookEveryMs?: number | undefined;
  /** What to do with the maintenance when a migration fails. Default: "stay" */
  readonly onFailure?: Ending | undefined;
  /** Callbacks for its progress. */
  readonly events?: DeployEvents | undefined;
}

/** Callbacks for the progress of a deployment. */
export interface DeployEvents extends DrainEvents {
  /** Maintenance is about to be asked for. @param needs why, a line each */
  readonly onRequesting?: ((needs: readonly string[]) => void) | undefined;
  /** Maintenance is reached, and migrations are about to be applied. */
  readonly onEntered?: ((drained: Drained) => void) | undefined;
  /** Called when the final mode is known, also after a failed migration. */
  readonly onSettled?: ((mode: DeployedMode) => void) | undefined;
  /** Waits to find out whether another deployment, whose maintenance was joined, is alive. */
  readonly onWaitingFor?: ((other: DeploymentSeen) => void) | undefined;
}

/** The mode that a deployment left behind. */
export interface DeployedMode {
  /** Duration of the drain in milliseconds; undefined if none was needed. */
  readonly drainedMs?: number;
  /** Whether this deployment ended a maintenance. */
  readonly exited: boolean;
  /** The mode now. */
  readonly mode: OrchestratorMode;
  /** The status now. */
  readonly status: MaintenanceStatus;
  /** The deployment whose maintenance was ended, since it is dead or has failed; or that is at work now. */
  readonly other?: DeploymentSeen | undefined;
}

/** Result of a deployment. */
export interface DeployResult extends ApplyResult {
  /** Null where the mode was running and stayed so. */
  readonly maintenance: DeployedMode | null;
}

/**
 * Applies what is pending, in maintenance where that is needed, and ends the maintenance that it asked for. It ends
 * another deployment's only where that one is proven to be dead, or has failed and has the same owner.
 *
 * @param bell rung by the session's notifications
 * @throws {PipeweaveError} as `migrate`; of kind `timeout` when the drain takes too long, `condition` when somebody
 *   called it off. It says what became of the mode.
 */
export async function deploy(
  session: Session,
  bell: Bell = new Bell(),
  options: DeployOptions = {},
): Promise<DeployResult> {
  return await new Deployment(session, bell, options).run();
}

class Deployment {
  readonly #request: ChangeOptions;
  #run: DeploymentRun | undefined;
  /** Present once maintenance was reached. */
  #entered: Drained | undefined;

  readonly session: Session;
  readonly bell: Bell;
  readonly options: DeployOptions;

  constructor(session: Session, bell: Bell, options: DeployOptions) {
    this.session = session;
    this.bell = bell;
    this.options = options;
    const { request, actor, signal } = options;
    this.#request = { ...request, reason: request?.reason ?? REASON, actor, signal };
  }

  async run(): Promise<DeployResult> {
    try {
      const result = await this.#apply();
      const entered = this.#entered;
      const maintenance = !entered
        ? result.failed ? null : await this.#tidy()
        : result.failed
        ? await this.#fail(entered, result.failed.error)
        : await this.#finish(entered);
      if (maintenance) this.options.events?.onSettled?.(maintenance);
      return { ...result, maintenance };
    } finally {
      await this.#run?.[Symbol.asyncDispose]();
    }
  }

  async #apply(): Promise<ApplyResult> {
    for (let attempt = 1;; attempt++) {
      try {
        return await migrate(this.session, {
          ...this.options,
          // What is planned anew is not told anew.
          ...(attempt > 1 ? { onPlan: () => {}, onWarning: () => {} } : {}),
          maintenance: {
            when: this.options.when ?? "auto",
            enter: async (needs) => (await this.#enter(needs)).request.requestedAt,
          },
        });
      } catch (error) {
        const entered = this.#entered;
        if (!entered || !(error instanceof PipeweaveError)) throw error;
        // The deployment whose maintenance was joined has ended it: now it is this one's turn to ask.
        if (error.code === "maintenance_ended" && entered.request.joined && attempt < ATTEMPTS) {
          this.#entered = undefined;
          continue;
        }
        const maintenance = await this.#fail(entered, error);
        if (maintenance) this.options.events?.onSettled?.(maintenance);
        throw error;
      }
    }
  }

  async #enter(needs: readonly string[]): Promise<Drained> {
    const { session, bell, options: { drainTimeoutMs, intervalMs = 5000, lookEveryMs, events = {} } } = this;
    events.onRequesting?.(needs);
    const owner = ownerIn(this.#request);
    this.#run ??= await DeploymentRun.begin(session, owner);
    try {
      await this.#takeOver(this.#run.id, owner);
      this.#entered = await drain(session, bell, { ...this.#request, deployment: this.#run.id }, {
        timeoutMs: drainTimeoutMs ?? DRAIN_TIMEOUT_MS,
        ...{ intervalMs, lookEveryMs },
        // A drain that does not end has changed nothing: whoever deploys finds everything as it was.
        ...{ onTimeout: "exit", onInterrupt: "exit" },
      }, events);
    } catch (error) {
      if (error instanceof PipeweaveError) {
        error.hint(
          "See what is active: pipeweave maintenance:tasks. Then run db:migrate --maintenance again" +
            (error.kind === "timeout" ? ", with a longer --drain-timeout." : "."),
        );
      }
      throw error;
    }
    events.onEntered?.(this.#entered);
    return this.#entered;
  }

  /** Makes a maintenance one's own that a deployment has left which is dead, or had failed and has the same owner. */
  async #takeOver(id: string, owner: string | null): Promise<void> {
    const status = await this.#look();
    if (status.deployment === null) return;
    const other = await this.#see(status.deployment);
    if (this.#isLeft(other)) {
      await adoptRequest(this.session, other.id, { id, owner, actor: this.#request.actor });
    }
  }

  /** Whether another deployment has handed its maintenance over to this one. */
  #isLeft(other: DeploymentSeen | undefined): other is DeploymentSeen {
    return other?.state === "dead" || other?.state === "failed" && other.owner === ownerIn(this.#request);
  }

  async #finish({ request, drainedMs }: Drained): Promise<DeployedMode> {
    if (request.joined) return { drainedMs, ...await this.#leaveOthers(request) };
    const status = await this.#exit(request).catch((error) => {
      if (error instanceof PipeweaveError) {
        error.add("Everything was applied; the mode could not be changed back", {
          hint: "Run: pipeweave maintenance:exit",
        });
      }
      throw error;
    });
    return { drainedMs, exited: status.mode === "running", mode: status.mode, status };
  }

  /** After a deployment that needed no maintenance: ends what a dead one has left behind. */
  async #tidy(): Promise<DeployedMode | null> {
    // A set of the user's own alone has no task queue.
    const status = await this.#look().catch(() => undefined);
    if (!status || status.mode === "running") return null;
    const other = status.deployment === null ? undefined : await this.#see(status.deployment);
    return await this.#endOrLeave(status, other);
  }

  /**
   * After a deployment in another one's maintenance: leaves it to that one, or ends it where that one is dead. It was
   * alive when it was joined, so it has to give another sign of life, or to let its time run out.
   */
  async #leaveOthers(
    { requestedAt }: Pick<MaintenanceStatus, "requestedAt">,
  ): Promise<Omit<DeployedMode, "drainedMs">> {
    let first: DeploymentSeen | undefined;
    for (;;) {
      const status = await this.#look();
      const stands = status.requestedAt?.getTime() === requestedAt?.getTime();
      if (!stands || status.mode === "running" || status.deployment === null) {
        return { exited: false, mode: status.mode, status };
      }
      const other = await this.#see(status.deployment);
      const isKnown = other.state !== "alive" || first && other.heartbeatAt > first.heartbeatAt;
      if (isKnown) return await this.#endOrLeave(status, other);
      if (!first) this.options.events?.onWaitingFor?.(other);
      first ??= other;
      await sleep(LOOK_EVERY_MS, this.options.signal);
    }
  }

  /** Ends a maintenance where that is right, and tells how things are then. */
  async #endOrLeave(status: MaintenanceStatus, other: DeploymentSeen | undefined): Promise<DeployedMode> {
    if (!this.#isLeft(other)) return { exited: false, mode: status.mode, status, other };
    const after = await this.#exit(status, {
      force: true,
      reason: `deployment ${other.id} ${other.state === "dead" ? "is dead" : "had failed"}`,
    });
    return { exited: after.mode === "running", mode: after.mode, status: after, other };
  }

  /** Ends or leaves a maintenance in which a migration failed, and adds to the error what became of it. */
  async #fail({ request, drainedMs }: Drained, error: PipeweaveError): Promise<DeployedMode | null> {
    const isOurs = !request.joined;
    const ends = isOurs && this.options.onFailure === "exit";
    try {
      const status = ends ? await this.#exit(request) : await this.#look();
      const { hint = "" } = error.details;
      if (status.mode === "running") {
        error.add(
          `The mode is running${ends ? ", although the migration failed (--on-failure exit)" : ""}`,
        );
      } else {
        if (isOurs) await this.#run?.leave();
        error.add(`The mode stays ${describeRequest(status)}`, {
          hint: isOurs
            ? `${hint}${
              hint ? " " : ""
            }No task starts meanwhile: db:migrate --maintenance goes on and ends it, maintenance:exit ends it as it is.`
            : hint,
        });
      }
      return { drainedMs, exited: ends && status.mode === "running", mode: status.mode, status };
    } catch (failure) {
      error.add(`The mode may still be maintenance: ${messageOf(failure)}`, {
        hint: `${error.details.hint ?? ""} See pipeweave maintenance:status.`,
      });
      return null;
    }
  }

  /** Ends a request, if it still stands: in a session of its own, which a signal does not end. */
  #exit(
    { requestedAt }: Pick<MaintenanceStatus, "requestedAt">,
    how: Pick<ChangeOptions, "force" | "reason"> = {},
  ): Promise<MaintenanceStatus> {
    return this.#beside((session) => exitMaintenance(session, { ...this.#who, ...how, requestedAt }));
  }

  #look(): Promise<MaintenanceStatus> {
    return this.#beside((session) => getMaintenanceStatus(session, this.#who));
  }

  #see(id: string): Promise<DeploymentSeen> {
    return this.#beside((session) => seenDeployment(session, id));
  }

  async #beside<T>(work: (session: Session) => Promise<T>): Promise<T> {
    await using beside = this.session.beside();
    return await answered(work(beside), beside, {
      ...{ deadline: Infinity, answerWithinMs: BESIDE_MS },
    });
  }

  get #who(): ChangeOptions {
    const { actor, owner } = this.#request;
    return { actor, owner };
  }
}
