/**
 * `db:repair`, `db:baseline` and `db:history`: the history put right by hand, and the log of all that was done to it.
 *
 * @module
 */

import { type Actor, UNKNOWN_ACTOR } from "../config/actor.ts";
import { type Session } from "../database/session.ts";
import { sql, SqlText } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";
import { PipeweaveError } from "../errors.ts";
import { isReserved, type MigrationSources, readFiles } from "../migrations/discover.ts";
import {
  createBookkeeping,
  ENGINE_TABLES,
  historyTable,
  lockForHistory,
  readHistory,
  recordMigration,
} from "../engine/history.ts";
import { forget, hashOf, readJournal, rehash, takeAsDone, unbegin } from "../engine/journal.ts";
import { type LogFilter, type LogRow, readLog, writeLog } from "../engine/log.ts";
import { freshSession, MIGRATION_LOCK_TIMEOUT_MS } from "../engine/message.ts";
import { compareVersions, labelOf, type Migration, versionKey } from "../migrations/migration.ts";
import {
  contradictions,
  describePartial,
  noSuchVersion,
  type PartialMigration,
  refuse,
} from "../migrations/plan.ts";
import { statementsOf } from "../sql/statements.ts";
import { compare } from "./status.ts";

/** A change of the history by hand: where the files are, who makes it, and why. */
export interface ByHand extends MigrationSources {
  /** Who does it, for the log. Default: nobody in particular */
  readonly actor?: Actor | undefined;
  /** Why, for the log. */
  readonly reason?: string | undefined;
}

/** Result of {@linkcode repairMigration}. */
export interface RepairResult {
  /** As the file has it. */
  readonly version: string;
  /** As the file has it. */
  readonly name: string;
  /** Whether anything was changed. */
  readonly repaired: boolean;
  /** Of the history before. */
  readonly oldChecksum: string | null;
  /** Of the file. */
  readonly checksum: string;
  /** Statements outside a transaction that had run and are taken to be what the file has now. */
  readonly statements: readonly number[];
}

/**
 * Accepts a file that was edited after it was applied, or after some of its statements had run.
 *
 * @throws {PipeweaveError} of kind `usage` when there is no such file, `condition` when it is not applied at all
 */
export async function repairMigration(
  session: Session,
  version: string,
  options: ByHand,
): Promise<RepairResult> {
  const { migrations, history, status } = await compare(session, options, "Nothing was changed");
  const migration = migrations.find((one) => versionKey(one.version) === versionKey(version));
  if (!migration) throw noSuchVersion(version);
  const isMeant = (one: { readonly version: string }) => versionKey(one.version) === versionKey(version);
  const taken = status.taken.find((one) => one.migration === migration);
  if (taken && taken.by.checksum !== migration.checksum) {
    refuse(contradictions(migrations, { ...status, ...NOTHING_ELSE, taken: [taken] }));
  }
  const row = taken ? { ...taken.by, drift: true } : status.applied.find(isMeant);
  const changed = row ? [] : await changedStatements(session, migration);
  const { name, checksum } = migration;
  const result = { version: migration.version, name, checksum };
  if (row ? !row.drift : changed.length === 0) {
    if (!row && (await readJournal(session, migration.version)).size === 0) throw notApplied(migration);
    return { ...result, repaired: false, oldChecksum: row?.checksum ?? null, statements: [] };
  }
  const { schema } = session.settings;
  const set = row
    ? sql`UPDATE ${historyTable(schema)} SET checksum = ${checksum}, name = ${name}
       WHERE version = ${row.version} AND checksum = ${row.checksum} AND name = ${row.name};`
    : new SqlText(
      changed.map(({ number, hash }) => rehash(schema, migration.version, number, hash).text).join("\n"),
    );
  await alterHistory(session, history.complete, [
    set,
    sql`${
      writeLog(schema, {
        ...{ action: "repair", version: migration.version, name, outcome: "done" },
        ...{ actor: options.actor ?? UNKNOWN_ACTOR, reason: options.reason },
        details: row
          ? { from: row.checksum, to: checksum }
          : { statements: changed.map(({ number }) => number) },
      })
    };`,
  ]);
  return {
    ...result,
    repaired: true,
    oldChecksum: row?.checksum ?? null,
    statements: changed.map(({ number }) => number),
  };
}

