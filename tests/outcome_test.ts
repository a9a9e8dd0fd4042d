/**
 * What runs outside a transaction, whatever happens to it: nothing twice, nothing INVALID, and what is said of it is so in
 * the catalog.
 */

import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { migrate, type MigrateOptions } from "../src/commands/migrate.ts";
import { settlePartial } from "../src/commands/history.ts";
import { migrationStatus } from "../src/commands/status.ts";
import { UNKNOWN_ACTOR } from "../src/config/actor.ts";
import { PipeweaveError } from "../src/errors.ts";
import { PostgresServer } from "../scripts/postgres_server.ts";
import { folderWith, pipeweave, Run, until } from "./support/binary.ts";
import { connect, majorVersion, sessionFor, TestDatabase } from "./support/database.ts";

const MARK = "-- pipeweave: no-transaction\n";
const SHORT = `${MARK}-- pipeweave: lock-timeout 300ms\n`;
const TABLE =
  "CREATE TABLE big (id int, name text); INSERT INTO big SELECT i, 'n' || i FROM generate_series(1, 500) i;";

type Applied = Awaited<ReturnType<typeof migrate>> & { notes: string[] };

async function apply(
  database: TestDatabase,
  files: Record<string, string>,
  options: MigrateOptions = {},
): Promise<Applied> {
  await using folder = await folderWith(files);
  const notes: string[] = [];
  const result = await migrate(database.session(), {
    dirs: [folder.path],
    embedded: false,
    onNote: (_, text) => notes.push(text),
    ...options,
  });
  return { ...result, notes };
}

/** The refusal of a run. */
async function refusal(promise: Promise<unknown>): Promise<PipeweaveError> {
  const error = await promise.then(() => undefined, (thrown) => thrown);
  assert(error instanceof PipeweaveError, "it was not refused");
  return error;
}

/** Indexes that are not valid, wherever they are. */
async function invalid({ sql }: TestDatabase): Promise<string[]> {
  const rows =
    await sql`SELECT indexrelid::regclass::text AS name FROM pg_index WHERE NOT indisvalid ORDER BY 1`;
  return rows.map(({ name }) => name);
}

/** Waits until a statement of a migration is at work, or waits for somebody. */
async function atWork({ sql }: TestDatabase, label: string, waiting = false): Promise<number> {
  let pid = 0;
  await until(async () => {
    const [row] =
      await sql`SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
      AND query LIKE ${`-- pipeweave: ${label}%`} AND (NOT ${waiting} OR wait_event_type = 'Lock')`;
    pid = row?.["pid"] ?? 0;
    return pid > 0;
  }, `${label} is at work`);
  return pid;
}

Deno.test("the look at an index is made where the file's own settings lead: never applied while it is INVALID", async () => {
  await using database = await TestDatabase.empty();
  await apply(database, {
    "001_a.sql":
      "CREATE SCHEMA app; CREATE TABLE app.t (id int); INSERT INTO app.t SELECT generate_series(1, 1000);",
  });
  for (
    const [version, setting, index] of [
      ["002", "SET search_path = app;", "t_id"],
      ["003", "SELECT pg_catalog.set_config('search_path', 'app', false);", "t_id_3"],
      ["004", "SET SESSION search_path TO app, public; RESET lock_timeout;", '"T id"'],
    ] as const
  ) {
    const old = await database.hold("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    const running = apply(database, {
      [`${version}_b.sql`]: `${SHORT}${setting}\nCREATE INDEX CONCURRENTLY IF NOT EXISTS ${index} ON t (id);`,
    }, { tolerance: { missing: true } });
    await atWork(database, `${version}_b`, true);
    await until(async () => (await invalid(database)).length > 0, "an attempt has left an INVALID index");
    await old.release();
    const { failed } = await running;
    assertEquals(failed, null);
    assertEquals(await invalid(database), []);
    const [row] = await database.sql`SELECT indisvalid FROM pg_index
      WHERE indexrelid = to_regclass(${`app.${index}`}) AND indrelid = 'app.t'::regclass`;
    assertEquals(row?.["indisvalid"], true);
  }
});

