/** Connections that fail, through the compiled binary: what it says, and with which exit code. */

import { userInfo } from "node:os";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ADMIN, freePort, PostgresServer } from "../scripts/postgres_server.ts";
import { BINARY, folderWith, type Outcome, pipeweave, Run, until } from "./support/binary.ts";
import { sessionFor, TestDatabase, urlOf, withAdmin } from "./support/database.ts";

function assertRefused({ code, stdout, stderr }: Outcome, expected: number, ...parts: string[]): void {
  assertEquals([code, stdout], [expected, ""], stderr);
  assertMatch(stderr, /^error: /);
  assert(!stderr.includes("    at "), stderr);
  for (const part of parts) assertStringIncludes(stderr, part);
}

Deno.test("wrong settings are refused, all together, before anything is tried: exit 2", async () => {
  const all = await pipeweave([
    "db:status",
    "--port",
    "99999",
    "--sslmode",
    "maybe",
    "--connect-timeout",
    "soon",
    "--user",
    "u",
  ]);
  assertRefused(
    all,
    2,
    "3 settings are wrong; nothing was tried",
    "--port: the port must be",
    "--sslmode must be",
    "--connect-timeout must be",
  );
  assertRefused(await pipeweave(["db:status", "--url", "mysql://x"]), 2, "--url must start with postgres://");
  assertRefused(
    await pipeweave(["db:status", "--nonsense"]),
    2,
    'has no option "--nonsense"',
    "pipeweave db:status --help",
  );
  assertRefused(await pipeweave(["db:nonsense"]), 2, "There is no command");
  assertRefused(await pipeweave(["db:migrate", "extra", "--user", "u"]), 2, "rguments");
  assertRefused(await pipeweave(["db:cleanup", "--batch-size", "-1", "--user", "u"]), 2);
  assertRefused(
    await pipeweave(["db:cleanup", "--dlq-retention-days", "x", "--user", "u"]),
    2,
    "--dlq-retention-days must be a whole number",
  );
  assertRefused(
    await pipeweave(["maintenance:status", "--expect", "sleeping", "--user", "u"]),
    2,
    "--expect must be one of",
  );
  assertRefused(
    await pipeweave(["db:migrate", "--lock-timeout", "0", "--user", "u"]),
    2,
    "--lock-timeout must be greater than 0",
  );
  // Without USER the account's name counts, as with psql.
  const account = await pipeweave(["db:status", "--host", "127.0.0.1", "--port", "1"]);
  assertRefused(account, 6, `user "${userInfo().username}"`);
  for (const args of [["postgres://u:SECRET@h/d"], ["db:status", "--pasword=SECRET"]]) {
    const { code, stdout, stderr } = await pipeweave(args);
    assertEquals([code, (stdout + stderr).includes("SECRET")], [2, false], stderr);
  }
  // Options may stand before the command.
  const before = await pipeweave(["--url", "postgres://u:SECRET@127.0.0.1:1/d", "db:status"]);
  assertEquals([before.code, before.stderr.includes("SECRET")], [6, false], before.stderr);
  const json = await pipeweave(["db:status", "--json", "--url", "x", "--user", "u"]);
  assertEquals([json.code, JSON.parse(json.stdout).error.code, json.stderr], [2, "bad_option", ""]);
});

Deno.test("wrong host, port, database: exit 6", async () => {
  const port = String(freePort());
  assertRefused(
    await pipeweave(["db:status", "--url", `postgres://u@127.0.0.1:${port}/d`]),
    6,
    `Cannot connect to 127.0.0.1:${port}, database "d", user "u": the connection was refused`,
    "next: Is PostgreSQL running there",
  );
  assertRefused(
    await pipeweave(["db:status", "--url", "postgres://u@no-such-host.invalid/d"]),
    6,
    "host name",
  );
  assertRefused(
    await pipeweave(["db:status", "--url", urlOf("no_such_database")]),
    6,
    'has no database "no_such_database"',
    "createdb",
  );
  assertRefused(
    await pipeweave(["db:status", "--url", `postgres://u@127.0.0.1:${port},127.0.0.1:${port}/d`]),
    6,
    "None of 2 hosts serves",
  );
});

