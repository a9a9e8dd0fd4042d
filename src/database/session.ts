/**
 * The one way to talk to PostgreSQL: {@linkcode Session.transaction} sends statements as a single simple-protocol
 * message. That is one round trip and, by PostgreSQL's rule for such messages, one transaction: all of it happens
 * or nothing. No state outlives a message, so a pooler in transaction mode is as good as a direct connection, and a
 * killed client leaves nothing open.
 *
 * @module
 */

import { excerptOf } from "../printable.ts";
import type net from "node:net";
import process from "node:process";
import postgres from "postgres";
import type { ConnectionSettings, Host } from "../config/connection.ts";
import { describeHost, describeTarget } from "../config/connection.ts";
import { formatDuration } from "../config/duration.ts";
import { interrupted, PipeweaveError } from "../errors.ts";
import {
  adviceFor,
  ConnectTimeout,
  hostProblem,
  isServerError,
  mayComeUp,
  notTrusted,
  serverDetails,
  startupProblem,
} from "./failures.ts";
import { type Encryption, encryptionAttempts, handshakeFailure, openSocket } from "./socket.ts";
import { sequence, sql, type SqlText } from "./sql.ts";
import { DEADLOCK, sqlstateOf } from "./conflict.ts";
import { pauseBefore, sleep } from "./sleep.ts";
import { NOT_TRUSTED } from "./trust.ts";
import { type LastWord, WireObserver } from "./wire_observer.ts";

/** How long a command's own statements wait for a lock; migrations have limits of their own. */
export const LOCK_TIMEOUT_MS = 5000;
/** Rows of a statement that are kept of a message that may hold a file of the user's. */
const ROWS_KEPT = 100;
/** How long a server that was lost is waited for, in milliseconds. */
const RECONNECT_MS = 10_000;
/** Pause between two attempts under `--wait-for-db`, and between two cancel requests. */
const RETRY_MS = 250;
const CANCEL_EVERY_MS = 200;
/** How often a transaction is sent that a deadlock ends each time. */
const DEADLOCK_ATTEMPTS = 5;
/** How long a server may take to pass a cancel request on. */
const CANCEL_ANSWER_MS = 5000;
/** CancelRequest (PostgreSQL documentation, 54.7): length 16, code 80877102, then the backend's key. */
const CANCEL_REQUEST = [0, 0, 0, 16, 4, 210, 22, 46];

/** A row, by column name. */
export type Row = Readonly<Record<string, unknown>>;

/** A notice or warning that the server sent. */
export interface Notice {
  readonly severity: string;
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
}

/** What a session reports while it works. */
export interface SessionOptions {
  readonly onNotice?: (notice: Notice) => void;
  /** Told what is being waited for under `--wait-for-db`. */
  readonly onWait?: (reason: string) => void;
  /** Told of every NOTIFY on a channel that this session listens to, and when the connection ends and nothing is heard. */
  readonly onNotify?: () => void;
  /** Ends what runs: the server is asked to cancel until it has. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * A message failed: PostgreSQL rolled it back whole. `completed` tells how many of its statements had been done
 * before the failing one.
 */
export class StatementError extends PipeweaveError {
  readonly completed: number;

  constructor(
    kind: "database" | "timeout" | "connection" | "interrupted",
    code: string,
    message: string,
    completed: number,
    details: PipeweaveError["details"],
  ) {
    super(kind, code, message, details);
    this.completed = completed;
  }
}

/** The connection ended while a message was unanswered: it may have been committed or not. */
export class ConnectionLost extends PipeweaveError {
  constructor(target: string, cause: unknown, lastWord?: LastWord) {
    super(
      "connection",
      "connection_lost",
      `The connection to ${target} was lost${lastWord ? `: ${lastWord.message}` : ""}`,
      {
        ...(lastWord ? { sqlstate: lastWord.sqlstate } : {}),
        cause,
        hint:
          "See the server's log for the reason, and run the command again: it goes on where the database stands.",
      },
    );
  }
}

interface Connection {
  readonly driver: postgres.Sql;
  readonly socket: net.Socket;
  readonly observer: WireObserver;
  readonly host: Host;
  readonly encryption: Encryption;
  readonly parameters: ReadonlyMap<string, string>;
  /** Messages sent; the startup counts. */
  sent: number;
  lost: boolean;
}

/** A session with one database. Connects when the first message is sent, and anew after a connection was lost. */
export class Session {
  #connection: Connection | undefined;
  #wasConnected = false;
  /** While the first message of a connection is under way; never fails. */
  #connecting: Promise<void> | undefined;
  #inFlight = 0;
  #cancelling: Promise<void> | undefined;