Deno.test("an index of that name on another table is not the one that was asked for", async () => {
  await using database = await TestDatabase.empty();
  const { failed } = await apply(database, {
    "001_a.sql": "CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE INDEX the_index ON a (id);",
    "002_b.sql": `${MARK}CREATE INDEX CONCURRENTLY IF NOT EXISTS the_index ON b (id);`,
  });
  assertEquals(failed?.error.code, "not_as_asked");
  assertStringIncludes(failed!.error.message, "the index public.the_index is another table's");
  assertEquals((await migrationStatus(database.session(), { dirs: [] })).partial.length, 1);
});

const PROCEDURE = `CREATE TABLE acc (n int); CREATE TABLE busy (n int);
CREATE PROCEDURE batches() LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO acc VALUES (1); COMMIT;
  LOCK TABLE busy IN SHARE MODE; COMMIT;
  INSERT INTO acc VALUES (2); END $$;`;
const INLINE = `DO $$ BEGIN INSERT INTO acc VALUES (1); COMMIT;
  LOCK TABLE busy IN SHARE MODE; COMMIT;
  INSERT INTO acc VALUES (2); END $$;`;

for (const [how, statement] of [["CALL", "CALL batches();"], ["DO", INLINE]] as const) {
  Deno.test(`${how} that commits inside is run once: a lock that is not free ends it, and nobody repeats it unasked`, async () => {
    await using database = await TestDatabase.empty();
    await apply(database, { "001_a.sql": PROCEDURE });
    const file = { "001_a.sql": PROCEDURE, "002_b.sql": `${SHORT}${statement}\nINSERT INTO acc VALUES (3);` };
    const holder = await database.hold("LOCK TABLE busy IN ROW EXCLUSIVE MODE");
    const { failed } = await apply(database, file);
    await holder.release();
    assertStringIncludes(
      failed!.left,
      "a part of it may be committed; db:migrate does not run it again by itself",
    );
    assertStringIncludes(failed!.error.details.hint!, "--partial done");
    const rows = async () => (await database.sql`SELECT n FROM acc ORDER BY 1`).map(({ n }) => n);
    assertEquals(await rows(), [1]);

    const again = await apply(database, file);
    assertEquals([again.failed?.error.code, await rows()], ["end_unknown", [1]]);
    const { partial } = await migrationStatus(database.session());
    assertEquals(partial.map(({ version, done, begun }) => [version, done, begun]), [["002", 0, 1]]);

    const said = { actor: UNKNOWN_ACTOR, reason: "looked" };
    await settlePartial(database.session(), "2", how === "CALL" ? "again" : "done", said);
    assertEquals((await apply(database, file)).failed, null);
    assertEquals(await rows(), how === "CALL" ? [1, 1, 2, 3] : [1, 3]);
    const nothing = await refusal(settlePartial(database.session(), "2", "done", said));
    assertEquals([nothing.kind, nothing.code], ["condition", "nothing_to_settle"]);
  });
}

Deno.test("what is wrong with a CALL before it runs leaves nothing to be decided", async () => {
  await using database = await TestDatabase.empty();
  const first = await apply(database, { "001_a.sql": `${MARK}CALL nobody_made_this();` });
  assertEquals(first.failed?.error.details.sqlstate, "42883");
  assertStringIncludes(first.failed!.left, "is not done");
  assertEquals((await apply(database, { "001_a.sql": `${MARK}SELECT 1;` })).failed, null);
});

Deno.test("a DO block that cannot commit is atomic, and is tried again", async () => {
  await using database = await TestDatabase.empty();
  await apply(database, { "001_a.sql": PROCEDURE });
  const holder = await database.hold("LOCK TABLE busy IN ROW EXCLUSIVE MODE");
  const running = apply(database, {
    "001_a.sql": PROCEDURE,
    "002_b.sql": `${SHORT}DO $$ BEGIN INSERT INTO acc VALUES (1); LOCK TABLE busy IN SHARE MODE; END $$;`,
  });
  await atWork(database, "002_b", true);
  await holder.release();
  assertEquals((await running).failed, null);
  assertEquals((await database.sql`SELECT n FROM acc`).length, 1);
});

