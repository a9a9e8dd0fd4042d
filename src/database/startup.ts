/**
 * The start-up of a session, from the first byte to "ready for query" (PostgreSQL documentation, 54.2.1 "Start-up").
 *
 * The driver could do it, but keeps what it was told to itself, answers some requests with silence, and would hand its
 * password to a server that asks for another kind of proof than the user wants. So the session is started here, and the
 * driver, which is given the socket afterwards, is shown what the server said ({@linkcode handOver}).
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type net from "node:net";
import type { ConnectionSettings, Host } from "../config/connection.ts";
import { describeHost } from "../config/connection.ts";
import { bindingDigest } from "../config/certificate.ts";
import type { AuthenticationMethod } from "../config/require_auth.ts";
import { PipeweaveError } from "../errors.ts";
import { excerptOf, printable } from "../printable.ts";
import { notPostgres, passwordProblem, type ServerError } from "./failures.ts";
import { prepared } from "./saslprep.ts";
import { type ChannelBinding, SCRAM, SCRAM_PLUS, ScramError, ScramExchange } from "./scram.ts";
import { errorFields, HEADER_BYTES, joined, message, readStrings, strings } from "./wire.ts";

/** Protocol 3.0. */
const PROTOCOL = [0, 3, 0, 0];
/** Longest message of a start-up, in bytes; libpq draws the line of errors at 30,000. */
const LONGEST = 65_536;
/** Kinds of message that a start-up may hold: authentication, error, notice, key, parameter, protocol version, ready. */
const KINDS = "RENKSvZ";
/** The oldest major version of PostgreSQL that PipeWeave works with. */
export const OLDEST_MAJOR = 14;

/** A session that is ready for its first query. */
export interface Started {
  /** What the server reported: `server_version`, `in_hot_standby`, … */
  readonly parameters: ReadonlyMap<string, string>;
  /** What the server sent since it let the client in, for the driver. */
  readonly greeting: Uint8Array;
  /** Reads what comes after it, until the driver does. */
  readonly reader: MessageReader;
}

/** How the server can be told who we are. */
export interface StartupOptions {
  readonly host: Host;
  readonly settings: ConnectionSettings;
  /** The server's certificate in DER form; undefined without TLS. */
  readonly certificate: () => Uint8Array | undefined;
  /** Told of notices that come before the session is ready. */
  readonly onNotice: (fields: ReturnType<typeof errorFields>) => void;
}

/** The server refused before it let anybody in. */
export class StartupRefused extends Error implements ServerError {
  override readonly name = "PostgresError";
  readonly code: string;
  readonly severity: string;
  readonly detail?: string;
  readonly hint?: string;
  /** Whether it had asked for a proof of who we are. */
  readonly askedForProof: boolean;

  constructor(fields: ReturnType<typeof errorFields>, askedForProof: boolean) {
    super(fields.message);
    this.code = fields.sqlstate;
    this.severity = fields.severity;
    if (fields.detail) this.detail = fields.detail;
    if (fields.hint) this.hint = fields.hint;
    this.askedForProof = askedForProof;
  }
}

/**
 * Starts a session.
 *
 * @throws {StartupRefused} when the server said no
 * @throws {PipeweaveError} of kind `connection` when it is not PostgreSQL, too old, or asks for what is not known or not
 *   wanted
 * @throws {Error} of the socket
 */
export async function startUp(socket: net.Socket, options: StartupOptions): Promise<Started> {
  const { settings, host } = options;
  const reader = new MessageReader(socket, host);
  socket.write(message("", joined([Uint8Array.from(PROTOCOL), strings(...startupParameters(settings), "")])));
  const authentication = new Authentication(options, (bytes) => socket.write(bytes));
  const parameters = new Map<string, string>();
  const greeting: Uint8Array[] = [];
  let isIn = false;
  for (;;) {
    const { kind, body, whole } = await reader.next();
    if (kind === "E") throw new StartupRefused(errorFields(body), authentication.asked);
    if (kind === "N") {
      options.onNotice(errorFields(body));
      continue;
    }
    if (kind === "v") continue;
    if (kind === "R") {
      if (isIn) throw notPostgres(host, "it asks for a proof after it let us in");
      isIn = await authentication.answer(body);
      if (isIn) greeting.push(whole);
      continue;
    }
    if (!isIn) throw notPostgres(host, `its answer begins with "${kind}"`);
    greeting.push(whole);
    if (kind === "S") {
      const [name = "", value = ""] = readStrings(body);
      parameters.set(name, value);
    }
    if (kind === "Z") {
      assertVersion(parameters, host);
      return { parameters, greeting: joined(greeting), reader };
    }
  }
}

