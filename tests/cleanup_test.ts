/** Cleanup against a real server. */

import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { cleanup } from "../src/cleanup/cleanup.ts";
import { PipeweaveError } from "../src/errors.ts";
import { pipeweave } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

async function fill({ sql }: TestDatabase): Promise<void> {
  await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
    SELECT 'k' || i, 't', 'r', 1, '/', now() + CASE WHEN i <= 25 THEN interval '-1 hour' ELSE interval '1 hour' END
      FROM generate_series(1, 40) i`;
  await sql`INSERT INTO dlq (id, task_run_id, task_id, code_version, code_hash, error, attempts, previous_attempts, failed_at)
    SELECT 'd' || i, 'r', 't', 1, 'x', 'e', 3, '[]', now() - make_interval(days => i) FROM generate_series(1, 40) i`;
  await sql`INSERT INTO temp_uploads (id, storage_path, storage_backend_id, expires_at, deleted_at) VALUES
    ('fresh', '/', 's', now() + interval '1 hour', NULL), ('expired', '/', 's', now() - interval '1 hour', NULL),
    ('deleted', '/', 's', now(), now() - interval '1 day'), ('old', '/', 's', now(), now() - interval '31 days')`;
}

Deno.test("cleanup removes what has expired, and nothing else", async () => {
  await using database = await TestDatabase.migrated();
  await fill(database);
  const session = database.session();
  const counted = await cleanup(session, { dryRun: true });
  const batches: number[] = [];
  const removed = await cleanup(session, {
    batchSize: 10,
    onBatch: ({ table, removed }) => table === "idempotency_cache" && batches.push(removed),
  });
  // At 30 days and some milliseconds, the entry of day 30 is older than 30 days.
  const expected = { idempotencyCache: 25, dlq: 11, tempUploads: { expired: 1, archived: 1 } };
  assertEquals(counted, { dryRun: true, ...expected });
  assertEquals(removed, { dryRun: false, ...expected });
  assertEquals(batches, [10, 20, 25]);
  const left = await database
    .sql`SELECT (SELECT count(*)::int FROM idempotency_cache) AS cache, (SELECT count(*)::int FROM dlq) AS dlq,
    (SELECT string_agg(id, ',' ORDER BY id) FROM temp_uploads) AS uploads`;
  assertEquals({ ...left[0] }, { cache: 15, dlq: 29, uploads: "deleted,expired,fresh" });
  assertEquals((await cleanup(session, { dlqRetentionDays: 5 })).dlq, 25);
});

Deno.test("cleanup leaves locked rows to the next run", async () => {
  await using database = await TestDatabase.migrated();
  await fill(database);
  await database.sql.begin(async (holder) => {
    await holder`SELECT FROM idempotency_cache WHERE idempotency_key IN ('k1', 'k2') FOR UPDATE`;
    assertEquals((await cleanup(database.session())).idempotencyCache, 23);
  });
  assertEquals((await cleanup(database.session())).idempotencyCache, 2);
});

/** `rows` entries of which every `nth` has expired, and then `expired` more that all have. */
async function fillUnevenly(
  { sql }: TestDatabase,
  rows: number,
  nth: number,
  expired: number,
): Promise<number> {
  const [counted] = await sql`WITH filled AS (
    INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
    SELECT i::text, 't', 'r', 1, '/', now() + CASE WHEN i > ${rows}::int OR i % ${nth}::int = 0 THEN interval '-1 hour' ELSE interval '1 hour' END
      FROM generate_series(1, ${rows + expired}::int) i RETURNING expires_at)
    SELECT count(*) FILTER (WHERE expires_at < now())::int AS n FROM filled`;
  return counted!["n"];
}

for (
  const [how, rows, nth, expired] of [
    // The sparse part leads to stretches that are too long for the dense one.
    ["many rows, by the table's blocks", 20_000, 10, 20_000],
    ["few rows of a large table, by the index", 20_000, 20, 0],
  ] as const
) {
  Deno.test(`cleanup of ${how}: no batch larger than allowed, locked rows left, the rest gone`, async () => {
    await using database = await TestDatabase.migrated();
    const all = await fillUnevenly(database, rows, nth, expired);
    const batches: number[] = [];
    const run = () =>
      cleanup(database.session(), { batchSize: 300, onBatch: ({ removed }) => void batches.push(removed) });
    await database.sql.begin(async (holder) => {
      const locked =
        await holder`SELECT FROM idempotency_cache WHERE idempotency_key IN ('60', '8000', '20000') FOR UPDATE`;
      assertEquals(locked.count, 3);
      assertEquals((await run()).idempotencyCache, all - 3);
    });
    const sizes = batches.map((removed, index) => removed - (batches[index - 1] ?? 0));
    assertEquals(sizes.filter((size) => size < 1 || size > 300), []);
    assertEquals(batches.at(-1), all - 3);
    assertEquals((await run()).idempotencyCache, 3);
    const [left] = await database
      .sql`SELECT count(*)::int AS n, bool_and(expires_at > now()) AS live FROM idempotency_cache`;
    assertEquals({ ...left }, { n: rows + expired - all, live: true });
  });
}

Deno.test("cleanup that is interrupted tells what it removed, and the next run goes on", async () => {
  await using database = await TestDatabase.migrated();
  const all = await fillUnevenly(database, 0, 1, 20_000);
  const controller = new AbortController();
  const { signal } = controller;
  const error = await assertRejects(
    () =>
      cleanup(database.session({ signal }), { batchSize: 300, signal, onBatch: () => controller.abort() }),
    PipeweaveError,
  );
  const [{ n }] = await database.sql`SELECT count(*)::int AS n FROM idempotency_cache` as unknown as [
    { n: number },
  ];
  assertEquals([error.kind, n > 0 && n < all], ["interrupted", true]);
  assertStringIncludes(error.message, `${all - n} rows of idempotency_cache were removed`);
  assertEquals((await cleanup(database.session())).idempotencyCache, n);
});

Deno.test("cleanup does without temp_uploads, and names db:migrate where the rest is missing", async () => {
  await using database = await TestDatabase.migrated();
  await database.sql`DROP TABLE temp_uploads`;
  assertEquals((await cleanup(database.session())).tempUploads, null);
  await using empty = await TestDatabase.empty();
  const error = await assertRejects(() => cleanup(empty.session()), PipeweaveError);
  assertEquals([error.code, error.details.hint], [
    "not_migrated",
    "PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded",
  ]);
});

Deno.test("one cleanup works at a time: a second says so; locks of a batch are short", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
    SELECT i::text, 't', 'r', 1, '/', now() - interval '1 hour' FROM generate_series(1, 20000) i`;
  const removed = await Promise.all([cleanup(database.session()), cleanup(database.session())]);
  assertEquals(removed.reduce((sum, { idempotencyCache }) => sum + idempotencyCache, 0), 20_000);
  await sql`INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
    VALUES ('x', 't', 'r', 1, '/', now() - interval '1 hour')`;
  await using _other = await database.hold(
    "SELECT pg_advisory_xact_lock(hashtextextended('pipeweave cleanup public', 0))",
  );
  const error = await assertRejects(() => cleanup(database.session()), PipeweaveError);
  assertEquals([error.kind, error.code], ["timeout", "cleanup_at_work"]);
});

