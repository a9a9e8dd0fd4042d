/**
 * Why TLS with a server failed, in words.
 *
 * @module
 */

import type net from "node:net";
import { type ConnectionSettings, describeHost, type Host } from "../config/connection.ts";
import { PipeweaveError } from "../errors.ts";
import { printable } from "../printable.ts";

/** What a handshake failed for, by the socket that it was for. */
const failures = new WeakMap<net.Socket, Error>();
/** How long after a socket's end the reason may arrive; it takes one turn of the event loop. */
const LATE_MS = 100;
/** Sockets whose handshake is not known to be done. */
const unproven = new WeakSet<net.Socket>();

/**
 * Remembers why a handshake fails. Deno's node:tls says "secureConnect" before the handshake is done, and reports a failure
 * ("invalid peer certificate: Expired", …) some time after it; until the first byte has come through, an error is taken
 * for that.
 */
export function noteHandshakeFailure(socket: net.Socket): void {
  unproven.add(socket);
  socket.on("error", (error) => {
    // A connection that was closed has its own words. Later, records that cannot be read: Deno's name, and Node's code.
    const { code = "" } = error as { code?: string };
    const isUnreadable = error.name === "InvalidData" || code.startsWith("ERR_SSL");
    const isEnd = ["ECONNRESET", "EPIPE", "UNKNOWN"].includes(code);
    if (isUnreadable || unproven.has(socket) && !isEnd) {
      failures.set(socket, error);
    }
  });
  socket.once("data", () => unproven.delete(socket));
}

/** Why the handshake of a socket failed; undefined when it did not. */
async function handshakeFailure(socket: net.Socket): Promise<Error | undefined> {
  for (let waited = 0; unproven.has(socket) && !failures.has(socket) && waited < LATE_MS; waited += 5) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return failures.get(socket);
}

/**
 * The problem of a socket whose TLS handshake failed.
 *
 * @param error what the socket or whoever read it reported
 * @returns undefined when it is not about TLS
 */
export async function tlsProblem(
  error: unknown,
  socket: net.Socket | undefined,
  settings: ConnectionSettings,
  host: Host,
): Promise<PipeweaveError | undefined> {
  const failure = socket && await handshakeFailure(socket);
  if (!failure) return undefined;
  const reason = failure.message;
  const { code, hint } = verdictOf(reason, settings);
  return new PipeweaveError(
    "connection",
    code,
    `TLS with ${describeHost(host)} failed under sslmode ${settings.sslmode}: ${
      printable(reason.slice(0, 300))
    }`,
    { hint, cause: error },
  );
}

/** What rustls and OpenSSL say, and what to do about it. */
function verdictOf(
  reason: string,
  { channelBinding, sslRoot }: ConnectionSettings,
): { readonly code: string; readonly hint: string } {
  const certificate = (hint: string) => ({ code: "tls_failed", hint });
  if (/received fatal alert|alert (?:number|bad|certificate|unknown)/i.test(reason)) {
    return certificate(
      /cert|ca\b|unknown_?ca/i.test(reason)
        ? "The server refuses the client's certificate: check sslcert and sslkey, when it expires, and the server's ssl_ca_file."
        : "The server broke off: see its log for the reason.",
    );
  }
  if (/CaUsedAsEndEntity/.test(reason)) {
    return certificate(
      "The server's certificate is its own root (CA:TRUE), which pipeweave's TLS does not accept as a server's. Make one that a " +
        "root of yours signs (docs/database.md, TLS), or use --sslmode require without a root, which encrypts and does not verify.",
    );
  }
  if (/UnsupportedCertVersion/.test(reason)) {
    return certificate(
      "A certificate of version 1, which pipeweave's TLS does not accept: make one of version 3, with a subjectAltName " +
        "(docs/database.md, TLS).",
    );
  }
  if (/UnknownIssuer|unable to (?:get|verify)|self.signed/i.test(reason)) {
    return certificate(
      channelBinding === "require" && sslRoot === undefined
        ? "channel_binding=require needs a certificate that can be verified, and no public authority issued this one: give its " +
          "root with --sslrootcert <file>, or use channel_binding=prefer."
        : "The certificate was not issued by the root in --sslrootcert: give the right one.",
    );
  }
  if (/[Ee]xpired|NotValidYet/.test(reason)) {
    return certificate("Renew the server's certificate, and check both machines' clocks.");
  }
  if (/not valid for (?:any )?name|NotValidForName|Hostname\/IP/.test(reason)) {
    return certificate(
      "Connect by a name that the certificate holds, or use --sslmode verify-ca, which leaves the name unchecked.",
    );
  }
  if (/InvalidCertificate|BadEncoding|certificate/i.test(reason)) {
    return certificate("Check --sslrootcert and the server's certificate.");
  }
  return {
    code: "tls_broken",
    hint: "What came was no TLS handshake: check host and port, and what stands in between.",
  };
}
