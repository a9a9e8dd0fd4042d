/**
 * `migration_lease`: whose turn it is to run a migration outside a transaction. An advisory lock cannot span such a run
 * through a pooler, so the turn is a row with a time at which it runs out, which a heartbeat puts off, and with a fence:
 * a number that grows with every holder. Each step of a run makes sure, in the transaction that notes it, that the
 * number is still its own; a holder that slept through its time finds that it is not, and stops.
 *
 * @module
 */

import { Heartbeat } from "../database/heartbeat.ts";
import { type Session, StatementError } from "../database/session.ts";
import { identifier, sql, SqlText } from "../database/sql.ts";
import { SERVER_IDENTITY, type ServerIdentity } from "../database/server_identity.ts";
import { assertTrusted } from "../database/trust.ts";
import { PipeweaveError } from "../errors.ts";
import { guard, type GuardTerms, leaseTable, lockEngineTables } from "./history.ts";
import { type Journal, journalOf, selectJournal } from "./journal.ts";
import { type EffectiveLimits, freshSession, ownershipChecks } from "./message.ts";

/** How long a holder that gives no sign of life keeps its turn. */
export const LEASE_MS = 30_000;
/** SQLSTATE of a step of a holder whose turn is over. */
export const FENCED_OFF = "PW004";
/** SQLSTATE of a step that is done already. */
export const DONE_ALREADY = "PW011";
const QUERY_CANCELED = "57014";

/** The turn of one run. {@linkcode Lease.acquire} takes it; disposing of it gives it back. */
export class Lease implements AsyncDisposable {
  readonly #heart: Session;
  readonly #heartbeat: Heartbeat;
  #isLost = false;
  #isReleased = false;

  readonly session: Session;
  readonly fence: string;
  readonly leaseMs: number;
  /** Whose turn had run out when this one began. */
  readonly tookOverFrom: string | undefined;
  /** The server that gave it. */
  readonly server: ServerIdentity;
  /** What earlier runs of the migration did, as this one began. */
  readonly journal: Journal;

  private constructor(
    session: Session,
    fence: string,
    leaseMs: number,
    tookOverFrom: string | undefined,
    server: ServerIdentity,
    journal: Journal,
  ) {
    this.session = session;
    this.fence = fence;
    this.leaseMs = leaseMs;
    this.tookOverFrom = tookOverFrom;
    this.server = server;
    this.journal = journal;
    // A connection of its own, which a signal does not end: it has to tell that the turn is over.
    this.#heart = session.beside({});
    this.#heartbeat = new Heartbeat(leaseMs, () => this.#beat());
  }

  /**
   * Takes the turn, in one message with the guard of all migrators: refused as that is.
   *
   * @param holder who runs, for those who wait
   * @throws {StatementError} with a SQLSTATE of the guard
   */
  static async acquire(
    session: Session,
    terms: GuardTerms & { readonly limits: EffectiveLimits },
    { holder, leaseMs }: { readonly holder: string; readonly leaseMs: number },
  ): Promise<Lease> {
    const { schema } = session.settings;
    const table = leaseTable(schema);
    const before = [
      ...Lease.#beforeGuard(schema, terms),
      guard(schema, terms),
    ];
    const sets = await session.send(
      sql`${new SqlText(before.map(({ text }) => text).join("\n"))}
WITH old AS (SELECT holder, heartbeat_at FROM ${table})
INSERT INTO ${table} AS l (id, fence, holder, version, acquired_at, heartbeat_at, expires_at)
VALUES ('singleton', 1, ${holder}, ${terms.version}, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp(),
        ${until(leaseMs)})
ON CONFLICT (id) DO UPDATE SET fence = l.fence + 1, holder = excluded.holder, version = excluded.version,
  acquired_at = excluded.acquired_at, heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at
RETURNING l.fence::text AS fence, ${SERVER_IDENTITY} AS server, (SELECT holder FROM old) AS old_holder, (SELECT heartbeat_at::text FROM old) AS last_sign;
${selectJournal(schema, terms.version)}`
        .text,
      Infinity,
    );
    const row = sets.at(-2)![0]!;
    const old = row["old_holder"];
    return new Lease(
      session,
      String(row["fence"]),
      leaseMs,
      old === null ? undefined : `${old} (last sign of life ${row["last_sign"]})`,
      String(row["server"]),
      journalOf(sets.at(-1)!),
    );
  }

