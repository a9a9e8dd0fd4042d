/**
 * What comes from a server until a first answer, mangled: request for TLS, handshake, authentication, start-up, rows. A
 * real server stands behind a proxy that cuts, repeats, drops, inserts and changes bytes of its.
 */

import { assert } from "@std/assert";
import { ADMIN, PostgresServer } from "../scripts/postgres_server.ts";
import type { ConnectionSettings } from "../src/config/connection.ts";
import { Session } from "../src/database/session.ts";
import { PipeweaveError } from "../src/errors.ts";
import { Authority } from "./support/certificates.ts";

const RUNS_EACH = 400;
const AT_ONCE = 32;
/** Connecting may take this long, and silence afterwards; and nothing longer than both with some room. */
const CONNECT_MS = 1500;
const PATIENCE = { idleMs: 300, intervalMs: 100, limitMs: 500 };
const LIMIT_MS = 15_000;

/** A repeatable random number from 0 to below `below` (mulberry32). */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}

const MANGLES = ["cut", "silence", "change", "repeat", "drop", "insert", "replace the rest"] as const;

/** Changes a stream of bytes at one place. */
class Mangler {
  readonly how: (typeof MANGLES)[number];
  #left: number;
  #done = false;

  constructor(readonly random: (below: number) => number, reach: number) {
    this.how = MANGLES[random(MANGLES.length)]!;
    this.#left = random(reach);
  }

  /** @returns what goes on; undefined: the connection is cut */
  feed(chunk: Uint8Array): Uint8Array | undefined {
    if (this.#done) return this.how === "silence" ? new Uint8Array() : chunk;
    if (this.#left >= chunk.length) {
      this.#left -= chunk.length;
      return chunk;
    }
    this.#done = true;
    const { random, how } = this;
    const [head, tail] = [chunk.subarray(0, this.#left), chunk.subarray(this.#left)];
    const some = 1 + random(32);
    const noise = Uint8Array.from({ length: some }, () => random(256));
    switch (how) {
      case "cut":
        return undefined;
      case "silence":
        return head;
      case "change":
        return Uint8Array.from([...head, tail[0]! ^ (1 + random(255)), ...tail.subarray(1)]);
      case "repeat":
        return Uint8Array.from([...head, ...tail.subarray(0, some), ...tail]);
      case "drop":
        return Uint8Array.from([...head, ...tail.subarray(some)]);
      case "insert":
        return Uint8Array.from([...head, ...noise, ...tail]);
      case "replace the rest":
        return Uint8Array.from([...head, ...noise]);
    }
  }
}

/** A proxy that mangles what the server sends over its first connection, and passes the others on. */
class ManglingProxy implements AsyncDisposable {
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #open = new Set<Deno.Conn>();
  readonly #serving: Promise<void>;

  constructor(readonly port: number, mangler: Mangler) {
    this.#serving = this.#serve(mangler);
  }

  get listens(): number {
    return (this.#listener.addr as Deno.NetAddr).port;
  }

  async #serve(mangler: Mangler): Promise<void> {
    const pumps: Promise<void>[] = [];
    let isFirst = true;
    for await (const client of this.#listener) {
      const server = await Deno.connect({ hostname: "127.0.0.1", port: this.port });
      this.#open.add(client).add(server);
      const change = isFirst ? (chunk: Uint8Array) => mangler.feed(chunk) : (chunk: Uint8Array) => chunk;
      isFirst = false;
      pumps.push(this.#pump(client, server, (chunk) => chunk), this.#pump(server, client, change));
    }
    await Promise.all(pumps);
  }

  async #pump(
    from: Deno.Conn,
    to: Deno.Conn,
    change: (chunk: Uint8Array) => Uint8Array | undefined,
  ): Promise<void> {
    const buffer = new Uint8Array(65_536);
    try {
      for (let n; (n = await from.read(buffer)) !== null;) {
        const changed = change(buffer.slice(0, n));
        if (!changed) break;
        for (let at = 0; at < changed.length;) at += await to.write(changed.subarray(at));
      }
    } catch {
      // The other side has gone.
    }
    this.#close(from);
    this.#close(to);
  }

  #close(connection: Deno.Conn): void {
    if (this.#open.delete(connection)) connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    for (const connection of this.#open) this.#close(connection);
    await this.#serving;
  }
}

/** @returns what it came to, for the count */
async function run(settings: ConnectionSettings, port: number, seed: number, reach: number): Promise<string> {
  const mangler = new Mangler(randomFrom(seed), reach);
  await using proxy = new ManglingProxy(port, mangler);
  await using session = new Session({ ...settings, hosts: [{ ...settings.hosts[0]!, port: proxy.listens }] });
  let late: ReturnType<typeof setTimeout> | undefined;
  const tooLate = new Promise<never>((_, reject) => {
    late = setTimeout(() => reject(new Error(`seed ${seed} (${mangler.how}): no end`)), LIMIT_MS);
  });
  try {
    await Promise.race([session.send("SELECT 'one' AS word, generate_series(1, 20) AS n"), tooLate]);
    return "answered";
  } catch (error) {
    assert(error instanceof PipeweaveError, `seed ${seed} (${mangler.how}): ${error}`);
    assert(
      error.message !== "" && !/undefined|\[object/.test(error.message),
      `seed ${seed}: ${error.message}`,
    );
    return error.code;
  } finally {
    clearTimeout(late);
  }
}

Deno.test({
  name: "whatever a server sends until its first answer: an answer or words, never a crash, never no end",
  // Deno keeps the socket of a TLS handshake that was given up until the other side closes it.
  sanitizeResources: false,
  fn: fuzz,
});

async function fuzz(): Promise<void> {
  const authority = new Authority("PipeWeave fuzz CA");
  const server = await PostgresServer.start({ auth: "scram-sha-256", settings: { max_connections: "200" } });
  try {
    const { certificate, key } = authority.server(["localhost"]);
    await server.write("server.crt", certificate);
    await server.write("server.key", key);
    await server.configure({ ssl: "on" });
    await server.down();
    await server.up();
    const settings: ConnectionSettings = {
      hosts: [{ host: "localhost", address: "127.0.0.1", port: server.port, password: ADMIN.password }],
      ...{ database: "postgres", user: ADMIN.user, schema: "public", applicationName: "fuzz" },
      ...{ targetSession: "any", connectTimeoutMs: CONNECT_MS, waitForDbMs: 0, patience: PATIENCE },
      ...{ sslmode: "disable", channelBinding: "prefer" },
    };
    const kinds: readonly (readonly [Partial<ConnectionSettings>, reach: number])[] = [
      [{ sslmode: "disable" }, 900],
      [{ sslmode: "require" }, 2600],
      [{ sslmode: "verify-full", sslRoot: authority.certificate, channelBinding: "require" }, 2600],
    ];
    const outcomes = new Map<string, number>();
    const jobs = kinds.flatMap(([kind, reach]) =>
      Array.from({ length: RUNS_EACH }, (_, i) => ({ kind, reach, seed: reach * 10_000 + i }))
    );
    await Promise.all(Array.from({ length: AT_ONCE }, async () => {
      for (let job; (job = jobs.shift());) {
        const outcome = await run({ ...settings, ...job.kind }, server.port, job.seed, job.reach);
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }));
    console.log(Object.fromEntries(outcomes));
    // Some go through, and some of each kind of failure are met.
    for (const expected of ["answered", "not_postgresql", "timeout", "closed", "connection_lost"]) {
      assert(outcomes.has(expected), `${expected}: ${JSON.stringify(Object.fromEntries(outcomes))}`);
    }
  } finally {
    await server.stop();
  }
}
