/**
 * A connection that is up: messages over it, their answers, and what became of them when it ends.
 *
 * @module
 */

import type net from "node:net";
import process from "node:process";
import postgres from "postgres";
import { type ConnectionSettings, describeTarget, type Host } from "../config/connection.ts";
import { PipeweaveError } from "../errors.ts";
import { excerptOf, printable } from "../printable.ts";
import { adviceFor, isServerError, notTrusted, serverDetails, type ServerError } from "./failures.ts";
import type { Encryption } from "./socket.ts";
import { handOver, type Started } from "./startup.ts";
import { NOT_TRUSTED } from "./trust.ts";
import type { ErrorFields } from "./wire.ts";
import { type LastWord, WireObserver } from "./wire_observer.ts";

/** The function of PostgreSQL that waits for a synchronous standby; its name is not translated. */
const SYNCHRONOUS_WAIT = "SyncRepWaitForLSN";

/** A row, by column name. */
export type Row = Readonly<Record<string, unknown>>;

/** A notice or warning that the server sent. */
export interface Notice {
  readonly severity: string;
  readonly code: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
}

/** What a link reports while it works. */
export interface LinkEvents {
  readonly onNotice: (notice: ErrorFields) => void;
  /** Told of every NOTIFY, and when the connection ends and nothing is heard. */
  readonly onNotify: () => void;
  /** Whether what fails was interrupted. */
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
  readonly lastWord: LastWord | undefined;
  /** Whether another connection had been tried for, in vain, before this one was given up. */
  readonly isUnreachable: boolean;
  /** Why we broke it off; undefined where it ended by itself. */
  readonly reason: string | undefined;

  constructor(
    target: string,
    { cause, lastWord, reason, isUnreachable = false, isInterrupted = false }: {
      readonly cause?: unknown;
      readonly lastWord?: LastWord | undefined;
      /** Why we broke it off. */
      readonly reason?: string | undefined;
      readonly isUnreachable?: boolean;
      readonly isInterrupted?: boolean;
    },
  ) {
    const why = reason ?? (lastWord && printable(excerptOf(lastWord.message)));
    super(
      isInterrupted ? "interrupted" : "connection",
      "connection_lost",
      `${isInterrupted ? "Interrupted, and the" : "The"} connection to ${target} was lost${
        why ? `: ${why}` : ""
      }`,
      {
        ...(lastWord ? { sqlstate: lastWord.sqlstate } : {}),
        cause,
        hint: isInterrupted
          ? "What was under way may be done or not: see pipeweave db:status and pipeweave maintenance:status."
          : "See the server's log for the reason, and run the command again: it goes on where the database stands.",
      },
    );
    this.lastWord = lastWord;
    this.isUnreachable = isUnreachable;
    this.reason = reason;
  }
}

/** An interruption ended the wait for a synchronous standby: what was sent is committed, on this server for certain. */
export class CommittedLocally extends PipeweaveError {
  /** The answer to the message; empty where the server ended the session with it. */
  readonly rows: Row[][];

  constructor(target: string, rows: Row[][]) {
    super(
      "interrupted",
      "committed_locally",
      `Interrupted while the server waited for its synchronous standby: what was sent is committed on ${target}, and may not have reached the standby`,
      {
        hint:
          "Nothing more was sent. See to the standby (synchronous_standby_names), then run the command again.",
      },
    );
    this.rows = rows;
  }
}

/** A connection to one server. */
export class Link {
  /** Messages that are not answered yet. */
  inFlight = 0;
  /** When the last message was answered, or the first of those in flight was sent; in milliseconds of the epoch. */
  answeredAt = Date.now();
  /** Bytes that the server sent. */
  received = 0;
  /** Whether it has ended. */
  lost = false;
  /** Called when a first message is sent, and when it ends: for who watches over it. */
  wake: () => void = () => {};
  readonly parameters: Map<string, string>;
  readonly #driver: postgres.Sql;
  readonly #observer = new WireObserver();
  /** Messages sent; the start-up counts. */
  #sent = 1;
  /** Messages that were committed without the synchronous standby. */
  readonly #locally = new Set<number>();
  /** Why we broke it off. */
  #reason: string | undefined;
  #isUnreachable = false;

  readonly #socket: net.Socket;
  readonly #settings: ConnectionSettings;
  readonly #events: LinkEvents;
  readonly host: Host;
  readonly encryption: Encryption;

  constructor(
    socket: net.Socket,
    started: Started,
    settings: ConnectionSettings,
    host: Host,
    encryption: Encryption,
    events: LinkEvents,
  ) {
    this.#socket = socket;
    this.#settings = settings;
    this.#events = events;
    this.host = host;
    this.encryption = encryption;
    this.parameters = new Map(started.parameters);
    this.#driver = this.#driverOver(started);
  }

  /** Process id and secret for a cancel request. */
  get backendKey(): Uint8Array | undefined {
    return this.#observer.backendKey;
  }