const PARTITIONED = `CREATE TABLE p (d int) PARTITION BY RANGE (d);
CREATE TABLE "P 1" PARTITION OF p FOR VALUES FROM (1) TO (2); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (2) TO (3);
INSERT INTO p VALUES (1), (2);`;

for (const limited of [false, true]) {
  Deno.test(`DETACH PARTITION CONCURRENTLY beside a reader ${limited ? "and a limit that it overruns: finished by the next attempt" : "waits for it"}`, async () => {
    await using database = await TestDatabase.empty();
    await apply(database, { "001_a.sql": PARTITIONED });
    const reader = await database.hold("SELECT FROM p");
    const running = apply(database, {
      "001_a.sql": PARTITIONED,
      "002_det.sql": `${limited ? SHORT : MARK}ALTER TABLE p DETACH PARTITION "P 1" CONCURRENTLY;`,
    }, { lockTimeoutMs: 200 });
    await atWork(database, "002_det", true);
    if (limited) {
      await until(async () => {
        const [row] = await database
          .sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 002_det%FINALIZE%'
          AND datname = current_database()`;
        return row !== undefined;
      }, "it is being finished");
    }
    await reader.release();
    const { failed, notes } = await running;
    assertEquals(failed, null, notes.join("\n"));
    if (!limited) assert(notes.every((note) => !note.includes("attempt")), notes.join("\n"));
    assertEquals((await database.sql`SELECT FROM pg_inherits WHERE inhparent = 'p'::regclass`).length, 1);
  });
}

for (
  const [what, statement] of [
    ["an index", "REINDEX INDEX CONCURRENTLY t_id;"],
    ["a table with TOAST", "REINDEX (VERBOSE, CONCURRENTLY) TABLE t;"],
    ["a partitioned table", "REINDEX TABLE CONCURRENTLY parts;"],
    ["a schema", "REINDEX SCHEMA CONCURRENTLY app;"],
  ] as const
) {
  Deno.test(`REINDEX CONCURRENTLY of ${what} that is cut short leaves no INVALID index behind`, async () => {
    await using database = await TestDatabase.empty();
    const first = {
      "001_a.sql": `CREATE SCHEMA app; SET search_path = app;
CREATE TABLE t (id int, b text); CREATE INDEX t_id ON t (id); INSERT INTO t VALUES (1, 'x');
CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);
CREATE INDEX ON parts (id);`,
    };
    await apply(database, first);
    const old = await database.hold(
      "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM app.t, app.parts",
    );
    const running = apply(database, {
      ...first,
      "002_b.sql": `${SHORT}SET search_path = app;\n${statement}`,
    }, { lockRetries: 2 });
    const { failed } = await running;
    assertEquals(failed?.error.details.sqlstate, "55P03");
    // Those that cannot be removed while somebody looks on are named.
    for (const name of await invalid(database)) {
      if (!name.startsWith("pg_toast")) assertStringIncludes(failed!.left, name);
    }
    await old.release();
    assertEquals(
      (await apply(database, { ...first, "002_b.sql": `${MARK}SET search_path = app;\n${statement}` }))
        .failed,
      null,
    );
    assertEquals(await invalid(database), []);
  });
}

Deno.test("an INVALID index of somebody else's REINDEX is not ours to drop", async () => {
  await using database = await TestDatabase.empty();
  await apply(database, { "001_a.sql": `${TABLE} CREATE INDEX big_id ON big (id);` });
  const old = await database.hold("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM big");
  const other = connect(database.url);
  await other.unsafe("SET lock_timeout = 100").then(() => other.unsafe("REINDEX TABLE CONCURRENTLY big"))
    .catch(() => {});
  await old.release();
  await other.end({ timeout: 1 });
  const before = await invalid(database);
  assert(before.includes("big_id_ccnew"));
  const { failed } = await apply(database, {
    "001_a.sql": `${TABLE} CREATE INDEX big_id ON big (id);`,
    "002_b.sql": `${MARK}REINDEX INDEX CONCURRENTLY big_id;`,
  });
  assertEquals([failed, await invalid(database)], [null, before]);
});

Deno.test("a wait that blocks nobody has no limit but the file's: one build, beside an old snapshot", async () => {
  await using database = await TestDatabase.empty();
  await apply(database, { "001_a.sql": TABLE });
  const old = await database.hold("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1");
  const seen: string[] = [];
  const running = apply(database, {
    "001_a.sql": TABLE,
    "002_b.sql": `${MARK}CREATE INDEX CONCURRENTLY big_id ON big (id);\nDROP INDEX CONCURRENTLY big_id;`,
  }, {
    lockTimeoutMs: 100,
    lockRetries: 0,
    onActivity: (_, { blockers }) => void (blockers && seen.push(blockers)),
  });
  await atWork(database, "002_b", true);
  // The limit has passed many times over when it has been told who is waited for.
  await until(() => Promise.resolve(seen.length > 0), "it was told who is waited for");
  assertMatch(seen[0]!, /^pid \d+ \(postgres, .*idle in transaction/);
  await old.release();
  const { failed, notes } = await running;
  assertEquals([failed, notes], [null, []]);
});

Deno.test("--timeout bounds what has no limit of its own", async () => {
  await using database = await TestDatabase.empty();
  await apply(database, { "001_a.sql": TABLE });
  const old = await database.hold("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1");
  const { failed } = await apply(database, {
    "001_a.sql": TABLE,
    "002_b.sql": `${MARK}CREATE INDEX CONCURRENTLY big_id ON big (id);`,
  }, { timeoutMs: 1500 });
  await old.release();
  assertEquals(failed?.error.details.sqlstate, "55P03");
});

for (
  const [how, cancel] of [["ends the session", "pg_terminate_backend"], [
    "cancels it",
    "pg_cancel_backend",
  ]] as const
) {
  for (
    const [what, statement] of [
      ["CREATE INDEX CONCURRENTLY", "CREATE INDEX CONCURRENTLY big_id ON big (id)"],
      ["an UPDATE", "UPDATE big SET name = pg_sleep(1)::text"],
      ["VACUUM", "VACUUM (FREEZE) big"],
    ] as const
  ) {
    Deno.test(`an administrator ${how} while ${what} runs: told once, and not started again`, async () => {
      await using database = await TestDatabase.empty();
      await apply(database, { "001_a.sql": TABLE });
      const old = await database.hold(
        what === "VACUUM"
          ? "LOCK TABLE big IN SHARE UPDATE EXCLUSIVE MODE"
          : "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1",
      );
      const running = apply(database, { "001_a.sql": TABLE, "002_b.sql": `${MARK}${statement};` });
      const pid = await atWork(database, "002_b", what !== "an UPDATE");
      await database.sql.unsafe(`SELECT ${cancel}(${pid})`);
      const { failed, notes } = await running;
      await old.release();
      assertEquals(failed?.error.details.sqlstate, how === "cancels it" ? "57014" : "57P01");
      assertEquals(notes, []);
      assertStringIncludes(failed!.left, "is not done");
      const left = await invalid(database);
      for (const name of left) assertStringIncludes(failed!.left, name);
      assertEquals(
        (await apply(database, {
          "001_a.sql": TABLE,
          "002_b.sql": `${MARK}${statement.replace("pg_sleep(1)::text", "'x'")};`,
        })).failed,
        null,
      );
      assertEquals(await invalid(database), []);
    });
  }
}

Deno.test("transaction_timeout is the server's word, and no fault of the network", async () => {
  await using database = await TestDatabase.empty();
  const set = database.sql.unsafe(`ALTER DATABASE ${database.name} SET transaction_timeout = '500ms'`);
  // It came with 17.
  if (await majorVersion(database) < 17) {
    return void await assertRejects(() => set, Error, "unrecognized configuration parameter");
  }
  await set;
  for (const mark of ["", MARK]) {
    const { failed, notes } = await apply(database, { "001_a.sql": `${mark}SELECT pg_sleep(30);` });
    assertEquals([failed?.error.details.sqlstate, failed?.error.kind, notes], [
      "25P04",
      mark ? "connection" : "database",
      [],
    ]);
  }
});

Deno.test("the server crashes under a statement: told, and not run again", async () => {
  // What was committed has to be there after the crash.
  const server = await PostgresServer.start({ settings: { fsync: "on", synchronous_commit: "on" } });
  try {
    const admin = connect(server.url());
    for (const mark of ["", MARK]) {
      const label = mark ? "002_b" : "001_a";
      await using folder = await folderWith({
        "001_a.sql": "SELECT pg_sleep(1) FROM generate_series(1, 30);",
        ...(mark ? { "001_a.sql": "SELECT 1;", "002_b.sql": `${mark}SELECT pg_sleep(30);` } : {}),
      });
      const options = { dirs: [folder.path], embedded: false };
      if (!mark) {
        await using first = await folderWith({ "000_z.sql": "SELECT 1;" });
        const session = sessionFor(server.url());
        await migrate(session, { dirs: [first.path], embedded: false });
        await session.close();
      }
      const session = sessionFor(server.url());
      const running = migrate(session, { ...options, tolerance: { missing: true, outOfOrder: true } });
      let pid = 0;
      await until(async () => {
        const [row] =
          await admin`SELECT pid FROM pg_stat_activity WHERE query LIKE ${`-- pipeweave: ${label}%`} AND state = 'active'`;
        pid = row?.["pid"] ?? 0;
        return pid > 0;
      }, "it runs");
      Deno.kill(pid, "SIGKILL");
      const { failed } = await running;
      assertEquals(failed?.error.code, "crashed", `${label}: ${failed?.error.message}`);
      await session.close();
      if (!mark) await admin`DELETE FROM schema_migrations`;
    }
    await admin.end({ timeout: 1 });
  } finally {
    await server.stop();
  }
});

Deno.test("a half-done migration is not begun again because its directive or its number went", async () => {
  await using database = await TestDatabase.empty();
  const broken = `${MARK}INSERT INTO acc VALUES (1);\nINSERT INTO acc VALUES (2);\nSELECT 1/0;`;
  const first = { "001_a.sql": "CREATE TABLE acc (n int);" };
  await apply(database, { ...first, "002_b.sql": broken });
  const rows = async () => (await database.sql`SELECT n FROM acc ORDER BY 1`).map(({ n }) => n);

  for (
    const files of [
      { "002_b.sql": "INSERT INTO acc VALUES (1);\nINSERT INTO acc VALUES (2);\nSELECT 1;" },
      { "003_b.sql": broken.replace("1/0", "1") },
      { "002_other.sql": broken.replace("1/0", "1") },
      {},
    ] as Record<string, string>[]
  ) {
    await using folder = await folderWith({ ...first, ...files });
    const env = { DATABASE_URL: database.url };
    const args = ["--no-embedded", "--dir", folder.path];
    for (const command of [["db:migrate"], ["db:validate"], ["db:status", "--check"]]) {
      const { code, stdout, stderr } = await pipeweave([...command, ...args], { env });
      assertEquals(code, 5, `${command} ${JSON.stringify(files)}: ${stdout}${stderr}`);
      assertStringIncludes(stdout + stderr, "002_b is half done (statements 1 to 2 are done)");
    }
    assertStringIncludes(
      (await pipeweave(["db:status", ...args], { env })).stdout,
      "Half-done migrations: 1",
    );
    const { partial } = JSON.parse((await pipeweave(["db:status", "--json", ...args], { env })).stdout);
    assertEquals(partial, [{ version: "002", name: "b", done: 2, begun: null }]);
  }
  assertEquals(await rows(), [1, 2]);

  await using folder = await folderWith({ ...first, "002_b.sql": broken });
  const args = ["--no-embedded", "--dir", folder.path];
  const env = { DATABASE_URL: database.url };
  // By the journal alone, for a file that is as it was.
  assertStringIncludes(
    (await pipeweave(["db:status", ...args], { env })).stdout,
    "pending, HALF DONE: statements 1 to 2 are done",
  );
  const shorter = await apply(database, { ...first, "002_b.sql": `${MARK}INSERT INTO acc VALUES (1);` })
    .catch((error) => error);
  assertEquals(shorter.code, "changed_under_way");
  assertStringIncludes(shorter.details.hint, "--partial forget");
  const forgotten = await pipeweave([
    "db:repair",
    "--version",
    "002",
    "--partial",
    "forget",
    "--reason",
    "undone",
    ...args,
  ], { env });
  assertEquals(forgotten.code, 0, forgotten.stderr);
  await database.sql`TRUNCATE acc`;
  assertEquals(
    (await apply(database, { ...first, "002_b.sql": broken.replace(MARK, "").replace("1/0", "1") })).failed,
    null,
  );
  assertEquals(await rows(), [1, 2]);
});

Deno.test("a version is a number, however many zeros it has: half done, and at the same time", async () => {
  await using database = await TestDatabase.empty();
  await database.sql`CREATE TABLE acc (n int)`;
  const text = (end: string) => `${MARK}INSERT INTO acc VALUES (1);\n${end};`;
  await apply(database, { "001_a.sql": text("SELECT 1/0") });
  assertEquals((await apply(database, { "0001_a.sql": text("SELECT 1") })).failed, null);
  const [once] = await database
    .sql`SELECT (SELECT count(*)::int FROM acc) AS rows, (SELECT count(*)::int FROM migration_journal) AS journal`;
  assertEquals({ ...once }, { rows: 1, journal: 0 });

  const slow = "INSERT INTO acc SELECT 2 FROM pg_sleep(0.5);";
  const first = { "0001_a.sql": text("SELECT 1") };
  const running = apply(database, { ...first, "002_b.sql": slow });
  await atWork(database, "002_b");
  assertEquals((await apply(database, { ...first, "0002_b.sql": slow })).failed, null);
  assertEquals((await running).failed, null);
  assertEquals((await database.sql`SELECT FROM acc WHERE n = 2`).length, 1);
});

Deno.test("what a DO block or a procedure sets for the rest is told, and nothing goes to another schema", async () => {
  for (
    const statement of [
      "DO $$ BEGIN EXECUTE 'SET search_path = app'; END $$;",
      "DO $$ BEGIN PERFORM 1; COMMIT; SET ROLE pg_monitor; END $$;",
      "CALL sets();",
    ]
  ) {
    await using database = await TestDatabase.empty();
    const first = {
      "001_a.sql":
        "CREATE SCHEMA app; CREATE PROCEDURE sets() LANGUAGE plpgsql AS $$ BEGIN SET search_path = app; END $$;",
    };
    const { failed } = await apply(database, {
      ...first,
      "002_b.sql": `${MARK}${statement}\nCREATE TABLE x (i int);`,
    });
    assertEquals(failed?.error.details.sqlstate, "PW007", statement);
    const [row] = await database.sql`SELECT count(*)::int AS n FROM pg_class WHERE relname = 'x'`;
    assertEquals(row!["n"], 0);
  }
});

Deno.test("of a setting the last one holds: what an earlier one named may be gone", async () => {
  await using database = await TestDatabase.empty();
  const role = `bob_${database.name}`;
  const { failed } = await apply(database, {
    "001_a.sql":
      `${MARK}CREATE ROLE ${role}; SET ROLE ${role}; SELECT 1; RESET ROLE; DROP ROLE ${role}; SET work_mem = '5MB'; RESET ALL; CREATE TABLE x AS SELECT current_setting('work_mem') AS mem, current_user AS who;`,
  });
  assertEquals(failed, null);
  assertEquals({ ...(await database.sql`SELECT * FROM x`)[0] }, { mem: "4MB", who: "postgres" });
});

Deno.test("VACUUM in a DO block has done nothing, and leaves nothing to be decided", async () => {
  await using database = await TestDatabase.empty();
  const file = (statement: string) => ({ "001_a.sql": `${MARK}CREATE TABLE a (i int);\n${statement}` });
  const { failed } = await apply(database, file("DO $$ BEGIN VACUUM a; END $$;"));
  assertStringIncludes(failed!.left, "is not done");
  assertStringIncludes(failed!.error.details.hint!, "write it as a statement of its own");
  assertEquals((await apply(database, file("VACUUM a;"))).failed, null);
});

Deno.test("a baseline does not adopt what is half done", async () => {
  await using database = await TestDatabase.empty();
  const files = { "001_a.sql": `${MARK}CREATE TABLE a (n int);\nSELECT 1/0;` };
  await apply(database, files);
  await using folder = await folderWith(files);
  const { code, stderr } = await pipeweave(["db:baseline", "001", "--no-embedded", "--dir", folder.path], {
    env: { DATABASE_URL: database.url },
  });
  assertEquals(code, 5);
  assertStringIncludes(stderr, "001_a is half done (statement 1 is done). Nothing was recorded");
});

for (
  const [what, sql] of [
    ["a temporary table", "CREATE TEMP TABLE ids AS SELECT 1; SELECT 1;"],
    ["a temporary view", "CREATE TEMPORARY VIEW v AS SELECT 1;"],
    ["SELECT INTO a temporary table", "SELECT 1 AS n INTO TEMP x;"],
    ["a table of pg_temp", "CREATE TABLE pg_temp.x (n int);"],
    ["a function of pg_temp", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1';"],
    ["a prepared statement", "PREPARE q AS SELECT 1; EXECUTE q;"],
    ["a cursor", "DECLARE c CURSOR WITH HOLD FOR SELECT 1; FETCH c;"],
    ["SET TRANSACTION", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1;"],
    ["SET SESSION CHARACTERISTICS", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE;"],
    ["SET LOCAL", "SET LOCAL search_path = app; CREATE TABLE t (id int);"],
    [
      "set_config among other things",
      "SELECT set_config('search_path', x, false) FROM (SELECT 'app' AS x) y; CREATE TABLE t (id int);",
    ],
    [
      "set_config for a transaction that there is none of",
      "SELECT set_config('search_path', 'app', 't'); CREATE TABLE t (id int);",
    ],
    ["LISTEN", "LISTEN x;"],
  ] as const
) {
  Deno.test(`${what} outside a transaction is refused by validation`, async () => {
    await using folder = await folderWith({ "001_a.sql": `${MARK}${sql}` });
    const { code, stdout } = await pipeweave([
      "db:validate",
      "--offline",
      "--no-embedded",
      "--dir",
      folder.path,
      "--json",
    ]);
    assertEquals(code, 5);
    assertEquals(JSON.parse(stdout).findings[0].code, "session_state");
  });
}

for (
  const [what, set] of [
    ["set_config, as pg_dump writes it", "SELECT pg_catalog.set_config('search_path', 'app', false);"],
    [
      "two of them in one statement",
      "SELECT set_config('search_path', 'app', false), set_config('work_mem', '5MB', false);",
    ],
    ["SET", "SET search_path = app;"],
    ["SET behind DISCARD ALL", "SET search_path = elsewhere; DISCARD ALL; SET search_path TO app;"],
  ] as const
) {
  Deno.test(`${what} holds for the statements after it`, async () => {
    await using database = await TestDatabase.empty();
    const { failed } = await apply(database, {
      "001_a.sql":
        `${MARK}CREATE SCHEMA app;\n${set}\nCREATE TABLE t (id int);\nCREATE INDEX CONCURRENTLY t_id ON t (id);`,
    });
    assertEquals(failed, null);
    const rows = await database
      .sql`SELECT relnamespace::regnamespace::text AS schema FROM pg_class WHERE relname IN ('t', 't_id')`;
    assertEquals(rows.map(({ schema }) => schema), ["app", "app"]);
  });
}

Deno.test("a function that changes search_path or role for the rest is refused, and leaves nothing", async () => {
  for (
    const change of ["set_config('search_path', 'app', false)", "set_config('role', 'pg_monitor', false)"]
  ) {
    await using database = await TestDatabase.empty();
    const { failed } = await apply(database, {
      "001_a.sql": `CREATE SCHEMA app; CREATE TABLE log (n int);
        CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (1); PERFORM ${change}; END $$;`,
      "002_b.sql": `${MARK}SELECT f();\nCREATE TABLE t (id int);`,
    });
    assertEquals(failed?.error.details.sqlstate, "PW007");
    const [row] = await database
      .sql`SELECT (SELECT count(*)::int FROM log) AS log, to_regclass('app.t') AS app, to_regclass('public.t') AS public`;
    assertEquals({ ...row }, { log: 0, app: null, public: null });
  }
});

Deno.test("what PostgreSQL refuses in a transaction only when it runs is run alone", async () => {
  await using database = await TestDatabase.empty();
  const first = {
    "001_a.sql": `${PARTITIONED} CREATE INDEX p_d ON p (d); CREATE TABLE plain (n int);`,
  };
  // CLUSTER of a partitioned table came with 15.
  const clusters = await majorVersion(database) >= 15;
  const { failed } = await apply(database, {
    ...first,
    "002_b.sql": `${MARK}REINDEX TABLE p;\nREINDEX INDEX p_d;\n${
      clusters ? "CLUSTER p USING p_d;" : ""
    }\nALTER DATABASE ${database.name} SET TABLESPACE pg_default;\nINSERT INTO plain VALUES (1);`,
  });
  // PostgreSQL moves no database that somebody is connected to.
  assertEquals(failed?.error.details.sqlstate, "55006");
  assertStringIncludes(failed!.left, `statements 1 to ${clusters ? 3 : 2} are done and stay`);
  const inTransaction = await apply(database, { ...first, "002_c.sql": "REINDEX TABLE p;" }).catch((error) =>
    error
  );
  assertEquals(inTransaction.code, "half_done");
});

Deno.test("a hint at no-transaction, where the server says that a transaction is in the way", async () => {
  await using database = await TestDatabase.empty();
  const first = {
    "001_a.sql": `${PARTITIONED} CREATE INDEX p_d ON p (d);
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$; CREATE TYPE mood AS ENUM ('a');`,
  };
  for (
    const [sql, sqlstate] of [
      ["REINDEX TABLE p;", "25001"],
      ["CALL commits();", "2D000"],
      ["DO $$ BEGIN COMMIT; END $$;", "2D000"],
      ["ALTER TYPE mood ADD VALUE 'b'; SELECT 'b'::mood;", "55P04"],
    ]
  ) {
    const { failed } = await apply(database, { ...first, "002_b.sql": sql! });
    assertEquals(failed?.error.details.sqlstate, sqlstate);
    assertStringIncludes(failed!.error.details.hint!, "-- pipeweave: no-transaction");
  }
});

Deno.test("CREATE DATABASE that was cut off before it was noted is seen to be done; so is DROP DATABASE", async () => {
  await using database = await TestDatabase.empty();
  const name = `made_by_${database.name}`;
  const file = { "001_a.sql": `${MARK}SELECT 1;\nCREATE DATABASE ${name};\nSELECT 1/0;\n` };
  await apply(database, file);
  const forgetEnd = () => database.sql`UPDATE migration_journal SET finished_at = NULL WHERE statement = 2`;
  await forgetEnd();
  const again = await apply(database, { "001_a.sql": file["001_a.sql"].replace("1/0", "1") });
  assertEquals(again.failed, null);
  assertStringIncludes(
    again.notes.join("\n"),
    "statement 2 is done: the run that was cut off had carried it out",
  );

  const drop = {
    ...file,
    "001_a.sql": file["001_a.sql"].replace("1/0", "1"),
    "002_b.sql": `${MARK}SELECT 1;\nDROP DATABASE ${name};\nSELECT 1/0;`,
  };
  await apply(database, drop);
  await forgetEnd();
  const dropped = await apply(database, { ...drop, "002_b.sql": drop["002_b.sql"].replace("1/0", "1") });
  assertEquals(dropped.failed, null);
});

Deno.test("SIGTERM while an index is built: what is left is looked at and told", async () => {
  await using database = await TestDatabase.empty();
  await apply(database, { "001_a.sql": TABLE });
  const old = await database.hold("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1");
  await using folder = await folderWith({
    "001_a.sql": TABLE,
    "002_b.sql": `${MARK}CREATE INDEX CONCURRENTLY big_id ON big (id);`,
  });
  const run = new Run(["db:migrate", "--no-embedded", "--dir", folder.path], {
    env: { DATABASE_URL: database.url },
  });
  await atWork(database, "002_b", true);
  await until(async () => (await invalid(database)).length > 0, "the index is there");
  run.kill("SIGTERM");
  const { code, stderr } = await run.outcome;
  await old.release();
  assertEquals([code, await invalid(database)], [143, ["big_id"]], stderr);
  assertStringIncludes(stderr, "after dropping what is left and INVALID: public.big_id");
});