  static #beforeGuard(
    schema: string,
    terms: Pick<GuardTerms, "complete"> & { readonly limits: EffectiveLimits },
  ): readonly SqlText[] {
    return [...freshSession(terms.limits), ...ownershipChecks(schema, terms)];
  }

  /** How many statements {@linkcode acquire} sends before the guard. */
  static statementsBeforeGuard(
    schema: string,
    terms: Pick<GuardTerms, "complete"> & { readonly limits: EffectiveLimits },
  ): number {
    return Lease.#beforeGuard(schema, terms).length;
  }

  /**
   * A statement that fails when this turn is over, and puts its end off otherwise. To be first in every step.
   *
   * @param step one that must not be done already: an attempt that was lost may have gone on, and is waited for here
   */
  check(step?: { readonly version: string; readonly statement: number }): SqlText {
    const { schema } = this.session.settings;
    const call = sql`${identifier(schema)}.migration_keep_lease(${schema}::text, ${this.fence}::bigint, ${
      Math.round(this.leaseMs)
    }::integer${step ? sql`, ${step.version}, ${step.statement}` : sql``})`;
    return sql`DO ${`BEGIN PERFORM ${call.text}; END`};`;
  }

  /** Gives the turn back: for the step that records the migration. */
  release(): SqlText {
    const { schema } = this.session.settings;
    return sql`DO ${`BEGIN PERFORM ${lockEngineTables(schema).text}; END`}; UPDATE ${leaseTable(schema)}
      SET holder = NULL, version = NULL, expires_at = NULL WHERE fence = ${this.fence}::bigint;`;
  }

  /** Records that a step with {@linkcode release} was committed: the lease is given back already. */
  released(): void {
    this.#isReleased = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#heartbeat[Symbol.asyncDispose]();
    if (this.#isReleased) return await this.#heart.close();
    // Where this fails the turn ends by itself, when its time is over.
    await this.#heart.transaction(this.release()).catch(() => {});
    await this.#heart.close();
  }

  async #beat(): Promise<void> {
    try {
      await this.#heart.transaction(this.check());
    } catch (error) {
      // Somebody else's turn: what runs of ours has to end.
      if (!isFencedOff(error)) throw error;
      this.#isLost = true;
      await this.session.cancel().catch(() => {});
    }
  }

  /** Whether a step failed because the turn was over: it found that, or the heartbeat did and cancelled it. */
  ended(error: unknown): boolean {
    return isFencedOff(error) ||
      this.#isLost && error instanceof StatementError && error.details.sqlstate === QUERY_CANCELED;
  }
}

/** Who has the turn now; undefined when nobody has. */
export async function readLease(session: Session): Promise<
  | { holder: string; version: string; acquiredAt: Date; heartbeatAt: Date; expiresAt: Date }
  | undefined
> {
  const [[row] = []] = await session.transaction(sql`
    ${assertTrusted(session.settings.schema, ["migration_lease"], "read")}
    SELECT holder, version, acquired_at, heartbeat_at, expires_at FROM ${leaseTable(session.settings.schema)}
     WHERE expires_at > pg_catalog.clock_timestamp();`).catch(() => []);
  return row && {
    holder: String(row["holder"]),
    version: String(row["version"]),
    acquiredAt: row["acquired_at"] as Date,
    heartbeatAt: row["heartbeat_at"] as Date,
    expiresAt: row["expires_at"] as Date,
  };
}

function isFencedOff(error: unknown): boolean {
  return error instanceof StatementError && error.details.sqlstate === FENCED_OFF;
}

/** The error of a run that another one has taken over from. */
export function fencedOff(label: string, cause: unknown): PipeweaveError {
  return new PipeweaveError(
    "database",
    "lease_lost",
    `${label}: another migrator took over, since this one gave no sign of life for too long`,
    {
      hint:
        "It goes on where this one stopped: look with db:status. See why this machine or its network stood still.",
      cause,
    },
  );
}

function until(leaseMs: number): SqlText {
  return sql`pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => ${leaseMs / 1000})`;
}
