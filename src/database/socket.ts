/**
 * An open socket to one host, TLS included: what libpq's `sslmode` means, on the platform's sockets.
 *
 * The driver could do both, but it decides about TLS by options that do not map to libpq's modes, and it connects
 * again by itself, where every command here must know which connection a transaction went over.
 *
 * @module
 */

import net from "node:net";
import tls from "node:tls";
import { type ConnectionSettings, describeHost, type Host } from "../config/connection.ts";
import { PipeweaveError } from "../errors.ts";
import { printable } from "../printable.ts";
import { hostProblem, notPostgres } from "./failures.ts";
import { noteHandshakeFailure, tlsProblem } from "./tls_failure.ts";

/** Asks the server for TLS (PostgreSQL documentation, 54.2.10 "SSL Session Encryption"). */
const SSL_REQUEST = Uint8Array.from([0, 0, 0, 8, 4, 210, 22, 47]);
/** First byte of the answer: "S", go on with TLS; "N", there is none; "E", an error follows. */
const [SSL_WILLING, SSL_UNWILLING, SSL_ERROR] = [83, 78, 69];

/** How one attempt may encrypt. */
export type Encryption = "plain" | "tls" | "tls-if-offered";

/** The attempts that an sslmode stands for, in order; connecting.ts says when the second is made. */
export function encryptionAttempts({ sslmode }: ConnectionSettings, host: Host): readonly Encryption[] {
  // TLS never applies to Unix sockets (libpq, 32.1.2 "sslmode").
  if (host.host.startsWith("/") || sslmode === "disable") return ["plain"];
  if (sslmode === "prefer") return ["tls-if-offered", "plain"];
  if (sslmode === "allow") return ["plain", "tls"];
  return ["tls"];
}

/**
 * Opens a socket, ready for PostgreSQL's startup message.
 *
 * @throws {PipeweaveError} of kind `connection`; its code tells why
 */
export async function openSocket(
  settings: ConnectionSettings,
  host: Host,
  encryption: Encryption,
  signal: AbortSignal,
): Promise<net.Socket> {
  const socket = host.host.startsWith("/")
    ? net.connect({ path: `${host.host}/.s.PGSQL.${host.port}` })
    : net.connect({ host: host.address ?? host.host, port: host.port });
  hearErrors(socket);
  const abort = () => socket.destroy();
  signal.addEventListener("abort", abort, { once: true });
  try {
    await event(socket, "connect", signal);
    socket.setNoDelay?.(true);
    // Deno's node:net takes this and does nothing; see liveness.ts for what is relied on.
    socket.setKeepAlive?.(true, settings.patience?.idleMs);
    if (encryption === "plain") return socket;

    socket.write(SSL_REQUEST);
    const [answer] = await event(socket, "data", signal) as [Uint8Array];
    if (answer[0] === SSL_ERROR) {
      // A server that cannot take the connection at all says so before it reads what is asked.
      const text = new TextDecoder().decode(answer.subarray(answer.includes(0) && answer[1] === 0 ? 5 : 1));
      throw new PipeweaveError(
        "connection",
        "no_process",
        `${describeHost(host)} cannot take the connection: ${
          printable(text.replaceAll("\0", " ").trim().slice(0, 300))
        }`,
        { hint: "See the server's log; it may be at a limit of its machine." },
      );
    }
    if (answer[0] !== SSL_WILLING && answer[0] !== SSL_UNWILLING) {
      throw notPostgres(host, `it answers the request for TLS with ${answer[0]}, where S or N is due`);
    }
    if (answer[0] === SSL_UNWILLING) {
      if (encryption === "tls-if-offered") return socket;
      throw new PipeweaveError(
        "connection",
        "tls_not_offered",
        `The server at ${describeHost(host)} offers no TLS, which sslmode ${settings.sslmode} asks for`,
        { hint: "Turn TLS on in the server (ssl = on), or use --sslmode disable on a network you trust." },
      );
    }
    if (answer.length > 1) {
      throw new PipeweaveError(
        "connection",
        "tls_failed",
        "The server sent data before TLS was set up; not trusted",
      );
    }
    return await startTls(socket, settings, host, signal);
  } catch (error) {
    socket.destroy();
    if (error instanceof PipeweaveError) throw error;
    throw hostProblem(error, settings, host);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

async function startTls(
  socket: net.Socket,
  settings: ConnectionSettings,
  host: Host,
  signal: AbortSignal,
): Promise<net.Socket> {
  const { sslmode, sslRoot, sslCertificate, sslKey } = settings;
  const secured = tls.connect({
    socket,
    host: host.host,
    ...(net.isIP(host.host) ? {} : { servername: host.host }),
    rejectUnauthorized: sslmode === "verify-ca" || sslmode === "verify-full",
    ...(sslRoot === undefined ? {} : { ca: sslRoot }),
    ...(sslCertificate === undefined ? {} : { cert: sslCertificate, key: sslKey }),
    ...(sslmode === "verify-ca" ? { checkServerIdentity: () => undefined } : {}),
  });
  noteHandshakeFailure(secured);
  try {
    await event(secured, "secureConnect", signal);
    return secured;
  } catch (error) {
    secured.destroy();
    const problem = signal.aborted ? undefined : await tlsProblem(error, secured, settings, host);
    throw problem ?? error;
  }
}

/** An error that comes when nobody waits for anything ends the process, unless somebody hears it. */
function hearErrors(socket: net.Socket): void {
  socket.on("error", () => {});
}

/** The server's certificate in DER form; undefined without TLS. */
export function peerCertificate(socket: net.Socket): Uint8Array | undefined {
  const { raw } = (socket as Partial<tls.TLSSocket>).getPeerCertificate?.(true) ?? {};
  return raw;
}

/** Waits for an event, an error or the socket's end. */
function event(socket: net.Socket, name: string, signal: AbortSignal): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      socket.off(name, succeed).off("error", fail).off("close", closed);
      signal.removeEventListener("abort", fail);
      act();
    };
    const succeed = (...values: unknown[]) => settle(() => resolve(values));
    const fail = (error: unknown) => settle(() => reject(signal.aborted ? signal.reason : error));
    // Deno says of a Unix socket that it is closed before it says why.
    const closed = () =>
      setTimeout(() =>
        fail(Object.assign(new Error("the server closed the connection"), { code: "ECONNRESET" }))
      );
    socket.once(name, succeed).once("error", fail).once("close", closed);
    // A handshake of Deno's that nobody answers says nothing when its socket is destroyed.
    signal.addEventListener("abort", fail);
    if (signal.aborted) fail(signal.reason);
  });
}
