/**
 * What to apply: pure, from the files and the history to a status.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { type AppliedMigration, EMBEDDED, labelOf, type Migration, versionKey } from "./migration.ts";
import { isNodeToolChecksum } from "./node_tool.ts";

/** A row of `schema_migrations` as it was read. */
export type HistoryRow = Omit<AppliedMigration, "drift">;

/** Where a database stands against a set of migrations. */
export interface MigrationStatus {
  /** Version of the last applied migration, in the order in which they apply; null when there is none. */
  readonly current: string | null;
  /** What the history holds and the files know, in the order in which they apply. */
  readonly applied: readonly AppliedMigration[];
  /** What is to be applied, in order. */
  readonly pending: readonly Migration[];
  /** What the history holds and no file is for. */
  readonly missing: readonly HistoryRow[];
  /** Pending migrations of a set of which a later one is applied. */
  readonly outOfOrder: readonly Migration[];
}

/** Compares files and history. */
export function planMigrations(
  migrations: readonly Migration[],
  history: readonly HistoryRow[],
): MigrationStatus {
  const rows = new Map(history.map((row) => [versionKey(row.version), row]));
  const applied: AppliedMigration[] = [];
  const pending: Migration[] = [];
  const outOfOrder: Migration[] = [];
  const behind = new Map<string, Migration[]>();
  for (const migration of migrations) {
    const key = versionKey(migration.version);
    const row = rows.get(key);
    if (row) {
      rows.delete(key);
      applied.push({ ...row, drift: hasDrifted(migration, row) });
      outOfOrder.push(...behind.get(migration.source) ?? []);
      behind.delete(migration.source);
    } else {
      pending.push(migration);
      behind.set(migration.source, [...behind.get(migration.source) ?? [], migration]);
    }
  }
  return {
    current: applied.at(-1)?.version ?? null,
    applied,
    pending,
    missing: [...rows.values()],
    outOfOrder,
  };
}

function hasDrifted(migration: Migration, row: HistoryRow): boolean {
  if (row.checksum === migration.checksum) return false;
  return migration.source !== EMBEDDED || !isNodeToolChecksum(row.version, row.checksum);
}

/** What may be overlooked when applying. */
export interface Tolerance {
  /** Rows that no file is for: a newer release or another set of files applied them. */
  readonly missing?: boolean | undefined;
  /** Pending migrations behind an applied one of their set: they are applied now. */
  readonly outOfOrder?: boolean | undefined;
}

/**
 * Refuses to apply on top of a history that the files contradict.
 *
 * @throws {PipeweaveError} of kind `integrity`, naming every migration that is in the way
 */
export function assertApplicable(status: MigrationStatus, tolerance: Tolerance = {}): void {
  const drifted = status.applied.filter((row) => row.drift);
  const missing = tolerance.missing ? [] : status.missing;
  const outOfOrder = tolerance.outOfOrder ? [] : status.outOfOrder;
  const problems = [
    ...drifted.map((row) => `${labelOf(row)} was changed after it was applied`),
    ...missing.map((row) => `${labelOf(row)} is applied, but there is no file for it`),
    ...outOfOrder.map((migration) =>
      `${labelOf(migration)} is pending, but a later one of its set is applied`
    ),
  ];
  if (problems.length === 0) return;
  const [code, hint] = drifted.length > 0
    ? [
      "changed",
      'Restore the files as they were, and put the change into a new migration; or accept a file as it is: pipeweave db:repair --version <version> --reason "…"',
    ]
    : missing.length > 0
    ? [
      "missing",
      "Restore the files or give their folder with --dir; if a newer release applied them, use that release, or --allow-missing to go on without them.",
    ]
    : [
      "out_of_order",
      "Give the pending files numbers after the last applied one, or apply them now with --out-of-order.",
    ];
  throw new PipeweaveError(
    "integrity",
    code,
    "The history and the migration files do not match. Nothing was applied.",
    {
      problems,
      hint,
      data: {
        changed: drifted.map((row) => row.version),
        missing: missing.map((row) => row.version),
        outOfOrder: outOfOrder.map((migration) => migration.version),
      },
    },
  );
}

/**
 * Those of the pending migrations that come up to a version, in the order in which they apply.
 *
 * @param to undefined for all
 * @throws {PipeweaveError} of kind `usage` when there is no such version
 */
export function upTo(
  to: string | undefined,
  migrations: readonly Migration[],
  pending: readonly Migration[],
): readonly Migration[] {
  if (to === undefined) return pending;
  const last = migrations.findIndex(({ version }) => versionKey(version) === versionKey(to));
  if (last === -1) throw noSuchVersion(to);
  return pending.filter((migration) => migrations.indexOf(migration) <= last);
}

/** A version was named that no file has. */
export function noSuchVersion(version: string): PipeweaveError {
  return new PipeweaveError("usage", "no_such_version", `There is no migration with the version ${version}`, {
    hint: "See: pipeweave db:status; is its folder given with --dir?",
  });
}
