/**
 * `db:validate`: whether the files could be applied, and match what was.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { type MigrationSources, readFiles } from "../migrations/discover.ts";
import type { Finding } from "../migrations/finding.ts";
import { readHistory } from "../engine/history.ts";
import { lintAll } from "../lint/lint.ts";
import { measureOn } from "./measured_alter.ts";
import { EMBEDDED } from "../migrations/migration.ts";
import { contradictions, planMigrations } from "../migrations/plan.ts";
import { validateAll } from "../migrations/validate.ts";

/** Options of {@linkcode validateMigrations}. */
export interface ValidateOptions extends MigrationSources {
  /** Also what `db:lint` looks for. Default: false */
  readonly lint?: boolean | undefined;
}

/** Result of a check of files. */
export interface ValidationResult {
  /** Whether nothing is wrong; warnings do not count. */
  readonly valid: boolean;
  /** How many migration files were read. */
  readonly files: number;
  /** Migrations; a down file is part of one. */
  readonly migrations: number;
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
  const schema = session?.settings.schema;
  const read = readFiles(options);
  const history = session && await readHistory(session);
  const { migrations, findings: fileFindings } = read.takingPart(history?.rows ?? []);
  const files = migrations.flatMap((migration) => migration.down ? [migration, migration.down] : [migration]);
  const findings = [
    ...fileFindings,
    ...await validateAll(files, { schema, escapes: history?.escapes }),
  ];
  if (options.lint) {
    const user = migrations.filter(({ source }) => source !== EMBEDDED || !options.dirs?.length);
    findings.push(...await lintAll(user, { measure: session && measureOn(session) }));
  }
  if (history) {
    for (
      const { code, file, message, hint } of contradictions(migrations, planMigrations(migrations, history))
    ) {
      findings.push({ severity: "error", code, file, message: `does not fit the history: ${message}`, hint });
    }
  }
  return {
    valid: findings.every(({ severity }) => severity !== "error"),
    files: files.length,
    migrations: migrations.length,
    comparedWithDatabase: session !== undefined,
    findings,
  };
}
