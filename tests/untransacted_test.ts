/** Migrations outside a transaction: the journal, the lease, and indexes that an attempt left half-built. */

import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { migrate, type MigrateOptions } from "../src/commands/migrate.ts";
import { PipeweaveError } from "../src/errors.ts";
import { folderWith, pipeweave, Run, until } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const MARK = "-- pipeweave: no-transaction\n";

/** Applies the given files, and collects what was told. */
async function apply(
  database: TestDatabase,
  files: Record<string, string>,
  options: MigrateOptions = {},
): Promise<Awaited<ReturnType<typeof migrate>> & { notes: string[] }> {
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

async function leftovers({ sql }: TestDatabase): Promise<unknown> {
  const [row] = await sql`SELECT (SELECT count(*)::int FROM migration_journal) AS journal,
    (SELECT count(*)::int FROM migration_lease WHERE holder IS NOT NULL) AS leases,
    (SELECT count(*)::int FROM pg_index WHERE NOT indisvalid) AS invalid,
    (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS locks`;
  return { ...row };
}
const NOTHING = { journal: 0, leases: 0, invalid: 0, locks: 0 };

const TABLE =
  "CREATE TABLE big (id int, name text); INSERT INTO big SELECT i, 'n' || i FROM generate_series(1, 500) i;";

Deno.test("two indexes CONCURRENTLY, a VACUUM, a procedure that commits and plain SQL in one file", async () => {
  await using database = await TestDatabase.empty();
  const { applied, failed } = await apply(database, {
    "001_big.sql": TABLE,
    "002_indexes.sql": `${MARK}SET maintenance_work_mem = '7MB';
CREATE INDEX CONCURRENTLY big_id ON big (id);
CREATE TABLE seen AS SELECT current_setting('maintenance_work_mem') AS mem; -- "quoted; not a statement"
CREATE INDEX CONCURRENTLY IF NOT EXISTS "big Name" ON public.big (name);
CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO big VALUES (-1); COMMIT; INSERT INTO big VALUES (-2); END $$;
CALL fill();
VACUUM ANALYZE big;
`,
    "003_after.sql": "CREATE TABLE after_it (id int);",
  });
  assertEquals([failed, applied.map(({ migration }) => migration.version)], [null, ["001", "002", "003"]]);
  const [row] = await database
    .sql`SELECT (SELECT count(*)::int FROM pg_index JOIN pg_class c ON c.oid = indexrelid
    WHERE relname IN ('big_id', 'big Name') AND indisvalid) AS indexes, (SELECT mem FROM seen) AS mem,
    (SELECT count(*)::int FROM big WHERE id < 0) AS called`;
  assertEquals({ ...row }, { indexes: 2, mem: "7MB", called: 2 });
  assertEquals(await leftovers(database), NOTHING);
  const [log] = await database.sql`SELECT details FROM migration_log WHERE version = '002'`;
  assertEquals(log!["details"], { transaction: false, statements: 7 });
});

Deno.test("a statement fails: those before it stay, the next run goes on with it, at the right place", async () => {
  await using database = await TestDatabase.empty();
  const file = (fixed: string) => ({
    "001_big.sql": TABLE,
    "002_steps.sql": `${MARK}CREATE TABLE one (id int);
INSERT INTO one VALUES (1);
CREATE INDEX CONCURRENTLY one_id ON one (id);
  INSERT INTO one VALUES (${fixed});
VACUUM one;`,
  });
  const { failed, status } = await apply(database, file("1 / 0"));
  assertEquals([failed?.error.details.sqlstate, failed?.error.details.location?.line], ["22012", 5]);
  assertEquals(
    failed?.left,
    "002_steps runs outside a transaction: statement 4 of 5 (INSERT INTO one VALUES (1 / 0)) is not done, statements 1 to 3 are done and stay; the next db:migrate goes on with it",
  );
  assertEquals(status.pending.map(({ version }) => version), ["002"]);
  const again = await apply(database, file("2"));
  assertEquals(again.failed, null);
  assertStringIncludes(again.notes.join("\n"), "goes on at statement 4 of 5");
  assertEquals((await database.sql`SELECT id FROM one ORDER BY 1`).map(({ id }) => id), [1, 2]);
  assertEquals(await leftovers(database), NOTHING);
  const log = await database.sql`SELECT outcome FROM migration_log WHERE version = '002' ORDER BY id`;
  assertEquals(log.map(({ outcome }) => outcome), ["failed", "done"]);
});

Deno.test("what has run may not be edited under way; what has not may", async () => {
  await using database = await TestDatabase.empty();
  const file = (first: string) => ({
    "001_steps.sql": `${MARK}CREATE TABLE one (id ${first});\nINSERT INTO one VALUES (1 / 0);`,
  });
  await apply(database, file("int"));
  const error = await assertRejects(() => apply(database, file("bigint")), PipeweaveError);
  assertEquals([error.kind, error.code], ["integrity", "changed_under_way"]);
  assertMatch(error.message, /^Statement 1 of 001_steps has run already/);
  assertEquals(((await leftovers(database)) as { leases: number }).leases, 0);
});

Deno.test("an INVALID index is dropped and rebuilt, and IF NOT EXISTS does not hide it", async () => {
  await using database = await TestDatabase.empty();
  const file = {
    "001_big.sql": TABLE,
    "002_unique.sql": `${MARK}CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS big_key ON big (id);`,
  };
  await apply(database, { "001_big.sql": TABLE });
  await database.sql`INSERT INTO big VALUES (1, 'twice')`;
  const { failed } = await apply(database, file);
  assertEquals(failed?.error.details.sqlstate, "23505");
  assertStringIncludes(
    failed!.left,
    "is not done, nothing of the file was done before; the next db:migrate goes on",
  );
  assertEquals(((await leftovers(database)) as { invalid: number }).invalid, 0);
  // Somebody else's attempt, or one that was cut off.
  await database.sql.unsafe("CREATE UNIQUE INDEX CONCURRENTLY big_key ON big (id)").catch(() => {});
  assertEquals(((await leftovers(database)) as { invalid: number }).invalid, 1);
  await database.sql`DELETE FROM big WHERE name = 'twice'`;
  const again = await apply(database, file);
  assertEquals(again.failed, null);
  assertStringIncludes(again.notes.join("\n"), "the index public.big_key is INVALID");
  assertEquals(await leftovers(database), NOTHING);
  const [index] = await database
    .sql`SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = 'big_key'::regclass`;
  assertEquals({ ...index }, { indisvalid: true, indisunique: true });
});

Deno.test("kill -9 at random moments: every statement once, the index valid, the lease taken over", async () => {
  await using folder = await folderWith({
    "001_big.sql": TABLE.replace("500", "60000"),
    "002_steps.sql": `${MARK}CREATE TABLE counted (n int);
INSERT INTO counted SELECT 1 FROM pg_sleep(0.1);
CREATE INDEX CONCURRENTLY big_id ON big (id);
INSERT INTO counted SELECT 2 FROM pg_sleep(0.1);
CREATE INDEX CONCURRENTLY big_name ON big (name);
INSERT INTO counted SELECT 3 FROM pg_sleep(0.1);`,
  });
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path, "--lease", "1s"];
  let takeovers = 0;
  for (let round = 0; round < 10; round++) {
    await using database = await TestDatabase.empty();
    const env = { DATABASE_URL: database.url };
    const first = await pipeweave([...args, "--to", "001"], { env });
    assertEquals(first.code, 0, first.stderr);
    for (let killed = 0; killed < 3; killed++) {
      const [{ asked }] = await database.sql`SELECT clock_timestamp() AS asked` as unknown as [
        { asked: Date },
      ];
      const run = new Run(args, { env });
      let ended = false;
      void run.outcome.then(() => ended = true);
      await until(async () => {
        const held = await database.sql`SELECT FROM migration_lease WHERE expires_at > clock_timestamp()
          AND holder IS NOT NULL AND acquired_at > ${asked}`;
        return held.length > 0 || ended;
      }, "it has the turn");
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 200));
      try {
        run.kill("SIGKILL");
      } catch {
        // It has ended already.
      }
      await run.outcome;
    }
    const { code, stderr } = await pipeweave(args, { env });
    assertEquals(code, 0, stderr);
    if (/takes over from .*, whose lease ran out/.test(stderr)) takeovers++;
    assertEquals((await database.sql`SELECT n FROM counted ORDER BY 1`).map(({ n }) => n), [1, 2, 3], stderr);
    assertEquals(await leftovers(database), NOTHING);
  }
  assert(takeovers > 0, "no kill hit a run that held the lease");
});

