/**
 * `db:lint`: what would hurt a live database.
 *
 * @module
 */

import type { Session } from "../database/session.ts";
import { discover, type MigrationSources } from "../migrations/discover.ts";
import { lint, type LintFinding } from "../lint/lint.ts";
import { compare } from "./status.ts";
import { noSuchVersion } from "../migrations/plan.ts";
import { compareVersions, EMBEDDED, type Migration, versionKey } from "../migrations/migration.ts";
import { assertNoErrors, validateAll } from "../migrations/validate.ts";

/** Options of {@linkcode lintMigrations}. */
export interface LintOptions extends MigrationSources {
  /** Only those after this version, each set by itself. */
  readonly since?: string | undefined;
}

/** Result of a check of files. */
export interface LintResult {
  /** How many migrations were looked at. */
  readonly files: number;
  /** Whether those that a database has already were left out. */
  readonly pendingOnly: boolean;
  readonly findings: readonly LintFinding[];
}

/**
 * Lints migrations; with a session those alone that are pending in its database. PipeWeave's own are judged by review,
 * and nobody else could change them: they are validated and not linted.
 *
 * @throws {PipeweaveError} of kind `integrity` when files are invalid
 */
export async function lintMigrations(
  session: Session | undefined,
  options: LintOptions = {},
): Promise<LintResult> {
  const { migrations, some } = await candidates(session, options);
  const looked = since(options.since, some, migrations)
    .filter(({ source }) => source !== EMBEDDED || (options.dirs ?? []).length === 0);
  assertNoErrors(
    await validateAll(looked, { schema: session?.settings.schema }),
    "Nothing was looked at",
  );
  return {
    files: looked.length,
    pendingOnly: session !== undefined,
    findings: (await Promise.all(looked.filter(({ source }) => source !== EMBEDDED).map(lint))).flat(),
  };
}

/** All migrations, and those of them that are looked at. */
async function candidates(
  session: Session | undefined,
  options: LintOptions,
): Promise<{ migrations: readonly Migration[]; some: readonly Migration[] }> {
  const state = "Nothing was looked at";
  if (session) {
    const { migrations, status } = await compare(session, options, state);
    return { migrations, some: status.pending };
  }
  const { migrations, findings } = discover(options);
  assertNoErrors(findings, state);
  return { migrations, some: migrations };
}

function since(
  version: string | undefined,
  some: readonly Migration[],
  all: readonly Migration[],
): readonly Migration[] {
  if (version === undefined) return some;
  const last = all.find((migration) => versionKey(migration.version) === versionKey(version));
  if (!last) throw noSuchVersion(version);
  return some.filter((migration) =>
    migration.source !== last.source || compareVersions(migration.version, last.version) > 0
  );
}
