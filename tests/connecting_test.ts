/** How connections begin and end, through the compiled binary: faults, certificates, proofs, versions, waits, signals. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ADMIN, freePort, PostgresServer } from "../scripts/postgres_server.ts";
import { folderWith, type Outcome, pipeweave, Run, until } from "./support/binary.ts";
import { Authority } from "./support/certificates.ts";
import { connect, TestDatabase } from "./support/database.ts";
import {
  type Fault,
  FaultyServer,
  GREETING,
  type Phase,
  readSome,
  serverMessage,
  writeAll,
} from "./support/faulty_server.ts";
import { SilentProxy } from "./support/silent_proxy.ts";

/** Short limits, so that what does not answer is given up soon. */
const SOON = "connect_timeout=2&keepalives_idle=1&keepalives_interval=1&keepalives_count=2";

/** For faults that end by themselves: however busy the machine is, it is they that are told, and not the time. */
const LATER = "connect_timeout=60";

const urlOf = (port: number, parameters = "sslmode=disable", times = SOON) =>
  `postgres://u:p@127.0.0.1:${port}/d?${parameters}&${times}`;

function assertWords({ code, stderr }: Outcome, expected: number, ...parts: readonly string[]): void {
  assertEquals(code, expected, stderr);
  assertMatch(stderr, /^error: /m);
  assert(!stderr.includes("    at "), stderr);
  for (const part of parts) assertStringIncludes(stderr, part);
}

Deno.test("a server that goes wrong in any phase: words and exit 6; the next host is tried; --json has its document", async () => {
  await using database = await TestDatabase.empty();
  const good = new URL(database.url);
  const cells: readonly (readonly [Phase, Fault, words: string])[] = [
    ["accepting", "silent", "No answer from"],
    ["accepting", "garbage", "is not PostgreSQL"],
    ["answering the request for TLS", "silent", "No answer from"],
    ["answering the request for TLS", "garbage", "is not PostgreSQL"],
    ["the handshake of TLS", "silent", "No answer from"],
    ["the handshake of TLS", "closed", "closed the connection"],
    ["the handshake of TLS", "garbage", "TLS with"],
    ["authentication", "silent", "No answer from"],
    ["starting up", "closed", "closed the connection"],
    ["starting up", "garbage", "is not PostgreSQL"],
    ["the first answer", "silent", "no answer for"],
    ["in the middle of an answer", "silent", "no answer for"],
  ];
  await Promise.all(cells.map(async ([phase, fault, words]) => {
    await using server = new FaultyServer(phase, fault);
    const mode = phase.includes("TLS") ? "require" : "disable";
    const url = urlOf(server.port, `sslmode=${mode}`, fault === "silent" ? SOON : LATER);
    const [plain, json] = await Promise.all([
      pipeweave(["db:status"], { env: { DATABASE_URL: url } }),
      pipeweave(["db:status", "--json"], { env: { DATABASE_URL: url } }),
    ]);
    assertWords(plain, 6, words);
    assertEquals(JSON.parse(json.stdout).error.kind, "connection", `${phase}, ${fault}`);
    if (phase === "the first answer" || phase === "in the middle of an answer") return;
    const both =
      `postgres://${good.username}@127.0.0.1:${server.port},127.0.0.1:${good.port}/${database.name}`;
    const { code, stderr } = await pipeweave(["db:status"], {
      env: { DATABASE_URL: `${both}?sslmode=${mode === "require" ? "prefer" : mode}&${SOON}` },
    });
    assertEquals(code, 0, `${phase}, ${fault}: ${stderr}`);
  }));
});

Deno.test("whoever waits goes on through every fault, until the time is over: exit 4", async () => {
  const cells: readonly (readonly [Phase, Fault])[] = [
    ["accepting", "closed"],
    ["answering the request for TLS", "garbage"],
    ["starting up", "closed"],
    ["the first answer", "closed"],
    ["the first answer", "garbage"],
    ["the first answer", "silent"],
    ["in the middle of an answer", "closed"],
  ];
  await Promise.all(cells.map(async ([phase, fault]) => {
    await using server = new FaultyServer(phase, fault);
    const mode = phase.includes("TLS") ? "require" : "disable";
    const outcome = await pipeweave(["db:wait", "--timeout", "3s"], {
      env: { DATABASE_URL: urlOf(server.port, `sslmode=${mode}`) },
    });
    assertWords(outcome, 4, "did not come up within 3s");
  }));
});

