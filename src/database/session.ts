/**
 * The one way to talk to PostgreSQL: {@linkcode Session.transaction} sends statements as a single simple-protocol
 * message. That is one round trip and, by PostgreSQL's rule for such messages, one transaction: all of it happens
 * or nothing. No state outlives a message, so a pooler in transaction mode is as good as a direct connection, and a
 * killed client leaves nothing open.
 *
 * @module
 */

import type { ConnectionSettings } from "../config/connection.ts";
import { describeTarget } from "../config/connection.ts";
import type { Patience } from "../config/keepalive.ts";
import { interrupted, PipeweaveError } from "../errors.ts";
import { DEADLOCK, sqlstateOf } from "./conflict.ts";
import { connect } from "./connecting.ts";
import { isServerError } from "./failures.ts";
import {
  CommittedLocally,
  ConnectionLost,
  Link,
  type LinkEvents,
  type Notice,
  type Row,
  StatementError,
} from "./link.ts";
import { type Looker, lookStatement, type Sign, signOf, unreachable, watchOver } from "./liveness.ts";
import { pauseBefore, sleep } from "./sleep.ts";
import { openSocket } from "./socket.ts";
import { sequence, sql, type SqlText } from "./sql.ts";

export { CommittedLocally, ConnectionLost, type Notice, type Row, StatementError };

/** How long a command's own statements wait for a lock; migrations have limits of their own. */
export const LOCK_TIMEOUT_MS = 5000;
/** Rows of a statement that are kept of a message that may hold a file of the user's. */
const ROWS_KEPT = 100;
/** How long a server that was lost is waited for, in milliseconds. */
const RECONNECT_MS = 10_000;
/** Pause between two cancel requests, and how long one may take, in milliseconds. */
const CANCEL_EVERY_MS = 200;
const CANCEL_MS = 5000;
/** How long after a signal the server may take to end what runs, and what cleans up may go on, in milliseconds. */
const INTERRUPTION_MS = 5000;
/** How long the second connection may take that ends what waits for a synchronous standby, in milliseconds. */
const END_MS = 2000;
/** Looked at when the time is over alone. */
const NO_PATIENCE: Patience = { idleMs: Infinity, intervalMs: 5000, limitMs: Infinity };
/** How often a transaction is sent that a deadlock ends each time. */
const DEADLOCK_ATTEMPTS = 5;
/** CancelRequest (PostgreSQL documentation, 54.7): length 16, code 80877102, then the backend's key. */
const CANCEL_REQUEST = [0, 0, 0, 16, 4, 210, 22, 46];

/** What a session reports while it works. */
export interface SessionOptions {
  readonly onNotice?: (notice: Notice) => void;
  /** Told what is being waited for: a database that is not up, or one that does not answer. */
  readonly onWait?: (reason: string) => void;
  /** Told of every NOTIFY on a channel that this session listens to, and when the connection ends and nothing is heard. */
  readonly onNotify?: () => void;
  /** Ends what runs: the server is asked to cancel until it has. */
  readonly signal?: AbortSignal | undefined;
}

/** A session with one database. Connects when the first message is sent, and anew after a connection was lost. */
export class Session implements AsyncDisposable {
  #link: Link | undefined;
  #wasConnected = false;
  /** While it connects. */
  #connecting: Promise<Link> | undefined;
  #watching: Promise<void> | undefined;
  #cancelling: Promise<void> | undefined;
  #deadline = Infinity;
  /** Ends connecting. */
  #abandoned = new AbortController();
  /** Takes what listens to signals away. */
  readonly #closed = new AbortController();

  readonly settings: ConnectionSettings;
  readonly options: SessionOptions;