  /** `user@host:port/database`. */
  get target(): string {
    return describeTarget({ ...this.#settings, hosts: [this.host] });
  }

  /**
   * Sends a message.
   *
   * @param most rows of a statement that are kept
   * @returns the rows of each statement that returns rows, in order
   */
  async send(message: string, most = Infinity): Promise<Row[][]> {
    const index = this.#sent++;
    if (this.inFlight++ === 0) {
      this.answeredAt = Date.now();
      this.wake();
    }
    const kept = new Map<unknown, Row[]>();
    try {
      const answer = await this.#driver.unsafe(message).simple().forEach((row, result) => {
        const rows = kept.get(result) ?? [];
        if (rows.length === 0) kept.set(result, rows);
        if (rows.length < most) rows.push(row);
      }) as unknown;
      const rows = rowSets(answer, kept);
      if (this.#locally.has(index) && this.#events.signal?.aborted) {
        throw new CommittedLocally(this.target, rows);
      }
      return rows;
    } catch (error) {
      throw this.#problem(error, index);
    } finally {
      this.inFlight--;
      this.answeredAt = Date.now();
    }
  }

  /**
   * Breaks it off: what is in flight fails with {@linkcode ConnectionLost}.
   *
   * @param reason why, for people
   * @param isUnreachable whether another connection has been tried for in vain
   */
  abandon(reason?: string, isUnreachable = false): void {
    this.#reason ??= reason;
    this.#isUnreachable ||= isUnreachable;
    this.#socket.destroy();
  }

  /** Ends it. Nothing may be in flight. */
  async close(): Promise<void> {
    await this.#driver.end({ timeout: this.lost || this.inFlight > 0 ? 0 : 1 });
    this.#socket.destroy();
  }

  #driverOver(started: Started): postgres.Sql {
    const socket = this.#socket;
    const settings = this.#settings;
    const events = this.#events;
    let handedOver = false;
    const driver = withoutItsEnvironment(() =>
      postgres({
        host: this.host.host,
        port: this.host.port,
        database: settings.database,
        user: settings.user,
        pass: "",
        // One connection, over the socket that was opened here; the driver never opens one of its own.
        max: 1,
        socket: () => {
          // It may have ended on the way here, and a dead socket would never say so.
          if (handedOver || socket.destroyed) throw new ConnectionLost(this.target, {});
          handedOver = true;
          handOver(socket, started, (bytes) => {
            this.received += bytes.length;
            const isProtocol = !this.lost && this.#observer.feed(bytes);
            if (!isProtocol) this.abandon("what came is not PostgreSQL's protocol");
            return isProtocol;
          });
          return socket;
        },
        ssl: false,
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
        onnotice: (notice: Record<string, string>) => {
          if (notice["routine"] === SYNCHRONOUS_WAIT) this.#locally.add(this.#observer.answered);
          events.onNotice({
            severity: notice["severity"] ?? notice["severity_local"] ?? "NOTICE",
            sqlstate: notice["code"] ?? "",
            message: notice["message"] ?? "",
            ...(notice["detail"] ? { detail: notice["detail"] } : {}),
            ...(notice["hint"] ? { hint: notice["hint"] } : {}),
          });
        },
        onnotify: () => events.onNotify(),
        onparameter: (name: string, value: string) => this.parameters.set(name, value),
        // deno-lint-ignore no-explicit-any -- the driver's types lack `socket`, `publications` and null lifetimes
      } as any)
    );
    socket.once("close", () => {
      this.lost = true;
      this.wake();
      // Without this the driver would keep what it had queued for a connection that it cannot make.
      void driver.end({ timeout: 0 });
      // Whoever listens hears of the end of the connection too.
      events.onNotify();
    });
    return driver;
  }

  #problem(error: unknown, index: number): PipeweaveError {
    if (error instanceof PipeweaveError && !(error instanceof ConnectionLost)) return error;
    const isInterrupted = this.#events.signal?.aborted ?? false;
    if (!isServerError(error) || isFatal(error)) {
      this.lost = true;
      // What the driver cannot read leaves its connection open.
      this.#socket.destroy();
      if (this.#locally.has(index) && isInterrupted) return new CommittedLocally(this.target, []);
      const cause = error instanceof ConnectionLost ? error.details.cause : error;
      const reason = this.#reason;
      return new ConnectionLost(this.target, {
        ...{ cause, reason, isInterrupted },
        isUnreachable: this.#isUnreachable,
        lastWord: this.#observer.lastWord,
      });
    }
    const completed = this.#observer.completed(index);
    const details = serverDetails(error);
    if (error.code === "57014" && isInterrupted) {
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
      const { message, details } = notTrusted(error.detail ?? "{}", this.#settings);
      return new StatementError("database", "foreign_owner", message, completed, details);
    }
    const hint = adviceFor(error, this.#settings);
    return new StatementError("database", "statement_failed", excerptOf(error.message), completed, {
      ...details,
      ...(hint ? { hint } : {}),
    });
  }
}

/** Whether the server ends the connection with it; poolers send the translated field alone. */
function isFatal(error: ServerError): boolean {
  return (error.severity ?? error.severity_local) === "FATAL";
}

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