Deno.test("passwords: wrong, missing, odd ones, from every place, and never printed", async () => {
  const server = await PostgresServer.start({ auth: "scram-sha-256" });
  try {
    const { user, password } = ADMIN;
    const base = [
      "db:status",
      "--host",
      "127.0.0.1",
      "--port",
      String(server.port),
      "--user",
      user,
      "--database",
      "postgres",
    ];
    const encoded = encodeURIComponent(password);
    await using files = await folderWith({
      pgpass: `127.0.0.1:${server.port}:*:postgres:${
        password.replaceAll("\\", "\\\\").replaceAll(":", "\\:")
      }\n`,
      services:
        `[test]\nhost=127.0.0.1\nport=${server.port}\nuser=postgres\ndbname=postgres\npassword=${password}\n`,
    });
    await Deno.chmod(`${files.path}/pgpass`, 0o600);
    const good: readonly (readonly [string, readonly string[], Record<string, string>])[] = [
      ["--password", [...base, "--password", password], {}],
      ["PGPASSWORD", base, { PGPASSWORD: password }],
      ["DB_PASS", base, { DB_PASS: password, PGPASSWORD: "wrong" }],
      ["URL", ["db:status"], {
        DATABASE_URL: `postgres://postgres:${encoded}@127.0.0.1:${server.port}/postgres`,
      }],
      ["PGPASSFILE", base, { PGPASSFILE: `${files.path}/pgpass` }],
      ["PGSERVICE", ["db:status"], { PGSERVICE: "test", PGSERVICEFILE: `${files.path}/services` }],
    ];
    for (const [name, args, env] of good) {
      const { code, stderr } = await pipeweave(args, { env });
      assertEquals([code, stderr], [0, ""], name);
    }
    const secret = "hunter2@:/%";
    for (const json of [[], ["--json"], ["--verbose"]]) {
      const wrong = await pipeweave([...base, ...json, "--password", secret]);
      assertEquals(wrong.code, 6);
      assertStringIncludes(wrong.stdout + wrong.stderr, "password authentication failed");
      assert(!(wrong.stdout + wrong.stderr).includes("hunter2"), wrong.stderr);
    }
    assertRefused(await pipeweave(base), 6, "asks for the password of user");
    // Waiting would not help here.
    const started = Date.now();
    assertRefused(await pipeweave([...base, "--password", secret, "--wait-for-db", "20s"]), 6);
    assert(Date.now() - started < 10_000);
  } finally {
    await server.stop();
  }
});

Deno.test("a server that never answers, one that says no PostgreSQL, one that hangs up: exit 6, in time", async () => {
  const answers: readonly (readonly [string, (connection: Deno.Conn) => Promise<void>, string])[] = [
    ["silent", async () => {}, "No answer from"],
    ["hangs up", (connection) => Promise.resolve(connection.close()), "closed the connection"],
    ["another protocol", async (connection) => {
      await connection.read(new Uint8Array(100));
      await connection.write(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"));
    }, ""],
  ];
  for (const [name, answer, part] of answers) {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const connections: Deno.Conn[] = [];
    const serving = (async () => {
      for await (const connection of listener) {
        connections.push(connection);
        await answer(connection).catch(() => {});
      }
    })();
    const { port } = listener.addr as Deno.NetAddr;
    const started = Date.now();
    const outcome = await pipeweave([
      "db:status",
      "--url",
      `postgres://u@127.0.0.1:${port}/d`,
      "--connect-timeout",
      "1s",
    ]);
    assertRefused(outcome, 6, part);
    assert(Date.now() - started < 5000, `${name}: ${Date.now() - started} ms`);
    listener.close();
    await serving.catch(() => {});
    for (const connection of connections) {
      try {
        connection.close();
      } catch {
        // Closed already.
      }
    }
  }
});

Deno.test("--wait-for-db: waits for a server that starts, and gives up in time: exit 4", async () => {
  const server = await PostgresServer.start();
  try {
    await server.down();
    const env = { DATABASE_URL: server.url() };
    const none = await pipeweave(["db:status", "--wait-for-db", "1s"], { env });
    assertRefused(none, 4, "The database did not come up within 1s", "the connection was refused");
    const waiting = new Run(["db:status", "--wait-for-db", "30s"], { env });
    await new Promise((resolve) => setTimeout(resolve, 700));
    await server.up();
    assertEquals((await waiting.outcome).code, 0);

    await server.freeze("SIGSTOP");
    const frozen = await pipeweave(["db:status", "--connect-timeout", "500ms", "--wait-for-db", "1500ms"], {
      env,
    });
    assertRefused(frozen, 4, "No answer from");
    const thawing = new Run(["db:status", "--connect-timeout", "500ms", "--wait-for-db", "30s"], { env });
    await new Promise((resolve) => setTimeout(resolve, 700));
    await server.freeze("SIGCONT");
    assertEquals((await thawing.outcome).code, 0);
  } finally {
    await server.stop();
  }
});

Deno.test("a read-only standby: status works, migrating says where to go, several hosts find the primary", async () => {
  const primary = await PostgresServer.start();
  let standby: PostgresServer | undefined;
  try {
    await primary.down();
    standby = await PostgresServer.start({ standbyOf: primary.data });
    await primary.up();
    const env = { DATABASE_URL: standby.url() };
    assertEquals((await pipeweave(["db:status"], { env })).code, 0);
    const refused = await pipeweave(["db:migrate"], { env });
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.stderr, "is a read-only standby; 5 migration(s) are pending");
    assertStringIncludes(refused.stderr, "PGTARGETSESSIONATTRS=read-write");

    const hosts = `postgres://postgres@127.0.0.1:${standby.port},127.0.0.1:${primary.port}/postgres`;
    const target = (attrs: string) => ({ env: { DATABASE_URL: hosts, PGTARGETSESSIONATTRS: attrs } });
    assertEquals((await pipeweave(["db:migrate"], target("read-write"))).code, 0);
    const onStandby = await pipeweave(["db:status", "--json"], target("standby"));
    assertEquals(JSON.parse(onStandby.stdout).pending.length, 5);
    const onPrimary = await pipeweave(["db:status", "--json"], target("primary"));
    assertEquals(JSON.parse(onPrimary.stdout).pending.length, 0);
    assertEquals((await pipeweave(["db:status"], target("prefer-standby"))).code, 0);
    const alone = await pipeweave(["db:migrate"], {
      env: { DATABASE_URL: standby.url(), PGTARGETSESSIONATTRS: "primary" },
    });
    assertRefused(alone, 6, "is not what target_session_attrs=primary asks for");
  } finally {
    await standby?.stop();
    await primary.stop();
  }
});

