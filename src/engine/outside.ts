/**
 * Sending one statement outside a transaction, and looking at what became of it: under the settings that the file has set
 * by then, whichever session the server hands out.
 *
 * @module
 */

import { type Row, Session } from "../database/session.ts";
import { sleep } from "../database/sleep.ts";
import { sequence, sql, SqlText } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { labelOf, type Migration } from "../migrations/migration.ts";
import { forgetsSettings, lastSettings } from "../sql/session_state.ts";
import type { Statement } from "../sql/statements.ts";
import {
  type EffectiveLimits,
  END_OF_MESSAGE,
  endOfBody,
  KEEP_SETTINGS,
  messageHead,
  RESET_SETTINGS,
  userSettings,
} from "./message.ts";
import type { Remains, State, Trace } from "./trace.ts";

/** Pause between two looks at something that has to end first. */
const LOOK_EVERY_MS = 300;
/** How long it is tried to remove an INVALID index right after a failure. */
const TIDY_MS = 3000;

/** How long to wait for what holds a statement up, and whom to tell. */
export interface OutsideOptions {
  readonly limits: EffectiveLimits;
  /** How long to wait for what an earlier run left behind on the server. */
  readonly waitMs: number;
  /** No attempt starts after this time, in milliseconds of the epoch. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  readonly onNote: (text: string) => void;
}

/** One migration's statements, outside a transaction. */
export class Outside {
  readonly session: Session;
  readonly migration: Migration;
  readonly statements: readonly Statement[];
  readonly options: OutsideOptions;

  constructor(
    session: Session,
    migration: Migration,
    statements: readonly Statement[],
    options: OutsideOptions,
  ) {
    this.session = session;
    this.migration = migration;
    this.statements = statements;
    this.options = options;
  }

  /**
   * Sends a statement in a message of its own, the settings in one before it and their end in one after it. All three
   * leave in one go, which keeps a pooler from handing them to different servers.
   *
   * @param watched whether it must leave search_path and role as they are: it fails behind it otherwise
   */
  async send(
    text: string,
    settings: readonly SqlText[],
    limits: EffectiveLimits,
    watched = false,
  ): Promise<void> {
    const reset = `${endOfBody().text}${END_OF_MESSAGE.text}`;
    const after = watched
      ? sequence([noteSettings("after"), endOfBody(), assertSameSettings, END_OF_MESSAGE]).text
      : reset;
    const before = [
      new SqlText(reset),
      ...KEEP_SETTINGS,
      ...userSettings("session", limits),
      ...settings,
      ...(watched ? [noteSettings("before", "session")] : []),
    ];
    const [, outcome, end] = await this.session.sendTogether([
      before.map((part) => part.text).join("\n"),
      text,
      after,
    ]);
    if (outcome!.status === "rejected") throw outcome!.reason;
    if (watched && end!.status === "rejected") throw end!.reason;
  }

  /** What the file has set before a statement; sessions may change between statements, so it is set for each. */
  settingsBefore(statement: Statement): readonly SqlText[] {
    const earlier = this.statements.slice(0, this.statements.indexOf(statement));
    const from = earlier.findLastIndex(({ node }) => forgetsSettings(node)) + 1;
    return lastSettings(earlier.slice(from)).map((one) => new SqlText(`${this.textOf(one)};`));
  }

  textOf({ start, end }: Statement): string {
    return this.migration.sql.slice(start, end);
  }

  /**
   * Looks where a statement would look, at what there is of what it does.
   *
   * @param session another one than the run's, where that may have been interrupted
   */
  async look(
    trace: Trace,
    statement: Statement,
    before: State | undefined,
    session: Session = this.session,
  ): Promise<State> {
    const key = (index: number) => `pipeweave.relation_${index}`;
    const found = trace.relations.map((name, index) =>
      sql`SELECT pg_catalog.set_config(${
        key(index)
      }, coalesce(pg_catalog.to_regclass(${name})::pg_catalog.oid::pg_catalog.text, '0'), true);`
    );
    // Only names are looked up under the file's settings, and all else where our SQL runs.
    const sets = await session.transaction(sequence([
      RESET_SETTINGS,
      ...KEEP_SETTINGS,
      ...userSettings("transaction"),
      ...this.settingsBefore(statement),
      ...found,
      endOfBody(),
      trace.look(
        trace.relations.map((_, index) => sql`current_setting(${key(index)})::oid`),
        before,
      ),
      END_OF_MESSAGE,
    ]));
    return stateOf(sets);
  }

