/**
 * Results as JSON documents: camelCase keys, ISO 8601 times in UTC, durations in milliseconds.
 *
 * @module
 */

import type { MigrationPlan } from "../commands/dry_run.ts";
import { PipeweaveError } from "../errors.ts";
import type { ApplyResult } from "../engine/apply_types.ts";
import type { Finding } from "../migrations/finding.ts";
import type { LintFinding } from "../lint/lint.ts";
import type { Migration } from "../migrations/migration.ts";
import type { DatabaseStatus } from "../commands/status.ts";
import type { RollbackResult } from "../engine/rollback.ts";

const shortly = ({ version, name, checksum }: Migration) => ({ version, name, checksum });

/** The document of `db:migrate`. */
export function migrateJson({ applied, failed, status }: ApplyResult): object {
  return {
    applied: applied.map(({ migration, executionTimeMs }) => ({ ...shortly(migration), executionTimeMs })),
    pending: status.pending.map(shortly),
    current: status.current,
    failed: failed &&
      { version: failed.migration.version, name: failed.migration.name, error: errorJson(failed.error) },
  };
}

/** The document of `db:status`. */
export function statusJson(status: DatabaseStatus): object {
  const { current, applied, pending, missing, others, taken, partial, sets, otherHistories } = status;
  return {
    current,
    applied: applied.map((row) => ({ ...row })),
    pending: pending.map(shortly),
    missing,
    others,
    taken: taken.map(({ migration, by }) => ({
      ...shortly(migration),
      by: { version: by.version, name: by.name },
    })),
    partial,
    sets,
    otherHistories,
  };
}

/** A finding of `db:validate` or `db:lint`. */
export function findingJson(finding: Finding | LintFinding): object {
  const { severity, code, file, message, hint, location } = finding;
  const lint = "why" in finding ? { why: finding.why, blocks: finding.blocks } : {};
  return { severity, code, file, line: location?.line, column: location?.column, message, ...lint, hint };
}

/** The document of `db:migrate --dry-run`. */
export function planJson({ current, migrations, executed, untried, tried, failed }: MigrationPlan): object {
  return {
    dryRun: true,
    executed,
    current,
    migrations: migrations.map(({ migration, statements, findings }) => ({
      ...shortly(migration),
      transaction: !migration.directives.noTransaction,
      requiresMaintenance: migration.directives.requiresMaintenance,
      statements: statements.map(({ line, firstLine, tried }) => ({ line, firstLine, ...tried })),
      findings: findings.map(findingJson),
    })),
    untried,
    tried,
    failed: failed &&
      { version: failed.migration.version, name: failed.migration.name, error: errorJson(failed.error) },
  };
}

/** The document of `db:rollback`. */
export function rollbackJson({ rolledBack, failed }: RollbackResult): object {
  return {
    rolledBack: rolledBack.map(({ migration, executionTimeMs }) => ({
      ...shortly(migration),
      executionTimeMs,
    })),
    failed: failed &&
      { version: failed.migration.version, name: failed.migration.name, error: errorJson(failed.error) },
  };
}

/** What stands under `error`: code and message, and whatever else is known. */
export function errorJson({ kind, code, message, details }: PipeweaveError): Record<string, unknown> {
  const { hint, sqlstate, detail, serverHint, context, location, problems, data } = details;
  return {
    code,
    message,
    kind,
    sqlstate,
    detail,
    serverHint,
    context,
    ...(location ? { file: location.file, line: location.line, column: location.column } : {}),
    problems,
    hint,
    ...data,
  };
}
