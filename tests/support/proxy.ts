/** A TCP proxy on loopback that counts the server's messages, and cuts a connection between two of them. */

export interface ProxyOptions {
  /** Cuts the first connection after this many messages of the server. */
  readonly cutAfter?: number;
}

export class Proxy implements AsyncDisposable {
  /** Messages of the server that went through, over all connections. */
  messages = 0;
  /** Whether the cut has happened. */
  cut = false;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #serving: Promise<void>;
  #connections = 0;

  constructor(readonly server: URL, readonly options: ProxyOptions = {}) {
    this.#serving = this.#serve();
  }

  /** The server's URL by way of the proxy. */
  url(database: string): string {
    const { port } = this.#listener.addr as Deno.NetAddr;
    return `postgres://${this.server.username}@127.0.0.1:${port}/${database}?sslmode=disable`;
  }

  async #serve(): Promise<void> {
    const pumps: Promise<void>[] = [];
    for await (const client of this.#listener) {
      const upstream = await Deno.connect({ hostname: this.server.hostname, port: Number(this.server.port) });
      this.#open.add(client).add(upstream);
      const first = this.#connections++ === 0;
      pumps.push(this.#pump(client, upstream), this.#pumpCounting(upstream, client, first));
    }
    await Promise.all(pumps);
  }

  #close(...connections: Deno.Conn[]): void {
    for (const connection of connections) {
      if (!this.#open.delete(connection)) continue;
      connection.close();
    }
  }

  async #pump(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(65_536);
    try {
      for (let n; (n = await from.read(buffer)) !== null;) await writeAll(to, buffer.subarray(0, n));
    } catch {
      // The other side has gone.
    }
    this.#close(from, to);
  }

  /** Forwards whole messages: a type byte, a length of four bytes that counts itself, a body. */
  async #pumpCounting(from: Deno.Conn, to: Deno.Conn, mayCut: boolean): Promise<void> {
    const buffer = new Uint8Array(65_536);
    let pending = new Uint8Array();
    try {
      for (let n; (n = await from.read(buffer)) !== null;) {
        pending = Uint8Array.from([...pending, ...buffer.subarray(0, n)]);
        while (pending.length >= 5) {
          const size = 1 + new DataView(pending.buffer, pending.byteOffset).getUint32(1);
          if (pending.length < size) break;
          await writeAll(to, pending.subarray(0, size));
          pending = pending.slice(size);
          this.messages++;
          if (mayCut && this.messages === this.options.cutAfter) {
            this.cut = true;
            return this.#close(from, to);
          }
        }
      }
    } catch {
      // The other side has gone.
    }
    this.#close(from, to);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.#close(...this.#open);
    await this.#serving.catch(() => {});
  }
}

async function writeAll(to: Deno.Conn, data: Uint8Array): Promise<void> {
  for (let rest = data; rest.length > 0;) rest = rest.subarray(await to.write(rest));
}
