/**
 * Who keeps a migration waiting, asked over a second connection while it waits.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { Session } from "../database/session.ts";
import { sql } from "../database/sql.ts";
import { messageHead } from "./message.ts";
import type { Migration } from "./migration.ts";

/** A migration that takes less is not asked about, and two looks are this far apart. */
const LOOK_EVERY_MS = 1000;

/** Looks at one migration until it is disposed of. */
export class Blockers implements AsyncDisposable {
  /** Who was seen last to hold what the migration waits for. */
  last: string | undefined;
  readonly #timer: ReturnType<typeof setInterval>;
  #session: Session | undefined;
  #look: Promise<void> | undefined;

  constructor(
    readonly session: Session,
    readonly migration: Migration,
    readonly onBlocked: ((migration: Migration, blockers: string) => void) | undefined,
  ) {
    this.#timer = setInterval(
      () => this.#look ??= this.#ask().finally(() => this.#look = undefined),
      LOOK_EVERY_MS,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#look;
    await this.#session?.close();
  }

  async #ask(): Promise<void> {
    this.#session ??= new Session(this.session.settings);
    try {
      // Found by its text: through a pooler the process id that the client knows is not the server's.
      const [rows = []] = await this.#session.transaction(sql`
        SELECT b.pid, b.usename, b.application_name AS application, b.state,
               pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start) * 1000)::float8 AS age,
               pg_catalog.regexp_replace(pg_catalog.left(b.query, 60), '\\s+', ' ', 'g') AS query
          FROM pg_catalog.pg_stat_activity m, pg_catalog.unnest(pg_catalog.pg_blocking_pids(m.pid)) AS held(pid)
          JOIN pg_catalog.pg_stat_activity b ON b.pid = held.pid
         WHERE m.datname = pg_catalog.current_database() AND m.state = 'active' AND m.wait_event_type = 'Lock'
           AND pg_catalog.starts_with(m.query, ${messageHead(this.migration)});`);
      if (rows.length === 0) return;
      this.last = rows.map(({ pid, usename, application, state, age, query }) =>
        `pid ${pid} (${usename}${application ? `, ${application}` : ""}, ${state} for ${
          formatDuration(Number(age))
        }: ${query})`
      ).join(" and ");
      this.onBlocked?.(this.migration, this.last);
    } catch {
      // Only a courtesy: without it the migration goes on all the same.
    }
  }
}
