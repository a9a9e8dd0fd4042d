/**
 * Results as JSON documents: camelCase keys, ISO 8601 times in UTC, durations in milliseconds.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import type { ApplyResult } from "../migrations/apply.ts";
import type { Finding } from "../migrations/finding.ts";
import type { Migration } from "../migrations/migration.ts";
import type { MigrationStatus } from "../migrations/plan.ts";

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
export function statusJson({ current, applied, pending, missing }: MigrationStatus): object {
  return { current, applied: applied.map((row) => ({ ...row })), pending: pending.map(shortly), missing };
}

/** A finding of `db:validate`. */
export function findingJson({ severity, code, file, message, hint, location }: Finding): object {
  return { severity, code, file, line: location?.line, column: location?.column, message, hint };
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
