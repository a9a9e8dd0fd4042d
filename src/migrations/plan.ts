/**
 * What to apply: pure, from the files and the history to a status.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { type AppliedMigration, EMBEDDED, labelOf, type Migration, setOf, versionKey } from "./migration.ts";
import { isNodeToolChecksum } from "./node_tool.ts";

/** A row of `schema_migrations` as it was read. */
export type HistoryRow = Omit<AppliedMigration, "drift">;

/** A migration outside a transaction of which some statements are done, and that is not in the history. */
export interface PartialMigration {
  /** As its file had it. */
  readonly version: string;
  /** As its file had it. */
  readonly name: string;
  /** Statements that are done; they are the first ones of the file. */
  readonly done: number;
  /** The statement that was begun and whose end nobody noted, counted from 1; null where there is none. */
  readonly begun: number | null;
}

/** What a database knows of migrations. */
export interface HistoryFacts {
  readonly rows: readonly HistoryRow[];
  /** Half-done migrations. */
  readonly partial: readonly PartialMigration[];
}

/** A file whose number another migration has in the history. */
export interface TakenNumber {
  /** The file. */
  readonly migration: Migration;
  /** What the history has under its number. */
  readonly by: HistoryRow;
}

/** Where a database stands against a set of migrations. */
export interface MigrationStatus {
  /** Version of the last applied migration, in the order in which they apply; null when there is none. */
  readonly current: string | null;
  /** What the history holds and the files know, in the order in which they apply. */
  readonly applied: readonly AppliedMigration[];
  /** What is to be applied, in order. */
  readonly pending: readonly Migration[];
  /** What the history holds of PipeWeave's migrations or the user's, and no file is for. */
  readonly missing: readonly HistoryRow[];
  /** What another tool has recorded in the same table, and no file is for. */
  readonly others: readonly HistoryRow[];
  /** Files whose numbers other migrations have. */
  readonly taken: readonly TakenNumber[];
  /** Pending migrations of a set of which a later one is applied. */
  readonly outOfOrder: readonly Migration[];
  /** Migrations that an earlier run left half-done. */
  readonly partial: readonly PartialMigration[];
}

/** Compares files and history. A migration is known by its set, its version and its name. */
export function planMigrations(
  migrations: readonly Migration[],
  { rows: history, partial }: HistoryFacts,
): MigrationStatus {
  const rows = new Map(history.map((row) => [versionKey(row.version), row]));
  const applied: AppliedMigration[] = [];
  const pending: Migration[] = [];
  const taken: TakenNumber[] = [];
  const outOfOrder: Migration[] = [];
  const behind = new Map<string, Migration[]>();
  for (const migration of migrations) {
    const key = versionKey(migration.version);
    const row = rows.get(key);
    rows.delete(key);
    if (row && !isOf(row, migration)) taken.push({ migration, by: row });
    else if (row) {
      applied.push({ ...row, drift: hasDrifted(migration, row) });
      outOfOrder.push(...behind.get(migration.source) ?? []);
      behind.delete(migration.source);
    } else {
      pending.push(migration);
      behind.set(migration.source, [...behind.get(migration.source) ?? [], migration]);
    }
  }
  const rest = [...rows.values()];
  return {
    current: applied.at(-1)?.version ?? null,
    applied,
    pending,
    missing: rest.filter(({ set }) => set !== null),
    others: rest.filter(({ set }) => set === null),
    taken,
    outOfOrder,
    partial,
  };
}

