/**
 * Runs a migration marked `no-transaction`: statement by statement, under a lease, journalled, so that the run after a
 * crash goes on where this one stopped.
 *
 * A statement that PostgreSQL would run in a transaction goes out together with its line in the journal, in one: it is
 * done exactly once. One that it would not (CREATE INDEX CONCURRENTLY and the like) goes out alone, between a line that
 * says that it begins and one that says that it is done; where the second is missing, the next run looks at what became
 * of it.
 *
 * @module
 */

import type { Actor } from "../config/actor.ts";
import { formatDuration } from "../config/duration.ts";
import { ConnectionLost, OWN_SQL, type Row, type Session, StatementError } from "../database/session.ts";
import { pauseBefore, sleep } from "../database/sleep.ts";
import { identifier, sequence, sql, SqlText } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { type Activity, firstLineOf, Watch } from "./activity.ts";
import { recordMigration } from "./history.ts";
import { begin, finish, forget, hashOf, type JournalKey, type JournalRow, readJournal } from "./journal.ts";
import { fencedOff, type Lease } from "./lease.ts";
import {
  type EffectiveLimits,
  END_OF_MESSAGE,
  endOfBody,
  freshSession,
  KEEP_SETTINGS,
  locateFailure,
  type Message,
  messageHead,
  userSettings,
} from "./message.ts";
import { labelOf, type Migration } from "../migrations/migration.ts";
import { isLockConflict } from "../database/conflict.ts";
import { describeConflict, LOST_CONNECTIONS } from "./retry.ts";
import { type Statement, statementsOf } from "../sql/statements.ts";
import { runsAlone } from "../migrations/validate.ts";

/** Pause between two looks at something that has to end first. */
const LOOK_EVERY_MS = 300;

/** How to run, and whom to tell. */
export interface UntransactedOptions {
  readonly limits: EffectiveLimits;
  /** Fails where a condition of the run does not hold any more. */
  readonly condition: SqlText | undefined;
  readonly actor: Actor;
  readonly details: Readonly<Record<string, unknown>> | undefined;
  readonly lockRetries: number;
  /** How long to wait for what an earlier run left behind on the server. */
  readonly waitMs: number;
  /** No attempt starts after this time, in milliseconds of the epoch. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  /** Told what is worth knowing besides. */
  readonly onNote: (text: string) => void;
  readonly onActivity: ((migration: Migration, activity: Activity) => void) | undefined;
}

/** A migration outside a transaction failed: what was done before stays done. */
export class UntransactedFailure extends Error {
  override readonly name = "UntransactedFailure";

  /** @param left the state that things are in now, in a sentence */
  constructor(override readonly cause: PipeweaveError, readonly left: string) {
    super(cause.message, { cause });
  }
}

