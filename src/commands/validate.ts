/**
 * `db:validate`: whether the files could be applied, and match what was.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { discover, type MigrationSources } from "../migrations/discover.ts";
import type { Finding } from "../migrations/finding.ts";
import { readHistory } from "../engine/history.ts";
import { lint } from "../lint/lint.ts";
import { EMBEDDED, labelOf, versionKey } from "../migrations/migration.ts";
import { planMigrations } from "../migrations/plan.ts";
import { validateSql } from "../migrations/validate.ts";

/** What to check. */
export interface ValidateOptions extends MigrationSources {
  /** Also what `db:lint` looks for. Default: false */
  readonly lint?: boolean | undefined;
}

/** What was looked at, and what was found. */
export interface ValidationResult {
  /** Whether nothing is wrong; warnings do not count. */
  readonly valid: boolean;
  /** How many migration files were read. */
  readonly files: number;
  /** Whether the files were compared with a database's history. */
  readonly comparedWithDatabase: boolean;
  /** Everything that was found, errors and warnings. */
  readonly findings: readonly Finding[];
}

/**
 * Checks names, order, duplicates, encoding, syntax and transaction rules, and with a session also the history.
 *
 * @param session undefined to look at the files alone
 */
export async function validateMigrations(
  session: Session | undefined,
  options: ValidateOptions = {},
): Promise<ValidationResult> {
  const { migrations, findings: fileFindings } = discover(options);
  const files = migrations.flatMap((migration) => migration.down ? [migration, migration.down] : [migration]);
  const findings = [...fileFindings, ...(await Promise.all(files.map(validateSql))).flat()];
  if (options.lint) {
    const user = migrations.filter(({ source }) => source !== EMBEDDED || !options.dirs?.length);
    findings.push(...(await Promise.all(user.map(lint))).flat());
  }
  if (session) {
    const status = planMigrations(migrations, (await readHistory(session)).rows);
    const fileOf = (version: string) =>
      migrations.find((migration) => versionKey(migration.version) === versionKey(version))?.file ??
        "schema_migrations";
    const add = (code: string, file: string, message: string, hint: string) =>
      findings.push({ severity: "error", code, file, message, hint });
    for (const row of status.applied.filter(({ drift }) => drift)) {
      add(
        "changed",
        fileOf(row.version),
        `was changed after it was applied as ${labelOf(row)}`,
        "Restore it as it was, and put the change into a new migration.",
      );
    }
    for (const row of status.missing) {
      add(
        "missing",
        "schema_migrations",
        `holds ${labelOf(row)}, for which there is no file`,
        "Restore the file, give its folder with --dir, or use the release that applied it.",
      );
    }
    for (const migration of status.outOfOrder) {
      add(
        "out_of_order",
        migration.file,
        "is pending, but a later one of its set is applied",
        "Give it a number after the last applied one.",
      );
    }
  }
  return {
    valid: findings.every(({ severity }) => severity !== "error"),
    files: files.length,
    comparedWithDatabase: session !== undefined,
    findings,
  };
}
