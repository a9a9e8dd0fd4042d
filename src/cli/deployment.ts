/**
 * `db:migrate --maintenance`: request, wait, migrate, exit, as one command with one report and one exit code.
 *
 * @module
 */

import type { MaintenanceEntry } from "../commands/migrate.ts";
import type { RequestResult } from "../commands/maintenance.ts";
import { Bell } from "../maintenance/wait.ts";
import { drain, type DrainWait, drainWait, type Ending, requestOptions } from "./drain.ts";
import type { Invocation } from "./invocation.ts";

/** One deployment. */
export class Deployment {
  readonly #request;
  readonly #wait: DrainWait;
  readonly #onFailure: Ending;
  readonly #bell = new Bell();
  /** Present once maintenance was reached. */
  #entered: { request: RequestResult; drainedMs: number } | undefined;

  constructor(readonly invocation: Invocation, readonly when: "auto" | "always") {
    this.#request = requestOptions(invocation);
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
   * @throws whatever the migration throws; what became of the mode is noted
   */
  async run(migrate: (entry: MaintenanceEntry, onNotify: () => void) => Promise<void>): Promise<void> {
    const { invocation } = this;
    try {
      await migrate({ when: this.when, enter: (needs) => this.#enter(needs) }, this.#bell.ring);
    } catch (error) {
      if (this.#entered) await this.#fail();
      throw error;
    }
    if (!this.#entered) return;
    const { request, drainedMs } = this.#entered;
    const exited = !request.joined;
    if (exited) await this.#exit();
    if (invocation.json) {
      invocation.document = { ...invocation.document, maintenance: { drainedMs, exited } };
    } else {
      invocation.note(
        exited
          ? "[maintenance] Orchestrator is now running normally"
          : `[maintenance] The mode stays maintenance: it is ${request.owner}'s`,
      );
    }
  }

  async #enter(needs: readonly string[]): Promise<void> {
    const { invocation } = this;
    invocation.note("[maintenance] Requesting maintenance");
    for (const need of needs) invocation.note(`  ${need}`);
    const session = await invocation.session();
    const { request, drainedMs } = await drain(
      invocation,
      session,
      this.#bell,
      { ...this.#request, reason: this.#request.reason ?? "db:migrate" },
      this.#wait,
    );
    this.#entered = { request, drainedMs };
    invocation.note("[maintenance] In maintenance: migrating");
  }

  async #exit(): Promise<void> {
    const { invocation } = this;
    const { exitMaintenance } = await import("../commands/maintenance.ts");
    const { signal: _, ...request } = this.#request;
    const { settings } = await invocation.session();
    // Of its own, so that a signal does not keep it from ending what this command began.
    const session = await invocation.openSession(settings, { interruptible: false });
    try {
      await exitMaintenance(session, request);
    } catch (error) {
      invocation.note(
        "[maintenance] The mode stays maintenance: it could not be changed back. Run: pipeweave maintenance:exit",
      );
      throw error;
    } finally {
      await session.close();
    }
  }

  async #fail(): Promise<void> {
    const { invocation } = this;
    const { joined } = this.#entered!.request;
    let exited = false;
    if (this.#onFailure === "exit" && !joined) {
      // The migration's own error is the one that is reported; what became of the mode is noted.
      exited = await this.#exit().then(() => true, () => false);
    }
    if (invocation.json) {
      invocation.document = {
        ...invocation.document,
        maintenance: { drainedMs: this.#entered!.drainedMs, exited },
      };
    }
    invocation.note(
      exited
        ? "[maintenance] Orchestrator is now running normally, although the migration failed (--on-failure exit)"
        : "[maintenance] The mode stays maintenance. When it is mended: pipeweave db:migrate --maintenance goes on; " +
          "maintenance:exit goes back to running as it is.",
    );
  }
}