Deno.test("--timeout bounds a wait whose server falls silent once it is connected, whatever libpq's times are", async () => {
  await Promise.all(["db:wait --timeout 3s", "db:wait --migrated --timeout 3s"].map(async (line) => {
    await using server = new FaultyServer("in the middle of an answer", "silent");
    const start = Date.now();
    const outcome = await pipeweave(line.split(" "), {
      env: { DATABASE_URL: `postgres://u:p@127.0.0.1:${server.port}/d?sslmode=disable` },
    });
    assert([4, 6].includes(outcome.code), outcome.stderr);
    assert(Date.now() - start < 8000, `${line}: ${Date.now() - start} ms`);
  }));
  await using database = await TestDatabase.migrated();
  await using proxy = await SilentProxy.to(database.url);
  await using folder = await folderWith({ "900_later.sql": "SELECT 1;" });
  const run = new Run(["db:wait", "--migrated", "--timeout", "9s", "--embedded", "--dir", folder.path], {
    env: { DATABASE_URL: proxy.url, MAINTENANCE_CHECK_INTERVAL_MS: "100" },
  });
  await run.printed("pending");
  proxy.silence();
  const start = Date.now();
  const { code, stderr } = await run.outcome;
  assert([4, 6].includes(code), stderr);
  assert(Date.now() - start < 9000, `${Date.now() - start} ms: ${stderr}`);
});

Deno.test("one signal ends any command whose server is silent, within seconds", async () => {
  const commands = [
    "db:status",
    "db:migrate",
    "db:wait --timeout 10m",
    "maintenance:request --wait",
    "maintenance:exit",
    "maintenance:wait",
    "db:cleanup",
    "db:selftest",
  ];
  await Promise.all(commands.map(async (line) => {
    await using server = new FaultyServer("the first answer", "silent");
    // With libpq's times for a silent server, which are longer.
    const run = new Run(line.split(" "), {
      env: { DATABASE_URL: `postgres://u:p@127.0.0.1:${server.port}/d?sslmode=disable` },
    });
    await server.reached;
    const start = Date.now();
    run.kill("SIGTERM");
    const { code, stderr } = await run.outcome;
    assertEquals(code, 143, `${line}: ${stderr}`);
    assert(Date.now() - start < 12_000, `${line}: ${Date.now() - start} ms`);
  }));
});

Deno.test("a statement that takes longer than a silent server is waited for goes on, since its server is seen to work", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_slow.sql": "SELECT pg_sleep(6);" });
  const { code, stdout, stderr } = await pipeweave(["db:migrate", "--no-embedded", "--dir", folder.path], {
    env: { DATABASE_URL: `${database.url}?${SOON}` },
  });
  assertEquals(code, 0, stderr);
  assertStringIncludes(stdout, "✓ Applied 001_slow");
});

Deno.test("an answer that is lost on the way: told so, and what became of it is looked at over a new connection", async () => {
  await using database = await TestDatabase.empty();
  await using proxy = await SilentProxy.to(database.url);
  await using folder = await folderWith({ "001_slow.sql": "SELECT pg_sleep(2); CREATE TABLE t ();" });
  const run = new Run(["db:migrate", "--no-embedded", "--dir", folder.path], {
    env: { DATABASE_URL: `${proxy.url}?${SOON}` },
  });
  await until(
    async () =>
      (await database
        .sql`SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()`)
        .length > 0,
    "the migration runs",
  );
  proxy.silence();
  proxy.speak();
  const { code, stdout, stderr } = await run.outcome;
  assertEquals(code, 0, stderr);
  assertStringIncludes(stdout, "✓ Applied 001_slow");
  assertEquals((await database.sql`SELECT count(*)::int AS n FROM schema_migrations`)[0]!["n"], 1);
});

Deno.test("--timeout ends what runs: rolled back, exit 4, and told", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_quick.sql": "CREATE TABLE quick ();",
    "002_slow.sql": "CREATE TABLE slow (); SELECT pg_sleep(120);",
    "003_behind.sql": "CREATE TABLE behind ();",
  });
  const outcome = await pipeweave(
    ["db:migrate", "--no-embedded", "--dir", folder.path, "--timeout", "2s"],
    { env: { DATABASE_URL: database.url } },
  );
  assertWords(outcome, 4, "ran out while 002_slow ran: nothing of it was applied", "001_quick");
  const tables = await database
    .sql`SELECT relname FROM pg_class WHERE relname IN ('quick', 'slow', 'behind')`;
  assertEquals(tables.map(({ relname }) => relname), ["quick"]);
});

