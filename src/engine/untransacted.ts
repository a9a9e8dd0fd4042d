/**
 * Runs a migration marked `no-transaction`: statement by statement, under a lease, journalled, so that the run after a
 * crash goes on where this one stopped.
 *
 * A statement that PostgreSQL would run in a transaction goes out together with its line in the journal, in one: it is
 * done exactly once. One that has transactions of its own (CREATE INDEX CONCURRENTLY and the like) goes out alone, between
 * a line that says that it begins and one that says that it is done, which is written after a look at the catalog. One
 * that may commit inside (CALL, DO) leaves nothing to look at: it goes out once, and what became of it is for people to
 * say where the server did not.
 *
 * @module
 */

import type { Actor } from "../config/actor.ts";
import { formatDuration } from "../config/duration.ts";
import { isLockConflict, sqlstateOf } from "../database/conflict.ts";
import { ConnectionLost, type Row, Session, StatementError } from "../database/session.ts";
import { hasCrashed, readServerIdentity } from "../database/server_identity.ts";
import { pauseBefore, sleep } from "../database/sleep.ts";
import { sql, type SqlText } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { labelOf, type Migration } from "../migrations/migration.ts";
import { forgetsSettings, isSetting } from "../sql/session_state.ts";
import { type Statement, statementsOf } from "../sql/statements.ts";
import { type TransactionClass, transactionClassOf, whenRefused } from "../sql/transactions.ts";
import { Aftermath, UntransactedFailure } from "./aftermath.ts";
import { type Activity, Watch } from "./activity.ts";
import { crashed, explainFailure, wasEndedOnPurpose } from "./explain.ts";
import { recordMigration } from "./history.ts";
import { begin, finish, forget, hashOf, type JournalKey, type JournalRow, readJournal } from "./journal.ts";
import { DONE_ALREADY, fencedOff, type Lease } from "./lease.ts";
import {
  type EffectiveLimits,
  END_OF_MESSAGE,
  endOfBody,
  freshSession,
  locateFailure,
  type Message,
  messageHead,
  userSettings,
} from "./message.ts";
import { assertSameSettings, noteSettings, Outside, type OutsideOptions } from "./outside.ts";
import { describeConflict, LOST_CONNECTIONS } from "./retry.ts";
import { traceOf } from "./trace.ts";

/** How to run, and whom to tell. */
export interface UntransactedOptions extends OutsideOptions {
  /** Fails where a condition of the run does not hold any more. */
  readonly condition: SqlText | undefined;
  readonly actor: Actor;
  readonly details: Readonly<Record<string, unknown>> | undefined;
  readonly lockRetries: number;
  /** Whether none of the user's migrations was applied before. */
  readonly isFirst: boolean;
  readonly onActivity: ((migration: Migration, activity: Activity) => void) | undefined;
}

/** How far it is with a statement that was sent alone. */
interface SentAlone {
  /** Whether it has left. */
  begun: boolean;
  /** Whether the server said that it is done, and it was seen to be so. */
  answered: boolean;
}

/** SQLSTATE of a statement that PostgreSQL does not run inside a transaction. */
const ACTIVE_TRANSACTION = "25001";

/**
 * Runs what is left of a migration.
 *
 * @returns the row of the history
 * @throws {UntransactedFailure} when a statement failed
 * @throws {PipeweaveError} when the connection is lost for good, or the lease
 */
export async function runUntransacted(
  session: Session,
  migration: Migration,
  lease: Lease,
  options: UntransactedOptions,
): Promise<Row> {
  return await new UntransactedRun(session, migration, lease, options, await statementsOf(migration)).run();
}

class UntransactedRun {
  readonly #schema: string;
  readonly #outside: Outside;
  readonly #aftermath: Aftermath;
  /** Statements that PostgreSQL refused to run in a transaction. */
  readonly #refused = new Set<Statement>();
  #journalVersion: string;

  readonly session: Session;
  readonly migration: Migration;
  readonly lease: Lease;
  readonly options: UntransactedOptions;
  readonly statements: readonly Statement[];

  constructor(
    session: Session,
    migration: Migration,
    lease: Lease,
    options: UntransactedOptions,
    statements: readonly Statement[],
  ) {
    this.session = session;
    this.migration = migration;
    this.lease = lease;
    this.options = options;
    this.statements = statements;
    this.#schema = session.settings.schema;
    this.#journalVersion = migration.version;
    this.#outside = new Outside(session, migration, statements, options);
    const classOf = (statement: Statement) => this.#classOf(statement);
    this.#aftermath = new Aftermath(session, this.#outside, classOf, options.isFirst);
  }