Deno.test("a holder that slept through its lease finds that it was taken over, and stops", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "001_steps.sql": `${MARK}CREATE TABLE steps (n int);
SELECT pg_sleep(2);
INSERT INTO steps VALUES (1);`,
  });
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path, "--lease", "1s"];
  const env = { DATABASE_URL: database.url };
  const sleeper = new Run(args, { env });
  await until(async () => {
    const rows = await database
      .sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 001_steps%pg_sleep(2)%'
      AND state = 'active' AND datname = current_database()`;
    return rows.length > 0;
  }, "the statement runs");
  sleeper.kill("SIGSTOP");
  const other = await pipeweave(args, { env });
  sleeper.kill("SIGCONT");
  const slept = await sleeper.outcome;
  assertEquals([other.code, slept.code], [0, 1], `${other.stderr}\n${slept.stderr}`);
  assertMatch(other.stderr, /takes over from pipeweave\/.* db:migrate on .*, whose lease ran out/);
  assertStringIncludes(slept.stderr, "another migrator took over");
  assertEquals((await database.sql`SELECT count(*)::int AS n FROM steps`)[0]!["n"], 1);
  assertEquals(await leftovers(database), NOTHING);
});

Deno.test("others wait for the turn, with a limit, and are told whose it is", async () => {
  await using database = await TestDatabase.empty();
  // The first one has the turn until it is let go.
  await database.sql`CREATE TABLE let_go (id int)`;
  await using folder = await folderWith({
    "001_slow.sql":
      `${MARK}DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM let_go) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;`,
    "002_next.sql": "SELECT 1;",
  });
  const args = ["db:migrate", "--no-embedded", "--dir", folder.path];
  const env = { DATABASE_URL: database.url };
  const holder = new Run(args, { env });
  await until(async () => {
    const rows = await database
      .sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 001_slow%let_go%'
      AND state = 'active' AND datname = current_database()`;
    return rows.length > 0;
  }, "the statement runs");
  const patient = new Run(args, { env: { ...env, PGAPPNAME: "patient" } });
  const impatient = await pipeweave([...args, "--lock-wait", "300ms"], { env });
  assertEquals(impatient.code, 4, impatient.stderr);
  assertMatch(impatient.stderr, /pipeweave\/.* db:migrate on .* runs 001 outside a transaction/);
  await until(async () => {
    const rows = await database.sql`SELECT FROM pg_stat_activity WHERE application_name LIKE '%patient%'
      AND datname = current_database()`;
    return rows.length > 0;
  }, "the patient one is there");
  await database.sql`INSERT INTO let_go VALUES (1)`;
  const waited = await patient.outcome;
  assertEquals([waited.code, (await holder.outcome).code], [0, 0], waited.stderr);
  assertEquals((await database.sql`SELECT count(*)::int AS n FROM schema_migrations`)[0]!["n"], 2);
});

Deno.test("a lock that is not free is tried again outside a transaction too", async () => {
  await using database = await TestDatabase.empty();
  await apply(database, { "001_big.sql": TABLE });
  const holder = await database.hold("LOCK TABLE big IN SHARE UPDATE EXCLUSIVE MODE");
  const running = apply(database, {
    "001_big.sql": TABLE,
    "002_index.sql": `-- pipeweave: lock-timeout 300ms\n${MARK}CREATE INDEX CONCURRENTLY big_id ON big (id);`,
  });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await holder.release();
  const { failed, notes } = await running;
  assertEquals(failed, null);
  assertMatch(notes.join("\n"), /statement 1: a lock was not free in time.*; attempt 2 in/);
  assertEquals(await leftovers(database), NOTHING);
});