Deno.test("certificates of clients: usable ones are used; others are told about, never an abort", async () => {
  const authority = new Authority("Clients' CA");
  const server = await PostgresServer.start();
  try {
    const own = authority.server(["localhost"]);
    await server.write("server.crt", own.certificate);
    await server.write("server.key", own.key);
    await server.write("root.crt", authority.certificate);
    await server.write(
      "pg_hba.conf",
      "hostssl all postgres 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 trust\n",
    );
    await server.configure({ ssl: "on", ssl_ca_file: "root.crt" });
    await server.down();
    await server.up();
    const good = authority.client("postgres");
    const old = authority.client("postgres", { version: 1 });
    const other = authority.client("postgres");
    const expired = authority.client("postgres", { validity: [-20, -10] });
    const rubbish = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n";
    await using files = await folderWith({
      ...{
        "good.crt": good.certificate,
        "good.key": good.key,
        "old.crt": old.certificate,
        "old.key": old.key,
      },
      ...{ "other.key": other.key, "expired.crt": expired.certificate, "expired.key": expired.key },
      ...{
        "rubbish.crt": rubbish,
        "rubbish.key": rubbish.replaceAll("CERTIFICATE", "PRIVATE KEY"),
        "empty.crt": "",
      },
    });
    const use = (certificate: string, key: string, env: Record<string, string> = {}) =>
      pipeweave(["db:status"], {
        env: {
          ...{ DATABASE_URL: `postgres://postgres@127.0.0.1:${server.port}/postgres?sslmode=require` },
          ...{ PGSSLCERT: `${files.path}/${certificate}`, PGSSLKEY: `${files.path}/${key}` },
          ...env,
        },
      });
    assertEquals((await use("good.crt", "good.key")).code, 0);
    assertWords(await use("old.crt", "old.key"), 2, "version 1", "PGSSLCERT");
    assertWords(await use("good.crt", "other.key"), 2, "its key is that of another certificate");
    assertWords(await use("rubbish.crt", "good.key"), 2, "no certificate");
    assertWords(await use("good.crt", "rubbish.key"), 2, "no private key in PEM form");
    assertWords(await use("empty.crt", "good.key"), 2, "no certificate in PEM form");
    assertWords(await use("expired.crt", "expired.key"), 6, "refuses the client's certificate");
    // One in the home folder that nobody asked for is left out, with a word.
    await Deno.mkdir(`${files.path}/.postgresql`);
    await Deno.writeTextFile(`${files.path}/.postgresql/postgresql.crt`, old.certificate);
    await Deno.writeTextFile(`${files.path}/.postgresql/postgresql.key`, old.key);
    await server.write("pg_hba.conf", "hostssl all all 127.0.0.1/32 trust\n");
    server.reload();
    await until(async () => {
      const { code, stderr } = await use("", "", { PGSSLCERT: "", PGSSLKEY: "", HOME: files.path });
      return code === 0 && stderr.includes("is left out: it is of version 1");
    }, "it connects without it");
  } finally {
    await server.stop();
  }
});

