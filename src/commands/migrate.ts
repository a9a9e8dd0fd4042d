/**
 * `db:migrate`: applies what is pending.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { sequence } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import {
  NOT_IN_MAINTENANCE,
  restoreState,
  stillInMaintenance,
  stillNothingActive,
  TASKS_ACTIVE,
} from "../maintenance/state.ts";
import { applyMigrations } from "../engine/apply.ts";
import type { ApplyOptions, ApplyResult, RunCondition } from "../engine/apply_types.ts";
import { type MigrationSources, readFiles, type SetOfFiles } from "../migrations/discover.ts";
import type { Finding } from "../migrations/finding.ts";
import {
  foreignOwner,
  type History,
  historyTable,
  readHistory,
  reportOwnership,
  withOwnershipCheck,
} from "../engine/history.ts";
import { EMBEDDED, labelOf, listOf, type Migration, versionKey } from "../migrations/migration.ts";
import { assertApplicable, type MigrationStatus, planMigrations, upTo } from "../migrations/plan.ts";
import { assertNoErrors, assertRunnable } from "../migrations/validate.ts";
import { assertMaintenance, findingsIn, hasQueue, needLines, needsOf } from "./maintenance_need.ts";

/** Options of {@linkcode migrate}. */
export interface MigrateOptions extends MigrationSources, ApplyOptions {
  /** Apply also what needs maintenance while tasks are active; the log keeps that. Default: false */
  readonly allowOnline?: boolean | undefined;
  /** How to get into maintenance where it is needed, instead of refusing. */
  readonly maintenance?: MaintenanceEntry | undefined;
  /** Told what there is to do, before anything is applied. */
  readonly onPlan?: (status: MigrationStatus, sets: readonly SetOfFiles[]) => void;
  /** Told of each finding that is no error. */
  readonly onWarning?: (finding: Finding) => void;
}

/** A way into maintenance before anything is applied. */
export interface MaintenanceEntry {
  /** Whether pending migrations that do not need it are reason enough. */
  readonly when: "auto" | "always";
  /**
   * Resolves when the mode is `maintenance`, with when that was asked for.
   *
   * @param needs why, a line each
   */
  readonly enter: (needs: readonly string[]) => Promise<Date | null>;
}

/** Plan of a `db:migrate`. */
export interface Plan {
  /** All migrations that take part, in the order in which they apply. */
  readonly migrations: readonly Migration[];
  /** The sets that take part. */
  readonly sets: readonly SetOfFiles[];
  readonly history: History;
  readonly status: MigrationStatus;
  /** What is to be applied, up to the version that was asked for. */
  readonly pending: readonly Migration[];
}

/**
 * Finds out what is to be done, and makes sure that it can be: files, history, a server that can be written to.
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid or contradict the history
 */
export async function planMigrate(
  session: Session,
  options: MigrateOptions,
  restore?: "restore",
): Promise<Plan> {
  const files = readFiles(options);
  // What is wrong with the user's files is known without a database.
  assertNoErrors(files.own.flatMap(({ findings }) => findings), "Nothing was applied");
  const { schema } = session.settings;
  const tracking = files.embedded?.migrations.find(({ version }) => versionKey(version) === "0");
  const ownership = reportOwnership(schema);
  const restoring = restore && tracking
    ? sequence([
      ownership,
      restoreState(schema, historyTable(schema), withOwnershipCheck(schema, tracking.sql)),
    ])
    : ownership;
  const history = await readHistory(session, restoring);
  const { history: foreignHistory, any: foreignAny } = history.foreign ?? {};
  if (foreignHistory) throw foreignOwner(session, foreignHistory);
  const { migrations, findings, sets } = files.takingPart(history.rows);
  assertNoErrors(findings, "Nothing was applied");
  for (const finding of findings) options.onWarning?.(finding);
  const status = planMigrations(migrations, history);
  assertApplicable(migrations, status, options.tolerance);
  const pending = upTo(options.to, migrations, status.pending);
  if (foreignAny && pending.length > 0) throw foreignOwner(session, foreignAny);
  return { migrations, sets, history, status, pending };
}

/**
 * Applies pending migrations, each in a transaction of its own, in order, up to the first that fails.
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid or contradict the history, `condition` when a
 *   migration needs maintenance and the orchestrator runs: nothing was applied then
 */