/** Whether a row is a migration's. What the Node tool recorded has no set, and may be of any. */
export function isOf(row: Pick<HistoryRow, "version" | "name" | "set">, migration: Migration): boolean {
  return versionKey(row.version) === versionKey(migration.version) && row.name === migration.name &&
    (row.set === null || row.set === setOf(migration));
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

/** Something in which files and history contradict each other. */
export interface Contradiction {
  /** Stable, for scripts. */
  readonly code: "number_taken" | "half_done" | "changed" | "missing" | "out_of_order";
  /** Which file, or the table where there is none. */
  readonly file: string;
  /** Of what it is about. */
  readonly version: string;
  /** A sentence that begins with the migration's name. */
  readonly message: string;
  /** What to do, a sentence or two. */
  readonly hint: string;
}

/** Everything in which files and history contradict each other, the gravest first. */
export function contradictions(
  migrations: readonly Migration[],
  status: MigrationStatus,
): readonly Contradiction[] {
  const fileOf = (version: string) =>
    migrations.find((migration) => versionKey(migration.version) === versionKey(version))?.file ??
      "schema_migrations";
  return [
    ...status.taken.map(contradictionOfTaken),
    ...status.partial.flatMap((partial) => contradictionOfPartial(migrations, partial)),
    ...status.applied.filter(({ drift }) => drift).map((row): Contradiction => ({
      code: "changed",
      file: fileOf(row.version),
      version: row.version,
      message: `${labelOf(row)} was changed after it was applied`,
      hint:
        'Restore the files as they were, and put the change into a new migration; or accept a file as it is: pipeweave db:repair --version <version> --reason "why"',
    })),
    ...status.missing.map((row): Contradiction => ({
      code: "missing",
      file: "schema_migrations",
      version: row.version,
      message: `${labelOf(row)} is applied, but there is no file for it`,
      hint:
        "Restore the files or give their folder with --dir; if a newer release applied them, use that release, or --allow-missing to go on without them.",
    })),
    ...status.outOfOrder.map((migration): Contradiction => ({
      code: "out_of_order",
      file: migration.file,
      version: migration.version,
      message: `${labelOf(migration)} is pending, but a later one of its set is applied`,
      hint:
        "Give the pending files numbers after the last applied one, or apply them now with --out-of-order.",
    })),
  ];
}

function contradictionOfTaken({ migration, by }: TakenNumber): Contradiction {
  const about = { code: "number_taken", file: migration.file, version: migration.version } as const;
  const isSameText = by.checksum === migration.checksum && (by.set === null || by.set === setOf(migration));
  if (isSameText) {
    return {
      ...about,
      message: `${labelOf(migration)} was applied under another name: ${labelOf(by)}`,
      hint:
        `Give the file its name back; or record the new one: pipeweave db:repair --version ${migration.version} --reason "why"`,
    };
  }
  const message = `${labelOf(migration)} is not applied: another migration has its number, ${labelOf(by)}${
    by.set === null ? ", which another tool recorded" : ""
  }`;
  if (migration.source !== EMBEDDED) {
    return {
      ...about,
      message,
      hint: `Give ${labelOf(migration)} a number that is free, and restore the file of ${labelOf(by)}.`,
    };
  }
  return {
    ...about,
    message,
    hint:
      `Give the other one a free number, in the history and as a file: pipeweave db:repair --version ${by.version} --renumber <number> --reason "why"`,
  };
}

function contradictionOfPartial(
  migrations: readonly Migration[],
  partial: PartialMigration,
): Contradiction[] {
  const { version } = partial;
  const migration = migrations.find((one) =>
    versionKey(one.version) === versionKey(version) && one.name === partial.name
  );
  if (migration?.directives.noTransaction) return [];
  const forget = `pipeweave db:repair --version ${version} --partial forget --reason "why"`;
  const about = { code: "half_done", version, file: migration?.file ?? "migration_journal" } as const;
  return [
    migration
      ? {
        ...about,
        message: `${describePartial(partial)}, and its file is not marked no-transaction any more`,
        hint:
          `Put the line "-- pipeweave: no-transaction" back, and db:migrate goes on where it stopped; or undo by hand what is done, and: ${forget}`,
      }
      : {
        ...about,
        message: `${describePartial(partial)}, and there is no file for it`,
        hint: `Restore the file ${
          labelOf(partial)
        }.sql, and db:migrate goes on where it stopped; or undo by hand what is done, and: ${forget}`,
      },
  ];
}

/** `002_steps is half done (statements 1 to 2 are done)`. */
export function describePartial(partial: PartialMigration): string {
  return `${labelOf(partial)} is half done (${describeParts(partial)})`;
}

/** `statements 1 to 2 are done`. */
export function describeParts({ done, begun }: PartialMigration): string {
  return [
    ...(done > 0 ? [done === 1 ? "statement 1 is done" : `statements 1 to ${done} are done`] : []),
    ...(begun === null ? [] : [`statement ${begun} was begun, and its end is not known`]),
  ].join(", ");
}

/**
 * Refuses to apply on top of a history that the files contradict.
 *
 * @throws {PipeweaveError} of kind `integrity`, naming every migration that is in the way
 */
export function assertApplicable(
  migrations: readonly Migration[],
  status: MigrationStatus,
  tolerance: Tolerance = {},
): void {
  refuse(contradictions(migrations, status), tolerance);
}

/**
 * Refuses contradictions.
 *
 * @throws {PipeweaveError} of kind `integrity`, naming every migration that is in the way
 */
export function refuse(all: readonly Contradiction[], tolerance: Tolerance = {}): void {
  const found = all.filter(({ code }) =>
    !(code === "missing" && tolerance.missing || code === "out_of_order" && tolerance.outOfOrder)
  );
  const [first] = found;
  if (!first) return;
  const versionsOf = (wanted: Contradiction["code"]) =>
    found.filter(({ code }) => code === wanted).map(({ version }) => version);
  throw new PipeweaveError(
    "integrity",
    first.code,
    "The history and the migration files do not match. Nothing was applied.",
    {
      problems: found.map(({ message }) => message),
      hint: first.hint,
      data: {
        numberTaken: versionsOf("number_taken"),
        halfDone: versionsOf("half_done"),
        changed: versionsOf("changed"),
        missing: versionsOf("missing"),
        outOfOrder: versionsOf("out_of_order"),
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