  async run(): Promise<Row> {
    const { migration, session, lease, statements, options } = this;
    const since = Date.now();
    const { journal } = lease;
    this.#journalVersion = journal.values().next().value?.version ?? migration.version;
    this.#assertUnchanged(journal);
    for (const [index, statement] of statements.entries()) {
      const number = index + 1;
      const row = journal.get(number);
      if (row?.finished) continue;
      if (number > 1 && journal.get(number - 1)?.finished || row) {
        options.onNote(
          `goes on at statement ${number} of ${statements.length}, where an earlier run stopped`,
        );
      }
      await this.#step(number, statement, row);
    }
    const { version } = migration;
    const record = recordMigration(this.#schema, migration, sql`${Date.now() - since}`, {
      ...{ action: "apply", actor: options.actor },
      details: { ...options.details, transaction: false, statements: statements.length },
    });
    try {
      const sets = await session.transaction(
        sql`${lease.check()} ${record} ${forget(this.#schema, version)} ${lease.release()}`,
      );
      lease.released();
      return sets[0]![0]!;
    } catch (error) {
      if (lease.ended(error)) throw fencedOff(labelOf(migration), error);
      if (!(error instanceof StatementError)) throw error;
      const cause = await explainFailure(error, migration, undefined, {
        ...{ session, heldBy: undefined, isFirst: options.isFirst, again: "db:migrate" },
      });
      throw new UntransactedFailure(
        cause!,
        `all statements of ${
          labelOf(migration)
        } are done, and stay; only its row in the history is missing, which the next db:migrate adds`,
      );
    }
  }

  #assertUnchanged(journal: ReadonlyMap<number, JournalRow>): void {
    const { migration, statements } = this;
    for (const [number, { finished, hash }] of journal) {
      const statement = statements[number - 1];
      if (!finished || (statement && hashOf(migration, statement) === hash)) continue;
      throw new PipeweaveError(
        "integrity",
        "changed_under_way",
        statement
          ? `Statement ${number} of ${
            labelOf(migration)
          } has run already, and the file has another one there now`
          : `Statement ${number} of ${
            labelOf(migration)
          } has run already, and the file has only ${statements.length}`,
        {
          hint: statement
            ? `Restore what had run, and put changes behind it; or accept the file as it is: pipeweave db:repair --version ${migration.version} --reason "why"`
            : `Restore what had run; or undo it by hand, and have the file begun again: pipeweave db:repair --version ${migration.version} --partial forget --reason "why"`,
        },
      );
    }
  }

  /** Runs one statement, again where that helps and can do no harm. */
  async #step(number: number, statement: Statement, row: JournalRow | undefined): Promise<void> {
    const { migration, options, session } = this;
    const key: JournalKey = {
      // The lines of one file have one spelling of its version, however many zeros it has now.
      ...{ version: this.#journalVersion, name: migration.name, statement: number },
      hash: hashOf(migration, statement),
      fence: this.lease.fence,
    };
    let begun = row;
    let lost = 0;
    const sent: SentAlone = { begun: false, answered: false };
    for (let attempt = 1;; attempt++) {
      await using watch = new Watch(session, migration, options.onActivity, number);
      try {
        await (this.#classOf(statement).atomicity === "atomic"
          ? this.#runWithJournal(key, statement)
          : this.#runAlone(key, statement, begun, sent));
        return;
      } catch (error) {
        if (this.lease.ended(error)) throw fencedOff(labelOf(migration), error);
        if (sqlstateOf(error) === DONE_ALREADY) return;
        const { atomicity } = this.#classOf(statement);
        if (atomicity === "atomic" && sqlstateOf(error) === ACTIVE_TRANSACTION) {
          // It was rolled back before it did anything.
          this.#refused.add(statement);
          continue;
        }
        const isUnknown = atomicity === "opaque" && sent.begun && !sent.answered;
        const mayGoOn = !options.signal?.aborted && !isUnknown;
        if (
          error instanceof ConnectionLost && mayGoOn && !error.isUnreachable && !wasEndedOnPurpose(error) &&
          ++lost <= LOST_CONNECTIONS
        ) {
          options.onNote(`${error.message}; connecting again to see what became of statement ${number}`);
          begun = (await readJournal(session, migration.version)).get(number);
          if (begun?.finished) return;
          // Nothing was sent of it, or it was answered.
          if (atomicity === "opaque") begun = undefined;
          if (!hasCrashed(this.lease.server, await readServerIdentity(session))) continue;
          throw await this.#aftermath.of(
            crashed(migration, error as PipeweaveError),
            ...[number, statement, begun, undefined] as const,
          );
        }
        const pause = pauseBefore(attempt);
        if (
          isLockConflict(error) && mayGoOn && attempt <= options.lockRetries &&
          Date.now() + pause < options.deadline
        ) {
          const conflict = describeConflict(error, watch.lastBlockers);
          options.onNote(
            `statement ${number}: ${conflict}; attempt ${attempt + 1} in ${formatDuration(pause)}`,
          );
          begun = (await readJournal(session, migration.version)).get(number);
          await sleep(pause, options.signal);
          continue;
        }
        if (error instanceof UntransactedFailure) throw error;
        if (!(error instanceof StatementError) && !(error instanceof ConnectionLost)) throw error;
        throw await this.#aftermath.of(error, number, statement, begun, watch.lastBlockers);
      }
    }
  }

  /** Whether a statement must leave the settings as they are: what it sets would be gone at the next, without a word. */
  #isWatched(number: number, { node }: Statement): boolean {
    return number < this.statements.length && !isSetting(node) && !forgetsSettings(node);
  }

  #classOf(statement: Statement): TransactionClass {
    return this.#refused.has(statement) ? whenRefused(statement) : transactionClassOf(statement);
  }

  /** A statement and its line in the journal, in one transaction. */
  async #runWithJournal(key: JournalKey, statement: Statement): Promise<void> {
    const { lease, session } = this;
    // What a function of the user's sets would be gone at the next statement, without a word.
    const watched = this.#isWatched(key.statement, statement);
    const before = [
      ...freshSession(this.options.limits),
      lease.check(key),
      ...(this.options.condition ? [this.options.condition] : []),
      ...userSettings("transaction"),
      ...this.#outside.settingsBefore(statement),
      ...(watched ? [noteSettings("before")] : []),
    ];
    const head = `${messageHead(this.migration)}${before.map(({ text }) => text).join("\n")}\n`;
    const text = this.#outside.textOf(statement);
    const after = [
      ...(watched ? [noteSettings("after")] : []),
      endOfBody(),
      ...(watched ? [assertSameSettings] : []),
      finish(this.#schema, key),
      END_OF_MESSAGE,
    ];
    const message = `${head}${text}\n;\n${after.map((part) => part.text).join("\n")}`;
    await this.#located(
      session.send(message),
      { text: message, bodyStart: head.length, statementsBefore: before.length },
      key,
      statement,
    );
  }

  /** A statement that cannot share a transaction. */
  async #runAlone(
    key: JournalKey,
    statement: Statement,
    begun: JournalRow | undefined,
    sent: SentAlone,
  ): Promise<void> {
    if (sent.answered) return await this.#finish(key);
    const { lease, session, options } = this;
    const outside = this.#outside;
    const { atomicity, blocksNobody } = this.#classOf(statement);
    if (begun) await outside.waitForLeftovers();
    if (begun && atomicity === "opaque") throw this.#aftermath.unknownEnd(key.statement, statement);
    const trace = traceOf(statement);
    const limits = blocksNobody ? this.#unlimited() : options.limits;
    const from = begun?.hash === key.hash ? begun.before : null;
    let before = from ?? {};
    let text = outside.textOf(statement);
    if (trace) {
      const now = await outside.look(trace, statement, from ?? undefined);
      if (from && trace.wasDone(from, now)) {
        options.onNote(`statement ${key.statement} is done: the run that was cut off had carried it out`);
        return await this.#finish(key);
      }
      // What a REINDEX of somebody else's has left is not ours to drop; an INVALID index of the name we are to build is.
      before = from ?? now;
      // Whoever has taken over may be at work on them.
      if (trace.remains(before, now).length > 0) await session.transaction(lease.check());
      await outside.removeRemains(trace, statement, before, now, limits);
      const rest = trace.goOn?.(now);
      if (rest) options.onNote(`statement ${key.statement} was begun before; finishing it: ${rest.text}`);
      text = rest?.text ?? text;
    }
    await session.transaction(
      sql`${lease.check()} ${options.condition ?? sql``} ${begin(this.#schema, key, trace ? before : null)}`,
    );
    const head = messageHead(this.migration);
    sent.begun = true;
    const watched = atomicity === "opaque" && this.#isWatched(key.statement, statement);
    const answer = outside.send(`${head}${text}`, outside.settingsBefore(statement), limits, watched);
    await this.#located(
      answer,
      { text: `${head}${text}`, bodyStart: head.length, statementsBefore: 0 },
      key,
      statement,
    );
    if (trace) {
      const now = await outside.look(trace, statement, before);
      const problem = trace.problem(before, now);
      if (problem) throw this.#aftermath.notSo(key.statement, statement, problem);
    }
    sent.answered = true;
    await this.#finish(key);
  }

  async #finish(key: JournalKey): Promise<void> {
    await this.session.transaction(sql`${this.lease.check()} ${finish(this.#schema, key)}`);
  }

  /** Waits that keep nobody else from anything have no limit but the file's own, and that of the whole run. */
  #unlimited(): EffectiveLimits {
    const { limits, deadline } = this.options;
    const left = deadline === Infinity ? 0 : Math.max(1, deadline - Date.now());
    return { ...limits, lockTimeoutMs: this.migration.directives.lockTimeoutMs ?? left };
  }

  /** Waits for an answer, and lets an error know its place in the file. */
  async #located(
    answer: Promise<unknown>,
    message: Pick<Message, "text" | "bodyStart" | "statementsBefore">,
    { statement: number }: JournalKey,
    statement: Statement,
  ): Promise<void> {
    try {
      await answer;
    } catch (error) {
      if (!(error instanceof StatementError)) throw error;
      const location = await locateFailure(error, this.migration, {
        ...message,
        body: {
          text: this.#outside.textOf(statement),
          each: 0,
          toFile: (offset) => offset + statement.start,
        },
        // Counted as if the whole file had been sent.
        statementsBefore: message.statementsBefore - (number - 1),
      });
      throw new StatementError(error.kind as "database", error.code, error.message, error.completed, {
        ...error.details,
        ...(location ? { location } : {}),
      });
    }
  }
}
