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
import type { ConnectionSettings, Host } from "../config/connection.ts";
import { PipeweaveError } from "../errors.ts";
import { hostProblem } from "./failures.ts";

/** Asks the server for TLS (PostgreSQL documentation, 54.2.10 "SSL Session Encryption"). */
const SSL_REQUEST = Uint8Array.from([0, 0, 0, 8, 4, 210, 22, 47]);
/** First byte of the answer: "S", go on with TLS. */
const SSL_WILLING = 83;
/** Seconds of silence after which TCP asks whether the other side still lives. */
const KEEPALIVE_MS = 10_000;

/** How one attempt may encrypt. */
export type Encryption = "plain" | "tls" | "tls-if-offered";

/** The attempts that an sslmode stands for, in order; the next is tried when TLS itself fails. */
export function encryptionAttempts({ sslmode }: ConnectionSettings, host: Host): readonly Encryption[] {
  // TLS never applies to Unix sockets (libpq, 32.1.2 "sslmode").
  if (host.host.startsWith("/") || sslmode === "disable") return ["plain"];
  if (sslmode === "prefer" || sslmode === "allow") return ["tls-if-offered", "plain"];
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
  const abort = () => socket.destroy(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    await event(socket, "connect", signal);
    socket.setNoDelay?.(true);
    socket.setKeepAlive?.(true, KEEPALIVE_MS);
    if (encryption === "plain") return socket;

    socket.write(SSL_REQUEST);
    const [answer] = await event(socket, "data", signal) as [Uint8Array];
    if (answer[0] !== SSL_WILLING) {
      if (encryption === "tls-if-offered") return socket;
      throw new PipeweaveError(
        "connection",
        "tls_not_offered",
        `The server at ${host.host}:${host.port} offers no TLS, which sslmode ${settings.sslmode} asks for`,
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
    throw error instanceof PipeweaveError ? error : hostProblem(error, settings, host);
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
  catchHandshakeFailure(secured);
  await event(secured, "secureConnect", signal);
  return secured;
}

/** What a handshake failed for, by the socket that it was for. */
const handshakeFailures = new WeakMap<net.Socket, Error>();

/**
 * Deno's node:tls says "secureConnect" before the handshake is done, reports its failure to the socket as "write
 * UNKNOWN", and throws the real one ("invalid peer certificate: Expired", …) where nobody can catch it, which would end
 * the process. Until the first byte has come through, such an error is taken as this socket's.
 */
function catchHandshakeFailure(socket: net.Socket): void {
  // Node's node:tls reports the failure to the socket.
  if (!("Deno" in globalThis)) return;
  const take = (event: ErrorEvent) => {
    if (event.error?.name !== "InvalidData") return;
    event.preventDefault();
    handshakeFailures.set(socket, event.error);
    socket.destroy(event.error);
  };
  globalThis.addEventListener("error", take);
  const release = () => globalThis.removeEventListener("error", take);
  socket.once("data", release);
  // A failed write closes the socket just before the real error comes.
  socket.once("close", () => setTimeout(release, HANDSHAKE_FAILURE_MS));
}

/** How long after a socket's end the reason may arrive; it takes one turn of the event loop. */
const HANDSHAKE_FAILURE_MS = 100;

/** Why the TLS handshake of a socket failed; undefined when it did not. */
export async function handshakeFailure(socket: net.Socket): Promise<Error | undefined> {
  for (let waited = 0; waited < HANDSHAKE_FAILURE_MS && !handshakeFailures.has(socket); waited += 5) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return handshakeFailures.get(socket);
}

/** Waits for an event, an error or the socket's end. */
function event(socket: net.Socket, name: string, signal: AbortSignal): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      socket.off(name, succeed).off("error", fail).off("close", closed);
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
    if (signal.aborted) fail(signal.reason);
  });
}
