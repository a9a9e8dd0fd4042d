/**
 * Which certificates count, and with which rigour (PostgreSQL documentation, 32.19).
 *
 * @module
 */

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { whyNotTaken } from "./certificate.ts";
import type { ConnectionSettings, SslMode, Surroundings } from "./connection.ts";

type Tls = Pick<
  ConnectionSettings,
  "sslmode" | "sslRoot" | "sslCertificate" | "sslKey" | "channelBinding"
>;

/** How a parameter was given. */
export interface Given {
  /** A parameter's text. */
  readonly get: (keyword: string) => string | undefined;
  /** How to name it in a message. */
  readonly named: (keyword: string) => string;
}

/** What is told of what is wrong. */
export interface Complaints {
  readonly problems: string[];
  readonly warnings: string[];
}

/** The sslmode as it was given; `sslrootcert=system` alone asks for all of it, since any host can get such a certificate. */
export function defaultSslMode({ get }: Given): SslMode {
  return get("sslrootcert") === "system" ? "verify-full" : "prefer";
}

/** Decides about TLS. */
export function decideTls(
  asked: SslMode,
  given: Given,
  { env, readFile }: Surroundings,
  complaints: Complaints,
): Tls {
  const { get, named } = given;
  const { problems } = complaints;
  const channelBinding = (get("channel_binding") ?? "prefer") as Tls["channelBinding"];
  if (!["disable", "prefer", "require"].includes(channelBinding)) {
    problems.push(`${named("channel_binding")} must be one of disable, prefer, require`);
  }
  const isBound = channelBinding === "require";
  if (asked === "disable") {
    if (isBound) problems.push(`${named("channel_binding")}: "require" needs TLS, and sslmode is disable`);
    return { sslmode: asked, channelBinding };
  }
  const sslmode = isBound && (asked === "prefer" || asked === "allow") ? "require" : asked;
  const home = env["HOME"];
  const read = (keyword: string, fallback: string): { path: string; text: string } | undefined => {
    const chosen = get(keyword);
    const path = chosen ?? (home && `${home}/.postgresql/${fallback}`);
    try {
      const file = path ? readFile(path) : undefined;
      if (!file && chosen !== undefined) {
        problems.push(`${named(keyword)}: the file ${chosen} does not exist`);
      }
      return file && { path: path!, text: file.text };
    } catch (error) {
      problems.push(
        `${named(keyword)}: ${path} cannot be read: ${error instanceof Error ? error.message : error}`,
      );
      return undefined;
    }
  };
  const verifies = sslmode === "verify-ca" || sslmode === "verify-full";
  const system = get("sslrootcert") === "system";
  const root = system ? undefined : read("sslrootcert", "root.crt");
  if (system && sslmode !== "verify-full") {
    problems.push(
      `${
        named("sslrootcert")
      }: "system" needs --sslmode verify-full, since any host can get a public certificate`,
    );
  }
  if (verifies && !system && root === undefined && get("sslrootcert") === undefined) {
    problems.push(
      `--sslmode ${sslmode} needs the root certificate: give --sslrootcert <file>, or --sslrootcert system for the public ones`,
    );
  }
  if (root !== undefined) {
    const name = get("sslrootcert") === undefined ? root.path : named("sslrootcert");
    try {
      if (readCertificates(root.text).length === 0) {
        problems.push(`${name}: the file holds no certificate in PEM form`);
      }
    } catch {
      problems.push(`${name}: the file holds what is no certificate, between the lines that say so`);
    }
  }
  const client = get("sslcertmode") === "disable" ? {} : decideClient(read, given, complaints);
  const settled: Tls = {
    // With a root certificate at hand, `require` checks against it (libpq: "as verify-ca").
    sslmode: sslmode === "require" && root !== undefined ? "verify-ca" : sslmode,
    channelBinding,
    ...(root === undefined ? {} : { sslRoot: root.text }),
    ...client,
  };
  // The channel is bound to the server's certificate, and that is worth nothing where the certificate is not verified:
  // Deno does not even look then whether the server has its key. Without a root of the user's, the public ones.
  return isBound && settled.sslmode === "require" ? { ...settled, sslmode: "verify-full" } : settled;
}