Deno.test("Unix sockets: in the folders that the binary was built for, and a clear no elsewhere", async () => {
  const server = await PostgresServer.start();
  const binary = `${server.folder}-pipeweave`;
  try {
    const url = `postgres://postgres@/postgres?host=${server.folder}&port=${server.port}`;
    assertRefused(
      await pipeweave(["db:status", "--url", url]),
      6,
      "This binary may not use sockets in",
      "PIPEWEAVE_SOCKET_DIRS",
    );
    const built = await new Deno.Command(fileURLToPath(new URL("../scripts/build.sh", import.meta.url)), {
      args: ["--output", binary],
      env: { PIPEWEAVE_SOCKET_DIRS: server.folder },
    }).output();
    assert(built.success, new TextDecoder().decode(built.stderr));
    assertEquals((await pipeweave(["db:status", "--url", url], { binary })).code, 0);
    assertStringIncludes(
      (await pipeweave(["--version"], { binary })).stdout,
      `unix sockets in ${server.folder}`,
    );
  } finally {
    await server.stop();
    await Deno.remove(binary).catch(() => {});
  }
});

Deno.test("the session names itself, and takes PGOPTIONS and PGAPPNAME", async () => {
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({ "100_slow.sql": "SELECT pg_sleep(1);" });
  const names = async (env: Record<string, string>) => {
    const run = new Run(["db:migrate", "--dir", folder.path], {
      env: { DATABASE_URL: database.url, ...env },
    });
    let name = "";
    await until(async () => {
      const [row] = await database.sql`SELECT application_name AS name FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE '-- pipeweave: 100_slow%' AND state = 'active'`;
      name = row?.["name"];
      return row !== undefined;
    }, "the migration runs");
    run.kill("SIGTERM");
    await run.outcome;
    return name;
  };
  assertMatch(await names({}), /^pipeweave\/\d+\.\d+\.\d+ db:migrate$/);
  assertEquals(await names({ PGAPPNAME: "deploy" }), "deploy");
  const limited = await pipeweave(["db:migrate", "--dir", folder.path], {
    env: { DATABASE_URL: database.url, PGOPTIONS: "-c statement_timeout=100ms" },
  });
  assertEquals(limited.code, 1);
  assertStringIncludes(limited.stderr, "57014");
});

Deno.test("no connection left: said so, and waited for when told to", async () => {
  const server = await PostgresServer.start({
    settings: { max_connections: "4", superuser_reserved_connections: "0" },
  });
  const sessions = Array.from({ length: 4 }, () => sessionFor(server.url()));
  try {
    const { sql } = await import("../src/database/sql.ts");
    await Promise.all(sessions.map((session) => session.transaction(sql`SELECT 1;`)));
    const env = { DATABASE_URL: server.url() };
    assertRefused(await pipeweave(["db:status"], { env }), 6, "has no connection left");
    const waiting = new Run(["db:status", "--wait-for-db", "20s"], { env });
    await new Promise((resolve) => setTimeout(resolve, 500));
    await sessions[0]!.close();
    assertEquals((await waiting.outcome).code, 0);
  } finally {
    await Promise.all(sessions.map((session) => session.close()));
    await server.stop();
  }
});

Deno.test("the binary alone, in an empty folder, with nothing but DATABASE_URL", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({});
  await Deno.copyFile(BINARY, `${folder.path}/pipeweave`);
  const options = {
    env: { DATABASE_URL: database.url },
    cwd: folder.path,
    binary: `${folder.path}/pipeweave`,
  };
  assertEquals((await pipeweave(["db:migrate"], options)).code, 0);
  assertStringIncludes((await pipeweave(["db:status"], options)).stdout, "Current version: 90004\n");
  assertEquals([...Deno.readDirSync(folder.path)].map(({ name }) => name), ["pipeweave"]);
  await withAdmin(async (admin) => {
    assertEquals(
      (await admin`SELECT FROM pg_stat_activity WHERE datname = ${database.name} AND application_name LIKE 'pipeweave/%'`)
        .length,
      0,
    );
  });
});
