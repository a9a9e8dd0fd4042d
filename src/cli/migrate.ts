/**
 * Running migrations from the command line: for `db:migrate` itself, and ahead of other commands for AUTO_MIGRATE.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import type { MigrateOptions } from "../commands/migrate.ts";
import type { Session } from "../database/session.ts";
import type { Activity } from "../engine/activity.ts";
import type { ApplyOptions, ApplyResult } from "../engine/apply_types.ts";
import type { Limits } from "../engine/message.ts";
import { EMBEDDED, labelOf, listOf, type Migration } from "../migrations/migration.ts";
import { githubFailure } from "../output/lint_formats.ts";
import type { Step } from "../output/progress.ts";
import { describeSets } from "../output/text.ts";
import { printable } from "../printable.ts";
import { migrateJson } from "../output/json.ts";
import { FailureReported } from "./failure_reported.ts";
import type { Invocation } from "./invocation.ts";

/** The limits that the command line sets for whatever runs migration files. */
export function runningOptions(
  invocation: Invocation,
): Limits & Pick<ApplyOptions, "lockWaitMs" | "lockRetries"> {
  return {
    lockTimeoutMs: invocation.duration("--lock-timeout"),
    lockWaitMs: invocation.duration("--lock-wait"),
    statementTimeoutMs: invocation.duration("--statement-timeout"),
    lockRetries: invocation.integer("--lock-retries"),
  };
}

/** What the command line asks of `db:migrate`. */
export function applyingOptions(invocation: Invocation): MigrateOptions {
  return {
    ...invocation.sources(),
    ...runningOptions(invocation),
    timeoutMs: invocation.duration("--timeout"),
    leaseMs: invocation.duration("--lease"),
    to: invocation.text("--to"),
    actor: invocation.actor,
    allowOnline: invocation.has("--allow-online"),
    tolerance: {
      missing: invocation.has("--allow-missing"),
      outOfOrder: invocation.has("--out-of-order"),
    },
    signal: invocation.signal,
    onWarning: ({ file, message }) => invocation.warn(`${file} ${message}`),
  };
}

/** `db:migrate`: prints each step as it happens. */
export async function runMigrate(invocation: Invocation): Promise<void> {
  const applying = applyingOptions(invocation);
  const when = maintenanceWhen(invocation);
  if (when !== undefined) {
    const { runDeployment } = await import("./deployment.ts");
    return await runDeployment(invocation, { ...applying, ...migrateEvents(invocation) }, when);
  }
  const session = await invocation.session();
  const { migrate } = await import("../commands/migrate.ts");
  const result = await migrate(session, { ...applying, ...migrateEvents(invocation) });
  reportMigrated(invocation, result);
}

/** What `--maintenance` asks for. */
function maintenanceWhen(invocation: Invocation): "auto" | "always" | undefined {
  const isWanted = invocation.has("--maintenance");
  invocation.onlyWith("--maintenance", isWanted, [
    ...["--on-failure", "--drain-timeout"],
    ...["--reason", "--owner", "--drain", "--settle", "--ignore-stale", "--ttl"],
  ]);
  return isWanted ? invocation.choice("--maintenance") ?? "auto" : undefined;
}

/** Prints a line of the report. */
function stepLine(invocation: Invocation, text: string): void {
  if (invocation.json || invocation.quiet) return;
  invocation.progress.around(() => invocation.report(text === "" ? "" : `[migrations] ${text}`));
}

