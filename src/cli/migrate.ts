/**
 * Running migrations from the command line: for `db:migrate` itself, and ahead of other commands for AUTO_MIGRATE.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { PipeweaveError } from "../errors.ts";
import type { Session } from "../database/session.ts";
import { labelOf } from "../migrations/migration.ts";
import { migrateJson } from "../output/json.ts";
import { FailureReported } from "./failure_reported.ts";
import type { Invocation } from "./invocation.ts";

/** `db:migrate`: prints each step as it happens. */
export async function runMigrate(invocation: Invocation): Promise<void> {
  const { json, quiet, progress, style: { good, bad } } = invocation;
  const lockTimeoutMs = invocation.duration("lockTimeout", "--lock-timeout");
  const lockWaitMs = invocation.duration("lockWait", "--lock-wait");
  const statementTimeoutMs = invocation.duration("statementTimeout", "--statement-timeout");
  const lockRetries = invocation.integer("lockRetries", "--lock-retries", 0, 10_000);
  const timeoutMs = invocation.duration("timeout", "--timeout");
  if (lockTimeoutMs === 0) {
    throw new PipeweaveError(
      "usage",
      "bad_option",
      "--lock-timeout must be greater than 0: without a limit a migration would queue others' queries behind it",
      {
        hint: "See: pipeweave db:migrate --help",
      },
    );
  }
  const step = (text: string) => {
    if (json || quiet) return;
    progress.around(() => invocation.report(text === "" ? "" : `[migrations] ${text}`));
  };
  const session = await invocation.session();
  const { migrate } = await import("../commands/migrate.ts");

  const result = await migrate(session, {
    ...invocation.sources(),
    lockTimeoutMs,
    lockWaitMs,
    lockRetries,
    statementTimeoutMs,
    timeoutMs,
    tolerance: { missing: invocation.options["allowMissing"] === true },
    signal: invocation.signal,
    onWarning: ({ file, message }) => invocation.warn(`${file} ${message}`),
    onPlan: ({ current, pending, missing }, files) => {
      step("Checking migration status...");
      step(`Found ${files} migration files`);
      step(`Current version: ${current ?? "none"}`);
      if (missing.length > 0) {
        invocation.warn(`applied, but not known here: ${missing.map(labelOf).join(", ")}`);
      }
      if (pending.length > 0) step(`Pending migrations: ${pending.length}`);
      if (pending.length > 0) step("");
    },
    onApplying: (migration) => {
      step(`Applying ${labelOf(migration)}...`);
      progress.update(`Applying ${labelOf(migration)}`);
    },
    onApplied: ({ migration, executionTimeMs }) => {
      progress.stop();
      const time = executionTimeMs === null ? "" : ` (${formatDuration(executionTimeMs)})`;
      step(`${good("✓")} Applied ${labelOf(migration)}${time}`);
    },
    onBlocked: (migration, blockers) =>
      progress.update(`Applying ${labelOf(migration)}: waits for a lock held by ${blockers}`),
    onTaken: (migration) => step(`${labelOf(migration)} is applied by another migrator`),
    onRetry: (migration, reason) => invocation.note(`${labelOf(migration)}: ${reason}`),
    onLockWait: (holder) => progress.update(`Another migrator is at work (${holder})`),
  });
  progress.stop();
  if (json) invocation.document = migrateJson(result);
  if (result.failed) {
    step(`${bad("✗")} Failed ${labelOf(result.failed.migration)}`);
    throw new FailureReported(result);
  }
  if (json || quiet) return;
  if (result.applied.length === 0) return step(`${good("✓")} All migrations up to date`);
  step("");
  step(`${good("✓")} Applied ${result.applied.length} migration(s)`);
}

/** A session with a schema that is there: where AUTO_MIGRATE asks for it, pending migrations are applied first. */
export async function migratedSession(invocation: Invocation): Promise<Session> {
  const auto = invocation.autoMigrate();
  const session = await invocation.session();
  if (!auto) return session;
  const { migrate } = await import("../commands/migrate.ts");
  const result = await migrate(session, { ...invocation.sources(), signal: invocation.signal });
  if (result.applied.length > 0) {
    invocation.note(
      `AUTO_MIGRATE: applied ${result.applied.map(({ migration }) => labelOf(migration)).join(", ")}`,
    );
  }
  if (result.failed) throw new FailureReported(result);
  return session;
}
