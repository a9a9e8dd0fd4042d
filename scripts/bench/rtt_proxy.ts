/** A TCP proxy on loopback that adds a round-trip time, and counts how often a client waited for the server. */

/** PostgreSQL's Terminate message. */
const TERMINATE = [0x58, 0, 0, 0, 4];

export class RttProxy implements AsyncDisposable {
  /** Times that a client had to wait for the server before it could go on; opening a connection is one. */
  turns = 0;
  /** Connections that were opened. */
  connections = 0;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #serving: Promise<void>;

  /** @param rttMs half of it is added on the way to the server, and half on the way back */
  constructor(readonly serverPort: number, readonly rttMs: number) {
    this.#serving = this.#serve();
  }

  get port(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  reset(): void {
    this.turns = 0;
    this.connections = 0;
  }

  async #serve(): Promise<void> {
    for await (const client of this.#listener) {
      this.#connect(client).catch(() => {});
    }
  }

  async #connect(client: Deno.Conn): Promise<void> {
    this.connections++;
    this.turns++;
    // The handshake of TCP takes a round trip too, which loopback does not show.
    await pause(this.rttMs);
    const server = await Deno.connect({
      hostname: "127.0.0.1",
      port: this.serverPort,
    });
    let answered = true;
    let lastSent = -Infinity;
    await Promise.all([
      this.#pump(client, server, (chunk) => {
        // An answer cannot be there sooner than a round trip after what it answers: who sends sooner did not wait. And
        // who says goodbye waits for nothing.
        const now = performance.now();
        const isGoodbye = chunk.length === TERMINATE.length &&
          TERMINATE.every((byte, i) => chunk[i] === byte);
        if (answered && now - lastSent >= this.rttMs && !isGoodbye) {
          this.turns++;
          answered = false;
        }
        lastSent = now;
      }),
      this.#pump(server, client, () => answered = true),
    ]);
  }

  async #pump(
    from: Deno.Conn,
    to: Deno.Conn,
    onData: (chunk: Uint8Array) => void,
  ): Promise<void> {
    // Each chunk is late by the same time, however many are on their way.
    let last = Promise.resolve();
    try {
      for (;;) {
        const buffer = new Uint8Array(65_536);
        const n = await from.read(buffer);
        if (n === null) break;
        const chunk = buffer.subarray(0, n);
        onData(chunk);
        const due = performance.now() + this.rttMs / 2;
        last = last.then(async () => {
          await pause(due - performance.now());
          for (let rest = chunk; rest.length > 0;) {
            rest = rest.subarray(await to.write(rest));
          }
        });
        last.catch(() => {});
      }
      await last;
    } catch {
      // The other side has gone.
    }
    try {
      to.close();
    } catch {
      // So has this one.
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#serving.catch(() => {});
  }
}

function pause(ms: number): Promise<void> {
  return ms <= 0 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, ms));
}
