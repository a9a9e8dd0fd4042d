/** Fresh databases on the server that scripts/test.sh started. */

import postgres from "postgres";
import { PostgresServer } from "../../scripts/postgres_server.ts";
import { Session, type SessionOptions } from "../../src/database/session.ts";
import { decideConnection } from "../../src/config/connection.ts";
import { migrate } from "../../src/commands/migrate.ts";

function serverUrl(): string {
  const url = Deno.env.get("PIPEWEAVE_TEST_SERVER");
  if (!url) throw new Error("These tests need a PostgreSQL server: run them by ./scripts/test.sh");
  return url;
}

/** A client such as applications have, of one connection unless told otherwise. */
export function connect(
  url: string,
  options: { max?: number; prepare?: boolean; fetch_types?: boolean } = {},
): postgres.Sql {
  return postgres(url, { max: 1, onnotice: () => {}, fetch_types: false, ...options });
}

/** Runs something beside a server of its own, with PipeWeave's schema, and a client of it. */
export async function withMigratedServer<T>(
  settings: Readonly<Record<string, string>>,
  work: (server: PostgresServer, sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  const server = await PostgresServer.start({ settings });
  const sql = connect(server.url());
  try {
    const session = sessionFor(server.url());
    const { failed } = await migrate(session);
    if (failed) throw failed.error;
    await session.close();
    return await work(server, sql);
  } finally {
    await sql.end({ timeout: 1 });
    await server.stop();
  }
}

/** A database of a test's own, dropped when it goes out of scope. */
export class TestDatabase implements AsyncDisposable {
  readonly #sessions: Session[] = [];

  private constructor(readonly name: string, readonly url: string, readonly sql: postgres.Sql) {}

  /** An empty database. */
  static async empty(): Promise<TestDatabase> {
    return await TestDatabase.#create("template1");
  }

  /** A database with all of PipeWeave's migrations, copied from a template. */
  static async migrated(): Promise<TestDatabase> {
    await ensureTemplate();
    return await TestDatabase.#create(TEMPLATE);
  }

  static async #create(template: string): Promise<TestDatabase> {
    const name = `t_${crypto.randomUUID().replaceAll("-", "")}`;
    await withAdmin((admin) => admin.unsafe(`CREATE DATABASE ${name} TEMPLATE ${template}`));
    const url = urlOf(name);
    return new TestDatabase(name, url, connect(url, { max: 4 }));
  }

  /** A session as commands have it. */
  session(options: SessionOptions = {}, settings: { schema?: string } = {}): Session {
    const session = sessionFor(this.url, options, settings);
    this.#sessions.push(session);
    return session;
  }

  /** A transaction of a connection of its own that stays open, and holds what it locked. */
  async hold(
    statement: string,
  ): Promise<AsyncDisposable & { run(statement: string): Promise<void>; release(): Promise<void> }> {
    const holder = connect(this.url);
    const run = async (text: string) => void await holder.unsafe(text);
    await run(`BEGIN; ${statement}`);
    const release = () => holder.end({ timeout: 1 });
    return { run, release, [Symbol.asyncDispose]: release };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#sessions.map((session) => session.close()));
    await this.sql.end({ timeout: 1 });
    await withAdmin((admin) => admin.unsafe(`DROP DATABASE IF EXISTS ${this.name} WITH (FORCE)`));
  }
}

/** The server's major version. */
export async function majorVersion({ sql }: TestDatabase): Promise<number> {
  const [row] = await sql`SELECT current_setting('server_version_num')::int / 10000 AS major`;
  return row!["major"];
}

/** A session with any URL. */
export function sessionFor(
  url: string,
  options: SessionOptions = {},
  flags: { schema?: string; waitForDbMs?: number; connectTimeoutMs?: number } = {},
): Session {
  const decision = decideConnection({ url, ...flags }, {
    env: {},
    readFile: () => undefined,
    osUser: undefined,
    applicationName: "pipeweave test",
  });
  if (!decision.ok) throw new Error(decision.problems.join("; "));
  return new Session(decision.settings, options);
}

/** The server's URL of a database. */
export function urlOf(database: string): string {
  return serverUrl().replace(/\/[^/]*$/, `/${database}`);
}

const TEMPLATE = "pipeweave_template";

async function ensureTemplate(): Promise<void> {
  await withAdmin(async (admin) => {
    // Test files run side by side; one of them makes the template.
    await admin`SELECT pg_advisory_lock(7)`;
    try {
      const [row] = await admin`SELECT 1 FROM pg_database WHERE datname = ${TEMPLATE}`;
      if (row) return;
      await admin.unsafe(`CREATE DATABASE ${TEMPLATE}_new`);
      const session = sessionFor(urlOf(`${TEMPLATE}_new`));
      const { failed } = await migrate(session);
      await session.close();
      if (failed) throw failed.error;
      await admin.unsafe(`ALTER DATABASE ${TEMPLATE}_new RENAME TO ${TEMPLATE}`);
    } finally {
      await admin`SELECT pg_advisory_unlock(7)`;
    }
  });
}

/** Runs something as the superuser of the test server. */
export async function withAdmin<T>(work: (admin: postgres.Sql) => Promise<T>): Promise<T> {
  const admin = connect(serverUrl());
  try {
    return await work(admin);
  } finally {
    await admin.end({ timeout: 1 });
  }
}

/** Puts a task and runs of it into the queue, and returns the ids of the runs. */
export async function queueTasks(sql: postgres.Sql, statuses: readonly string[]): Promise<string[]> {
  await sql`INSERT INTO services (id, version, base_url) VALUES ('s', '1', 'http://localhost') ON CONFLICT DO NOTHING`;
  await sql`INSERT INTO tasks (id, service_id, code_hash) VALUES ('t', 's', 'x') ON CONFLICT DO NOTHING`;
  const ids = statuses.map(() => crypto.randomUUID());
  for (const [i, status] of statuses.entries()) {
    await sql`INSERT INTO task_runs (id, task_id, code_version, code_hash, max_retries, status)
              VALUES (${ids[i]!}, 't', 1, 'x', 3, ${status})`;
  }
  return ids;
}