Deno.test("a retention that makes no sense is refused before anything is tried", async () => {
  const { code, stderr } = await pipeweave(["db:cleanup", "--host", "nowhere.invalid", "--user", "u"], {
    env: { PIPEWEAVE_DLQ_RETENTION_DAYS: "-1" },
  });
  assertEquals(code, 2);
  assertStringIncludes(stderr, "PIPEWEAVE_DLQ_RETENTION_DAYS must be a whole number");
});

/** `rows` entries of the cache by a statement's own columns; `expired` decides by `i`. */
function entries(table: string, from: number, to: number, expired: string): string {
  return `INSERT INTO ${table} (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
    SELECT '${table}' || i, 't', 'r', 1, '/', now() + CASE WHEN ${expired} THEN interval '-1 hour' ELSE interval '1 hour' END
      FROM generate_series(${from}, ${to}) i`;
}

const live = async ({ sql }: TestDatabase) =>
  (await sql`SELECT count(*) FILTER (WHERE expires_at > now())::int AS live, count(*) FILTER (WHERE expires_at < now())::int AS expired
    FROM idempotency_cache`)[0]!;

for (const size of [100, 20_000]) {
  Deno.test(`cleanup of ${size} rows in a parent and a child: a place in one is not a place in the other`, async () => {
    await using database = await TestDatabase.migrated();
    const { sql } = database;
    await sql.unsafe(
      `CREATE SCHEMA parts; CREATE TABLE idempotency_cache_2025 () INHERITS (idempotency_cache);
      CREATE TABLE parts."Grand child" () INHERITS (idempotency_cache_2025);
      ${entries("idempotency_cache", 1, size, "false")};
      ${entries("idempotency_cache_2025", 1, 7, "true")}; ${
        entries('parts."Grand child"', 1, 50, "i <= 40")
      }`,
    );
    const session = database.session();
    assertEquals((await cleanup(session, { dryRun: true })).idempotencyCache, 47);
    assertEquals((await cleanup(session)).idempotencyCache, 47);
    assertEquals({ ...await live(database) }, { live: size + 10, expired: 0 });
  });
}