Deno.test("channel binding, require_auth, and plain connections where only those are let in", async () => {
  const authority = new Authority("CA");
  const server = await PostgresServer.start({ auth: "scram-sha-256" });
  await using files = await folderWith({ "ca.crt": authority.certificate });
  try {
    const own = authority.server(["localhost"]);
    await server.write("server.crt", own.certificate);
    await server.write("server.key", own.key);
    await server.write(
      "pg_hba.conf",
      `hostnossl all plain 127.0.0.1/32 trust
hostssl all tls 127.0.0.1/32 trust
host all md5 127.0.0.1/32 md5
host all postgres 127.0.0.1/32 scram-sha-256
`,
    );
    await server.configure({ ssl: "on", password_encryption: "md5" });
    await server.down();
    await server.up();
    const url = (user: string, parameters: string) =>
      `postgres://${user}@localhost:${server.port}/postgres?hostaddr=127.0.0.1&${parameters}`;
    const call = (user: string, parameters: string, env: Record<string, string> = {}) =>
      pipeweave(["db:wait", "--timeout", "5s"], {
        env: { DATABASE_URL: url(user, parameters), PGPASSWORD: ADMIN.password, ...env },
      });
    const sql = connect(
      `postgres://postgres:${encodeURIComponent(ADMIN.password)}@127.0.0.1:${server.port}/postgres`,
    );
    for (const user of ["plain", "tls", "md5"]) {
      await sql.unsafe(`CREATE ROLE ${user} LOGIN SUPERUSER PASSWORD 'p'`);
    }
    await sql.end();

    const rooted = `sslrootcert=${files.path}/ca.crt`;
    assertEquals((await call("postgres", `sslmode=verify-full&channel_binding=require&${rooted}`)).code, 0);
    assertEquals(
      (await call("postgres", `sslmode=require&${rooted}`, { PGCHANNELBINDING: "require" })).code,
      0,
    );
    assertEquals(
      (await call("postgres", `sslmode=require&${rooted}`, { PGREQUIREAUTH: "scram-sha-256" })).code,
      0,
    );
    assertWords(await call("postgres", "", { PGREQUIREAUTH: "md5" }), 6, "require_auth excludes");
    assertWords(await call("postgres", "", { PGREQUIREAUTH: "none" }), 6, "require_auth excludes");
    assertWords(
      await call("plain", "", { PGREQUIREAUTH: "scram-sha-256" }),
      6,
      "lets us in without any proof",
    );
    assertWords(
      await call("tls", `channel_binding=require&${rooted}`),
      6,
      "does not authenticate by SCRAM-SHA-256-PLUS",
    );
    assertEquals((await call("md5", "", { PGPASSWORD: "p" })).code, 0);
    // The public roots know nothing of this server: refused, and how to go on is told.
    assertWords(
      await call("postgres", "sslmode=require&channel_binding=require"),
      6,
      "channel_binding=prefer",
    );

    assertEquals((await call("plain", "")).code, 0);
    assertEquals((await call("tls", "sslmode=allow")).code, 0);
    assertEquals((await call("plain", "sslmode=allow")).code, 0);
    assertWords(await call("plain", "sslmode=require"), 6, "no pg_hba.conf entry");
    assertWords(await call("tls", "sslmode=disable"), 6, "no pg_hba.conf entry");
  } finally {
    await server.stop();
  }
});

Deno.test("passwords that SASLprep changes are those that they stand for", async () => {
  const server = await PostgresServer.start({ auth: "scram-sha-256" });
  try {
    const sql = connect(
      `postgres://postgres:${encodeURIComponent(ADMIN.password)}@127.0.0.1:${server.port}/postgres`,
    );
    // Each as it is set, and as it may be typed (RFC 4013, 3).
    const passwords = [["IX", "I\u00adX"], ["IX", "\u2168"], ["a", "\u00aa"], ["a b", "a\u00a0b"], [
      "ﬁn",
      "fin",
    ]] as const;
    for (const [index, [set, typed]] of passwords.entries()) {
      await sql.unsafe(`CREATE ROLE saslprep${index} LOGIN PASSWORD '${set}'`);
      const { code, stderr } = await pipeweave(["db:wait", "--timeout", "5s"], {
        env: {
          PGHOST: "127.0.0.1",
          PGPORT: String(server.port),
          PGUSER: `saslprep${index}`,
          PGPASSWORD: typed,
          PGDATABASE: "postgres",
        },
      });
      assertEquals(code, 0, `${set}, ${typed}: ${stderr}`);
    }
    await sql.end();
  } finally {
    await server.stop();
  }
});

