/**
 * A migration file's text: how large it may be, what it is encoded in, and when it is kept in memory.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { PipeweaveError } from "../errors.ts";
import { canonicalText, checksumOf } from "./checksum.ts";
import type { Migration } from "./migration.ts";

/** The largest file whose statements PostgreSQL's parser can read in the memory that WebAssembly has. */
export const LARGEST_FILE = 64 * 1024 * 1024;

/** A size for people. */
export const megabytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(0)} MB`;

/** The name that iconv has for what a text in UTF-16 is in: by its byte-order mark, or by every second byte being zero. */
export function utf16Of(bytes: Uint8Array): string | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe || bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16";
  const head = bytes.subarray(0, 64);
  if (head.length < 4 || head.length % 2 !== 0) return undefined;
  const zeros = (from: number) => head.filter((byte, index) => index % 2 === from && byte === 0).length * 2;
  return zeros(1) > head.length * 0.8 && zeros(0) === 0
    ? "utf-16le"
    : zeros(0) > head.length * 0.8 && zeros(1) === 0
    ? "utf-16be"
    : undefined;
}

/** UTF-16 units from which on a text is read again when it is asked for: memory grows with the largest, not with all. */
const KEPT_IN_MEMORY = 1024 * 1024;

/** A migration with its text, which is read again where it is too large to be kept all the time. */
export function withText(migration: Omit<Migration, "sql">, text: string, path: string): Migration {
  if (text.length < KEPT_IN_MEMORY) return { ...migration, sql: text };
  let kept: WeakRef<{ text: string }> | undefined;
  const read = () => {
    const again = canonicalText(readFileSync(path));
    if (checksumOf(again) === migration.checksum) return again;
    throw new PipeweaveError(
      "integrity",
      "changed_while_read",
      `${migration.file} was changed while it was being read`,
      { hint: "Run it again, when nobody writes to it." },
    );
  };
  return Object.defineProperty({ ...migration }, "sql", {
    enumerable: true,
    get: () => {
      const known = kept?.deref();
      if (known) return known.text;
      const holder = { text: read() };
      kept = new WeakRef(holder);
      return holder.text;
    },
  }) as Migration;
}