async function changedStatements(
  session: Session,
  migration: Migration,
): Promise<readonly { number: number; hash: string }[]> {
  const journal = await readJournal(session, migration.version);
  const statements = journal.size === 0 ? [] : await statementsOf(migration);
  const hashes = statements.map((statement) => hashOf(migration, statement));
  return [...journal.values()].filter(({ finished }) => finished).flatMap(({ statement, hash }) => {
    const now = hashes[statement - 1];
    if (now === undefined) {
      throw new PipeweaveError(
        "integrity",
        "fewer_statements",
        `Statement ${statement} of ${labelOf(migration)} has run, and the file has only ${hashes.length}`,
        { hint: "Leave a statement that does nothing in its place (SELECT 1), so that the numbers fit." },
      );
    }
    return now === hash ? [] : [{ number: statement, hash: now }];
  });
}

function notApplied(migration: Migration): PipeweaveError {
  return new PipeweaveError(
    "condition",
    "not_applied",
    `${labelOf(migration)} is not applied: there is nothing to repair`,
    {
      hint: "Run: pipeweave db:migrate",
    },
  );
}

/** Result of {@linkcode baseline}. */
export interface BaselineResult {
  /** The last migration that is recorded now. */
  readonly version: string;
  /** Recorded as applied now, without running. */
  readonly adopted: readonly Pick<Migration, "version" | "name" | "checksum">[];
}

/**
 * Records migrations as applied that a database has already, without running them: all of one set up to a version.
 *
 * @throws {PipeweaveError} of kind `usage` when there is no such version, `integrity` when the history contradicts it
 */
export async function baseline(session: Session, version: string, options: ByHand): Promise<BaselineResult> {
  const { migrations, history, status } = await compare(session, options, "Nothing was changed");
  const last = migrations.find((migration) => versionKey(migration.version) === versionKey(version));
  if (!last) throw noSuchVersion(version);
  const { pending, applied, partial, taken } = status;
  const inSet = (one: Migration) => one.source === last.source;
  const adopted = pending.filter((one) => inSet(one) && compareVersions(one.version, last.version) <= 0);
  const isAdopted = (one: { readonly version: string }) =>
    adopted.some(({ version }) => versionKey(version) === versionKey(one.version));
  refuse(
    contradictions(migrations, {
      ...status,
      ...NOTHING_ELSE,
      taken: taken.filter(({ migration }) => inSet(migration)),
    }),
  );
  const [halfDone] = partial.filter(isAdopted);
  if (halfDone) {
    throw new PipeweaveError("integrity", "half_done", `${describePartial(halfDone)}. Nothing was recorded`, {
      hint:
        `Let db:migrate finish it; or undo by hand what is done, and: pipeweave db:repair --version ${halfDone.version} --partial forget --reason "why"`,
    });
  }
  if (adopted.length === 0) return { version: last.version, adopted };
  const run = applied.find(({ version }) => migrations.some((one) => inSet(one) && one.version === version));
  if (run) {
    throw new PipeweaveError(
      "integrity",
      "history_exists",
      `The history has ${
        labelOf(run)
      } already: a baseline is for a database that no migration of this set was applied to`,
      { hint: "Run: pipeweave db:migrate" },
    );
  }
  const { schema } = session.settings;
  await alterHistory(
    session,
    history.complete,
    adopted.map((migration) =>
      recordMigration(schema, migration, sql`NULL::integer`, {
        ...{ action: "baseline", actor: options.actor ?? UNKNOWN_ACTOR, reason: options.reason },
      })
    ),
  );
  return { version: last.version, adopted };
}

/** The last lines of the log that a filter lets through, newest first. */
export function showHistory(session: Session, filter: LogFilter): Promise<readonly LogRow[]> {
  return readLog(session, filter);
}

/** Answers to {@linkcode settlePartial}: what became of the statement whose end was not recorded, or of the whole file. */
export const SETTLEMENTS = ["done", "again", "forget"] as const;
/** One of {@linkcode SETTLEMENTS}. */
export type Settlement = typeof SETTLEMENTS[number];