export async function migrate(session: Session, options: MigrateOptions = {}): Promise<ApplyResult> {
  const { migrations, sets, history, status, pending } = await planMigrate(session, options, "restore");
  options.onPlan?.({ ...status, pending }, sets);
  if (pending.length === 0) return { applied: [], failed: null, status };
  if (session.parameter("in_hot_standby") === "on") throw readOnlyServer(session, pending.length);
  // PipeWeave's own were checked when the binary was made.
  await assertRunnable(pending.filter(({ source }) => source !== EMBEDDED), {
    schema: session.settings.schema,
    escapes: history.escapes,
  });
  const needs = needsOf(pending, await findingsIn(session, pending));
  const { maintenance } = options;
  const own = pending.filter(({ source }) => source === EMBEDDED);
  const isReason = needs.size > 0 || maintenance?.when === "always" && own.length < pending.length;
  if (!maintenance || !isReason || !await hasQueue(session)) {
    const { overridden, isInMaintenance } = await assertMaintenance(
      session,
      needs,
      options.allowOnline === true,
    );
    const found = isInMaintenance
      ? inMaintenance(session, undefined)
      : overridden === undefined && needs.size > 0 && await hasQueue(session)
      ? besideNobody(session)
      : undefined;
    return await applyMigrations(session, migrations, history, {
      ...options,
      conditionOf: (migration) => needs.has(migration) ? found : undefined,
      detailsOf: (migration) =>
        overridden && needs.has(migration)
          ? { allowedOnline: { ...overridden, needs: needs.get(migration) } }
          : undefined,
    });
  }
  // PipeWeave's own bring what the drain needs, and need none.
  const first = own.length === 0
    ? undefined
    : await applyMigrations(session, migrations, history, { ...options, to: own.at(-1)!.version });
  if (first?.failed) return first;
  const requestedAt = await maintenance.enter(needLines(needs)).catch((error) => {
    if (error instanceof PipeweaveError) error.add(appliedBefore(first));
    throw error;
  });
  const entered = inMaintenance(session, requestedAt);
  const rest = await applyMigrations(session, migrations, first ? await readHistory(session) : history, {
    ...options,
    conditionOf: () => entered,
  });
  return first ? { ...rest, applied: [...first.applied, ...rest.applied] } : rest;
}

function appliedBefore(first: ApplyResult | undefined): string {
  return first === undefined
    ? "Nothing was applied"
    : `Applied by this run: ${listOf(first.applied.map(({ migration }) => migration))}`;
}

/** What needs maintenance is applied in that maintenance alone, whoever ends it meanwhile. */
function inMaintenance({ settings }: Session, requestedAt: Date | null | undefined): RunCondition {
  return {
    statement: stillInMaintenance(settings.schema, requestedAt),
    sqlstates: Object.values(NOT_IN_MAINTENANCE),
    error: (migration, sqlstate) =>
      sqlstate === NOT_IN_MAINTENANCE.mode
        ? new PipeweaveError(
          "condition",
          "maintenance_ended",
          `${
            labelOf(migration)
          } was not applied: the maintenance that it was to be applied in was ended meanwhile`,
          { hint: "See who ended it: maintenance:history. Then run db:migrate --maintenance again." },
        )
        : new PipeweaveError(
          "condition",
          "gate_open",
          `${
            labelOf(migration)
          } was not applied: the mode is maintenance, but the gate is open or tasks are active all the same`,
          {
            hint:
              "See what is active, and whether the gate can be closed: maintenance:status. Then run db:migrate again.",
          },
        ),
  };
}

/** What needs maintenance is applied without it where no task is active, and none comes meanwhile. */
function besideNobody({ settings }: Session): RunCondition {
  return {
    statement: stillNothingActive(settings.schema),
    sqlstates: [TASKS_ACTIVE],
    error: (migration) =>
      new PipeweaveError(
        "condition",
        "needs_maintenance",
        `${labelOf(migration)} needs maintenance, and was not applied: a task has come meanwhile`,
        { hint: "Run: pipeweave db:migrate --maintenance, which drains, migrates and goes back to running." },
      ),
  };
}

/** The error of a server that cannot be written to. */
export function readOnlyServer(session: Session, pending: number): PipeweaveError {
  return new PipeweaveError(
    "database",
    "read_only",
    `${session.target} is a read-only standby; ${pending} migration(s) are pending`,
    {
      hint: "Connect to the primary, or name all hosts and set PGTARGETSESSIONATTRS=read-write.",
    },
  );
}
