/**
 * Every class of statement outside a transaction, with every way of being disturbed at every step, and then run again:
 * nothing is done twice, nothing is INVALID, and what was said is so in the catalog.
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { settlePartial } from "../src/commands/history.ts";
import { migrate } from "../src/commands/migrate.ts";
import { migrationStatus } from "../src/commands/status.ts";
import { UNKNOWN_ACTOR } from "../src/config/actor.ts";
import { PipeweaveError } from "../src/errors.ts";
import { folderWith, Run, until } from "./support/binary.ts";
import { sessionFor, TestDatabase, urlOf } from "./support/database.ts";
import { Proxy } from "./support/proxy.ts";

/** A statement of a class, and how to see how often it was carried out. */
interface Case {
  readonly statement: string;
  /** Holds up the statement, in a transaction of somebody else's. */
  readonly holder: string;
  /** How often it was carried out, or 1 where the state is the one that is wanted. */
  readonly count: string;
  /** Whether it may commit inside. */
  readonly opaque?: true;
}

const SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM t, parts";
const VALID = (name: string) =>
  `SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('${name}') AND indisvalid`;

const CASES: Readonly<Record<string, Case>> = {
  "an INSERT": {
    statement: "INSERT INTO done VALUES (1)",
    holder: "LOCK TABLE done IN SHARE MODE",
    count: "SELECT count(*) FROM done",
  },
  "a DO block that cannot commit": {
    statement: "DO $$ BEGIN INSERT INTO done VALUES (1); END $$",
    holder: "LOCK TABLE done IN SHARE MODE",
    count: "SELECT count(*) FROM done",
  },
  "CREATE INDEX CONCURRENTLY": {
    statement: "CREATE INDEX CONCURRENTLY t_new ON t (id)",
    holder: SNAPSHOT,
    count: VALID("t_new"),
  },
  "DROP INDEX CONCURRENTLY": {
    statement: "DROP INDEX CONCURRENTLY t_old",
    holder: "SELECT FROM t",
    count: "SELECT (to_regclass('t_old') IS NULL)::int",
  },
  "REINDEX CONCURRENTLY": {
    statement: "REINDEX TABLE CONCURRENTLY t",
    holder: SNAPSHOT,
    count: VALID("t_old"),
  },
  "DETACH PARTITION CONCURRENTLY": {
    statement: "ALTER TABLE parts DETACH PARTITION parts_1 CONCURRENTLY",
    holder: "SELECT FROM parts",
    count:
      "SELECT count(*) FROM pg_class WHERE relname = 'parts_1' AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = 'parts_1'::regclass)",
  },
  "VACUUM": {
    statement: "VACUUM t",
    holder: "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE",
    count: "SELECT 1",
  },
  "REINDEX of a partitioned table": {
    statement: "REINDEX TABLE parts",
    holder: "LOCK TABLE parts_1 IN ROW EXCLUSIVE MODE",
    count: "SELECT 1",
  },
  "CALL": {
    statement: "CALL twice()",
    holder: "LOCK TABLE done IN SHARE MODE",
    count: "SELECT count(*) / 2 FROM done",
    opaque: true,
  },
  "a DO block that commits": {
    statement: "DO $$ BEGIN INSERT INTO done VALUES (1); COMMIT; INSERT INTO done VALUES (2); END $$",
    holder: "LOCK TABLE done IN SHARE MODE",
    count: "SELECT count(*) / 2 FROM done",
    opaque: true,
  },
};

const FIRST = `CREATE TABLE t (id int, b text); CREATE INDEX t_old ON t (id); INSERT INTO t VALUES (1, 'x');
CREATE TABLE parts (d int) PARTITION BY RANGE (d); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (2);
CREATE TABLE done (n int); CREATE TABLE around (n int);
CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO done VALUES (1); COMMIT; INSERT INTO done VALUES (2); END $$;`;

function filesOf({ statement }: Case): Record<string, string> {
  return {
    "001_first.sql": FIRST,
    "002_case.sql":
      `-- pipeweave: no-transaction\n-- pipeweave: lock-timeout 30s\nINSERT INTO around VALUES (1);\n${statement};\nINSERT INTO around VALUES (2);`,
  };
}

async function prepared(one: Case): Promise<TestDatabase> {
  const database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_first.sql": FIRST });
  await migrate(database.session(), { dirs: [folder.path], embedded: false });
  void one;
  return database;
}

async function countOf({ sql }: TestDatabase, { count }: Case): Promise<number> {
  return Number(Object.values((await sql.unsafe(count))[0]!)[0]);
}

