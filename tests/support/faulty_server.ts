/**
 * Something on a port that speaks PostgreSQL's protocol up to a phase, and goes wrong there: for each connection anew, as
 * a host does that has lost its mind.
 */

/** How far it gets before it goes wrong. */
export const PHASES = [
  "accepting",
  "answering the request for TLS",
  "the handshake of TLS",
  "authentication",
  "starting up",
  "the first answer",
  "in the middle of an answer",
] as const;
export type Phase = (typeof PHASES)[number];

/** What it does then. `slow`: what is due comes a byte a second. */
export const FAULTS = ["silent", "closed", "garbage", "slow"] as const;
export type Fault = (typeof FAULTS)[number];

const ENCODER = new TextEncoder();

/** A message of the server: its type, a length that counts itself, a body. */
export function serverMessage(kind: string, ...parts: readonly (string | readonly number[])[]): Uint8Array {
  const body = parts.flatMap((part) => typeof part === "string" ? [...ENCODER.encode(part), 0] : [...part]);
  const bytes = new Uint8Array(5 + body.length);
  bytes[0] = kind.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, 4 + body.length);
  bytes.set(body, 5);
  return bytes;
}

/** The answer to a start-up that nothing is wrong with. */
export const GREETING: readonly Uint8Array[] = [
  serverMessage("R", [0, 0, 0, 0]),
  serverMessage("S", "server_version", "18.4"),
  serverMessage("S", "in_hot_standby", "off"),
  serverMessage("S", "default_transaction_read_only", "off"),
  serverMessage("K", [0, 0, 0, 1, 0, 0, 0, 2]),
  serverMessage("Z", [73]),
];
/** A request for SCRAM-SHA-256. */
export const SCRAM_REQUEST: Uint8Array = serverMessage("R", [0, 0, 0, 10], "SCRAM-SHA-256", [0]);

/** The first flight of a server's handshake, cut short: a record that promises more than comes. */
const HALF_A_RECORD = Uint8Array.from([22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3, 1, 2, 3]);
const GARBAGE = Uint8Array.from(Array.from({ length: 64 }, (_, i) => (i * 37 + 11) % 256));
const SLOW_MS = 1000;

/** Serves until it is disposed of. */
export class FaultyServer implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #stop = new AbortController();
  readonly #serving: Promise<void>;
  #hasReached: () => void = () => {};
  /** Resolves when a connection has come as far as the phase. */
  readonly reached: Promise<void> = new Promise((resolve) => this.#hasReached = resolve);

  constructor(readonly phase: Phase, readonly fault: Fault) {
    this.#serving = this.#serve();
  }

  get port(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  async #serve(): Promise<void> {
    const handling: Promise<void>[] = [];
    for await (const connection of this.#listener) {
      this.#open.add(connection);
      handling.push(
        this.#handle(connection).catch(() => {}).finally(() => {
          if (this.#open.delete(connection)) connection.close();
        }),
      );
    }
    await Promise.all(handling);
  }

  async #handle(connection: Deno.Conn): Promise<void> {
    const { phase } = this;
    if (phase === "accepting") return await this.#goWrong(connection, serverMessage("R", [0, 0, 0, 0]));
    let request = await readSome(connection);
    if (request.length === 8) {
      if (phase === "answering the request for TLS") {
        return await this.#goWrong(connection, ENCODER.encode("N"));
      }
      const tls = phase === "the handshake of TLS";
      await writeAll(connection, ENCODER.encode(tls ? "S" : "N"));
      request = await readSome(connection);
      if (tls) return await this.#goWrong(connection, HALF_A_RECORD);
    }
    if (phase === "authentication") {
      await writeAll(connection, SCRAM_REQUEST);
      await readSome(connection);
      return await this.#goWrong(connection, serverMessage("R", [0, 0, 0, 11], "r=x,s=eA==,i=4096"));
    }
    if (phase === "starting up") {
      await writeAll(connection, GREETING[0]!);
      return await this.#goWrong(connection, GREETING[1]!);
    }
    for (const message of GREETING) await writeAll(connection, message);
    await readSome(connection);
    const answer = serverMessage("T", [0, 1], "one", [
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
      23,
      0,
      4,
      255,
      255,
      255,
      255,
      0,
      0,
    ]);
    if (phase === "in the middle of an answer") await writeAll(connection, answer);
    await this.#goWrong(
      connection,
      phase === "the first answer" ? answer : serverMessage("D", [0, 1, 0, 0, 0, 1, 49]),
    );
  }

  /** @param due what would come now */
  async #goWrong(connection: Deno.Conn, due: Uint8Array): Promise<void> {
    this.#hasReached();
    switch (this.fault) {
      case "silent":
        return await this.#swallow(connection);
      case "closed":
        return;
      case "garbage":
        await writeAll(connection, GARBAGE);
        return await this.#swallow(connection);
      case "slow":
        for (const byte of due) {
          await writeAll(connection, Uint8Array.of(byte));
          await this.#pause();
        }
        return await this.#swallow(connection);
    }
  }

  /** Reads on, so that whoever leaves is noticed. */
  async #swallow(connection: Deno.Conn): Promise<void> {
    while ((await readSome(connection)).length > 0);
  }

  async #pause(): Promise<void> {
    const { signal } = this.#stop;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(end, SLOW_MS);
      function end(): void {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      }
      signal.addEventListener("abort", end);
    });
    signal.throwIfAborted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#listener.close();
    for (const connection of this.#open) if (this.#open.delete(connection)) connection.close();
    await this.#serving;
  }
}

/** Reads what comes next; nothing at the end. */
export async function readSome(connection: Deno.Conn): Promise<Uint8Array> {
  const buffer = new Uint8Array(65_536);
  return buffer.subarray(0, await connection.read(buffer) ?? 0);
}

/** Writes all of it. */
export async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}