/** An index that a statement makes. */
interface IndexName {
  readonly name: string;
  /** Its table, as the statement has it. */
  readonly table: string;
}

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

  constructor(
    readonly session: Session,
    readonly migration: Migration,
    readonly lease: Lease,
    readonly options: UntransactedOptions,
    readonly statements: readonly Statement[],
  ) {
    this.#schema = session.settings.schema;
  }

  async run(): Promise<Row> {
    const { migration, session, lease, statements, options } = this;
    const since = Date.now();
    const journal = await readJournal(session, migration.version);
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
      return sets[0]![0]!;
    } catch (error) {
      throw lease.ended(error) ? fencedOff(labelOf(migration), error) : error;
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
        `Statement ${number} of ${
          labelOf(migration)
        } has run already, and the file has another one there now`,
        {
          hint:
            `Restore what had run, and put changes behind it; or accept the file as it is: pipeweave db:repair --version ${migration.version} --reason "…"`,
        },
      );
    }
  }

  /** Runs one statement, again where that helps. */
  async #step(number: number, statement: Statement, row: JournalRow | undefined): Promise<void> {
    const { migration, options, session } = this;
    const key = {
      version: migration.version,
      statement: number,
      hash: hashOf(migration, statement),
      fence: this.lease.fence,
    };
    const alone = runsAlone(statement.node);
    let begun = row;
    let lost = 0;
    for (let attempt = 1;; attempt++) {
      await using watch = new Watch(session, migration, options.onActivity, number);
      try {
        if (alone) begun = await this.#runAlone(key, statement, begun);
        else await this.#runWithJournal(key, statement);
        return;
      } catch (error) {
        if (this.lease.ended(error)) throw fencedOff(labelOf(migration), error);
        const mayGoOn = !options.signal?.aborted;
        if (error instanceof ConnectionLost && mayGoOn && ++lost <= LOST_CONNECTIONS) {
          options.onNote(`${error.message}; connecting again to see what became of statement ${number}`);
          begun = (await readJournal(session, migration.version)).get(number);
          if (begun?.finished) return;
          continue;
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
        if (!(error instanceof StatementError) && !(error instanceof ConnectionLost)) throw error;
        throw await this.#failure(error, number, statement, watch.lastBlockers);
      }
    }
  }

  /** A statement and its line in the journal, in one transaction. */
  async #runWithJournal(key: JournalKey, statement: Statement): Promise<void> {
    const { lease, session } = this;
    const before = [
      ...freshSession(this.options.limits),
      lease.check(),
      ...(this.options.condition ? [this.options.condition] : []),
      ...userSettings(this.#schema, "transaction"),
      ...this.#settingsBefore(statement),
    ];
    const head = `${messageHead(this.migration)}${before.map(({ text }) => text).join("\n")}\n`;
    const text = this.#textOf(statement);
    const message = `${head}${text}\n;\n${endOfBody().text}${
      finish(this.#schema, key).text
    }\n${END_OF_MESSAGE.text}`;
    await this.#located(
      session.send(message),
      {
        text: message,
        bodyStart: head.length,
        statementsBefore: before.length,
      },
      key,
      statement,
    );
  }

  /** A statement that cannot share a transaction. Returns what the journal has of it. */
  async #runAlone(
    key: JournalKey,
    statement: Statement,
    begun: JournalRow | undefined,
  ): Promise<JournalRow | undefined> {
    const { lease, session, options } = this;
    if (begun) await this.#waitForLeftovers();
    const index = indexOf(statement);
    let indexBefore: string | null = null;
    if (index) {
      const found = await this.#settledIndex(index);
      if (found?.valid && begun && begun.indexBefore !== found.oid) {
        options.onNote(`the index ${index.name} is complete: the run that was cut off had built it`);
        await session.transaction(sql`${lease.check()} ${finish(this.#schema, key)}`);
        return begun;
      }
      if (found && !found.valid) await this.#dropInvalid(found);
      else indexBefore = found?.oid ?? null;
    }
    await session.transaction(
      sql`${lease.check()} ${options.condition ?? sql``} ${begin(this.#schema, key, indexBefore)}`,
    );
    const head = messageHead(this.migration);
    const text = `${head}${this.#textOf(statement)}`;
    const sent = this.#sendAlone(text, this.#settingsBefore(statement));
    await this.#located(sent, { text, bodyStart: head.length, statementsBefore: 0 }, key, statement);
    await session.transaction(sql`${lease.check()} ${finish(this.#schema, key)}`);
    return { ...key, finished: true, indexBefore };
  }

  /**
   * Sends a statement in a message of its own, the settings in one before it and their end in one after it. All three
   * leave in one go, which keeps a pooler from handing them to different servers.
   */
  async #sendAlone(text: string, settings: readonly SqlText[] = []): Promise<void> {
    const reset = `${endOfBody().text}${END_OF_MESSAGE.text}`;
    const before = [
      new SqlText(reset),
      ...KEEP_SETTINGS,
      ...userSettings(this.#schema, "session", this.options.limits),
      ...settings,
    ];
    const [, outcome] = await this.session.sendTogether([
      before.map((part) => part.text).join("\n"),
      text,
      reset,
    ]);
    if (outcome!.status === "rejected") throw outcome!.reason;
  }

  /** What the file has SET before a statement; sessions may change between statements, so it is set for each. */
  #settingsBefore(statement: Statement): readonly SqlText[] {
    return this.statements.slice(0, this.statements.indexOf(statement))
      .filter(({ node }) => node.type === "VariableSetStmt")
      .map((earlier) => new SqlText(`${this.#textOf(earlier)};`));
  }

  #textOf({ start, end }: Statement): string {
    return this.migration.sql.slice(start, end);
  }

  /** The index of a name; waits while somebody else builds it. */
  async #settledIndex(index: IndexName): Promise<IndexFound | undefined> {
    return await this.#waitUntil(async () => {
      const found = await this.#lookAtIndex(index);
      return found?.builder ? { busy: `pid ${found.builder}, which builds ${index.name}` } : { value: found };
    });
  }

  async #lookAtIndex({ name, table }: IndexName): Promise<IndexFound | undefined> {
    // The name is looked up where the statement's own is, and all else where our SQL runs.
    const lookUp = sequence([
      sql`SET LOCAL search_path TO DEFAULT;`,
      ...KEEP_SETTINGS,
      ...userSettings(this.#schema, "transaction"),
      sql`SELECT pg_catalog.set_config('pipeweave.relation',
        coalesce(pg_catalog.to_regclass(${table})::pg_catalog.oid::pg_catalog.text, '0'), true);`,
      ...OWN_SQL,
    ]);
    const sets = await this.session.transaction(sql`${lookUp}
      SELECT c.oid::text AS oid, i.indisvalid AND i.indisready AND i.indislive AS valid,
             pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS qualified,
             (SELECT pid FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = c.oid) AS builder
        FROM pg_catalog.pg_class t
        JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = ${name}
        JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
       WHERE t.oid = pg_catalog.current_setting('pipeweave.relation')::oid;`);
    const row = sets.at(-1)?.[0];
    return row && {
      oid: String(row["oid"]),
      valid: row["valid"] === true,
      qualified: String(row["qualified"]),
      builder: row["builder"] as number | null,
    };
  }

  async #dropInvalid({ qualified }: IndexFound): Promise<void> {
    this.options.onNote(
      `the index ${qualified} is INVALID: an earlier attempt to build it failed; dropping it`,
    );
    await this.session.transaction(this.lease.check());
    await this.#sendAlone(`${messageHead(this.migration)}DROP INDEX CONCURRENTLY IF EXISTS ${qualified}`);
  }

  /** A client that died may have left its statement running on the server. */
  async #waitForLeftovers(): Promise<void> {
    await this.#waitUntil(async () => {
      const [[row] = []] = await this.session.transaction(sql`
        SELECT pid FROM pg_catalog.pg_stat_activity
         WHERE datname = pg_catalog.current_database() AND state = 'active' AND backend_type = 'client backend'
           AND pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(query, ${
        messageHead(this.migration)
      });`);
      return row ? { busy: `pid ${row["pid"]}, which still runs what was cut off` } : { value: undefined };
    });
  }

  async #waitUntil<T>(look: () => Promise<{ value: T } | { busy: string }>): Promise<T> {
    const deadline = Math.min(Date.now() + this.options.waitMs, this.options.deadline);
    let told = false;
    for (;;) {
      const found = await look();
      if ("value" in found) return found.value;
      if (Date.now() > deadline) {
        throw new PipeweaveError(
          "timeout",
          "leftover",
          `${labelOf(this.migration)} waited too long for ${found.busy}`,
          {
            hint:
              "See what it does in pg_stat_activity, end it with pg_terminate_backend if need be, and run db:migrate again.",
          },
        );
      }
      if (!told) this.options.onNote(`waiting for ${found.busy}`);
      told = true;
      await sleep(LOOK_EVERY_MS, this.options.signal);
    }
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
        body: { text: this.#textOf(statement), each: 0, toFile: (offset) => offset + statement.start },
        // Counted as if the whole file had been sent.
        statementsBefore: message.statementsBefore - (number - 1),
      });
      throw new StatementError(error.kind as "database", error.code, error.message, error.completed, {
        ...error.details,
        ...(location ? { location } : {}),
      });
    }
  }

  async #failure(
    error: PipeweaveError,
    number: number,
    statement: Statement,
    heldBy: string | undefined,
  ): Promise<UntransactedFailure> {
    const index = indexOf(statement);
    const invalid = index &&
      await this.#lookAtIndex(index).then((found) => found && !found.valid, () => false);
    const before = number === 1
      ? "nothing of it was done before"
      : number === 2
      ? "statement 1 is done and stays"
      : `statements 1 to ${number - 1} are done and stay`;
    const left =
      `${
        labelOf(this.migration)
      } runs outside a transaction: statement ${number} of ${this.statements.length} ` +
      `(${
        firstLineOf(this.migration, statement)
      }) is not done, ${before}; the next db:migrate goes on with it` +
      (invalid ? `, after dropping the INVALID index ${index.name} that is left` : "");
    const hint = isLockConflict(error) && heldBy
      ? { hint: `The lock was held by ${heldBy}. Wait for it or end it, and run db:migrate again.` }
      : {};
    return new UntransactedFailure(
      new PipeweaveError(error.kind, error.code, error.message, { ...error.details, ...hint }),
      left,
    );
  }
}

/** An index as the catalogue has it. */
interface IndexFound {
  readonly oid: string;
  readonly valid: boolean;
  /** Schema and name, quoted. */
  readonly qualified: string;
  /** Process id of a session that builds it now. */
  readonly builder: number | null;
}

/** The index that a CREATE INDEX CONCURRENTLY makes. */
function indexOf({ node: { type, fields } }: Statement): IndexName | undefined {
  if (type !== "IndexStmt" || fields["concurrent"] !== true) return undefined;
  const { schemaname, relname } = fields["relation"] as { schemaname?: string; relname: string };
  const table = identifier(relname).text;
  return {
    name: String(fields["idxname"]),
    table: schemaname === undefined ? table : `${identifier(schemaname).text}.${table}`,
  };
}
