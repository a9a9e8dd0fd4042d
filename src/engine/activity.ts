/**
 * What a migration is at, asked over a second connection while it runs: its statement, how far PostgreSQL has come with
 * it, and who keeps it waiting.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { Session } from "../database/session.ts";
import { sql, SqlText } from "../database/sql.ts";
import { announcedStatement, messageHead } from "./message.ts";
import type { Migration } from "../migrations/migration.ts";
import { type Statement, statementsOf } from "../sql/statements.ts";

/** How long a look may still take when the migration has ended, in milliseconds. */
const LAST_LOOK_MS = 1000;
/** A migration that takes less is not asked about, and two looks are this far apart. */
const LOOK_EVERY_MS = 1000;

/** What a migration is at. */
export interface Activity {
  /** The statement that runs; absent where it cannot be told. */
  readonly statement?: {
    /** Counted from 1. */
    readonly number: number;
    /** Statements in the file. */
    readonly of: number;
    readonly firstLine: string;
  };
  /** What PostgreSQL is at within the statement. */
  readonly phase?: string;
  /** How much of the phase is done, from 0 to 1. */
  readonly fraction?: number;
  /** Who holds a lock that it waits for. */
  readonly blockers?: string;
}

/**
 * PostgreSQL's progress views (documentation, 27.4), brought to one form: what is done, of how much, in which phase.
 * An index is built from blocks, sorted and loaded by tuples, and waits for other transactions in between.
 */
const PROGRESS = new SqlText(`
  SELECT pid, phase,
         CASE WHEN phase ~ 'waiting' THEN lockers_done WHEN phase ~ 'scanning' THEN blocks_done ELSE tuples_done END AS done,
         CASE WHEN phase ~ 'waiting' THEN lockers_total WHEN phase ~ 'scanning' THEN blocks_total ELSE tuples_total END AS total
    FROM pg_catalog.pg_stat_progress_create_index
  UNION ALL SELECT pid, 'cluster: ' || phase, heap_blks_scanned, heap_blks_total FROM pg_catalog.pg_stat_progress_cluster
  UNION ALL SELECT pid, 'vacuum: ' || phase, heap_blks_scanned, heap_blks_total FROM pg_catalog.pg_stat_progress_vacuum
  UNION ALL SELECT pid, 'analyze: ' || phase, sample_blks_scanned, sample_blks_total FROM pg_catalog.pg_stat_progress_analyze
  UNION ALL SELECT pid, 'copy', bytes_processed, bytes_total FROM pg_catalog.pg_stat_progress_copy`);

/** Looks at one migration until it is disposed of. */
export class Watch implements AsyncDisposable {
  /** Who was seen last to hold what the migration waits for. */
  lastBlockers: string | undefined;
  readonly #timer: ReturnType<typeof setInterval>;
  #session: Session | undefined;
  #look: Promise<void> | undefined;

  readonly session: Session;
  readonly migration: Migration;
  readonly onActivity: ((migration: Migration, activity: Activity) => void) | undefined;
  readonly statement: number | undefined;

  /** @param statement the statement that runs, for migrations whose statements are sent one by one */
  constructor(
    session: Session,
    migration: Migration,
    onActivity: ((migration: Migration, activity: Activity) => void) | undefined,
    statement?: number,
  ) {
    this.session = session;
    this.migration = migration;
    this.onActivity = onActivity;
    this.statement = statement;
    this.#timer = setInterval(
      () => this.#look ??= this.#ask().finally(() => this.#look = undefined),
      LOOK_EVERY_MS,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    const late = setTimeout(() => this.#session?.abandon(), LAST_LOOK_MS);
    await this.#look;
    clearTimeout(late);
    await this.#session?.close();
  }

  async #ask(): Promise<void> {
    this.#session ??= new Session(this.session.settings);
    try {
      // Found by its text: through a pooler the process id that the client knows is not the server's.
      const [rows = []] = await this.#session.transaction(sql`
        SELECT m.application_name AS announced,
               CASE WHEN m.wait_event = 'SyncRep' THEN 'waits for a synchronous standby' ELSE p.phase END AS phase,
               p.done::float8 AS done, p.total::float8 AS total,
               b.pid, b.usename, b.application_name AS application, b.state,
               pg_catalog.round(extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start) * 1000)::float8 AS age,
               pg_catalog.regexp_replace(pg_catalog.left(b.query, 60), '\\s+', ' ', 'g') AS query
          FROM pg_catalog.pg_stat_activity m
          LEFT JOIN (${PROGRESS}) p ON p.pid = m.pid
          LEFT JOIN LATERAL pg_catalog.unnest(
            CASE WHEN m.wait_event_type = 'Lock' THEN pg_catalog.pg_blocking_pids(m.pid) END) AS held(pid) ON true
          LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = held.pid
         WHERE m.datname = pg_catalog.current_database() AND m.state = 'active' AND m.backend_type = 'client backend'
           AND pg_catalog.starts_with(m.query, ${messageHead(this.migration)});`);
      const [row] = rows;
      if (!row) return;
      const blockers = rows.filter(({ pid }) => pid !== null).map((blocker) =>
        `pid ${blocker["pid"]} (${blocker["usename"]}${
          blocker["application"] ? `, ${blocker["application"]}` : ""
        }, ${blocker["state"]} for ${formatDuration(Number(blocker["age"]))}: ${blocker["query"]})`
      ).join(" and ");
      if (blockers !== "") this.lastBlockers = blockers;
      const [done, total] = [Number(row["done"]), Number(row["total"])];
      const statement = await this.#statement(String(row["announced"]));
      this.onActivity?.(this.migration, {
        ...(statement ? { statement } : {}),
        ...(row["phase"] === null ? {} : { phase: String(row["phase"]) }),
        ...(row["phase"] !== null && total > 0 ? { fraction: Math.min(done / total, 1) } : {}),
        ...(blockers === "" ? {} : { blockers }),
      });
    } catch {
      // Only a courtesy: without it the migration goes on all the same.
    }
  }

  async #statement(announced: string): Promise<Activity["statement"]> {
    const statements = await statementsOf(this.migration);
    const number = this.statement ?? announcedStatement(announced) ??
      (statements.length === 1 ? 1 : undefined);
    const statement = number === undefined ? undefined : statements[number - 1];
    if (!statement) return undefined;
    return { number: number!, of: statements.length, firstLine: firstLineOf(this.migration, statement) };
  }
}

/** The first line of a statement, white space made single. */
export function firstLineOf({ sql }: Migration, { start, end }: Pick<Statement, "start" | "end">): string {
  return sql.slice(start, end).trim().split("\n")[0]!.replace(/\s+/g, " ").trim();
}