  readonly settings: ConnectionSettings;
  readonly options: SessionOptions;

  constructor(settings: ConnectionSettings, options: SessionOptions = {}) {
    this.settings = settings;
    this.options = options;
    options.signal?.addEventListener("abort", () => this.#cancelWhileBusy());
  }

  /** `user@host:port/database`: the server that is connected, or all that will be tried. */
  get target(): string {
    const { settings } = this;
    return describeTarget(this.#connection ? { ...settings, hosts: [this.#connection.host] } : settings);
  }

  /** A parameter that the server reported at startup, such as `server_version` or `in_hot_standby`. */
  parameter(name: string): string | undefined {
    return this.#connection?.parameters.get(name);
  }

  /**
   * The server process that the connection was made to, by the key that cancels it. A pooler gives a number of its own,
   * which is not the one that `pg_backend_pid()` tells.
   */
  get serverProcess(): number | undefined {
    const key = this.#connection?.observer.backendKey;
    return key && new DataView(key.buffer, key.byteOffset).getInt32(0);
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
    const { signal } = this.options;
    if (signal?.aborted) throw interrupted("Interrupted before anything was sent");
    // One of several connects, and the others go after it: a connection for each would be nobody's to close.
    while (this.#connecting) await this.#connecting;
    if (this.#connection && !this.#connection.lost) {
      return await this.#sendOver(this.#connection, message, rows);
    }
    const answer = this.#connectAndSend(message, rows);
    this.#connecting = answer.then(() => {}, () => {}).finally(() => this.#connecting = undefined);
    return await answer;
  }

  /** Breaks the connection off, for a server that does not answer: what is in flight fails with {@linkcode ConnectionLost}. */
  abandon(): void {
    this.#connection?.socket.destroy();
  }

  /**
   * Sends messages that belong together back to back, over the connection that there is and never over a new one.
   *
   * @returns how each of them ended; they are transactions of their own, so one that fails does not stop the next
   * @throws {ConnectionLost} when there is no connection: nothing was sent
   */
  async sendTogether(messages: readonly string[]): Promise<readonly PromiseSettledResult<Row[][]>[]> {
    if (this.options.signal?.aborted) throw interrupted("Interrupted before anything was sent");
    const connection = this.#connection;
    if (!connection || connection.lost) throw new ConnectionLost(this.target, undefined);
    return await Promise.allSettled(
      messages.map((message) => this.#sendOver(connection, message, ROWS_KEPT)),
    );
  }

  /** Asks the server to cancel what runs now. Comes to nothing when nothing does. */
  async cancel(): Promise<void> {
    const connection = this.#connection;
    const key = connection?.observer.backendKey;
    if (!connection || !key) return;
    const socket = await openSocket(
      this.settings,
      connection.host,
      connection.encryption,
      AbortSignal.timeout(5000),
    );
    await new Promise<void>((resolve) => {
      // The server ends the connection when it has passed the request on, and only then do we: PgBouncer 1.18 falls over
      // a client that leaves before.
      const late = setTimeout(() => socket.destroy(), CANCEL_ANSWER_MS);
      socket.once("close", () => {
        clearTimeout(late);
        resolve();
      });
      socket.on("error", () => {});
      socket.on("data", () => {});
      socket.write(Uint8Array.from([...CANCEL_REQUEST, ...key]));
    });
  }

  /** Ends the connection. Nothing may be in flight. */
  async close(): Promise<void> {
    const connection = this.#connection;
    this.#connection = undefined;
    await this.#cancelling;
    await connection?.driver.end({ timeout: 1 });
  }

  #cancelWhileBusy(): void {
    this.#cancelling ??= (async () => {
      // One request can come too early or too late for the statement that it is meant for.
      while (this.#inFlight > 0 && this.#connection && !this.#connection.lost) {
        await this.cancel().catch(() => {});
        await sleep(CANCEL_EVERY_MS);
      }
    })();
  }

  async #connectAndSend(message: string, rows: number): Promise<Row[][]> {
    const { settings, options: { signal } } = this;
    // A server that was there a moment ago may be recovering from a crash, or another one takes over from it.
    const waitMs = Math.max(settings.waitForDbMs, this.#wasConnected ? RECONNECT_MS : 0);
    const deadline = Date.now() + waitMs;
    for (;;) {
      const problems: PipeweaveError[] = [];
      // prefer-standby: first a round for a standby, then one for anything.
      const rounds = settings.targetSession === "prefer-standby"
        ? ["standby", "any"] as const
        : [settings.targetSession];
      for (const wanted of rounds) {
        for (const host of settings.hosts) {
          for (const encryption of encryptionAttempts(settings, host)) {
            const outcome = await this.#attempt(host, encryption, wanted, message, rows);
            if (outcome.ok) return await outcome.answer;
            if (signal?.aborted) {
              throw interrupted(`Interrupted while connecting to ${describeTarget(settings)}`);
            }
            problems.push(outcome.problem);
            // The second attempt is for a TLS that failed, not for a server that said no.
            if (outcome.problem.code !== "tls_failed") break;
          }
        }
      }
      const problem = summary(problems, settings);
      if (waitMs === 0 || !problems.some(mayComeUp)) throw problem;
      const left = deadline - Date.now();
      if (left <= 0 && settings.waitForDbMs === 0) throw problem;
      if (left <= 0) {
        const waited = formatDuration(settings.waitForDbMs);
        throw new PipeweaveError(
          "timeout",
          "database_not_up",
          `The database did not come up within ${waited}: ${problem.message}`,
          {
            ...problem.details,
            hint: problem.details.hint ?? "Give it longer with --wait-for-db.",
          },
        );
      }
      this.options.onWait?.(problem.message);
      await sleep(Math.min(RETRY_MS, left), signal);
    }
  }

  /** One attempt at one host: sends the message as soon as the server is ready and is one that is wanted. */
  async #attempt(
    host: Host,
    encryption: Encryption,
    wanted: ConnectionSettings["targetSession"],
    message: string,
    rows: number,
  ): Promise<{ ok: true; answer: Promise<Row[][]> } | { ok: false; problem: PipeweaveError }> {
    const { settings, options: { signal } } = this;
    const limit = new AbortController();
    const timeoutMs = settings.connectTimeoutMs;
    const timer = timeoutMs === 0
      ? undefined
      : setTimeout(() => limit.abort(new ConnectTimeout(formatDuration(timeoutMs))), timeoutMs);
    const either = signal ? AbortSignal.any([signal, limit.signal]) : limit.signal;
    let connection: Connection | undefined;
    try {
      const socket = await openSocket(settings, host, encryption, either);
      const opened = connection = this.#overSocket(socket, host, encryption);
      const abort = () => opened.observer.answered === 0 && socket.destroy(either.reason);
      either.addEventListener("abort", abort, { once: true });
      // A server of the wrong role must not see the message: ask it first, and only then.
      const first = wanted === "any" ? message : "";
      const answer = this.#sendOver(opened, first, rows);
      answer.catch(() => {});
      const failed = await Promise.race([
        opened.observer.ready.then(() => undefined),
        answer.then(() => undefined, (error) => error),
      ]);
      clearTimeout(timer);
      if (failed !== undefined && opened.observer.answered === 0) {
        throw either.aborted ? either.reason : failed;
      }
      this.#connection = opened;
      this.#wasConnected = true;
      if (wanted === "any") return { ok: true, answer };
      await answer;
      const role = await this.#role(opened);
      if (role[wanted]) return { ok: true, answer: this.#sendOver(opened, message, rows) };
      throw new PipeweaveError(
        "connection",
        "wrong_role",
        `${describeHost(host)} is not what target_session_attrs=${wanted} asks for`,
        {
          hint: "Name a host that is, or several: --host db1,db2.",
        },
      );
    } catch (error) {
      clearTimeout(timer);
      const refused = connection;
      this.#connection = undefined;
      await refused?.driver.end({ timeout: 0 });
      return { ok: false, problem: await this.#connectProblem(error, host, refused) };
    }
  }

  async #connectProblem(
    error: unknown,
    host: Host,
    connection: Connection | undefined,
  ): Promise<PipeweaveError> {
    const cause = error instanceof PipeweaveError && error.details.cause !== undefined
      ? error.details.cause
      : error;
    if (isServerError(cause)) return startupProblem(cause, this.settings, host);
    if (error instanceof PipeweaveError && !(error instanceof ConnectionLost)) return error;
    const encrypted = connection !== undefined && connection.encryption !== "plain";
    const reason = encrypted ? await handshakeFailure(connection.socket) : undefined;
    const closed = Object.assign(new Error("the server closed the connection", { cause }), {
      code: "ECONNRESET",
    });
    if (!reason) return hostProblem(cause instanceof ConnectionLost ? closed : cause, this.settings, host);
    const what = `TLS with ${
      describeHost(host)
    } failed under sslmode ${this.settings.sslmode}: ${reason.message}`;
    return new PipeweaveError("connection", "tls_failed", what, {
      hint: tlsHint(reason.message),
      cause: reason,
    });
  }

  async #role(connection: Connection): Promise<Record<ConnectionSettings["targetSession"], boolean>> {
    // Reported by servers from 14 on; asked of older ones and of poolers, which report neither.
    let standby = connection.parameters.get("in_hot_standby");
    let readOnly = connection.parameters.get("default_transaction_read_only");
    if (standby === undefined || readOnly === undefined) {
      const [[row] = []] = await this.#sendOver(
        connection,
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END AS standby, " +
          "pg_catalog.current_setting('default_transaction_read_only') AS readonly",
        Infinity,
      );
      standby = String(row?.["standby"]);
      readOnly = String(row?.["readonly"]);
    }
    const [primary, writable] = [standby === "off", standby === "off" && readOnly === "off"];
    return {
      any: true,
      primary,
      standby: !primary,
      "prefer-standby": true,
      "read-write": writable,
      "read-only": !writable,
    };
  }