/**
 * Lets the driver go on with a session: its start-up message stays here, and is answered with what the server said.
 *
 * @param onBytes told of everything that the server sends, from that answer on; the driver gets what it says yes to, since
 *   it believes whatever comes, and prints what it does not know
 */
export function handOver(
  socket: net.Socket,
  { greeting, reader }: Started,
  onBytes: (bytes: Uint8Array) => boolean,
): void {
  const { on, write } = socket;
  const add = on.bind(socket) as (name: string, listener: (bytes: Uint8Array) => void) => net.Socket;
  socket.on = ((name: string, listener: (bytes: Uint8Array) => void) => {
    if (name !== "data") return add(name, listener);
    socket.on = on;
    return add(name, (bytes) => void (onBytes(bytes) && listener(bytes)));
  }) as typeof on;
  socket.write = () => {
    socket.write = write;
    queueMicrotask(() => {
      const rest = reader.release();
      // The driver reads numbers by the methods of this class.
      socket.emit("data", Buffer.concat([greeting, rest]));
    });
    return true;
  };
}

function startupParameters(settings: ConnectionSettings): string[] {
  const { user, database, applicationName, options, timeZone } = settings;
  return Object.entries({
    user,
    database,
    client_encoding: "UTF8",
    application_name: applicationName,
    // The driver reads times in this form alone.
    DateStyle: "ISO, MDY",
    // PostgreSQL reads a whole message before it runs the first SET of it.
    standard_conforming_strings: "on",
    ...(timeZone === undefined ? {} : { TimeZone: timeZone }),
    ...(options === undefined ? {} : { options }),
  }).flat();
}

/** Server versions that others report of themselves do not count: their dialect is what matters (docs/database.md). */
function assertVersion(parameters: ReadonlyMap<string, string>, host: Host): void {
  const version = parameters.get("server_version") ?? "";
  const major = Number(/^(\d+)(?=$|[.\s]|(?:beta|rc|devel))/.exec(version)?.[1]);
  const isOther = parameters.has("crdb_version") || /YB|bouncer/.test(version);
  if (isOther || !(major < OLDEST_MAJOR)) return;
  throw new PipeweaveError(
    "connection",
    "server_too_old",
    `${describeHost(host)} is PostgreSQL ${printable(version)}; pipeweave needs ${OLDEST_MAJOR} or newer`,
    { hint: "Upgrade the server. Nothing was done to it." },
  );
}

/** Who we are: answers the server's requests as far as the user's settings allow. */
class Authentication {
  /** Whether the server asked for a proof. */
  asked = false;
  #method: AuthenticationMethod = "none";
  #exchange: ScramExchange | undefined;
  #isVerified = false;
  #isBound = false;

  readonly options: StartupOptions;
  readonly send: (bytes: Uint8Array) => void;

  constructor(options: StartupOptions, send: (bytes: Uint8Array) => void) {
    this.options = options;
    this.send = send;
  }

