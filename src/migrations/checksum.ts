/**
 * What exactly is hashed: the file's text without a byte-order mark and with CRLF read as LF, so that a checkout on
 * Windows is the same migration.
 *
 * @module
 */

import { createHash } from "node:crypto";

/** A file that is not UTF-8. */
export class NotUtf8Error extends Error {
  override readonly name = "NotUtf8Error";

  readonly offset: number;

  /** @param offset the first byte that cannot be read, counted from 0 */
  constructor(offset: number) {
    super(`byte ${offset} is not UTF-8`);
    this.offset = offset;
  }
}

/**
 * The text of a migration file in its canonical form.
 *
 * @throws {NotUtf8Error}
 */
export function canonicalText(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).replaceAll("\r\n", "\n");
  } catch {
    throw new NotUtf8Error(firstInvalidByte(bytes));
  }
}

function firstInvalidByte(bytes: Uint8Array): number {
  const decode = (end: number) =>
    new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(0, end), {
      stream: true,
    });
  let [good, bad] = [0, bytes.length];
  while (good < bad) {
    const middle = Math.ceil((good + bad) / 2);
    try {
      decode(middle);
      good = middle;
    } catch {
      bad = middle - 1;
    }
  }
  // Streaming keeps an unfinished character back: what it gave out ends where the bad one starts.
  return new TextEncoder().encode(decode(good)).length;
}

/** SHA-256 of a canonical text, as 64 hexadecimal digits. */
export function checksumOf(text: string): string {
  // Not WebCrypto's, which takes a turn of the event loop for each of a thousand small files.
  return createHash("sha256").update(text).digest("hex");
}
