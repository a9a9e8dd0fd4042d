/**
 * `db:migrate --maintenance`: request, wait, migrate, exit, as one command with one report and one exit code.
 *
 * @module
 */

import type { MaintenanceEntry } from "../commands/migrate.ts";
import type { RequestResult } from "../commands/maintenance.ts";
import { messageOf, PipeweaveError } from "../errors.ts";
import { type ChangeOptions, ownerOf } from "../maintenance/state.ts";
import { printable } from "../maintenance/printable.ts";
import type { MaintenanceStatus } from "../maintenance/status.ts";
import { Bell } from "../maintenance/wait.ts";
import { drain, type DrainWait, drainWait, type Ending, requestOptions } from "./drain.ts";
import type { Invocation } from "./invocation.ts";

/** The reason of a deployment that gives none. By it a later one knows what an earlier one has left behind. */
const REASON = "db:migrate";

/** The maintenance that was reached. */
interface Entered {
  readonly request: RequestResult;
  readonly drainedMs: number;
  /** Whether it is this deployment's to end. */
  readonly isOurs: boolean;
}

/** One deployment. */
export class Deployment {
  readonly #request: ChangeOptions;
  readonly #wait: DrainWait;
  readonly #onFailure: Ending;
  readonly #bell = new Bell();
  /** Present once maintenance was reached. */
  #entered: Entered | undefined;