/**
 * Says of a half-done migration what only people can know: that the statement whose end nobody noted is done, that it is
 * to be run again, or that everything was undone by hand and the file is to be begun from its start.
 *
 * @throws {PipeweaveError} of kind `condition` when there is nothing to be said
 */
export async function settlePartial(
  session: Session,
  version: string,
  settlement: Settlement,
  { actor = UNKNOWN_ACTOR, reason }: Pick<ByHand, "actor" | "reason">,
): Promise<PartialMigration> {
  const history = await readHistory(session);
  const partial = history.partial.find((one) => versionKey(one.version) === versionKey(version));
  if (!partial || settlement !== "forget" && partial.begun === null) {
    throw new PipeweaveError(
      "condition",
      "nothing_to_settle",
      partial
        ? `${describePartial(partial)}: there is no statement whose end is not known`
        : `No migration with the version ${version} is half done`,
      { hint: partial ? "Run: pipeweave db:migrate, which goes on with it." : "See: pipeweave db:status" },
    );
  }
  const { schema } = session.settings;
  const changes = { done: takeAsDone, again: unbegin, forget };
  await alterHistory(session, history.complete, [
    changes[settlement](schema, partial.version),
    sql`${
      writeLog(schema, {
        ...{ action: "repair", version: partial.version, name: partial.name, outcome: "done" },
        ...{ actor, reason, details: { partial: settlement, done: partial.done, begun: partial.begun } },
      })
    };`,
  ]);
  return partial;
}

/** Result of {@linkcode renumber}. */
export interface Renumbered {
  readonly name: string;
  readonly from: string;
  readonly to: string;
}

/**
 * Gives a row of the history another number: one of another tool's, or of a user's, that PipeWeave's own migration has.
 *
 * @throws {PipeweaveError} of kind `usage` when there is no such row, or the number is not free
 */
export async function renumber(
  session: Session,
  version: string,
  to: string,
  { actor = UNKNOWN_ACTOR, reason, ...sources }: ByHand,
): Promise<Renumbered> {
  const files = readFiles(sources);
  const history = await readHistory(session);
  const row = history.rows.find((one) => versionKey(one.version) === versionKey(version));
  if (!row) throw noSuchVersion(version);
  const { migrations } = files.takingPart(history.rows);
  const other = [...history.rows, ...migrations].find((one) =>
    versionKey(one.version) === versionKey(to) && one.name !== row.name
  );
  if (other || isReserved(to) || history.rows.some((one) => versionKey(one.version) === versionKey(to))) {
    throw new PipeweaveError(
      "usage",
      "number_taken",
      other ? `${to} is the number of ${labelOf(other)}` : `${to} is not free`,
      { hint: "Choose a number that no file and no row of db:status has, and none from 90000 to 99999." },
    );
  }
  const { schema } = session.settings;
  await alterHistory(session, history.complete, [
    sql`UPDATE ${
      historyTable(schema)
    } SET version = ${to} WHERE version = ${row.version} AND name = ${row.name};`,
    sql`${
      writeLog(schema, {
        ...{ action: "repair", version: to, name: row.name, outcome: "done" },
        ...{ actor, reason, details: { renumberedFrom: row.version } },
      })
    };`,
  ]);
  return { name: row.name, from: row.version, to };
}

/** A status with nothing wrong in it but what is put in. */
const NOTHING_ELSE = { applied: [], missing: [], outOfOrder: [], partial: [], taken: [] } as const;

/** Changes the history in one transaction, while no migrator works. @param first what makes room for it */
export async function alterHistory(
  session: Session,
  complete: boolean,
  statements: readonly SqlText[],
  { first }: { readonly first?: SqlText | undefined } = {},
): Promise<void> {
  const { schema } = session.settings;
  const parts = [
    ...freshSession({ lockTimeoutMs: MIGRATION_LOCK_TIMEOUT_MS, statementTimeoutMs: undefined }),
    assertTrusted(schema, [], "own"),
    lockForHistory(schema),
    ...(first ? [first] : []),
    // Again, since somebody may have held that lock for a while.
    assertTrusted(schema, [], "own", { writes: ENGINE_TABLES }),
    ...(complete ? [] : [createBookkeeping(schema)]),
    ...statements,
  ];
  await session.send(parts.map(({ text }) => text).join("\n"));
}