Deno.test("cleanup of a partitioned table: each partition in batches, wherever it is; a view and a foreign table are left alone", async () => {
  await using database = await TestDatabase.migrated();
  const { sql } = database;
  await sql.unsafe(`CREATE SCHEMA parts; ALTER TABLE idempotency_cache RENAME TO old_cache;
    CREATE TABLE idempotency_cache (LIKE old_cache INCLUDING DEFAULTS) PARTITION BY HASH (idempotency_key);
    CREATE TABLE parts.p0 PARTITION OF idempotency_cache FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE parts.p1 PARTITION OF idempotency_cache FOR VALUES WITH (MODULUS 2, REMAINDER 1) PARTITION BY HASH (task_id);
    CREATE TABLE p1a PARTITION OF parts.p1 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
    ${entries("idempotency_cache", 1, 30_000, "i % 3 > 0")};
    ALTER TABLE dlq RENAME TO old_dlq; CREATE VIEW dlq AS SELECT * FROM old_dlq;
    INSERT INTO dlq (id, task_run_id, task_id, code_version, code_hash, error, attempts, previous_attempts, failed_at)
      VALUES ('1', 'r', 't', 1, 'x', 'e', 3, '[]', now() - interval '90 days')`);
  const session = database.session();
  const counted = await cleanup(session, { dryRun: true });
  const removed = await cleanup(session);
  assertEquals([counted.idempotencyCache, removed.idempotencyCache, removed.dlq], [20_000, 20_000, 0]);
  assertEquals([counted.leftAlone, removed.leftAlone], [["public.dlq is a view"], ["public.dlq is a view"]]);
  assertEquals({ ...await live(database) }, { live: 10_000, expired: 0 });
});

for (
  const [how, prepare, reason] of [
    [
      "a foreign key refers to",
      `CREATE TABLE mine (key text REFERENCES idempotency_cache ON DELETE RESTRICT); INSERT INTO mine VALUES ('idempotency_cache15000'), ('idempotency_cache15001')`,
      /foreign key|RESTRICT/,
    ],
    [
      "a deferred foreign key refers to",
      `CREATE TABLE mine (key text REFERENCES idempotency_cache DEFERRABLE INITIALLY DEFERRED); INSERT INTO mine VALUES ('idempotency_cache15000'), ('idempotency_cache15001')`,
      /foreign key/,
    ],
    [
      "a trigger keeps",
      `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN CASE WHEN OLD.idempotency_key LIKE '%15000' OR OLD.idempotency_key LIKE '%15001' THEN NULL ELSE OLD END; END $$;
       CREATE TRIGGER keep BEFORE DELETE ON idempotency_cache FOR EACH ROW EXECUTE FUNCTION keep()`,
      /a trigger or a rule keeps it/,
    ],
    [
      "a trigger objects to",
      `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.idempotency_key LIKE '%1500_' AND right(OLD.idempotency_key, 1) IN ('0', '1') AND length(OLD.idempotency_key) = 22 THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;
       CREATE TRIGGER keep AFTER DELETE ON idempotency_cache FOR EACH ROW EXECUTE FUNCTION keep()`,
      /not this one/,
    ],
  ] as const
) {
  for (const batchSize of [5000, 100]) {
    Deno.test(`cleanup, batches of ${batchSize}: rows that ${how} stay and are counted; everything else goes`, async () => {
      await using database = await TestDatabase.migrated();
      await fill(database);
      const { sql } = database;
      await sql.unsafe(`${entries("idempotency_cache", 1, 30_000, "true")}; ${prepare}`);
      const session = database.session();
      assertEquals((await cleanup(session, { dryRun: true })).idempotencyCache, 30_025);
      const result = await cleanup(session, { batchSize });
      assertEquals([result.idempotencyCache, result.dlq], [30_023, 11]);
      assertEquals(result.kept!.map(({ table, rows }) => [table, rows]), [["idempotency_cache", 2]]);
      assertMatch(result.kept![0]!.reason, reason);
      assertEquals({ ...await live(database) }, { live: 15, expired: 2 });
    });
  }
}

