/** A proxy that can stop passing bytes on without closing anything, as NAT, a load balancer or a failover does. */
export class SilentProxy implements AsyncDisposable {
  readonly url: string;
  readonly #listener: Deno.TcpListener;
  readonly #open = new Set<Deno.Conn>();
  #speaks = true;

  private constructor(target: URL) {
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const url = new URL(target);
    url.host = `127.0.0.1:${(this.#listener.addr as Deno.NetAddr).port}`;
    this.url = url.href;
    void this.#serve(target);
  }

  static to(url: string): Promise<SilentProxy> {
    return Promise.resolve(new SilentProxy(new URL(url)));
  }

  /** Nothing passes from now on, in either direction, and nothing is closed. */
  silence(): void {
    this.#speaks = false;
  }

  /** New connections work again; those of before stay silent. */
  speak(): void {
    this.#speaks = true;
    this.#open.clear();
  }

  async #serve(target: URL): Promise<void> {
    for await (const client of this.#listener) {
      const server = await Deno.connect({ hostname: target.hostname, port: Number(target.port) });
      this.#open.add(client).add(server);
      void this.#pump(client, server);
      void this.#pump(server, client);
    }
  }

  async #pump(from: Deno.Conn, to: Deno.Conn): Promise<void> {
    const buffer = new Uint8Array(65_536);
    try {
      for (let n; (n = await from.read(buffer)) !== null;) {
        // What was open in the silence never speaks again.
        if (!this.#speaks || !this.#open.has(from)) continue;
        for (let data = buffer.subarray(0, n); data.length > 0;) data = data.subarray(await to.write(data));
      }
    } catch {
      // The other side has gone.
    }
    for (const connection of [from, to]) {
      try {
        connection.close();
      } catch {
        // It is closed already.
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#open) {
      try {
        connection.close();
      } catch {
        // It is closed already.
      }
    }
    await new Promise((resolve) => setTimeout(resolve));
  }
}
