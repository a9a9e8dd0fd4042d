/**
 * Messages of PostgreSQL's protocol: a type byte, a length of four bytes that counts itself, a body (PostgreSQL
 * documentation, 54.7 "Message Formats").
 *
 * @module
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Bytes of the type and the length. */
export const HEADER_BYTES = 5;

/** Builds a message. @param type a letter; the startup message has none, and takes an empty text */
export function message(type: string, body: Uint8Array): Uint8Array {
  const head = encoder.encode(type);
  const bytes = new Uint8Array(head.length + 4 + body.length);
  bytes.set(head);
  new DataView(bytes.buffer).setUint32(head.length, 4 + body.length);
  bytes.set(body, head.length + 4);
  return bytes;
}

/** Texts, each ended by a zero byte. */
export function strings(...texts: readonly string[]): Uint8Array {
  return encoder.encode(texts.map((text) => `${text}\0`).join(""));
}

/** Puts byte sequences behind each other. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Reads texts that are each ended by a zero byte; what has no end is left out. */
export function readStrings(body: Uint8Array): string[] {
  return decoder.decode(body).split("\0").slice(0, -1);
}

/** The fields of an ErrorResponse or NoticeResponse that are used here. */
export interface ErrorFields {
  readonly severity: string;
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
}

/** Reads the body of an ErrorResponse or NoticeResponse: a letter and a text for each field. */
export function errorFields(body: Uint8Array): ErrorFields {
  const fields = new Map(readStrings(body).map((field) => [field[0], field.slice(1)]));
  const [detail, hint] = [fields.get("D"), fields.get("H")];
  return {
    // V is never translated; poolers send S alone, and in English.
    severity: fields.get("V") ?? fields.get("S") ?? "",
    sqlstate: fields.get("C") ?? "",
    message: fields.get("M") ?? "",
    ...(detail ? { detail } : {}),
    ...(hint ? { hint } : {}),
  };
}
