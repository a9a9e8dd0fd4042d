/**
 * `db:lint`: what would hurt a live database.
 *
 * @module
 */

import { resolve } from "node:path";
import type { Session } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import type { Finding } from "../migrations/finding.ts";
import { discover, type MigrationSources } from "../migrations/discover.ts";
import { lintAll, type LintFinding, memoryOf } from "../lint/lint.ts";
import { ruleText } from "./lint_rules.ts";
import { measureOn } from "./measured_alter.ts";
import { compare } from "./status.ts";
import { noSuchVersion } from "../migrations/plan.ts";
import { compareVersions, EMBEDDED, type Migration, versionKey } from "../migrations/migration.ts";
import { assertNoErrors, validateAll } from "../migrations/validate.ts";

/** Options of {@linkcode lintMigrations}. */
export interface LintOptions extends MigrationSources {
  /** Only those after this version, each set by itself. */
  readonly since?: string | undefined;
  /** Only these files; all where there are none. */
  readonly files?: readonly string[] | undefined;
  /** Rows up to which a table is small, where a database tells. */
  readonly smallTable?: number | undefined;
  /** Only findings of these rules; of all where there are none. */
  readonly rules?: readonly string[] | undefined;
  /** No findings of these rules. */
  readonly skipped?: readonly string[] | undefined;
  /** Findings of these rules are warnings. */
  readonly warnings?: readonly string[] | undefined;
}

/** What is reported of a file: a finding of a rule, or that it cannot be run as it is. */
export type Reported = Finding & Pick<LintFinding, "blocks" | "why">;

/** Result of a check of files. */
export interface LintResult {
  /** How many migrations were looked at. */
  readonly files: number;
  /** Whether those that a database has already were left out. */
  readonly pendingOnly: boolean;
  readonly findings: readonly Reported[];
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
  // A file that PostgreSQL cannot read is a finding too.
  const invalid = (await validateAll(looked, { schema: session?.settings.schema }))
    .filter(({ severity }) => severity === "error")
    .map((finding): Reported => ({ ...finding, blocks: "nobody", why: "" }));
  const { rules = [], skipped = [], warnings = [], files = [] } = options;
  for (const rule of [...rules, ...skipped, ...warnings]) ruleText(rule);
  const named = files.map((file) => resolve(file));
  const stranger = named.findIndex((file) =>
    !migrations.some((one) => [one, one.down].some((each) => each && resolve(each.file) === file))
  );
  if (stranger !== -1) throw noSuchFile(files[stranger]!);
  const own = looked.filter(({ source }) => source !== EMBEDDED);
  const measure = session && measureOn(session);
  const others = migrations.filter((one) => one.source !== EMBEDDED && !own.includes(one));
  const memory = await memoryOf(others, session !== undefined);
  const downs = own.flatMap(({ down }) => down ?? []);
  const findings: readonly Reported[] = [
    ...invalid,
    ...await lintAll(own, { memory, measure, smallTable: options.smallTable }),
    // A way back drops what the way there has made: what counts is whom it keeps waiting.
    ...(await lintAll(downs)).filter(({ blocks }) => blocks !== "nobody"),
  ];
  return {
    files: named.length > 0 ? named.length : looked.length,
    pendingOnly: session !== undefined,
    findings: findings
      .filter(({ code, why }) =>
        why === "" || (rules.length === 0 || rules.includes(code)) && !skipped.includes(code)
      )
      .map((finding) =>
        warnings.includes(finding.code) ? { ...finding, severity: "warning" as const } : finding
      )
      .filter(({ file }) => named.length === 0 || named.includes(resolve(file))),
  };
}

function noSuchFile(file: string): PipeweaveError {
  return new PipeweaveError(
    "usage",
    "no_such_migration",
    `${file} is no migration of a folder that was read`,
    {
      hint: "Name files of the folder that --dir names, or leave --dir out.",
    },
  );
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
