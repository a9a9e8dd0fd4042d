/**
 * Reads along what the server sends, for three facts that the driver keeps to itself: how many statements of a
 * message were done when it failed, the key that cancels it, and the server's last word before it closed.
 *
 * Message formats: PostgreSQL documentation, 54.7.
 *
 * @module
 */

import { errorFields, HEADER_BYTES, joined } from "./wire.ts";

const [COMMAND_COMPLETE, READY, BACKEND_KEY, ERROR] = ["C", "Z", "K", "E"].map((letter) =>
  letter.charCodeAt(0)
);
const KEY_BYTES = 8;
/** Kinds of message that may come until the first "ready for query", and after it in the simple protocol. */
const KINDS = { startUp: kindsOf("RSKNvZ"), after: kindsOf("ACDEGHINSTWZcd") } as const;
/** Longest message, in bytes: PostgreSQL's own limit for what it allocates. */
const LONGEST = 2 ** 30;

function kindsOf(letters: string): ReadonlySet<number> {
  return new Set(Array.from(letters, (letter) => letter.charCodeAt(0)));
}

/** What the server said before it closed the connection. */
export interface LastWord {
  readonly sqlstate: string;
  readonly message: string;
}

/** Observes one connection; feed it every chunk that the server sent, in order. */
export class WireObserver {
  /** Process id and secret for a cancel request, once the server sent them. */
  backendKey: Uint8Array | undefined;
  /** A FATAL error: the server closes the connection after it. */
  lastWord: LastWord | undefined;
  readonly #done: number[] = [];
  #current = 0;
  // What is known of the message that is being read.
  readonly #head = new Uint8Array(HEADER_BYTES + KEY_BYTES);
  #read = 0;
  #size = 0;
  /** The body of an error, which alone is kept whole. */
  #error: Uint8Array[] = [];

  /** How many messages were answered in full, the startup included. */
  get answered(): number {
    return this.#done.length;
  }

  /** How many statements of message `index` completed; the startup is message 0, the first query 1. */
  completed(index: number): number {
    return this.#done[index] ?? this.#current;
  }

  /**
   * Takes in a chunk; messages may be split anywhere.
   *
   * @returns whether it is what PostgreSQL may send; if not, nothing more may be fed
   */
  feed(chunk: Uint8Array): boolean {
    let at = 0;
    while (at < chunk.length) {
      if (this.#read < this.#head.length && (this.#size === 0 || this.#read < this.#size)) {
        // Header and key bytes one by one: they are few, and may be split over chunks.
        this.#head[this.#read++] = chunk[at++]!;
        if (this.#read === 1 && !this.#kinds.has(this.#head[0]!)) return false;
        if (this.#read === HEADER_BYTES) {
          this.#size = 1 + new DataView(this.#head.buffer).getUint32(1);
          if (this.#size < HEADER_BYTES || this.#size > LONGEST) return false;
        }
      } else {
        const rest = Math.min(this.#size - this.#read, chunk.length - at);
        if (this.#head[0] === ERROR) this.#error.push(chunk.slice(at, at + rest));
        this.#read += rest;
        at += rest;
      }
      if (this.#size !== 0 && this.#read === this.#size) this.#finish();
    }
    return true;
  }

  get #kinds(): ReadonlySet<number> {
    return this.#done.length === 0 ? KINDS.startUp : KINDS.after;
  }

  #finish(): void {
    const type = this.#head[0];
    if (type === COMMAND_COMPLETE) this.#current++;
    else if (type === BACKEND_KEY) this.backendKey = this.#head.slice(HEADER_BYTES, HEADER_BYTES + KEY_BYTES);
    else if (type === ERROR) this.#finishError();
    else if (type === READY) {
      this.#done.push(this.#current);
      this.#current = 0;
    }
    this.#read = 0;
    this.#size = 0;
  }

  #finishError(): void {
    // Fields are a letter and a text each: V is the severity, C the SQLSTATE, M the message.
    const head = this.#head.slice(HEADER_BYTES, Math.min(this.#size, this.#head.length));
    const { severity, sqlstate, message } = errorFields(joined([head, ...this.#error]));
    this.#error = [];
    if (severity === "FATAL") this.lastWord = { sqlstate, message };
  }
}