/** The client's certificate and key, in the form that TLS takes, or a word about why not. */
function decideClient(
  read: (keyword: string, fallback: string) => { path: string; text: string } | undefined,
  { get, named }: Given,
  { problems, warnings }: Complaints,
): Pick<Tls, "sslCertificate" | "sslKey"> {
  const certificate = read("sslcert", "postgresql.crt");
  if (certificate === undefined) return {};
  const key = read("sslkey", "postgresql.key");
  try {
    if (key === undefined) throw new RangeError("it has no key: give sslkey");
    return usable(certificate.text, key.text, get("sslpassword"));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (get("sslcert") !== undefined) {
      problems.push(`${named("sslcert")}: the client certificate cannot be used: ${reason}`);
    } else {
      // Nobody asked for it; a server that does will say so.
      warnings.push(`The client certificate ${certificate.path} is left out: ${reason}`);
    }
    return {};
  }
}

/** @throws {RangeError} with the reason why TLS would not take it */
function usable(certificates: string, key: string, passphrase: string | undefined): {
  sslCertificate: string;
  sslKey: string;
} {
  let chain: readonly X509Certificate[];
  try {
    chain = readCertificates(certificates);
  } catch {
    throw new RangeError("what stands between the lines of PEM is no certificate");
  }
  if (chain.length === 0) throw new RangeError("the file holds no certificate in PEM form");
  const against = whyNotTaken(chain[0]!.raw);
  if (against !== undefined) throw new RangeError(against);
  const privateKey = readKey(key, passphrase);
  const kind = kindOf(privateKey);
  if (kind !== undefined) {
    throw new RangeError(`its key is of a kind that pipeweave's TLS does not take: ${kind}`);
  }
  if (!chain[0]!.checkPrivateKey(privateKey)) throw new RangeError("its key is that of another certificate");
  return {
    sslCertificate: chain.map((one) => one.toString()).join("\n"),
    sslKey: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

function readKey(text: string, passphrase: string | undefined): KeyObject {
  const isEncrypted = /ENCRYPTED/.test(text);
  if (isEncrypted && passphrase === undefined) {
    throw new RangeError("its key is encrypted: give sslpassword in the URL");
  }
  try {
    return createPrivateKey({ key: text, ...(isEncrypted ? { passphrase: passphrase! } : {}) });
  } catch {
    throw new RangeError(
      isEncrypted
        ? "its key cannot be decrypted: is sslpassword right?"
        : "its key cannot be read: it is no private key in PEM form",
    );
  }
}

/** What rustls has against a key; undefined for RSA of 2048 to 8192 bits, P-256, P-384, P-521 and Ed25519. */
function kindOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string | undefined {
  switch (asymmetricKeyType) {
    case "ed25519":
      return undefined;
    case "rsa": {
      const bits = asymmetricKeyDetails?.modulusLength ?? 0;
      return bits >= 2048 && bits <= 8192 ? undefined : `RSA of ${bits} bits`;
    }
    case "ec": {
      const curve = asymmetricKeyDetails?.namedCurve ?? "";
      return ["prime256v1", "P-256", "secp384r1", "P-384", "secp521r1", "P-521"].includes(curve)
        ? undefined
        : `the curve ${curve || "of its own"}`;
    }
    default:
      return String(asymmetricKeyType);
  }
}

/** The certificates of a file in PEM form. @throws {Error} of the platform when one is none */
function readCertificates(text: string): readonly X509Certificate[] {
  const blocks = text.match(/-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*-----END [A-Z0-9 ]*-----/g) ??
    [];
  return blocks.map((block) => new X509Certificate(block));
}