Deno.test("a server that is older than 14, or no PostgreSQL, is refused by name; nothing waits for it", async () => {
  const serve = async (greeting: readonly Uint8Array[], args: readonly string[]) => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const serving = (async () => {
      for await (const connection of listener) {
        await readSome(connection);
        for (const message of greeting) await writeAll(connection, message).catch(() => {});
        while ((await readSome(connection)).length > 0);
        connection.close();
      }
    })();
    const outcome = await pipeweave(args, {
      env: { DATABASE_URL: urlOf((listener.addr as Deno.NetAddr).port) },
    });
    listener.close();
    await serving;
    return outcome;
  };
  const withVersion = (version: string) =>
    GREETING.map((message) =>
      new TextDecoder().decode(message).includes("server_version")
        ? serverMessage("S", "server_version", version)
        : message
    );
  for (const version of ["9.6.24", "12.22 (Debian 12.22-1.pgdg120+1)", "13.23", "13beta1"]) {
    const start = Date.now();
    for (
      const command of [["db:migrate", "--wait-for-db", "30s"], ["db:wait", "--timeout", "30s"], [
        "db:status",
      ]]
    ) {
      assertWords(
        await serve(withVersion(version), command),
        6,
        `is PostgreSQL ${version}`,
        "needs 14 or newer",
      );
    }
    assert(Date.now() - start < 20_000);
  }
  for (const [request, name] of [[7, "GSSAPI"], [9, "SSPI"], [2, "Kerberos"]] as const) {
    const asks = await serve([serverMessage("R", [0, 0, 0, request])], ["db:wait", "--timeout", "30s"]);
    assertWords(asks, 6, `asks for ${name}`, "scram-sha-256");
  }
  const http = new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n");
  assertWords(await serve([http], ["db:status"]), 6, 'is not PostgreSQL: its answer begins with "HTTP/1.1');
});

Deno.test("maintenance:wait ends at once on a wrong password and on a database that is not there", async () => {
  const server = await PostgresServer.start({ auth: "scram-sha-256" });
  try {
    const url = (password: string, database: string) =>
      `postgres://postgres:${encodeURIComponent(password)}@127.0.0.1:${server.port}/${database}`;
    const start = Date.now();
    const wait = (target: string) =>
      pipeweave(["maintenance:wait", "--timeout", "60s"], { env: { DATABASE_URL: target } });
    assertWords(
      await wait(url("wrong", "postgres")),
      6,
      "password authentication failed",
      "Check the password",
    );
    assertWords(await wait(url(ADMIN.password, "nowhere")), 6, 'has no database "nowhere"');
    assert(Date.now() - start < 30_000);
  } finally {
    await server.stop();
  }
});

Deno.test("Ctrl-C while a commit waits for a dead synchronous standby: nothing more is committed, and what is local is said", async () => {
  const server = await PostgresServer.start({
    settings: {
      synchronous_commit: "on",
      synchronous_standby_names: "nobody",
      wal_level: "replica",
      max_wal_senders: "2",
    },
  });
  try {
    // The books and what is done by this session wait for nobody.
    const sql = connect(server.url());
    await sql`SET synchronous_commit = local`;
    await using folder = await folderWith({
      "500_s.sql": "CREATE TABLE s500 ();",
      "501_s.sql": "CREATE TABLE s501 ();",
      "502_s.sql": "CREATE TABLE s502 ();",
    });
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      await sql.unsafe("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
      const run = new Run(["db:migrate", "--no-embedded", "--dir", folder.path], {
        env: { DATABASE_URL: server.url() },
      });
      const waits = () => sql`SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'`;
      await until(async () => (await waits()).length > 0, "the commit waits for the standby");
      run.kill(signal);
      const { code, stderr } = await run.outcome;
      assertEquals(code, signal === "SIGINT" ? 130 : 143, stderr);
      assertStringIncludes(stderr, "is committed on");
      assertStringIncludes(stderr, "may not have reached the standby");
      assertStringIncludes(stderr, "applied by this run: 500_s");
      const rows = await sql`SELECT version FROM schema_migrations ORDER BY 1`;
      assertEquals(rows.map(({ version }) => version), ["500"], stderr);
      assertEquals((await sql`SELECT 1 FROM pg_class WHERE relname IN ('s501', 's502')`).length, 0);
    }
    await sql.end();
  } finally {
    await server.stop();
  }
});

Deno.test("--wait-for-db waits for a standby that is promoted, and tells what it waits for", async () => {
  const primary = await PostgresServer.start();
  await primary.down();
  const standby = await PostgresServer.start({ standbyOf: primary.data, port: freePort() });
  try {
    const run = new Run(["db:wait", "--timeout", "60s"], {
      env: { DATABASE_URL: `${standby.url()}?target_session_attrs=read-write` },
    });
    await run.printed("target_session_attrs=read-write");
    const sql = connect(standby.url());
    await sql`SELECT pg_promote()`;
    await sql.end();
    assertEquals((await run.outcome).code, 0);
  } finally {
    await standby.stop();
    await primary.stop();
  }
});