  #overSocket(socket: net.Socket, host: Host, encryption: Encryption): Connection {
    const { settings, options } = this;
    const observer = new WireObserver();
    const parameters = new Map<string, string>();
    socket.on("data", (chunk: Uint8Array) => observer.feed(chunk));
    let handedOver = false;
    const driver = withoutItsEnvironment(() =>
      postgres({
        host: host.host,
        port: host.port,
        database: settings.database,
        user: settings.user,
        // As a function: an empty string would send the driver to PGPASSWORD.
        pass: () => host.password ?? "",
        // One connection, over the socket that was opened here; the driver never opens one of its own.
        max: 1,
        socket: () => {
          // A TLS handshake may have failed on the way here, and a dead socket would never say so.
          if (handedOver || socket.destroyed) throw new ConnectionLost(describeTarget(settings), undefined);
          handedOver = true;
          return socket;
        },
        ssl: false,
        connection: {
          application_name: settings.applicationName,
          // The driver reads times in this form alone.
          DateStyle: "ISO, MDY",
          // PostgreSQL reads a whole message before it runs the first SET of it.
          standard_conforming_strings: "on",
          ...(settings.options === undefined ? {} : { options: settings.options }),
        },
        connect_timeout: 0,
        idle_timeout: 0,
        max_lifetime: null,
        keep_alive: null,
        backoff: () => 0,
        prepare: false,
        fetch_types: false,
        max_pipeline: Number.MAX_SAFE_INTEGER,
        publications: "",
        debug: false,
        sslnegotiation: null,
        target_session_attrs: undefined,
        onnotice: (notice: Record<string, string>) =>
          options.onNotice?.({
            severity: notice["severity"] ?? "NOTICE",
            code: notice["code"] ?? "",
            message: notice["message"] ?? "",
            hint: notice["hint"],
          }),
        onnotify: () => options.onNotify?.(),
        onparameter: (name: string, value: string) => parameters.set(name, value),
        // deno-lint-ignore no-explicit-any -- the driver's types lack `socket`, `publications` and null lifetimes
      } as any)
    );
    // Without this the driver would keep what it had queued for a connection that it cannot make.
    socket.once("close", () => void driver.end({ timeout: 0 }));
    // Whoever listens hears of the end of the connection too; one that was never made is the sender's matter.
    socket.once("close", () => observer.answered > 0 && options.onNotify?.());
    return { driver, socket, observer, host, encryption, parameters, sent: 1, lost: false };
  }

  async #sendOver(connection: Connection, message: string, most: number): Promise<Row[][]> {
    const index = connection.sent++;
    this.#inFlight++;
    const kept = new Map<unknown, Row[]>();
    try {
      const answer = await connection.driver.unsafe(message).simple().forEach((row, result) => {
        const rows = kept.get(result) ?? [];
        if (rows.length === 0) kept.set(result, rows);
        if (rows.length < most) rows.push(row);
      }) as unknown;
      return rowSets(answer, kept);
    } catch (error) {
      throw this.#messageProblem(error, connection, index);
    } finally {
      this.#inFlight--;
    }
  }

  #messageProblem(error: unknown, connection: Connection, index: number): PipeweaveError {
    if (error instanceof PipeweaveError && !(error instanceof ConnectionLost)) return error;
    if (!isServerError(error) || (error.severity === "FATAL" && connection.observer.answered > 0)) {
      connection.lost = true;
      const target = describeTarget({ ...this.settings, hosts: [connection.host] });
      const cause = error instanceof ConnectionLost ? error.details.cause : error;
      return new ConnectionLost(target, cause, connection.observer.lastWord);
    }
    const completed = connection.observer.completed(index);
    const details = serverDetails(error);
    if (error.code === "57014" && this.options.signal?.aborted) {
      return new StatementError(
        "interrupted",
        "interrupted",
        "Interrupted; the server rolled it back",
        completed,
        details,
      );
    }
    if (error.code === "55P03") {
      return new StatementError(
        "timeout",
        "lock_timeout",
        `A lock could not be had in time: ${error.message}`,
        completed,
        {
          ...details,
          hint:
            "See who holds it: SELECT pid, query FROM pg_stat_activity WHERE state <> 'idle'; then try again.",
        },
      );
    }
    if (error.code === NOT_TRUSTED) {
      const { message, details } = notTrusted(error.detail ?? "{}", this.settings);
      return new StatementError("database", "foreign_owner", message, completed, details);
    }
    const hint = adviceFor(error, this.settings);
    return new StatementError("database", "statement_failed", excerptOf(error.message), completed, {
      ...details,
      ...(hint ? { hint } : {}),
    });
  }
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

