/**
 * From settings to a connection: hosts in turn, ways to encrypt in turn, again while waiting may help.
 *
 * @module
 */

import { type ConnectionSettings, describeHost, describeTarget, type Host } from "../config/connection.ts";
import { formatDuration } from "../config/duration.ts";
import { interrupted, PipeweaveError } from "../errors.ts";
import {
  ConnectTimeout,
  hostProblem,
  isServerError,
  mayComeUp,
  notPostgres,
  startupProblem,
} from "./failures.ts";
import { ConnectionLost, Link, type LinkEvents } from "./link.ts";
import { sleep } from "./sleep.ts";
import { type Encryption, encryptionAttempts, openSocket, peerCertificate } from "./socket.ts";
import { startUp } from "./startup.ts";
import { tlsProblem } from "./tls_failure.ts";

/** Pause between two rounds of attempts, in milliseconds. */
const RETRY_MS = 250;

/** Options of {@linkcode connect}. */
export interface ConnectOptions extends LinkEvents {
  /** How long to go on trying, in milliseconds; 0: once. */
  readonly waitMs: number;
  /** When to give up in any case, in milliseconds of the epoch. */
  readonly deadline: number;
  /** Told what is being waited for. */
  readonly onWait?: ((reason: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Ends connecting too. */
  readonly abandoned: AbortSignal;
}

/**
 * Connects to the first host that serves.
 *
 * @throws {PipeweaveError} of kind `connection`, or `timeout` when `--wait-for-db` ran out
 */
export async function connect(settings: ConnectionSettings, options: ConnectOptions): Promise<Link> {
  const { waitMs, signal, abandoned } = options;
  const deadline = Math.min(options.deadline, Date.now() + (waitMs > 0 ? waitMs : Infinity));
  let before: PipeweaveError | undefined;
  for (;;) {
    const problems: PipeweaveError[] = [];
    // prefer-standby: first a round for a standby, then one for anything.
    const rounds = settings.targetSession === "prefer-standby"
      ? ["standby", "any"] as const
      : [settings.targetSession];
    for (const wanted of rounds) {
      for (const host of settings.hosts) {
        for (const encryption of encryptionAttempts(settings, host)) {
          const outcome = await attempt(settings, { host, encryption, wanted, deadline }, options);
          if (outcome instanceof Link) return outcome;
          if (signal?.aborted) {
            throw interrupted(`Interrupted while connecting to ${describeTarget(settings)}`);
          }
          if (abandoned.aborted) throw outcome;
          problems.push(outcome);
          if (!triesNext(encryption, outcome)) break;
        }
      }
    }
    // What the deadline has cut short says nothing of the server.
    const isCut = before && Date.now() >= deadline;
    const problem: PipeweaveError = before = isCut ? before! : summary(problems, settings);
    if (waitMs === 0 || !problems.some(mayComeUp)) throw problem;
    const left = deadline - Date.now();
    if (left <= 0) throw settings.waitForDbMs === 0 ? problem : notUp(problem, settings.waitForDbMs);
    options.onWait?.(problem.message);
    await sleep(Math.min(RETRY_MS, left), signal);
    if (abandoned.aborted) throw problem;
  }
}

/**
 * Whether the other way to encrypt is tried (PostgreSQL documentation, 32.19.3): under prefer where TLS failed or the server
 * takes no encrypted session, under allow where it takes encrypted ones alone.
 */
function triesNext(encryption: Encryption, { code, details }: PipeweaveError): boolean {
  if (details.sqlstate === "28000") return true;
  return encryption === "tls-if-offered" && code === "tls_failed";
}

function notUp(problem: PipeweaveError, waitMs: number): PipeweaveError {
  return new PipeweaveError(
    "timeout",
    "database_not_up",
    `The database did not come up within ${formatDuration(waitMs)}: ${problem.message}`,
    { ...problem.details, hint: problem.details.hint ?? "Give it longer with --wait-for-db." },
  );
}

interface Attempt {
  readonly host: Host;
  readonly encryption: Encryption;
  readonly wanted: ConnectionSettings["targetSession"];
  readonly deadline: number;
}

/** One attempt at one host. */
async function attempt(
  settings: ConnectionSettings,
  { host, encryption, wanted, deadline }: Attempt,
  options: ConnectOptions,
): Promise<Link | PipeweaveError> {
  const limitMs = Math.min(settings.connectTimeoutMs || Infinity, Math.max(1, deadline - Date.now()));
  const limit = new AbortController();
  const timer = limitMs === Infinity
    ? undefined
    : setTimeout(() => limit.abort(new ConnectTimeout(formatDuration(limitMs))), limitMs);
  const either = AbortSignal.any([
    limit.signal,
    options.abandoned,
    ...(options.signal ? [options.signal] : []),
  ]);
  let socket: Awaited<ReturnType<typeof openSocket>> | undefined;
  let link: Link | undefined;
  const abort = () => link ? link.abandon() : socket?.destroy();
  either.addEventListener("abort", abort, { once: true });
  try {
    const opened = socket = await openSocket(settings, host, encryption, either);
    const started = await startUp(opened, {
      ...{ settings, host, onNotice: options.onNotice },
      certificate: () => peerCertificate(opened),
    });
    link = new Link(opened, started, settings, host, encryption, options);
    // A pooler lets clients in whose server is down; whoever waits for it waits for an answer.
    if (options.waitMs > 0 || wanted !== "any") await link.send("");
    if (wanted !== "any" && !(await rolesOf(link))[wanted]) {
      throw new PipeweaveError(
        "connection",
        "wrong_role",
        `${describeHost(host)} is not what target_session_attrs=${wanted} asks for`,
        { hint: "Name a host that is, or several: --host db1,db2." },
      );
    }
    return link;
  } catch (error) {
    if (link) await link.close();
    else socket?.destroy();
    if (either.aborted) return hostProblem(either.reason, settings, host);
    if (isServerError(error)) return startupProblem(error, settings, host);
    if (error instanceof ConnectionLost) return refusedWhileReady(error, settings, host);
    if (error instanceof PipeweaveError) return error;
    return await tlsProblem(error, socket, settings, host) ?? hostProblem(error, settings, host);
  } finally {
    clearTimeout(timer);
    either.removeEventListener("abort", abort);
  }
}

/** A connection that was ended before it had answered anything: the pooler's reason is the server's. */
function refusedWhileReady(
  lost: ConnectionLost,
  settings: ConnectionSettings,
  host: Host,
): PipeweaveError {
  const { lastWord, reason } = lost;
  if (!lastWord) {
    return reason === undefined
      ? hostProblem(Object.assign(new Error("it was closed"), { code: "ECONNRESET" }), settings, host)
      : notPostgres(host, reason);
  }
  const error = Object.assign(new Error(lastWord.message), {
    name: "PostgresError",
    code: lastWord.sqlstate,
    severity: "FATAL",
  });
  return startupProblem(error, settings, host);
}

/** Which of `target_session_attrs` a server is. */
async function rolesOf(link: Link): Promise<Record<ConnectionSettings["targetSession"], boolean>> {
  // Reported by servers from 14 on; asked of poolers, which report neither.
  let standby = link.parameters.get("in_hot_standby");
  let readOnly = link.parameters.get("default_transaction_read_only");
  if (standby === undefined || readOnly === undefined) {
    const [[row] = []] = await link.send(
      "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END AS standby, " +
        "pg_catalog.current_setting('default_transaction_read_only') AS readonly",
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

/** Several hosts failed: one error that lists them, of the kind that the last one had. */
function summary(problems: readonly PipeweaveError[], settings: ConnectionSettings): PipeweaveError {
  const last = problems.find(mayComeUp) ?? problems.at(-1)!;
  if (settings.hosts.length === 1) return problems.at(-1)!;
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
