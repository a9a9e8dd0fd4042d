/**
 * `db:repair`, `db:baseline` and `db:history`: the history put right by hand, and the log of all that was done to it.
 *
 * @module
 */

import type { Actor } from "../config/actor.ts";
import { type Session } from "../database/session.ts";
import { sql, SqlText } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";
import { PipeweaveError } from "../errors.ts";
import { discover, type MigrationSources } from "../migrations/discover.ts";
import {
  createBookkeeping,
  ENGINE_TABLES,
  historyTable,
  lockForHistory,
  readHistory,
  recordMigration,
} from "../engine/history.ts";
import { hashOf, readJournal, rehash } from "../engine/journal.ts";
import { type LogRow, readLog, writeLog } from "../engine/log.ts";
import { freshSession, MIGRATION_LOCK_TIMEOUT_MS } from "../engine/message.ts";
import { compareVersions, labelOf, type Migration, versionKey } from "../migrations/migration.ts";
import { noSuchVersion, planMigrations } from "../migrations/plan.ts";
import { statementsOf } from "../sql/statements.ts";
import { assertNoErrors } from "../migrations/validate.ts";

/** Who does it, and why. */
export interface ByHand extends MigrationSources {
  readonly actor: Actor;
  readonly reason?: string | undefined;
}

/** What {@linkcode repairMigration} did. */
export interface RepairResult {
  readonly version: string;
  readonly name: string;
  /** Whether there was anything to put right. */
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
  const migrations = read(options);
  const migration = migrations.find((one) => versionKey(one.version) === versionKey(version));
  if (!migration) throw noSuchVersion(version);
  const history = await readHistory(session);
  const row = planMigrations(migrations, history.rows).applied.find((applied) =>
    versionKey(applied.version) === versionKey(version)
  );
  const changed = row ? [] : await changedStatements(session, migration);
  const { name, checksum } = migration;
  const result = { version: migration.version, name, checksum };
  if (row ? !row.drift : changed.length === 0) {
    if (!row && (await readJournal(session, migration.version)).size === 0) throw notApplied(migration);
    return { ...result, repaired: false, oldChecksum: row?.checksum ?? null, statements: [] };
  }
  const { schema } = session.settings;
  const set = row
    ? sql`UPDATE ${
      historyTable(schema)
    } SET checksum = ${checksum} WHERE version = ${row.version} AND checksum = ${row.checksum};`
    : new SqlText(
      changed.map(({ number, hash }) => rehash(schema, migration.version, number, hash).text).join("\n"),
    );
  await alter(session, history.complete, [
    set,
    sql`${
      writeLog(schema, {
        ...{ action: "repair", version: migration.version, name, outcome: "done" },
        ...{ actor: options.actor, reason: options.reason },
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

/** What {@linkcode baseline} did. */
export interface BaselineResult {
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
  const migrations = read(options);
  const last = migrations.find((migration) => versionKey(migration.version) === versionKey(version));
  if (!last) throw noSuchVersion(version);
  const history = await readHistory(session);
  const { pending, applied } = planMigrations(migrations, history.rows);
  const inSet = (one: Migration) => one.source === last.source;
  const adopted = pending.filter((one) => inSet(one) && compareVersions(one.version, last.version) <= 0);
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
  await alter(
    session,
    history.complete,
    adopted.map((migration) =>
      recordMigration(schema, migration, sql`NULL::integer`, {
        ...{ action: "baseline", actor: options.actor, reason: options.reason },
      })
    ),
  );
  return { version: last.version, adopted };
}

/** The last lines of the log, newest first. @param limit lines at most */
export function showHistory(session: Session, limit: number): Promise<readonly LogRow[]> {
  return readLog(session, limit);
}

function read(sources: MigrationSources): readonly Migration[] {
  const { migrations, findings } = discover(sources);
  assertNoErrors(findings, "Nothing was changed");
  return migrations;
}

/** Changes the history in one transaction, while no migrator works. */
async function alter(session: Session, complete: boolean, statements: readonly SqlText[]): Promise<void> {
  const { schema } = session.settings;
  const parts = [
    ...freshSession({ lockTimeoutMs: MIGRATION_LOCK_TIMEOUT_MS, statementTimeoutMs: undefined }),
    assertTrusted(schema, [], "own"),
    lockForHistory(schema),
    // Again, since somebody may have held that lock for a while.
    assertTrusted(schema, [], "own", { writes: ENGINE_TABLES }),
    ...(complete ? [] : [createBookkeeping(schema)]),
    ...statements,
  ];
  await session.send(parts.map(({ text }) => text).join("\n"));
}