/** The rows of every statement that returns some; the driver merges or pads what others return. */
function rowSets(answer: unknown, kept: ReadonlyMap<unknown, Row[]>): Row[][] {
  const results = (Array.isArray(answer) && !("command" in answer) ? answer : [answer]) as (Row[] & {
    columns?: unknown;
  })[];
  return results.filter((result) => result.columns !== undefined && result.columns !== null).map((
    result,
  ) => kept.get(result) ?? []);
}

/**
 * Runs the driver's constructor without the variables that it would read behind our back: it refuses some values of
 * PGTARGETSESSIONATTRS, and would act on others. What they mean was decided before (config/connection.ts).
 */
function withoutItsEnvironment<T>(construct: () => T): T {
  const names = ["PGTARGETSESSIONATTRS", "PGAPPNAME"];
  const saved = names.map((name) => [name, process.env[name]] as const);
  for (const name of names) delete process.env[name];
  try {
    return construct();
  } finally {
    for (const [name, value] of saved) if (value !== undefined) process.env[name] = value;
  }
}

function tlsHint(reason: string): string {
  if (/UnknownIssuer|CaUsedAsEndEntity/.test(reason)) {
    return "The certificate was not issued by the root in --sslrootcert: give the right one.";
  }
  if (/[Ee]xpired|NotValidYet/.test(reason)) {
    return "Renew the server's certificate, and check both machines' clocks.";
  }
  if (/not valid for name|NotValidForName/.test(reason)) {
    return "Connect by a name that the certificate holds, or use --sslmode verify-ca, which leaves the name unchecked.";
  }
  return "Check --sslrootcert and the server's certificate.";
}

/** Several hosts failed: one error that lists them, of the kind that the last one had. */
function summary(problems: readonly PipeweaveError[], settings: ConnectionSettings): PipeweaveError {
  const last = problems.at(-1)!;
  if (settings.hosts.length === 1) return last;
  return new PipeweaveError(
    last.kind,
    last.code,
    `None of ${settings.hosts.length} hosts serves: ${describeTarget(settings)}`,
    {
      problems: [...new Set(problems.map((problem) => problem.message))],
      ...(last.details.hint ? { hint: last.details.hint } : {}),
      cause: last,
    },
  );
}
