/** Migrations on engines that lack something of PostgreSQL: what remains works, and nothing is applied twice. */

import { assert, assertEquals } from "@std/assert";
import { baseline } from "../src/commands/history.ts";
import { migrate } from "../src/commands/migrate.ts";
import { rollback } from "../src/commands/rollback.ts";
import { folderWith } from "./support/binary.ts";
import { sessionFor, TestDatabase } from "./support/database.ts";

const FILES: Readonly<Record<string, string>> = {
  "001_one.sql": "CREATE TABLE applied (n int); INSERT INTO applied VALUES (1);",
  "001_one.down.sql": "DROP TABLE applied;",
  "002_two.sql": "INSERT INTO applied VALUES (2);",
  "002_two.down.sql": "DELETE FROM applied WHERE n = 2;",
  "003_three.sql": "-- pipeweave: no-transaction\nCREATE INDEX CONCURRENTLY applied_n ON applied (n);",
  "003_three.down.sql": "DROP INDEX applied_n;",
  "004_four.sql": "INSERT INTO applied VALUES (4);",
  "004_four.down.sql": "DELETE FROM applied WHERE n = 4;",
};

/** Advisory locks that are granted to everybody, as CockroachDB's are. */
const GRANTED_TO_ALL = `
  CREATE OR REPLACE FUNCTION pg_catalog.pg_try_advisory_xact_lock(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true';
  CREATE OR REPLACE FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) RETURNS void LANGUAGE sql AS 'SELECT';`;
/** Advisory locks that are refused, as engines without them do. */
const REFUSED = `
  CREATE OR REPLACE FUNCTION pg_catalog.pg_try_advisory_xact_lock(bigint) RETURNS boolean LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION SQLSTATE ''0A000'' USING MESSAGE = ''advisory locks are not supported''; END';
  CREATE OR REPLACE FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) RETURNS void LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION SQLSTATE ''0A000'' USING MESSAGE = ''advisory locks are not supported''; END';
  CREATE OR REPLACE FUNCTION pg_catalog.pg_advisory_unlock_all() RETURNS void LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION SQLSTATE ''0A000'' USING MESSAGE = ''advisory locks are not supported''; END';`;

for (const [name, lack] of Object.entries({ "granted to all": GRANTED_TO_ALL, "refused": REFUSED })) {
  Deno.test(`advisory locks ${name}: eight migrators at once apply each migration once`, async () => {
    await using database = await TestDatabase.empty();
    await using folder = await folderWith(FILES);
    await database.sql.unsafe(lack);
    const terms = { dirs: [folder.path], embedded: false, lockWaitMs: 60_000 };
    const runs = await Promise.all(
      Array.from({ length: 8 }, () => migrate(database.session(), terms)),
    );
    assertEquals(runs.flatMap(({ failed }) => failed?.error.message ?? []), []);
    const applied = runs.flatMap((run) => run.applied.map(({ migration }) => migration.version));
    assertEquals(applied.sort(), ["001", "002", "003", "004"]);
    assertEquals((await database.sql`SELECT n FROM applied ORDER BY n`).map(({ n }) => n), [1, 2, 4]);
    await rollback(database.session(), { ...terms, steps: 2 });
    assertEquals((await database.sql`SELECT n FROM applied ORDER BY n`).map(({ n }) => n), [1, 2]);
    await rollback(database.session(), { ...terms, steps: 2 });
    assertEquals((await baseline(database.session(), "004", terms)).adopted.length, 4);
  });

  Deno.test(`advisory locks ${name}: a migrator waits for one that is at work`, async () => {
    await using database = await TestDatabase.empty();
    await using folder = await folderWith({ "001_one.sql": FILES["001_one.sql"]! });
    await database.sql.unsafe(lack);
    const terms = { dirs: [folder.path], embedded: false };
    await migrate(database.session(), terms);
    await using slow = await folderWith({
      "001_one.sql": FILES["001_one.sql"]!,
      "002_two.sql": "LOCK TABLE applied; INSERT INTO applied VALUES (2);",
    });
    // Held until the first migrator has its turn, and the second one has been told of it.
    const held = await database.hold("LOCK TABLE applied");
    const first = migrate(database.session(), { ...terms, dirs: [slow.path], lockWaitMs: 60_000 });
    await blocked(database);
    const told = Promise.withResolvers<string>();
    const second = migrate(database.session(), {
      ...{ dirs: [slow.path], embedded: false, lockWaitMs: 60_000 },
      onLockWait: (holder) => told.resolve(holder),
    });
    assert((await told.promise).length > 0);
    await held.release();
    const results = await Promise.all([first, second]);
    assertEquals(results.map(({ applied }) => applied.length).sort(), [0, 1]);
  });
}

/** Ends when a session of the database waits for a lock. */
async function blocked({ sql, name }: TestDatabase): Promise<void> {
  for (;;) {
    const [row] =
      await sql`SELECT FROM pg_stat_activity WHERE datname = ${name} AND wait_event_type = 'Lock'`;
    if (row) return;
  }
}

Deno.test("a role that may not take advisory locks migrates", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith(FILES);
  const role = `r_${database.name}`;
  await database.sql.unsafe(`CREATE ROLE ${role} LOGIN; GRANT CREATE ON SCHEMA public TO ${role};
    REVOKE EXECUTE ON FUNCTION pg_advisory_xact_lock(bigint), pg_try_advisory_xact_lock(bigint),
      pg_advisory_unlock_all() FROM PUBLIC`);
  try {
    const session = sessionFor(database.url.replace("postgres@", `${role}@`));
    const { applied, failed } = await migrate(session, { dirs: [folder.path], embedded: false });
    assertEquals([failed, applied.length], [null, 4]);
    await session.close();
  } finally {
    await database.sql.unsafe(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  }
});

Deno.test("without triggers people's own migrations work, and the log says what it is without", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith(FILES);
  await database.sql.unsafe(`
    CREATE FUNCTION no_triggers() RETURNS event_trigger LANGUAGE plpgsql
      AS 'BEGIN RAISE EXCEPTION SQLSTATE ''0A000'' USING MESSAGE = ''triggers are not supported''; END';
    CREATE EVENT TRIGGER no_triggers ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION no_triggers();`);
  const { applied, failed } = await migrate(database.session(), { dirs: [folder.path], embedded: false });
  assertEquals([failed, applied.length], [null, 4]);
});
