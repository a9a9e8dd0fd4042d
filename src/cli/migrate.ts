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
import { describeSets } from "../output/database_text.ts";
import { printable } from "../printable.ts";
import { migrateJson } from "../output/json.ts";
import { connect } from "./connect.ts";
import { FailureReported } from "./failure_reported.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";

/** The limits that the command line sets for whatever runs migration files. */
export function runningOptions(
  input: Input,
): Limits & Pick<ApplyOptions, "lockWaitMs" | "lockRetries"> {
  return {
    lockTimeoutMs: input.duration("--lock-timeout"),
    lockWaitMs: input.duration("--lock-wait"),
    statementTimeoutMs: input.duration("--statement-timeout"),
    lockRetries: input.integer("--lock-retries"),
  };
}

/** What the command line asks of `db:migrate`. */
export function applyingOptions(input: Input, terminal: Terminal): MigrateOptions {
  return {
    ...input.sources(),
    ...runningOptions(input),
    timeoutMs: input.duration("--timeout"),
    leaseMs: input.duration("--lease"),
    to: input.text("--to"),
    actor: input.actor,
    allowOnline: input.has("--allow-online"),
    tolerance: {
      missing: input.has("--allow-missing"),
      outOfOrder: input.has("--out-of-order"),
    },
    signal: input.signal,
    onWarning: ({ file, message }) => terminal.warn(`${file} ${message}`),
  };
}

/** `db:migrate`: prints each step as it happens. */
export async function runMigrate(input: Input, terminal: Terminal): Promise<void> {
  const applying = applyingOptions(input, terminal);
  const when = maintenanceWhen(input);
  if (when !== undefined) {
    const { runDeployment } = await import("./deployment.ts");
    return await runDeployment(input, terminal, { ...applying, ...migrateEvents(terminal) }, when);
  }
  await using session = await connect(input, terminal);
  const { migrate } = await import("../commands/migrate.ts");
  const result = await migrate(session, { ...applying, ...migrateEvents(terminal) });
  reportMigrated(terminal, result);
}

/** What `--maintenance` asks for. */
function maintenanceWhen(input: Input): "auto" | "always" | undefined {
  const isWanted = input.has("--maintenance");
  input.onlyWith("--maintenance", isWanted, [
    ...["--on-failure", "--drain-timeout"],
    ...["--reason", "--owner", "--drain", "--settle", "--ignore-stale", "--ttl"],
  ]);
  return isWanted ? input.choice("--maintenance") ?? "auto" : undefined;
}

/** Prints lines of the report under their name. */
function stepsOf(terminal: Terminal): (text: string) => void {
  return (text) => terminal.step(text === "" ? "" : `[migrations] ${text}`);
}

/** Prints each step of a run as it happens. */
function migrateEvents(terminal: Terminal): MigrateOptions {
  const { progress, style: { good } } = terminal;
  const step = stepsOf(terminal);
  return {
    onPlan: ({ current, pending, missing, others }, sets) => {
      terminal.event("plan", { current, sets, pending: pending.map(versionAndName) });
      step("Checking migration status...");
      step(`Found ${sets.reduce((sum, { files }) => sum + files, 0)} migration files`);
      if (sets.some(({ source }) => source !== EMBEDDED)) step(`Sets: ${describeSets(sets)}`);
      step(`Current version: ${current ?? "none"}`);
      if (missing.length > 0) {
        terminal.warn(`applied, but not known here: ${listOf(missing)}`);
      }
      if (others.length > 0) step(`Of another tool, and left alone: ${printable(listOf(others))}`);
      if (pending.length > 0) step(`Pending migrations: ${pending.length}`);
      if (pending.length > 0) step("");
    },
    onApplying: (migration) => {
      terminal.event("applying", versionAndName(migration));
      step(`Applying ${labelOf(migration)}...`);
      progress.update(`Applying ${labelOf(migration)}`);
    },
    onApplied: ({ migration, executionTimeMs }) => {
      terminal.event("applied", { ...versionAndName(migration), executionTimeMs });
      progress.stop();
      const time = executionTimeMs === null ? "" : ` (${formatDuration(executionTimeMs)})`;
      step(`${good("✓")} Applied ${labelOf(migration)}${time}`);
    },
    onActivity: (migration, activity) => {
      terminal.event("progress", { ...versionAndName(migration), ...activity });
      progress.update(stepOf(`Applying ${labelOf(migration)}`, activity));
    },
    onNote: (migration, text) => terminal.note(`${labelOf(migration)}: ${text}`),
    onTaken: (migration) => {
      terminal.event("taken", versionAndName(migration));
      step(`${labelOf(migration)} is applied by another migrator`);
    },
    onRetry: (migration, reason) => terminal.note(`${labelOf(migration)}: ${reason}`),
    onLockWait: (holder) => {
      terminal.event("lock_wait", { holder });
      progress.update(`Another migrator is at work (${holder})`);
    },
  };
}

/** Prints how a run ended. */
export function reportMigrated(terminal: Terminal, result: ApplyResult): void {
  const { progress, style: { good, bad } } = terminal;
  const step = stepsOf(terminal);
  progress.stop();
  if (terminal.json) terminal.document = { ...terminal.document, ...migrateJson(result) };
  if (result.failed) {
    const { migration, error } = result.failed;
    step(`${bad("✗")} Failed ${labelOf(migration)}`);
    terminal.annotate(() => githubFailure(migration, error.message, error.details.location));
    throw new FailureReported(result);
  }
  if (result.applied.length === 0) return step(`${good("✓")} All migrations up to date`);
  step("");
  step(`${good("✓")} Applied ${result.applied.length} migration(s)`);
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

/** A session, for `await using`, with a schema that is there: where AUTO_MIGRATE asks for it, pending migrations are applied first. */
export async function migratedSession(
  input: Input,
  terminal: Terminal,
  onNotify?: () => void,
): Promise<Session> {
  const auto = input.autoMigrate();
  const session = await connect(input, terminal, {}, onNotify);
  if (!auto) return session;
  await using unlessHandedOver = new AsyncDisposableStack();
  unlessHandedOver.use(session);
  const { migrate } = await import("../commands/migrate.ts");
  const sources = input.sources();
  const result = await migrate(session, {
    ...sources,
    // They are what the command needs.
    embedded: sources.embedded ?? true,
    actor: input.actor,
    signal: input.signal,
  });
  if (result.applied.length > 0) {
    // A command that was asked for a look has changed the database: that is said whatever is quiet.
    terminal.warn(
      `AUTO_MIGRATE: applied ${result.applied.map(({ migration }) => labelOf(migration)).join(", ")}`,
    );
  }
  if (result.failed) throw new FailureReported(result);
  unlessHandedOver.move();
  return session;
}
