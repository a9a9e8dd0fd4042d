/** Everything through PgBouncer in transaction mode, where two transactions need not meet the same server connection. */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { folderWith, pipeweave, Run, until } from "./support/binary.ts";
import { connect, queueTasks, TestDatabase } from "./support/database.ts";
import { PgBouncer } from "./support/pgbouncer.ts";

const MARK = "-- pipeweave: no-transaction\n";
const TABLE =
  "CREATE TABLE big (id int, name text); INSERT INTO big SELECT i, 'n' || i FROM generate_series(1, 20000) i;";
const INDEXES = `${MARK}CREATE INDEX CONCURRENTLY big_id ON big (id);
CREATE INDEX CONCURRENTLY big_name ON big (name);
ANALYZE big;`;

/** What nothing may leave behind. */
async function leftovers({ sql }: TestDatabase): Promise<unknown> {
  const [row] = await sql`SELECT (SELECT count(*)::int FROM migration_journal) AS journal,
    (SELECT count(*)::int FROM migration_lease WHERE holder IS NOT NULL) AS leases,
    (SELECT count(*)::int FROM pg_index WHERE NOT indisvalid) AS invalid,
    (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS locks`;
  return { ...row };
}
const NOTHING = { journal: 0, leases: 0, invalid: 0, locks: 0 };

Deno.test("through PgBouncer: the whole workflow, in any schema", async () => {
  await using database = await TestDatabase.empty();
  const server = new URL(database.url);
  await using folder = await folderWith({
    "101_big.sql": TABLE,
    "102_indexes.sql": INDEXES,
    "103_more.sql": "ALTER TABLE big ADD COLUMN x int;",
    "103_more.down.sql": "ALTER TABLE big DROP COLUMN x;",
  });
  for (const schema of ["public", "Other Schema"]) {
    // Where the files' own names go is the database's to say.
    await database.sql.unsafe(`ALTER DATABASE ${database.name} SET search_path = "${schema}"`);
    await using bouncer = await PgBouncer.start(server, 3);
    const env = { DATABASE_URL: bouncer.url(server, database.name) };
    const call = async (line: string, code = 0): Promise<string> => {
      const args = [...line.split(" "), "--schema", schema];
      const outcome = await pipeweave(args, { env });
      assertEquals(outcome.code, code, `${line}: ${outcome.stderr}`);
      return outcome.stdout;
    };
    const set = `--embedded --dir ${folder.path}`;
    assertStringIncludes(await call(`db:status ${set}`), "Pending migrations: 8");
    assertStringIncludes(await call(`db:migrate ${set} --dry-run=execute`), "Everything was rolled back");
    assertStringIncludes(await call(`db:migrate ${set}`), "✓ Applied 8 migration(s)");
    assertStringIncludes(await call(`db:migrate ${set}`), "All migrations up to date");
    await call(`db:validate ${set}`);
    assertStringIncludes(await call(`db:rollback ${set} --yes`), "✓ Rolled back 103_more");
    await call(`db:status --check ${set}`, 3);
    await call("maintenance:request");
    assertStringIncludes(await call("maintenance:status"), "Mode: maintenance");
    await call(`db:migrate ${set}`);
    await call("maintenance:exit");
    assertStringIncludes(await call("db:history --limit 1"), "apply 103_more: done");
    const [indexes] = await database.sql`
      SELECT count(*)::int AS n FROM pg_indexes WHERE schemaname = ${schema} AND tablename = 'big'`;
    assertEquals(indexes!["n"], 2);
  }
  assertEquals(await leftovers(database), NOTHING);
});

Deno.test("through PgBouncer: migrators at once, others at work, and nobody sees anybody's settings", async () => {
  await using database = await TestDatabase.migrated();
  await queueTasks(database.sql, ["completed"]);
  const server = new URL(database.url);
  await using bouncer = await PgBouncer.start(server, 4);
  const url = bouncer.url(server, database.name);
  await using folder = await folderWith({
    ...Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [`${110 + i}_t.sql`, `CREATE TABLE t${i} (id int);`]),
    ),
    "140_big.sql": TABLE,
    "141_indexes.sql": INDEXES,
    "142_last.sql": "SELECT 1;",
  });
  const seen = new Set<string>();
  let busy = true;
  const others = Array.from({ length: 6 }, async () => {
    const sql = connect(url, { prepare: false });
    while (busy) {
      const [row] = await sql`SELECT current_setting('lock_timeout') || ' ' || current_setting('search_path')
        || ' ' || (SELECT count(*) FROM services) AS settings`;
      seen.add(row!["settings"]);
    }
    await sql.end();
  });
  const args = ["db:migrate", "--dir", folder.path];
  const runs = await Promise.all(
    Array.from({ length: 8 }, () => pipeweave(args, { env: { DATABASE_URL: url } })),
  );
  busy = false;
  await Promise.all(others);
  assertEquals(runs.map(({ code }) => code), runs.map(() => 0), runs.map(({ stderr }) => stderr).join(""));
  const applied = runs.flatMap(({ stdout }) => stdout.match(/✓ Applied \d+_\w+/g) ?? []);
  assertEquals(applied.length, new Set(applied).size);
  assertEquals(applied.length, 23);
  assertEquals([...seen], ['0 "$user", public 1']);
  assertEquals(await leftovers(database), NOTHING);
});

Deno.test("through PgBouncer: SIGINT cancels on the server; after kill -9 the next run goes on", async () => {
  await using database = await TestDatabase.empty();
  const server = new URL(database.url);
  await using bouncer = await PgBouncer.start(server, 3);
  const env = { DATABASE_URL: bouncer.url(server, database.name) };
  const sleeping = async () => {
    const [row] = await database.sql`SELECT count(*)::int AS n FROM pg_stat_activity
      WHERE datname = current_database() AND state = 'active' AND query LIKE '-- pipeweave: %pg_sleep%'`;
    return row!["n"] > 0;
  };
  await using folder = await folderWith({
    "001_table.sql": "CREATE TABLE t (id int);",
    "002_slow.sql": "INSERT INTO t VALUES (1); SELECT pg_sleep(60);",
  });
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path, "--lease", "1s"];
  const interrupted = new Run(args, { env });
  await until(sleeping, "the slow migration runs");
  interrupted.kill("SIGINT");
  const outcome = await interrupted.outcome;
  assertEquals(outcome.code, 130, outcome.stderr);
  await until(async () => !await sleeping(), "the server has stopped");
  assertEquals((await database.sql`SELECT * FROM t`).length, 0);

  const slow = `${MARK}INSERT INTO t VALUES (2);\nSELECT pg_sleep(2);\nINSERT INTO t VALUES (3);`;
  await Deno.writeTextFile(`${folder.path}/002_slow.sql`, slow);
  const killed = new Run(args, { env });
  await until(sleeping, "the slow statement runs");
  killed.kill("SIGKILL");
  await killed.outcome;
  const next = await pipeweave(args, { env });
  assertEquals(next.code, 0, next.stderr);
  assert(/takes over from|goes on at statement/.test(next.stderr), next.stderr);
  assertEquals((await database.sql`SELECT id FROM t ORDER BY 1`).map(({ id }) => id), [2, 3]);
  assertEquals(await leftovers(database), NOTHING);
});