/** Runs it to its end, saying what only people can know, and looks at what there is then. */
async function assertWholeInTheEnd(
  database: TestDatabase,
  name: string,
  folder: string,
  how: string,
): Promise<void> {
  const one = CASES[name]!;
  const what = `${name}, ${how}`;
  const options = { dirs: [folder], embedded: false, leaseMs: 1000 };
  const run = () => migrate(database.session(), options).catch((error: unknown) => error as PipeweaveError);
  let result = await run();
  if (!(result instanceof PipeweaveError) && result.failed?.error.code === "end_unknown") {
    assert(one.opaque, what);
    assertEquals((await migrationStatus(database.session(), options)).partial[0]?.begun, 2, what);
    const done = await countOf(database, one) === 1;
    if (!done) await database.sql`DELETE FROM done`;
    await settlePartial(database.session(), "002", done ? "done" : "again", {
      actor: UNKNOWN_ACTOR,
      reason: "looked",
    });
    result = await run();
  }
  assert(!(result instanceof PipeweaveError), `${what}: ${result}`);
  assertEquals(result.failed, null, what);
  assertEquals(await countOf(database, one), 1, what);
  const [row] = await database.sql`SELECT (SELECT array_agg(n ORDER BY n) FROM around) AS around,
    (SELECT count(*)::int FROM migration_journal) AS journal,
    (SELECT count(*)::int FROM pg_index WHERE NOT indisvalid AND indexrelid::regclass::text NOT LIKE 'pg_toast%') AS invalid`;
  assertEquals({ ...row }, { around: "{1,2}", journal: 0, invalid: 0 }, what);
}

async function pidOf({ sql }: TestDatabase): Promise<number> {
  let pid = 0;
  await until(async () => {
    const [row] =
      await sql`SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
      AND query LIKE '-- pipeweave: 002_case%' AND wait_event_type = 'Lock'`;
    pid = row?.["pid"] ?? 0;
    return pid > 0;
  }, "the statement waits");
  return pid;
}

for (const [name, one] of Object.entries(CASES)) {
  Deno.test(`${name}: the client is killed, and the statement goes on without it`, async () => {
    await using database = await prepared(one);
    await using folder = await folderWith(filesOf(one));
    const holder = await database.hold(one.holder);
    const run = new Run(["db:migrate", "--no-embedded", "--dir", folder.path, "--lease", "1s"], {
      env: { DATABASE_URL: database.url },
    });
    await pidOf(database);
    run.kill("SIGKILL");
    await run.outcome;
    await holder.release();
    await assertWholeInTheEnd(database, name, folder.path, "killed");
  });

  for (const end of ["pg_terminate_backend", "pg_cancel_backend"]) {
    Deno.test(`${name}: ${end}`, async () => {
      await using database = await prepared(one);
      await using folder = await folderWith(filesOf(one));
      const holder = await database.hold(one.holder);
      const running = migrate(database.session(), { dirs: [folder.path], embedded: false });
      await database.sql.unsafe(`SELECT ${end}(${await pidOf(database)})`);
      const { failed } = await running;
      await holder.release();
      assertStringIncludes(
        failed!.left,
        one.opaque ? "a part of it may be committed" : "is not done, statement 1 is done",
      );
      assertEquals(
        await countOf(database, one) === 1 && /an INSERT|DO block|CREATE|DROP|DETACH|CALL/.test(name),
        false,
      );
      await assertWholeInTheEnd(database, name, folder.path, end);
    });
  }

  Deno.test(`${name}: a lock that is not free in time`, async () => {
    await using database = await prepared(one);
    const files = filesOf(one);
    files["002_case.sql"] = files["002_case.sql"]!.replace("30s", "200ms");
    await using folder = await folderWith(files);
    const holder = await database.hold(one.holder);
    const { failed } = await migrate(database.session(), {
      dirs: [folder.path],
      embedded: false,
      lockRetries: 1,
    });
    await holder.release();
    assertEquals(failed?.error.details.sqlstate, "55P03");
    const [journal] = await database
      .sql`SELECT count(*)::int AS n FROM migration_journal WHERE statement = 2`;
    assertEquals(failed!.left.includes("a part of it may be committed"), one.opaque === true);
    if (one.opaque) assertEquals(journal!["n"], 1);
    await assertWholeInTheEnd(database, name, folder.path, "lock timeout");
  });

  Deno.test(`${name}: the connection cut after every message of the server`, async () => {
    await using folder = await folderWith(filesOf(one));
    // Every place would take minutes for each class; so each has places of its own.
    for (let cutAfter = 60 + Object.keys(CASES).indexOf(name);; cutAfter += Object.keys(CASES).length + 1) {
      await using database = await prepared(one);
      await using proxy = new Proxy(new URL(urlOf("x")), { cutAfter });
      const session = sessionFor(proxy.url(database.name));
      const outcome = await migrate(session, { dirs: [folder.path], embedded: false, leaseMs: 1000 })
        .catch((error: unknown) => error);
      await session.close();
      if (!(outcome instanceof PipeweaveError)) {
        const { failed } = outcome as Awaited<ReturnType<typeof migrate>>;
        // What was sent once and may have committed is for people to say; all else has gone on by itself.
        if (failed) {
          assert(
            one.opaque && /end of the statement|may be committed/.test(failed.left),
            `${cutAfter}: ${failed.left}`,
          );
        }
      }
      await assertWholeInTheEnd(database, name, folder.path, `cut after ${cutAfter}`);
      if (!proxy.cut) break;
    }
  });
}