  constructor(settings: ConnectionSettings, options: SessionOptions = {}) {
    this.settings = settings;
    this.options = options;
    const end = () => this.endWhatRuns("the interruption");
    options.signal?.addEventListener("abort", end, { signal: this.#closed.signal });
  }

  /** `user@host:port/database`: the server that is connected, or all that will be tried. */
  get target(): string {
    return this.#link?.target ?? describeTarget(this.settings);
  }

  /** A parameter that the server reported at startup, such as `server_version` or `in_hot_standby`. */
  parameter(name: string): string | undefined {
    return this.#link?.parameters.get(name);
  }

  /**
   * The server process that the connection was made to, by the key that cancels it. A pooler gives a number of its own,
   * which is not the one that `pg_backend_pid()` tells.
   */
  get serverProcess(): number | undefined {
    return processOf(this.#link?.backendKey);
  }

  /**
   * Bounds what is waited for from now on: connecting ends by then, and a server that is silent by then is given up. One
   * that is seen to work goes on.
   *
   * @param deadline in milliseconds of the epoch; Infinity for none
   */
  limit(deadline: number): void {
    this.#deadline = deadline;
    this.#link?.wake();
  }

  /**
   * Sends statements as one message and one transaction; again where a deadlock ended it.
   *
   * @param statements SQL, each statement ended by a semicolon
   * @param lockTimeoutMs limit for each lock that it waits for, in milliseconds
   * @returns the rows of each statement that returns rows, in order
   * @throws {StatementError} when PostgreSQL refused: nothing of it was done
   * @throws {ConnectionLost} when the outcome is unknown
   * @throws {PipeweaveError} of kind `connection` when there is no connecting
   */
  async transaction(statements: SqlText, lockTimeoutMs?: number): Promise<Row[][]> {
    const message = transactionMessage(statements, lockTimeoutMs);
    for (let attempt = 1;; attempt++) {
      try {
        return await this.send(message, Infinity);
      } catch (error) {
        // PostgreSQL rolled all of it back for somebody else's sake, a migrator that changes these tables, say.
        if (sqlstateOf(error) !== DEADLOCK || attempt === DEADLOCK_ATTEMPTS) throw error;
        await sleep(pauseBefore(attempt), this.options.signal);
      }
    }
  }

  /**
   * Sends a message just as it is. See {@linkcode transaction}. It may hold a file of the user's, whose rows nobody reads:
   * of each statement's some are kept, and the others go as they come.
   *
   * @param rows of a statement that are kept at most
   */
  async send(message: string, rows: number = ROWS_KEPT): Promise<Row[][]> {
    if (this.options.signal?.aborted) throw interrupted("Interrupted before anything was sent");
    let link = this.#link;
    if (!link || link.lost) {
      this.#connecting ??= this.#connect().finally(() => this.#connecting = undefined);
      link = await this.#connecting;
    }
    return await link.send(message, rows);
  }

  /**
   * Breaks the connection off, for a server that does not answer: what is in flight fails with {@linkcode ConnectionLost},
   * and connecting ends.
   *
   * @param reason why, for people
   */
  abandon(reason?: string): void {
    this.#link?.abandon(reason);
    this.#abandoned.abort(new Error(reason ?? "given up"));
    this.#abandoned = new AbortController();
  }

  /** A session with the same database that a signal does not end, to clean up: it has some seconds for that. */
  beside(options: Partial<SessionOptions> = this.options): Session {
    const { signal } = this.options;
    const session = new Session(this.settings, { ...options, signal: undefined });
    const bound = () => session.limit(Date.now() + INTERRUPTION_MS);
    if (signal?.aborted) bound();
    else signal?.addEventListener("abort", bound, { signal: session.#closed.signal });
    return session;
  }

  /**
   * Asks the server to end what is in flight, until it has; a server that does not is given up.
   *
   * @param after what came to pass, for people: "the interruption"
   */
  endWhatRuns(after: string): void {
    const link = this.#link;
    if (!link || link.inFlight === 0 || this.#cancelling) return;
    const reason = `it did not end within ${INTERRUPTION_MS / 1000}s of ${after}`;
    const late = setTimeout(() => link.abandon(reason), INTERRUPTION_MS);
    this.#cancelling = (async () => {
      // To cancel a wait for a standby lets the next message begin.
      if (link.inFlight > 1) await this.#endIfSynchronous(link);
      // One request can come too early or too late for the statement that it is meant for.
      while (link.inFlight > 0 && !link.lost) {
        void this.cancel().catch(() => {});
        await sleep(CANCEL_EVERY_MS);
      }
      clearTimeout(late);
      this.#cancelling = undefined;
    })();
  }

  /**
   * Sends messages that belong together back to back, over the connection that there is and never over a new one.
   *
   * @returns how each of them ended; they are transactions of their own, so one that fails does not stop the next
   * @throws {ConnectionLost} when there is no connection: nothing was sent
   */
  async sendTogether(messages: readonly string[]): Promise<readonly PromiseSettledResult<Row[][]>[]> {
    if (this.options.signal?.aborted) throw interrupted("Interrupted before anything was sent");
    const link = this.#link;
    if (!link || link.lost) throw new ConnectionLost(this.target, {});
    return await Promise.allSettled(messages.map((message) => link.send(message, ROWS_KEPT)));
  }

  /** Asks the server to cancel what runs now. Comes to nothing when nothing does. */
  async cancel(): Promise<void> {
    const link = this.#link;
    const key = link?.backendKey;
    if (!link || !key) return;
    const late = AbortSignal.timeout(CANCEL_MS);
    const socket = await openSocket(this.settings, link.host, link.encryption, late);
    await new Promise<void>((resolve) => {
      // The server ends the connection when it has passed the request on, and only then do we: PgBouncer 1.18 falls over
      // a client that leaves before.
      late.addEventListener("abort", () => socket.destroy());
      socket.once("close", () => resolve());
      socket.on("data", () => {});
      socket.write(Uint8Array.from([...CANCEL_REQUEST, ...key]));
    });
  }

  /** As {@linkcode close}; what was the matter with the connection has been told by what was asked of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close().catch(() => {});
  }

  /** Ends the session. Nothing may be in flight, and nothing be sent any more. */
  async close(): Promise<void> {
    this.#closed.abort();
    const link = this.#link;
    this.#link = undefined;
    await link?.close();
    await this.#cancelling;
    await this.#watching;
  }

  /**
   * Ends the server process where commits wait for a standby. What runs is rolled back, what waits is committed on this
   * server, and nothing that was sent behind it begins.
   */
  async #endIfSynchronous(link: Link): Promise<void> {
    const pid = processOf(link.backendKey);
    if (pid === undefined) return;
    const { patience: _, ...settings } = this.settings;
    const session = new Session({ ...settings, waitForDbMs: 0 });
    const late = setTimeout(() => session.abandon(), END_MS);
    await session.transaction(sql`
      SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE pid = ${pid}::int AND usename = session_user AND state <> 'idle' AND backend_type = 'client backend'
         AND current_setting('synchronous_standby_names') <> '';`).catch(() => {});
    clearTimeout(late);
    await session.close();
  }

  async #connect(): Promise<Link> {
    const { settings, options } = this;
    this.#link = await connect(settings, {
      ...this.#events(),
      abandoned: this.#abandoned.signal,
      // A server that was there a moment ago may be recovering from a crash, or another one takes over from it.
      waitMs: Math.max(settings.waitForDbMs, this.#wasConnected ? RECONNECT_MS : 0),
      deadline: this.#deadline,
      onWait: options.onWait,
    });
    this.#wasConnected = true;
    this.#watching = this.#watch(this.#link);
    return this.#link;
  }

  #events(): LinkEvents {
    const { onNotice, onNotify, signal } = this.options;
    return {
      onNotice: ({ severity, sqlstate, message, detail, hint }) =>
        onNotice?.({ severity, code: sqlstate, message, detail, hint }),
      onNotify: () => onNotify?.(),
      signal,
    };
  }

