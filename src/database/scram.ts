/**
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the client's side (RFC 5802, RFC 7677; PostgreSQL documentation, 54.3 "SASL
 * Authentication").
 *
 * The driver knows the first alone, and neither channel binding nor SASLprep.
 *
 * @module
 */

import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from "node:crypto";
import { Buffer } from "node:buffer";

/** Names of the two mechanisms. */
export const SCRAM = "SCRAM-SHA-256";
export const SCRAM_PLUS = "SCRAM-SHA-256-PLUS";
/** More rounds than this would keep the client busy for minutes; PostgreSQL's default is 4096. */
const MOST_ITERATIONS = 10_000_000;
const HASH_BYTES = 32;

/** The other side broke the protocol, or does not know the password. The message continues "… failed:". */
export class ScramError extends Error {
  override readonly name = "ScramError";
}

/** How the exchange is bound to the TLS channel: the GS2 header, and the data that stands for the channel. */
export interface ChannelBinding {
  /** `p=…` with data; `y`: we could, and the server does not offer it; `n`: we cannot. */
  readonly flag: "p=tls-server-end-point" | "y" | "n";
  readonly data?: Uint8Array;
}

/** One exchange. */
export class ScramExchange {
  readonly #password: string;
  readonly #header: string;
  readonly #binding: ChannelBinding;
  readonly #nonce = randomBytes(18).toString("base64");
  #expected: Buffer | undefined;

  /** @param password after SASLprep */
  constructor(password: string, binding: ChannelBinding) {
    this.#password = password;
    this.#binding = binding;
    this.#header = `${binding.flag},,`;
  }

  /** The first message. The server knows the user from the startup message and ignores the name here. */
  first(): string {
    return `${this.#header}${this.#bare()}`;
  }

  #bare(): string {
    return `n=*,r=${this.#nonce}`;
  }

  /**
   * Answers the server's challenge.
   *
   * @throws {ScramError} when it is not one that answers ours
   */
  async final(challenge: string): Promise<string> {
    const attributes = readAttributes(challenge);
    const [nonce = "", salt = "", rounds = ""] = ["r", "s", "i"].map((name) => attributes.get(name));
    if (!nonce.startsWith(this.#nonce) || nonce.length === this.#nonce.length) {
      throw new ScramError("its nonce does not continue ours");
    }
    const iterations = Number(rounds);
    if (salt === "" || !/^\d+$/.test(rounds) || iterations < 1) {
      throw new ScramError("its challenge is malformed");
    }
    if (iterations > MOST_ITERATIONS) {
      throw new ScramError(`it asks for ${iterations} rounds of hashing, more than ${MOST_ITERATIONS}`);
    }
    const salted = await hashed(this.#password, Buffer.from(salt, "base64"), iterations);
    const binding = Buffer.concat([Buffer.from(this.#header), this.#binding.data ?? Buffer.alloc(0)]);
    const withoutProof = `c=${binding.toString("base64")},r=${nonce}`;
    const signed = `${this.#bare()},${challenge},${withoutProof}`;
    const clientKey = hmac(salted, "Client Key");
    const signature = hmac(createHash("sha256").update(clientKey).digest(), signed);
    const proof = clientKey.map((byte, index) => byte ^ signature[index]!);
    this.#expected = hmac(hmac(salted, "Server Key"), signed);
    return `${withoutProof},p=${Buffer.from(proof).toString("base64")}`;
  }

  /**
   * Checks that the server knows the password too.
   *
   * @throws {ScramError} when it does not
   */
  verify(outcome: string): void {
    const attributes = readAttributes(outcome);
    const error = attributes.get("e");
    if (error !== undefined) throw new ScramError(`it says "${error}"`);
    const signature = Buffer.from(attributes.get("v") ?? "", "base64");
    const expected = this.#expected;
    if (!expected || signature.length !== expected.length || !timingSafeEqual(signature, expected)) {
      throw new ScramError("its signature is wrong: it does not know the password");
    }
  }
}

function readAttributes(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split(",").filter((part) => part[1] === "=").map((part) => [part[0]!, part.slice(2)]),
  );
}

function hmac(key: Uint8Array, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

/** PBKDF2 beside the event loop, so that time limits and signals hold meanwhile. */
function hashed(password: string, salt: Uint8Array, iterations: number): Promise<Buffer> {
  return new Promise((resolve, reject) =>
    pbkdf2(
      password,
      salt,
      iterations,
      HASH_BYTES,
      "sha256",
      (error, key) => error ? reject(error) : resolve(key),
    )
  );
}