  constructor(readonly invocation: Invocation, readonly when: "auto" | "always") {
    const request = requestOptions(invocation);
    this.#request = { ...request, reason: request.reason ?? REASON };
    // A drain that does not end has changed nothing: whoever deploys finds everything as it was.
    this.#wait = {
      ...drainWait(invocation, invocation.duration("drainTimeout", "--drain-timeout")),
      onTimeout: "exit",
      onInterrupt: "exit",
    };
    this.#onFailure = invocation.choice<Ending>("onFailure", "--on-failure", ["stay", "exit"]) ?? "stay";
  }

  /**
   * Runs the migration, and ends the maintenance that it needed.
   *
   * @throws whatever the migration throws, with what became of the mode
   */
  async run(migrate: (entry: MaintenanceEntry, onNotify: () => void) => Promise<void>): Promise<void> {
    try {
      await migrate({ when: this.when, enter: (needs) => this.#enter(needs) }, this.#bell.ring);
    } catch (error) {
      if (this.#entered && error instanceof PipeweaveError) await this.#fail(this.#entered, error);
      throw error;
    }
    if (this.#entered) await this.#finish(this.#entered);
    else await this.#endWhatIsLeft();
  }

  async #enter(needs: readonly string[]): Promise<Date | null> {
    const { invocation } = this;
    invocation.note("[maintenance] Requesting maintenance");
    for (const need of needs) invocation.note(`  ${need}`);
    const session = await invocation.session();
    const { getMaintenanceStatus } = await import("../commands/maintenance.ts");
    const before = await getMaintenanceStatus(session, this.#request);
    const isOurs = before.mode === "running" || this.#isOurs(before);
    const { reason: _, ...joining } = this.#request;
    try {
      const { request, drainedMs } = await drain(
        invocation,
        session,
        this.#bell,
        isOurs ? this.#request : joining,
        this.#wait,
      );
      this.#entered = { request, drainedMs, isOurs: isOurs && !request.joined };
      invocation.note("[maintenance] In maintenance: migrating");
      return request.requestedAt;
    } catch (error) {
      if (error instanceof PipeweaveError) {
        error.add("Nothing was applied", {
          hint: "See what is active: pipeweave maintenance:tasks. Then run db:migrate --maintenance again" +
            (error.kind === "timeout" ? ", with a longer --drain-timeout." : "."),
        });
      }
      throw error;
    }
  }

  /** Whether a deployment like this one asked for it, and ended before it could end it. */
  #isOurs({ owner, reason }: MaintenanceStatus): boolean {
    const { actor } = this.invocation;
    return owner === (this.#request.owner ?? ownerOf(actor)) && reason === this.#request.reason;
  }

  async #finish({ request, drainedMs, isOurs }: Entered): Promise<void> {
    const { invocation } = this;
    const status = await this.#change(isOurs ? request : undefined).catch((error) => {
      if (error instanceof PipeweaveError) {
        error.add("Everything was applied; the mode could not be changed back", {
          hint: "Run: pipeweave maintenance:exit",
        });
      }
      throw error;
    });
    const exited = isOurs && status.mode === "running";
    this.#tell(status, { drainedMs, exited });
    invocation.note(
      status.mode === "running"
        ? "[maintenance] Orchestrator is now running normally"
        : `[maintenance] The mode stays ${describe(status)}`,
    );
  }

  /** Where nothing had to be drained for, a run before this one may have left its maintenance behind. */
  async #endWhatIsLeft(): Promise<void> {
    const { invocation } = this;
    const { getMaintenanceStatus } = await import("../commands/maintenance.ts");
    // A set of the user's own alone has no task queue.
    const found = await getMaintenanceStatus(await invocation.session(), this.#request).catch(() =>
      undefined
    );
    if (!found || found.mode === "running") return;
    const isOurs = this.#isOurs(found);
    const status = isOurs ? await this.#change(found) : found;
    this.#tell(status, { exited: isOurs });
    invocation.note(
      isOurs
        ? "[maintenance] Orchestrator is now running normally: an earlier run had left it in maintenance"
        : `[maintenance] The mode is ${describe(status)}. It ends with: pipeweave maintenance:exit`,
    );
  }

  async #fail(
    { request, drainedMs, isOurs }: Entered,
    error: PipeweaveError,
  ): Promise<void> {
    const ends = isOurs && this.#onFailure === "exit";
    try {
      const status = await this.#change(ends ? request : undefined);
      this.#tell(status, { drainedMs, exited: ends && status.mode === "running" });
      const { hint = "" } = error.details;
      if (status.mode === "running") {
        return error.add(
          `The mode is running${ends ? ", although the migration failed (--on-failure exit)" : ""}`,
        );
      }
      error.add(`The mode stays ${describe(status)}`, {
        hint: isOurs
          ? `${hint} Until then no task starts: db:migrate --maintenance goes on and ends it, maintenance:exit ends it as it is.`
          : hint,
      });
    } catch (failure) {
      error.add(`The mode may still be maintenance: ${messageOf(failure)}`, {
        hint: `${error.details.hint ?? ""} See pipeweave maintenance:status.`,
      });
    }
  }

  /** Ends a request, if it still stands, or only looks: in a session of its own, which a signal does not end. */
  async #change(request: Pick<MaintenanceStatus, "requestedAt"> | undefined): Promise<MaintenanceStatus> {
    const { invocation } = this;
    const { exitMaintenance, getMaintenanceStatus } = await import("../commands/maintenance.ts");
    const { settings } = await invocation.session();
    const session = await invocation.openSession(settings, { interruptible: false });
    const { signal: _, reason: __, ...who } = this.#request;
    try {
      return request
        ? await exitMaintenance(session, { ...who, requestedAt: request.requestedAt })
        : await getMaintenanceStatus(session, who);
    } finally {
      await session.close();
    }
  }

  #tell({ mode }: MaintenanceStatus, facts: { readonly drainedMs?: number; readonly exited: boolean }): void {
    const { invocation } = this;
    if (!invocation.json) return;
    invocation.document = { ...invocation.document, maintenance: { ...facts, mode } };
  }
}

/** `maintenance, asked for by alice@build-7 (release 42)` */
function describe({ mode, owner, reason }: MaintenanceStatus): string {
  return printable(`${mode}, asked for by ${owner ?? "somebody"}${reason ? ` (${reason})` : ""}`);
}