/** Prints each step of a run as it happens. */
function migrateEvents(invocation: Invocation): MigrateOptions {
  const { progress, style: { good } } = invocation;
  const step = (text: string) => stepLine(invocation, text);
  return {
    onPlan: ({ current, pending, missing, others }, sets) => {
      invocation.event("plan", { current, sets, pending: pending.map(versionAndName) });
      step("Checking migration status...");
      step(`Found ${sets.reduce((sum, { files }) => sum + files, 0)} migration files`);
      if (sets.some(({ source }) => source !== EMBEDDED)) step(`Sets: ${describeSets(sets)}`);
      step(`Current version: ${current ?? "none"}`);
      if (missing.length > 0) {
        invocation.warn(`applied, but not known here: ${listOf(missing)}`);
      }
      if (others.length > 0) step(`Of another tool, and left alone: ${printable(listOf(others))}`);
      if (pending.length > 0) step(`Pending migrations: ${pending.length}`);
      if (pending.length > 0) step("");
    },
    onApplying: (migration) => {
      invocation.event("applying", versionAndName(migration));
      step(`Applying ${labelOf(migration)}...`);
      progress.update(`Applying ${labelOf(migration)}`);
    },
    onApplied: ({ migration, executionTimeMs }) => {
      invocation.event("applied", { ...versionAndName(migration), executionTimeMs });
      progress.stop();
      const time = executionTimeMs === null ? "" : ` (${formatDuration(executionTimeMs)})`;
      step(`${good("✓")} Applied ${labelOf(migration)}${time}`);
    },
    onActivity: (migration, activity) => {
      invocation.event("progress", { ...versionAndName(migration), ...activity });
      progress.update(stepOf(`Applying ${labelOf(migration)}`, activity));
    },
    onNote: (migration, text) => invocation.note(`${labelOf(migration)}: ${text}`),
    onTaken: (migration) => {
      invocation.event("taken", versionAndName(migration));
      step(`${labelOf(migration)} is applied by another migrator`);
    },
    onRetry: (migration, reason) => invocation.note(`${labelOf(migration)}: ${reason}`),
    onLockWait: (holder) => {
      invocation.event("lock_wait", { holder });
      progress.update(`Another migrator is at work (${holder})`);
    },
  };
}

/** Prints how a run ended. */
export function reportMigrated(invocation: Invocation, result: ApplyResult): void {
  const { progress, style: { good, bad } } = invocation;
  progress.stop();
  if (invocation.json) invocation.document = { ...invocation.document, ...migrateJson(result) };
  if (result.failed) {
    stepLine(invocation, `${bad("✗")} Failed ${labelOf(result.failed.migration)}`);
    if (invocation.world.env["GITHUB_ACTIONS"] === "true") {
      const { migration, error } = result.failed;
      // Actions reads its commands from either stream; stdout is for the report.
      invocation.world.err(`${githubFailure(migration, error.message, error.details.location)}\n`);
    }
    throw new FailureReported(result);
  }
  if (result.applied.length === 0) return stepLine(invocation, `${good("✓")} All migrations up to date`);
  stepLine(invocation, "");
  stepLine(invocation, `${good("✓")} Applied ${result.applied.length} migration(s)`);
}

function versionAndName({ version, name }: Migration): { version: string; name: string } {
  return { version, name };
}

/** What a migration is at, as a line of progress. */
export function stepOf(doing: string, { statement, phase, fraction, blockers }: Activity): Step {
  const what = [
    doing,
    ...(statement && statement.of > 1 ? [`statement ${statement.number} of ${statement.of}`] : []),
    ...(phase ? [phase] : []),
  ].join(", ");
  if (blockers) return { label: `${what}: waits for a lock held by ${blockers}` };
  return { label: what, fraction, more: statement?.firstLine };
}

/** A session with a schema that is there: where AUTO_MIGRATE asks for it, pending migrations are applied first. */
export async function migratedSession(invocation: Invocation, onNotify?: () => void): Promise<Session> {
  const auto = invocation.autoMigrate();
  const session = await invocation.session({}, onNotify);
  if (!auto) return session;
  const { migrate } = await import("../commands/migrate.ts");
  const sources = invocation.sources();
  const result = await migrate(session, {
    ...sources,
    // They are what the command needs.
    embedded: sources.embedded ?? true,
    actor: invocation.actor,
    signal: invocation.signal,
  });
  if (result.applied.length > 0) {
    // A command that was asked for a look has changed the database: that is said whatever is quiet.
    invocation.warn(
      `AUTO_MIGRATE: applied ${result.applied.map(({ migration }) => labelOf(migration)).join(", ")}`,
    );
  }
  if (result.failed) throw new FailureReported(result);
  return session;
}