  /** Drops the INVALID indexes that attempts at a statement have left; waits while somebody is at work on them. */
  async removeRemains(
    trace: Trace,
    statement: Statement,
    before: State,
    now: State,
    limits: EffectiveLimits,
  ): Promise<void> {
    let seen = now;
    await this.waitUntil(async () => {
      const busy = trace.remains(before, seen).find((one) => one.busy !== null);
      if (!busy) return undefined;
      seen = await this.look(trace, statement, before);
      const still = trace.remains(before, seen).find((one) => one.busy !== null);
      return still && `pid ${still.busy}, which builds ${still.name}`;
    });
    for (const { name } of trace.remains(before, seen)) {
      this.options.onNote(`the index ${name} is INVALID: an earlier attempt to build it failed; dropping it`);
      await this.#drop(name, limits);
    }
  }

  /** Tries for a moment to drop what a failed attempt left. */
  async tidy(remains: readonly Remains[], session: Session): Promise<void> {
    const outside = new Outside(session, this.migration, this.statements, this.options);
    for (const { name, busy } of remains) {
      if (busy !== null) continue;
      await outside.#drop(name, { ...this.options.limits, lockTimeoutMs: TIDY_MS }).catch(() => {});
    }
  }

  async #drop(name: string, limits: EffectiveLimits): Promise<void> {
    await this.send(`${messageHead(this.migration)}DROP INDEX CONCURRENTLY IF EXISTS ${name}`, [], limits);
  }

  /** A client that died may have left its statement running on the server. */
  async waitForLeftovers(): Promise<void> {
    await this.waitUntil(async () => {
      const [[row] = []] = await this.session.transaction(sql`
        SELECT pid FROM pg_catalog.pg_stat_activity
         WHERE datname = pg_catalog.current_database() AND state = 'active' AND backend_type = 'client backend'
           AND pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(query, ${
        messageHead(this.migration)
      });`);
      return row && `pid ${row["pid"]}, which still runs what was cut off`;
    });
  }

  /** @param busy tells who is in the way; undefined when nobody is */
  async waitUntil(busy: () => Promise<string | undefined>): Promise<void> {
    const deadline = Math.min(Date.now() + this.options.waitMs, this.options.deadline);
    let told = false;
    for (;;) {
      const who = await busy();
      if (who === undefined) return;
      if (Date.now() > deadline) {
        throw new PipeweaveError(
          "timeout",
          "leftover",
          `${labelOf(this.migration)} waited too long for ${who}`,
          {
            hint:
              "See what it does in pg_stat_activity, end it with pg_terminate_backend if need be, and run db:migrate again.",
          },
        );
      }
      if (!told) this.options.onNote(`waiting for ${who}`);
      told = true;
      await sleep(LOOK_EVERY_MS, this.options.signal);
    }
  }
}

function stateOf(sets: readonly (readonly Row[])[]): State {
  const state = sets.flat().findLast((row) => "state" in row)!["state"];
  return (typeof state === "string" ? JSON.parse(state) : state) as State;
}

/** SQLSTATE of a statement that changed what cannot be set again for the next one. */
const SETTINGS_CHANGED = "PW007";

/** Keeps what unqualified names and rights go by, under whatever search_path there is. */
export const noteSettings = (
  when: "before" | "after",
  scope: "transaction" | "session" = "transaction",
): SqlText =>
  sql`SELECT pg_catalog.set_config(${`pipeweave.${when}`}, pg_catalog.concat(pg_catalog.current_setting('search_path'), ' as ', current_user), ${
    scope === "transaction"
  });`;

/** Fails where they are not as before: to be sent under the settings of our own SQL. */
export const assertSameSettings: SqlText = sql`DO ${
  sql`
BEGIN
  IF current_setting('pipeweave.before') <> current_setting('pipeweave.after') THEN
    RAISE EXCEPTION 'it changes search_path or role from % to %, which the statements after it would not find', current_setting('pipeweave.before'), current_setting('pipeweave.after')
      USING ERRCODE = ${SETTINGS_CHANGED}, HINT = 'Set it by a statement of its own: SET search_path = ...';
  END IF;
END`.text
};`;
