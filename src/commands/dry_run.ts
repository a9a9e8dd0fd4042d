/**
 * `db:migrate --dry-run`: what would be applied, and on request what each statement would take.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import type { PipeweaveError } from "../errors.ts";
import { firstLineOf } from "../engine/activity.ts";
import { dryRun, triable, type TriedStatement, untriedReason } from "../engine/dry_run.ts";
import { predecessorOf } from "../engine/history.ts";
import type { LintFinding } from "../lint/lint.ts";
import { EMBEDDED, type Migration } from "../migrations/migration.ts";
import { lineOf } from "../migrations/finding.ts";
import { statementsOf } from "../sql/statements.ts";
import { assertRunnable } from "../migrations/validate.ts";
import { assertMaintenance, findingsIn, needsOf } from "./maintenance_need.ts";
import { type MigrateOptions, planMigrate, readOnlyServer } from "./migrate.ts";

/** A statement of a plan. */
export interface PlannedStatement {
  /** In the file, counted from 1. */
  readonly line: number;
  readonly firstLine: string;
  /** What is found about it. */
  readonly findings: readonly LintFinding[];
  /** Measurements; absent if it was not tried. */
  readonly tried?: TriedStatement;
}

/** A migration of a plan. */
export interface PlannedMigration {
  readonly migration: Migration;
  readonly statements: readonly PlannedStatement[];
  readonly findings: readonly LintFinding[];
}

/** Result of a dry run. */
export interface MigrationPlan {
  readonly current: string | null;
  readonly migrations: readonly PlannedMigration[];
  /** Whether the statements were run, and rolled back. */
  readonly executed: boolean;
  /** Reasons why some statements were not run. */
  readonly untried: string | undefined;
  /** Migrations that were run to their end. */
  readonly tried: number;
  /** The migration that failed when it was tried. */
  readonly failed: { readonly migration: Migration; readonly error: PipeweaveError } | null;
  /** Reasons why the plan would be refused now. */
  readonly refusal: PipeweaveError | undefined;
}

/**
 * Plans, and changes nothing.
 *
 * @param execute also runs all that is pending in one transaction, and rolls it back
 * @throws {PipeweaveError} as `db:migrate` would, before anything is applied
 */
export async function planDryRun(
  session: Session,
  execute: boolean,
  options: MigrateOptions,
): Promise<MigrationPlan> {
  const { migrations, history, status, pending } = await planMigrate(session, options);
  await assertRunnable(pending.filter(({ source }) => source !== EMBEDDED), {
    schema: session.settings.schema,
    escapes: history.escapes,
  });
  const findings = await findingsIn(session, pending);
  const needs = needsOf(pending, findings);
  const refusal = await assertMaintenance(session, needs, options.allowOnline === true)
    .then(() => undefined, (error: PipeweaveError) => error);
  const toTry = execute ? triable(pending) : [];
  if (toTry.length > 0 && session.parameter("in_hot_standby") === "on") {
    throw readOnlyServer(session, pending.length);
  }
  const result = toTry.length === 0
    ? { tried: [], failed: null, untriable: null }
    : await dryRun(session, toTry, {
      predecessor: predecessorOf(toTry[0]!, migrations, history),
      complete: history.complete,
      outside: false,
    }, options);
  const triedOf = (migration: Migration) =>
    result.tried.find((one) => one.migration === migration)?.statements;
  return {
    current: status.current,
    migrations: await Promise.all(pending.map(async (migration) => {
      const own = findings.filter(({ file }) => file === migration.file);
      return {
        migration,
        statements: await plannedStatements(migration, own, triedOf(migration)),
        findings: own,
      };
    })),
    executed: execute,
    untried: execute ? untriedReason(pending, result) : undefined,
    tried: result.tried.length,
    failed: result.failed,
    refusal,
  };
}

async function plannedStatements(
  migration: Migration,
  findings: readonly LintFinding[],
  tried: readonly TriedStatement[] | undefined,
): Promise<readonly PlannedStatement[]> {
  const statements = await statementsOf(migration);
  const places = statements.map(({ start }) => placeOf(migration.sql, start));
  // A finding is about the last statement that begins before it, or with it.
  const about = findings.map(({ location }) =>
    location ? Math.max(0, places.findLastIndex((place) => !isBefore(location, place))) : 0
  );
  return statements.map((statement, index) => ({
    line: places[index]!.line,
    firstLine: firstLineOf(migration, statement),
    findings: findings.filter((_, at) => about[at] === index),
    ...(tried?.[index] ? { tried: tried[index] } : {}),
  }));
}

interface Place {
  readonly line: number;
  readonly column: number;
}

function placeOf(text: string, offset: number): Place {
  const lineStart = text.lastIndexOf("\n", offset - 1) + 1;
  return { line: lineOf(text, offset), column: [...text.slice(lineStart, offset)].length + 1 };
}

function isBefore(a: Place, b: Place): boolean {
  return a.line === b.line ? a.column < b.column : a.line < b.line;
}