  /** Breaks the connection off when the server is silent and not there any more. */
  async #watch(link: Link): Promise<void> {
    const { patience = NO_PATIENCE } = this.settings;
    const loss = await watchOver(link, new SecondConnection(this.settings), patience, {
      deadline: () => this.#deadline,
      onSilence: (text) => this.options.onWait?.(text),
    });
    if (!loss) return;
    // It was asked for another connection all the while.
    if (loss.isUnreachable) this.#wasConnected = false;
    link.abandon(loss.reason, loss.isUnreachable);
  }
}

/** Looks from a session of its own, which is kept while it answers. */
class SecondConnection implements Looker {
  #session: Session | undefined;

  readonly settings: ConnectionSettings;

  constructor({ patience: _, ...settings }: ConnectionSettings) {
    this.settings = { ...settings, waitForDbMs: 0 };
  }

  async look(key: Uint8Array | undefined, limitMs: number): Promise<Sign> {
    const session = this.#session ??= new Session(this.settings);
    let late: ReturnType<typeof setTimeout> | undefined;
    const tooLate = new Promise<never>((_, reject) =>
      late = setTimeout(() => reject(new Error("it does not answer either")), limitMs)
    );
    try {
      const asked = session.transaction(lookStatement(processOf(key) ?? 0));
      asked.catch(() => {});
      const [[row] = []] = await Promise.race([asked, tooLate]);
      return signOf(row, session.serverProcess);
    } catch (error) {
      // Whoever refuses is there; but one that is starting is not the one that we were connected to.
      const cause = error instanceof PipeweaveError ? error.details.cause : undefined;
      const isThere = isServerError(cause) && cause.code !== "57P03" && !(error instanceof ConnectionLost);
      await this.close();
      return isThere ? "alive" : unreachable(error);
    } finally {
      clearTimeout(late);
    }
  }

  /** Ends the session, in the middle of a look too. */
  async close(): Promise<void> {
    const session = this.#session;
    if (!session) return;
    this.#session = undefined;
    session.abandon();
    await session.close();
  }
}

/** The process id in the key that cancels a server process. */
function processOf(key: Uint8Array | undefined): number | undefined {
  return key && new DataView(key.buffer, key.byteOffset).getInt32(0);
}

/** The message of {@linkcode Session.transaction}, for one that is sent with others. */
export function transactionMessage(statements: SqlText, lockTimeoutMs: number = LOCK_TIMEOUT_MS): string {
  // Read committed whatever the role's default is: a statement that waited for a lock sees what the holder committed.
  return sql`
SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = ${lockTimeoutMs};
SET LOCAL statement_timeout = 0;
${sequence(OWN_SQL)}
${statements}`.text;
}

/**
 * Settings of the transaction under which SQL of our own runs. Names that no schema stands before, operators among them,
 * are PostgreSQL's; and where row level security would hide rows there is an error, instead of an answer that leaves
 * them out.
 */
export const OWN_SQL: readonly SqlText[] = [
  sql`SET LOCAL search_path = pg_catalog, pg_temp;`,
  sql`SET LOCAL row_security = off;`,
];
