/**
 * `maintenance_deployments`: the runs of `db:migrate --maintenance`. A maintenance belongs to the run that asked for it,
 * and not to a name, which many runs share. A run gives signs of life; one whose time is over without any is dead, and
 * another may end what it has left behind.
 *
 * @module
 */

import { Heartbeat } from "../database/heartbeat.ts";
import type { Session } from "../database/session.ts";
import { identifier, sql, type SqlText } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";

/** How long a run that gives no sign of life counts as alive, in milliseconds. */
const TURN_MS = 15_000;
const TABLE = "maintenance_deployments";
/** How long a sign of life waits for a lock, and the end of a run for an answer, in milliseconds. */
const LOCK_MS = 1000;
const FAREWELL_MS = 2000;

const table = (schema: string) => sql`${identifier(schema)}.${identifier(TABLE)}`;
const until = sql`clock_timestamp() + make_interval(secs => ${TURN_MS / 1000})`;

/** A run, as others see it. */
export interface DeploymentSeen {
  /** Made for the run. */
  readonly id: string;
  /** Whose it is, for people; null where nobody said. */
  readonly owner: string | null;
  /** Its last sign of life. */
  readonly heartbeatAt: Date;
  /** `alive`; `dead`: its time is over without a sign of life; `failed`: it ended, and left its maintenance on. */
  readonly state: "alive" | "dead" | "failed";
}

/** One's own run: registered before it asks for anything, and gone when nothing of it is left. */
export class DeploymentRun implements AsyncDisposable {
  readonly #session: Session;
  readonly #heartbeat: Heartbeat;

  readonly id: string;

  private constructor(session: Session, id: string) {
    this.id = id;
    this.#session = session;
    this.#heartbeat = new Heartbeat(TURN_MS, () => this.#beat());
  }

  /** Registers a run. @param owner whose it is, for people */
  static async begin(parent: Session, owner: string | null): Promise<DeploymentRun> {
    const id = crypto.randomUUID();
    // A connection of its own, which a signal does not end: it has to tell that the run has ended.
    const session = parent.beside({ ...parent.options, onNotify: () => {} });
    const { schema } = session.settings;
    try {
      await session.transaction(sql`
        ${assertTrusted(schema, [TABLE], "change", { writes: [TABLE] })}
        DELETE FROM ${table(schema)} WHERE expires_at < clock_timestamp() - interval '30 days';
        INSERT INTO ${table(schema)} (id, owner, expires_at) VALUES (${id}, ${owner}, ${until});`);
    } catch (error) {
      await session.close();
      throw error;
    }
    return new DeploymentRun(session, id);
  }

  async #beat(): Promise<void> {
    await this.#change(sql`
      UPDATE ${this.#table} SET heartbeat_at = clock_timestamp(), expires_at = ${until}
       WHERE id = ${this.id} AND failed_at IS NULL;`);
  }

  /** The run has ended, and its maintenance stays on. */
  async leave(): Promise<void> {
    await this.#change(sql`
      UPDATE ${this.#table} SET failed_at = clock_timestamp(), expires_at = clock_timestamp() WHERE id = ${this.id};`);
  }

  /** Ends the run, whose maintenance is over or was never asked for; one that {@linkcode leave} has ended stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    // Where this fails, or is not answered, the run counts as dead when its time is over.
    const late = setTimeout(() => this.#session.abandon(), FAREWELL_MS);
    await this.#heartbeat[Symbol.asyncDispose]();
    await this.#change(sql`DELETE FROM ${this.#table} WHERE id = ${this.id} AND failed_at IS NULL;`)
      .catch(() => {});
    clearTimeout(late);
    await this.#session.close();
  }

  get #table(): SqlText {
    return table(this.#session.settings.schema);
  }

  async #change(statement: SqlText): Promise<void> {
    const { schema } = this.#session.settings;
    await this.#session.transaction(
      sql`${assertTrusted(schema, [TABLE], "change", { writes: [TABLE] })} ${statement}`,
      LOCK_MS,
    );
  }
}

/** Reads a run. One that is not there any more was removed by hand: it is dead. */
export async function seenDeployment(session: Session, id: string): Promise<DeploymentSeen> {
  const { schema } = session.settings;
  const [[row] = []] = await session.transaction(sql`
    ${assertTrusted(schema, [TABLE], "read")}
    SELECT owner, heartbeat_at, failed_at IS NOT NULL AS failed, expires_at <= clock_timestamp() AS expired
      FROM ${table(schema)} WHERE id = ${id};`);
  return {
    id,
    owner: (row?.["owner"] ?? null) as string | null,
    heartbeatAt: (row?.["heartbeat_at"] ?? new Date(0)) as Date,
    state: !row || row["expired"] && !row["failed"] ? "dead" : row["failed"] ? "failed" : "alive",
  };
}