Deno.test("cleanup: a role's statement_timeout ends nothing; what it may not touch is named, and the rest goes", async () => {
  await using database = await TestDatabase.migrated();
  await fill(database);
  const { sql, name, url } = database;
  const role = `cleaner_${name}`;
  await sql.unsafe(`${entries("idempotency_cache", 1, 100_000, "true")}; CREATE ROLE ${role} LOGIN;
    GRANT CREATE ON SCHEMA public TO postgres; GRANT SELECT, UPDATE, DELETE ON idempotency_cache, temp_uploads TO ${role};
    ALTER ROLE ${role} SET statement_timeout = 20`);
  try {
    const env = { DATABASE_URL: url.replace("postgres@", `${role}@`) };
    const { code, stderr } = await pipeweave(["db:cleanup"], { env });
    assertEquals(code, 1);
    assertStringIncludes(stderr, "error: dlq: permission denied for table dlq");
    assertStringIncludes(
      stderr,
      "Removed until then: 100025 of idempotency_cache, 0 of dlq, 1 of temp_uploads",
    );
    await sql.unsafe(`GRANT SELECT, UPDATE, DELETE ON dlq TO ${role};
      ALTER TABLE dlq ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON dlq USING (false)`);
    const secured = await pipeweave(["db:cleanup", "--dry-run"], { env });
    assertEquals(secured.code, 1);
    assertStringIncludes(
      secured.stderr,
      'query would be affected by row-level security policy for table "dlq"',
    );
  } finally {
    await sql.unsafe(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  }
});

for (
  const [how, statement] of [
    ["detached", "ALTER TABLE dlq DETACH PARTITION dlq_b"],
    ["dropped", "DROP TABLE dlq_b"],
    [
      "another one of its name",
      "ALTER TABLE dlq DETACH PARTITION dlq_b; ALTER TABLE dlq_b RENAME TO old_b; CREATE TABLE dlq_b (LIKE old_b); INSERT INTO dlq_b SELECT * FROM old_b",
    ],
  ] as const
) {
  Deno.test(`cleanup of a partition that is ${how} meanwhile: nothing of it goes, the rest does`, async () => {
    await using database = await TestDatabase.migrated();
    const { sql } = database;
    await sql.unsafe(
      `ALTER TABLE dlq RENAME TO plain_dlq; CREATE TABLE dlq (LIKE plain_dlq INCLUDING DEFAULTS) PARTITION BY LIST (task_id);
      CREATE TABLE dlq_a PARTITION OF dlq FOR VALUES IN ('a'); CREATE TABLE dlq_b PARTITION OF dlq FOR VALUES IN ('b'); CREATE TABLE dlq_c PARTITION OF dlq DEFAULT;
      INSERT INTO dlq (id, task_run_id, task_id, code_version, code_hash, error, attempts, previous_attempts, failed_at)
      SELECT t || i, 'r', t, 1, 'x', 'e', 3, '[]', now() - interval '90 days' FROM unnest('{a,b,c}'::text[]) t, generate_series(1, 50) i`,
    );
    const session = database.session();
    let changed: Promise<unknown> | undefined;
    const result = await cleanup(session, {
      batchSize: 10,
      onBatch: () => void (changed ??= sql.unsafe(statement).then(() => {})),
    });
    await changed;
    // Either it was part of dlq when it came to it, or it is whole.
    const [left] = await sql.unsafe(
      `SELECT ${
        how === "dropped" ? "0" : "(SELECT count(*)::int FROM dlq_b)"
      } AS b, (SELECT count(*)::int FROM dlq) AS rest`,
    );
    assertEquals(left!["rest"], 0);
    if (result.leftAlone) {
      assertStringIncludes(result.leftAlone[0]!, "dlq_b is no part of dlq any more");
      assertEquals([result.dlq, left!["b"]], [100, how === "dropped" ? 0 : 50]);
    } else assertEquals(result.dlq, 150);
  });
}
