/**
 * What is left of a migration outside a transaction that failed: looked at, and said.
 *
 * @module
 */

import { isLockConflict } from "../database/conflict.ts";
import { type Session, StatementError } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { labelOf } from "../migrations/migration.ts";
import type { Statement } from "../sql/statements.ts";
import { type TransactionClass, transactionClassOf } from "../sql/transactions.ts";
import { firstLineOf } from "./activity.ts";
import { adviceAbout } from "./advice.ts";
import { wasEndedOnPurpose } from "./explain.ts";
import { type JournalRow, readJournal, unbegin } from "./journal.ts";
import type { Outside } from "./outside.ts";
import { type State, type Trace, traceOf } from "./trace.ts";

/** A migration outside a transaction failed: what was done before stays done. */
export class UntransactedFailure extends Error {
  override readonly name = "UntransactedFailure";

  override readonly cause: PipeweaveError;
  readonly left: string;

  /** @param left the state that things are in now, in a sentence */
  constructor(cause: PipeweaveError, left: string) {
    super(cause.message, { cause });
    this.cause = cause;
    this.left = left;
  }
}

/** Looks at what a run has left, and says it. */
export class Aftermath {
  readonly session: Session;
  readonly outside: Outside;
  readonly classOf: (statement: Statement) => TransactionClass;
  readonly isFirst: boolean;

  /**
   * @param classOf how a statement stands to transactions, as the run found
   * @param isFirst whether none of the user's migrations was applied before
   */
  constructor(
    session: Session,
    outside: Outside,
    classOf: (statement: Statement) => TransactionClass,
    isFirst: boolean,
  ) {
    this.session = session;
    this.outside = outside;
    this.classOf = classOf;
    this.isFirst = isFirst;
  }

  /** The server said that it is done, and it is not so. */
  notSo(number: number, statement: Statement, problem: string): UntransactedFailure {
    return new UntransactedFailure(
      new PipeweaveError("database", "not_as_asked", `PostgreSQL reported success, but ${problem}`, {
        hint: "See what else changes that object; then run db:migrate again.",
      }),
      `${this.#placeOf(number, statement)} is not done, ${doneBefore(number)}`,
    );
  }

  /** An earlier run was cut off in a statement that may have committed a part. */
  unknownEnd(number: number, statement: Statement): UntransactedFailure {
    return new UntransactedFailure(
      new PipeweaveError(
        "integrity",
        "end_unknown",
        `Statement ${number} of ${
          labelOf(this.outside.migration)
        } was begun by an earlier run, and how it ended is not known`,
        { hint: this.#decide(number) },
      ),
      `${
        this.#placeOf(number, statement)
      } can commit inside, so a part of it may be committed; it was not run again, ${doneBefore(number)}`,
    );
  }

  #decide(number: number): string {
    const command =
      `pipeweave db:repair --version ${this.outside.migration.version} --reason "why" --partial`;
    return `See what statement ${number} has done; then say so: ${command} done (all of it), or: ${command} again (run it once more).`;
  }