  /** Answers a request. @returns whether the server let us in */
  async answer(body: Uint8Array): Promise<boolean> {
    const { settings, host } = this.options;
    if (body.length < 4) throw notPostgres(host, "its request is cut short");
    const request = new DataView(body.buffer, body.byteOffset).getUint32(0);
    const text = () => new TextDecoder().decode(body.subarray(4));
    try {
      switch (request) {
        case 0:
          if (this.#exchange && !this.#isVerified) {
            throw new ScramError("the server let us in without having shown that it knows the password");
          }
          this.#assertWanted(this.#method);
          this.#assertBound();
          return true;
        case 3:
          this.#begin("password");
          this.send(message("p", strings(this.#password())));
          return false;
        case 5: {
          this.#begin("md5");
          const md5 = (data: string | Uint8Array, salt: string | Uint8Array) =>
            createHash("md5").update(data).update(salt).digest("hex");
          const inner = md5(this.#password(), settings.user);
          this.send(message("p", strings(`md5${md5(inner, body.subarray(4, 8))}`)));
          return false;
        }
        case 10: {
          this.#begin("scram-sha-256");
          const { mechanism, binding } = this.#mechanism(readStrings(body.subarray(4)));
          this.#exchange = new ScramExchange(prepared(this.#password()), binding);
          const first = new TextEncoder().encode(this.#exchange.first());
          const length = new Uint8Array(4);
          new DataView(length.buffer).setUint32(0, first.length);
          this.send(message("p", joined([strings(mechanism), length, first])));
          return false;
        }
        case 11:
          if (!this.#exchange) throw notPostgres(host, "it goes on with an exchange that it never began");
          this.send(message("p", new TextEncoder().encode(await this.#exchange.final(text()))));
          return false;
        case 12:
          if (!this.#exchange) throw notPostgres(host, "it ends an exchange that it never began");
          this.#exchange.verify(text());
          this.#isVerified = true;
          return false;
        default:
          throw this.#unknown(request);
      }
    } catch (error) {
      if (!(error instanceof ScramError)) throw error;
      throw new PipeweaveError(
        "connection",
        "authentication_failed",
        `SCRAM with ${describeHost(host)} failed: ${printable(excerptOf(error.message))}`,
        {
          hint:
            "Whatever answers there may not be the server that it seems to be: check the host, and TLS with verify-full.",
          cause: error,
        },
      );
    }
  }

  #begin(method: AuthenticationMethod): void {
    this.asked = true;
    this.#assertWanted(method);
    this.#method = method;
    if (method !== "scram-sha-256") this.#assertBound();
  }

  #password(): string {
    const { host, settings } = this.options;
    if (host.password) return host.password;
    throw passwordProblem(settings, host);
  }

  #assertWanted(method: AuthenticationMethod): void {
    const { host, settings: { requireAuth } } = this.options;
    if (!requireAuth || requireAuth.includes(method)) return;
    const asks = method === "none" ? "lets us in without any proof" : `asks for ${method} authentication`;
    throw new PipeweaveError(
      "connection",
      "authentication_refused",
      `${describeHost(host)} ${asks}, which require_auth excludes`,
      {
        hint: `require_auth allows ${
          requireAuth.join(", ") || "nothing"
        }: change it or the server's pg_hba.conf.`,
      },
    );
  }

  #assertBound(): void {
    const { host, settings } = this.options;
    if (settings.channelBinding !== "require" || this.#isBound) return;
    throw new PipeweaveError(
      "connection",
      "channel_binding",
      `channel_binding=require: ${describeHost(host)} does not authenticate by ${SCRAM_PLUS}`,
      {
        hint:
          "Only a password in SCRAM form over TLS can be bound to the channel: set it so on the server, or use channel_binding=prefer.",
      },
    );
  }

  #mechanism(offered: readonly string[]): { mechanism: string; binding: ChannelBinding } {
    const { host, settings: { channelBinding }, certificate } = this.options;
    const der = channelBinding === "disable" ? undefined : certificate();
    const digest = der && bindingDigest(der);
    if (der && digest && offered.includes(SCRAM_PLUS)) {
      this.#isBound = true;
      const data = createHash(digest).update(der).digest();
      return { mechanism: SCRAM_PLUS, binding: { flag: "p=tls-server-end-point", data } };
    }
    this.#assertBound();
    if (!offered.includes(SCRAM)) {
      throw new PipeweaveError(
        "connection",
        "unknown_authentication",
        `${describeHost(host)} asks for an authentication that pipeweave does not know: ${
          printable(offered.join(", ").slice(0, 200))
        }`,
        {
          hint: "pipeweave knows scram-sha-256, md5, password, cert and trust: see the server's pg_hba.conf.",
        },
      );
    }
    // "y" tells a server that does offer it that somebody in between has hidden it.
    const couldBind = der && digest && !offered.includes(SCRAM_PLUS);
    return { mechanism: SCRAM, binding: { flag: couldBind ? "y" : "n" } };
  }

  #unknown(request: number): PipeweaveError {
    const { host } = this.options;
    const known: Readonly<Record<number, string>> = {
      2: "Kerberos",
      6: "SCM credentials",
      7: "GSSAPI (Kerberos)",
      8: "GSSAPI (Kerberos)",
      9: "SSPI",
    };
    if (known[request] === undefined) return notPostgres(host, `its request has the number ${request}`);
    return new PipeweaveError(
      "connection",
      "unknown_authentication",
      `${describeHost(host)} asks for ${known[request]} authentication, which pipeweave does not support`,
      {
        hint:
          "Give this user and address a line with scram-sha-256 or cert in the server's pg_hba.conf, before that one.",
      },
    );
  }
}

interface ReadMessage {
  readonly kind: string;
  readonly body: Uint8Array;
  /** The message with its type and length. */
  readonly whole: Uint8Array;
}

/** Reads a socket message by message. */
class MessageReader {
  #buffer: Uint8Array = new Uint8Array();
  #failure: unknown;
  #wake: () => void = () => {};
  readonly #take = (chunk: Uint8Array) => {
    this.#buffer = this.#buffer.length === 0 ? chunk : joined([this.#buffer, chunk]);
    this.#wake();
  };
  readonly #fail = (error: unknown) => {
    this.#failure ??= error instanceof Error
      ? error
      : Object.assign(new Error("the server closed the connection"), { code: "ECONNRESET" });
    this.#wake();
  };

  readonly socket: net.Socket;
  readonly host: Host;

  constructor(socket: net.Socket, host: Host) {
    this.socket = socket;
    this.host = host;
    socket.on("data", this.#take).on("error", this.#fail).on("close", this.#fail);
    if (socket.destroyed) this.#fail(undefined);
  }

  /** Waits for the next message. */
  async next(): Promise<ReadMessage> {
    for (;;) {
      const found = this.#cut();
      if (found) return found;
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** Stops reading. @returns what was read and not taken */
  release(): Uint8Array {
    this.socket.off("data", this.#take).off("error", this.#fail).off("close", this.#fail);
    return this.#buffer;
  }

  #cut(): ReadMessage | undefined {
    const buffer = this.#buffer;
    if (buffer.length === 0) return undefined;
    const kind = String.fromCharCode(buffer[0]!);
    if (!KINDS.includes(kind)) throw notPostgres(this.host, `its answer begins with ${shown(buffer)}`);
    if (buffer.length < HEADER_BYTES) return undefined;
    const length = new DataView(buffer.buffer, buffer.byteOffset).getUint32(1);
    if (length < 4 || length > LONGEST) {
      if (kind === "E") return this.#oldError();
      throw notPostgres(this.host, `a message of its has ${length} bytes`);
    }
    if (buffer.length < length + 1) return undefined;
    const whole = buffer.slice(0, length + 1);
    this.#buffer = buffer.slice(length + 1);
    return { kind, whole, body: whole.subarray(HEADER_BYTES) };
  }

  /** A postmaster that cannot start a process says so in the form of protocol 2: a text that a zero byte ends. */
  #oldError(): undefined {
    const end = this.#buffer.indexOf(0);
    if (end === -1 && this.#failure === undefined && this.#buffer.length < LONGEST) return undefined;
    const text = new TextDecoder().decode(this.#buffer.subarray(1, end === -1 ? undefined : end));
    throw new PipeweaveError(
      "connection",
      "no_process",
      `${describeHost(this.host)} cannot take the connection: ${printable(excerptOf(text.trim()))}`,
      { hint: "See the server's log; it may be at a limit of its machine." },
    );
  }
}

function shown(bytes: Uint8Array): string {
  return `"${[...bytes.subarray(0, 12)].map((byte) => String.fromCharCode(byte)).join("")}"`;
}