  #placeOf(number: number, statement: Statement): string {
    return `${
      labelOf(this.outside.migration)
    } runs outside a transaction: statement ${number} of ${this.outside.statements.length} ` +
      `(${firstLineOf(this.outside.migration, statement)})`;
  }

  /** What a failure has left, looked at. */
  async of(
    error: PipeweaveError,
    number: number,
    statement: Statement,
    begun: JournalRow | undefined,
    heldBy: string | undefined,
  ): Promise<UntransactedFailure> {
    // A session of its own, since the run's may have been interrupted.
    const session = this.session.beside({});
    const place = this.#placeOf(number, statement);
    const { hint: given, context, ...details } = error.details;
    const isInFile = details.location !== undefined;
    const again = "db:migrate";
    const { isFirst } = this;
    const hint = isLockConflict(error) && heldBy
      ? `The lock was held by ${heldBy}. Wait for it or end it, and run db:migrate again.`
      : wasEndedOnPurpose(error)
      ? "Find out why before you run db:migrate again."
      : error instanceof StatementError && !isLockConflict(error) && error.kind === "database"
      ? await adviceAbout(error, { session, migration: this.outside.migration, isInFile, isFirst, again })
      : given;
    const cause = new PipeweaveError(error.kind, error.code, error.message, {
      ...details,
      ...(context && isInFile ? { context } : {}),
      ...(hint ? { hint } : {}),
    });
    try {
      const left = await this.#whatIsLeft(session, error, cause, number, statement, begun);
      return new UntransactedFailure(cause, `${place} ${left}`);
    } catch {
      return new UntransactedFailure(
        cause,
        `${place} failed; what is left of it could not be looked at, ${doneBefore(number)}`,
      );
    } finally {
      await session.close();
    }
  }

  async #whatIsLeft(
    session: Session,
    error: PipeweaveError,
    cause: PipeweaveError,
    number: number,
    statement: Statement,
    begun: JournalRow | undefined,
  ): Promise<string> {
    const { version } = this.outside.migration;
    const row = (await readJournal(session, version)).get(number);
    const { atomicity } = this.classOf(statement);
    const goesOn = "the next db:migrate goes on with it";
    if (row?.finished) return `is done; ${goesOn.replace("with it", "behind it")}`;
    if (atomicity === "opaque" && row) {
      // By its words it cannot commit, so what PostgreSQL refused to run from inside of it has undone all of it.
      const isUndone = error.details.sqlstate === "25001" &&
        transactionClassOf(statement).atomicity === "atomic";
      if (!begun && error instanceof StatementError && (isUndone || isFoundBeforeItRan(error))) {
        await session.transaction(unbegin(this.session.settings.schema, version));
        return `is not done, ${doneBefore(number)}; ${goesOn}`;
      }
      cause.hint(this.#decide(number));
      return `can commit inside, so a part of it may be committed; db:migrate does not run it again by itself, ${
        doneBefore(number)
      }`;
    }
    const trace = traceOf(statement);
    const left = trace && row?.before ? await this.#lookAtRemains(session, trace, statement, row.before) : "";
    if (left === undefined) return `was carried out all the same; ${goesOn.replace("with it", "behind it")}`;
    // The server has ended it, and nothing is there that it began.
    const isClean = left === "" || left.startsWith(";");
    if (isClean && row && error instanceof StatementError) {
      await session.transaction(unbegin(this.session.settings.schema, version));
    }
    return `is not done, ${doneBefore(number)}; ${goesOn}${left}`;
  }

  /** What a failed attempt has left, for the end of a sentence; undefined where all of it is done. */
  async #lookAtRemains(
    session: Session,
    trace: Trace,
    statement: Statement,
    before: State,
  ): Promise<string | undefined> {
    let now = await this.outside.look(trace, statement, before, session);
    if (trace.wasDone(before, now)) return undefined;
    const had = trace.remains(before, now).map(({ name }) => name).join(", ");
    if (trace.remains(before, now).length > 0 && !this.outside.options.signal?.aborted) {
      await this.outside.tidy(trace.remains(before, now), session);
      now = await this.outside.look(trace, statement, before, session);
    }
    const names = trace.remains(before, now).map(({ name }) => name).join(", ");
    if (names !== "") return `, after dropping what is left and INVALID: ${names}`;
    if (had !== "") return `; what it left INVALID is dropped: ${had}`;
    return trace.goOn?.(now) ? `, with ${trace.goOn(now)!.text}: ${trace.problem(before, now)}` : "";
  }
}

/** What is done of a file before one of its statements. */
function doneBefore(number: number): string {
  return number === 1
    ? "nothing of the file was done before"
    : number === 2
    ? "statement 1 is done and stays"
    : `statements 1 to ${number - 1} are done and stay`;
}

/** Whether PostgreSQL refused a statement while it read it: it names the place in the statement itself, and no function. */
function isFoundBeforeItRan({ details }: StatementError): boolean {
  const { position, where, internal_position } = (details.cause ?? {}) as Record<string, unknown>;
  return position !== undefined && where === undefined && internal_position === undefined;
}
