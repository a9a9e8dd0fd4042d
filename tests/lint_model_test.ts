/** The linter's lock model, its verdicts and its safe ways, held against what PostgreSQL does. */

import { assert, assertEquals } from "@std/assert";
import postgres from "postgres";
import { measureOn } from "../src/commands/measured_alter.ts";
import { NOT_VOLATILE } from "../src/lint/functions.ts";
import { lint } from "../src/lint/lint.ts";
import { LOCK, locksOf } from "../src/lint/locks.ts";
import { Memory } from "../src/lint/memory.ts";
import { LINT_RULES } from "../src/lint/rules.ts";
import { parseStatements } from "../src/sql/statements.ts";
import { majorVersion, TestDatabase, withAdmin } from "./support/database.ts";
import { migrationOf } from "./support/migration.ts";

const SETUP = `
CREATE SCHEMA other;
CREATE TABLE u (id int PRIMARY KEY, n int);
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c int NOT NULL, u_id int REFERENCES u, v varchar(10), d int DEFAULT 1);
INSERT INTO u SELECT g, g FROM generate_series(1, 300) g;
INSERT INTO t (id, a, b, c, u_id, v) SELECT g, g, 'x' || g, g, g, 'v' FROM generate_series(1, 300) g;
ALTER TABLE t ADD CONSTRAINT a_given CHECK (a IS NOT NULL);
ALTER TABLE t ADD CONSTRAINT a_small CHECK (a < 1000) NOT VALID;
CREATE INDEX t_b ON t (b);
CREATE UNIQUE INDEX t_c ON t (c);
CREATE TABLE pt (id int, k int) PARTITION BY RANGE (k);
CREATE TABLE p1 (id int, k int);
INSERT INTO p1 SELECT g, 5 FROM generate_series(1, 300) g;
CREATE MATERIALIZED VIEW mv AS SELECT id FROM t;
CREATE UNIQUE INDEX mv_id ON mv (id);
CREATE VIEW vv AS SELECT id FROM t;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE FUNCTION one() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION any_one() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
CREATE RULE ru AS ON INSERT TO u DO ALSO NOTHING;
CREATE POLICY po ON t USING (true);
CREATE DOMAIN plain AS int;
CREATE DOMAIN checked AS int CHECK (value > 0);
CREATE DOMAIN random_one AS float8 DEFAULT random();
CREATE STATISTICS st ON a, c FROM t;`;

/** Names of the modes of table locks as pg_locks has them, by number. */
const MODES: ReadonlyMap<string, number> = new Map(
  Object.entries(LOCK).map(([name, number]) => [`${name[0]!.toUpperCase()}${name.slice(1)}Lock`, number]),
);

/** Statements, and tables that they lead to by what the database knows alone. */
const STATEMENTS: readonly (string | readonly [sql: string, alsoLocked: readonly string[]])[] = [
  "ALTER TABLE t ADD x int",
  "ALTER TABLE t ADD x int DEFAULT 5",
  "ALTER TABLE t ADD x timestamptz DEFAULT now()",
  "ALTER TABLE t ADD x float8 DEFAULT random()",
  "ALTER TABLE t ADD x text DEFAULT repeat('x', 3)",
  "ALTER TABLE t ADD x int DEFAULT one()",
  "ALTER TABLE t ADD x int DEFAULT any_one()",
  "ALTER TABLE t ADD x plain",
  "ALTER TABLE t ADD x checked",
  "ALTER TABLE t ADD x random_one",
  "ALTER TABLE t ADD x int GENERATED ALWAYS AS (a + 1) STORED",
  "ALTER TABLE t ADD x int GENERATED ALWAYS AS IDENTITY",
  "ALTER TABLE t ADD x bigserial",
  "ALTER TABLE t ADD x int REFERENCES u",
  "ALTER TABLE t ADD x int UNIQUE",
  "ALTER TABLE t ADD x int CHECK (x > 0)",
  "ALTER TABLE t DROP b",
  "ALTER TABLE t ALTER a TYPE bigint",
  "ALTER TABLE t ALTER v TYPE varchar(20)",
  "ALTER TABLE t ALTER v TYPE text",
  "ALTER TABLE t ALTER v TYPE varchar(5)",
  'ALTER TABLE t ALTER b TYPE text COLLATE "C"',
  "ALTER TABLE t ALTER d TYPE text USING d::text",
  "ALTER TABLE t ALTER a SET NOT NULL",
  "ALTER TABLE t ALTER b SET NOT NULL",
  "ALTER TABLE t ALTER c DROP NOT NULL",
  "ALTER TABLE t ALTER a SET DEFAULT 5",
  "ALTER TABLE t ALTER a SET STATISTICS 500",
  "ALTER TABLE t SET (fillfactor = 80)",
  "ALTER TABLE t ADD CHECK (c > 0)",
  "ALTER TABLE t ADD CHECK (c > 0) NOT VALID",
  "ALTER TABLE t VALIDATE CONSTRAINT a_small",
  "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u",
  "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u NOT VALID",
  "ALTER TABLE t ADD UNIQUE (a)",
  "ALTER TABLE t ADD CONSTRAINT x UNIQUE USING INDEX t_c",
  ["ALTER TABLE t DROP CONSTRAINT t_u_id_fkey", ["u"]],
  "ALTER TABLE t DISABLE TRIGGER tr",
  "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
  "ALTER TABLE t REPLICA IDENTITY FULL",
  "ALTER TABLE t CLUSTER ON t_b",
  "ALTER TABLE t SET UNLOGGED",
  "ALTER TABLE t RENAME b TO bb",
  "ALTER TABLE t RENAME CONSTRAINT a_small TO a_smaller",
  "ALTER TABLE t RENAME TO tt",
  "ALTER TABLE t SET SCHEMA other",
  "ALTER TABLE pt ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)",
  "CREATE TABLE p2 PARTITION OF pt FOR VALUES FROM (10) TO (20)",
  "CREATE TABLE child () INHERITS (u)",
  "CREATE TABLE n (id int REFERENCES u)",
  "CREATE INDEX x ON t (a)",
  "DROP VIEW vv",
  ["DROP TABLE u CASCADE", ["t"]],
  ["DROP TABLE t CASCADE", ["u", "mv", "vv"]],
  "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
  "DROP TRIGGER tr ON t",
  "CREATE RULE x AS ON DELETE TO u DO INSTEAD NOTHING",
  "DROP RULE ru ON u",
  "ALTER POLICY po ON t USING (false)",
  "DROP POLICY po ON t",
  "CREATE OR REPLACE VIEW vv AS SELECT id, 1 AS one FROM t",
  "REFRESH MATERIALIZED VIEW mv",
  ["TRUNCATE u CASCADE", ["t"]],
  "LOCK TABLE t IN SHARE MODE",
  "LOCK TABLE t",
  "CLUSTER t USING t_b",
  "REINDEX TABLE t",
  "ANALYZE t",
  "DO $$BEGIN ALTER TABLE t ADD CHECK (c > 0); END$$",
  "DO $$BEGIN EXECUTE 'CREATE INDEX x ON t (a)'; END$$",
];

interface Seen {
  readonly locks: ReadonlyMap<string, number>;
  readonly works: boolean;
}

/** Runs a statement, looks, and rolls it back. */
async function run(sql: postgres.Sql, statement: string): Promise<Seen> {
  const files = `SELECT json_object_agg(c.oid, pg_relation_filenode(c.oid)) AS files,
      json_object_agg(c.oid, pg_stat_get_xact_numscans(c.oid)) FILTER (WHERE c.relkind IN ('r', 'm')) AS scans
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i', 'm')`;
  let seen: Seen | undefined;
  await sql.begin(async (transaction) => {
    const names = await transaction<{ oid: string; relname: string }[]>`
      SELECT oid::text, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')`;
    const [before] = await transaction.unsafe(files);
    await transaction.unsafe(statement);
    const locks = await transaction<{ relation: string; mode: string }[]>`
      SELECT relation::text, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'`;
    const [after] = await transaction.unsafe(files);
    const strongest = new Map<string, number>();
    for (const { relation, mode } of locks) {
      const name = names.find(({ oid }) => oid === relation)?.relname;
      if (name) strongest.set(name, Math.max(strongest.get(name) ?? 0, MODES.get(mode)!));
    }
    const changed = (kind: "files" | "scans") =>
      Object.entries(before![kind] as Record<string, number>).some(([oid, value]) =>
        after![kind][oid] !== undefined && after![kind][oid] !== value
      );
    seen = { locks: strongest, works: changed("files") || changed("scans") };
    throw new Error("seen");
  }).catch((error: Error) => {
    if (!seen) throw new Error(`${statement}: ${error.message}`);
  });
  return seen!;
}

Deno.test("lint: the locks of the model are those that PostgreSQL takes; work under them is found, and nothing else", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(SETUP);
  const session = database.session();
  for (const entry of STATEMENTS) {
    const [sql, alsoLocked] = typeof entry === "string" ? [entry, []] : entry;
    const { locks, works } = await run(database.sql, sql);
    const [statement] = await parseStatements(sql);
    const model = new Map<string, number>();
    for (const { table, mode } of locksOf(statement!.node)) {
      model.set(table.name, Math.max(model.get(table.name) ?? 0, mode));
    }
    if (statement!.node.type !== "DoStmt") {
      const strong = [...locks].filter(([name, mode]) => mode >= 4 && !alsoLocked.includes(name));
      assertEquals(
        [...model].filter(([name]) => locks.has(name)).filter(([, mode]) => mode >= 4).sort(),
        strong.sort(),
        sql,
      );
    }
    const isHeld = [...locks.values()].some((mode) => mode >= 5);
    const findings = await lint(migrationOf(sql), { measure: measureOn(session) });
    const blocking = findings.filter(({ blocks }) => blocks !== "nobody").map(({ code }) => code);
    const isLock = blocking.includes("lock-table");
    assertEquals(
      blocking.length > 0,
      (isHeld && works) || isLock,
      `${sql}: ${JSON.stringify(findings.map(({ code }) => code))}`,
    );
  }
});

Deno.test("lint: IF NOT EXISTS makes what neither the database nor the files have, and what they have dropped", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(SETUP);
  const session = database.session();
  const rulesIn = async (sql: string) =>
    (await lint(migrationOf(sql), { measure: measureOn(session) })).map(({ code }) => code as string);
  const index = "CREATE INDEX IF NOT EXISTS t_b ON t (b)";
  assertEquals(await rulesIn(index), []);
  assertEquals(await rulesIn(`DROP INDEX t_b; ${index}`), [
    "drop-index-not-concurrently",
    "index-not-concurrently",
  ]);
  assertEquals(await rulesIn("CREATE INDEX IF NOT EXISTS other ON t (b)"), ["index-not-concurrently"]);
  assertEquals(await rulesIn("CREATE TABLE IF NOT EXISTS t (a int); DROP TABLE t"), ["drop-table"]);
  assertEquals(await rulesIn("CREATE TABLE IF NOT EXISTS brand_new (a int); DROP TABLE brand_new"), []);
});

Deno.test("lint: the database is not asked about what a statement before has changed", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(SETUP);
  const session = database.session();
  const found = async (...files: readonly string[]) => {
    const memory = new Memory();
    let last: readonly string[] = [];
    for (const sql of files) {
      last = (await lint(migrationOf(sql), { memory, measure: measureOn(session) })).map(({ code }) => code);
    }
    return last;
  };
  const given = "ALTER TABLE t ALTER a SET NOT NULL";
  assertEquals(await found(given), []);
  assertEquals(await found(`ALTER TABLE t DROP CONSTRAINT a_given; ${given}`), ["set-not-null"]);
  assertEquals(await found("ALTER TABLE t DROP CONSTRAINT a_given", given), ["set-not-null"]);
  assertEquals(await found("DO $$BEGIN ALTER TABLE t DROP CONSTRAINT a_given; END$$", given), [
    "set-not-null",
  ]);
  const change = "ALTER TABLE t ALTER v TYPE text";
  assertEquals(await found(change), []);
  assertEquals(await found("ALTER TABLE t DROP v, ADD v int", change), ["change-column-type"]);
  const add = "ALTER TABLE t ADD x int DEFAULT one()";
  const volatile = "CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'";
  assertEquals(await found(add), []);
  assertEquals(await found(`${volatile}; ${add}`), ["add-column-volatile-default"]);
  assertEquals(await found("ALTER FUNCTION one() VOLATILE", add), ["add-column-volatile-default"]);
  const domain = "ALTER TABLE t ADD x plain";
  assertEquals(await found(domain), []);
  assertEquals(
    await found("ALTER DOMAIN plain ADD CONSTRAINT y CHECK (value > 0) NOT VALID", domain),
    ["add-column-volatile-default"],
  );
});

Deno.test("lint: a statement with ONLY or IF EXISTS is asked about too", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(SETUP);
  const measure = measureOn(database.session());
  for (const way of ["ONLY t", "IF EXISTS t", "IF EXISTS ONLY public.t", '"t"', "public . t"]) {
    const [kept, cleared] = ["TYPE bigint", "TYPE int"].map((type) => `ALTER TABLE ${way} ALTER d ${type}`);
    assertEquals((await lint(migrationOf(kept!), { measure })).map(({ code }) => code), [
      "change-column-type",
    ], way);
    assertEquals(await lint(migrationOf(cleared!), { measure }), [], way);
  }
});

Deno.test("lint: whoever looks runs nothing of a table's owner who is not trusted, nor of a schema on the way", async () => {
  await using database = await TestDatabase.empty();
  const { sql, name } = database;
  const role = `owner_${name}`;
  await withAdmin((admin) => admin.unsafe(`CREATE ROLE ${role}`));
  try {
    await sql.unsafe(`CREATE SEQUENCE seen; GRANT CREATE ON SCHEMA public TO ${role};
      GRANT ALL ON SEQUENCE seen TO ${role};
      SET ROLE ${role};
      CREATE FUNCTION evil() RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''public.seen''); RETURN true; END';
      CREATE TABLE bait (a int); CREATE INDEX ON bait (a) WHERE evil();
      CREATE FUNCTION equals(oid, oid) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''public.seen''); RETURN true; END';
      CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = oid, FUNCTION = equals);
      CREATE FUNCTION least_of(float4, float4) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM nextval(''public.seen''); RETURN true; END';
      CREATE OPERATOR >= (LEFTARG = float4, RIGHTARG = float4, FUNCTION = least_of);
      RESET ROLE;
      ALTER DATABASE ${name} SET search_path = public, pg_catalog`);
    const [before] = await sql`SELECT last_value, is_called FROM seen`;
    await sql`ANALYZE bait`;
    const [analyzed] = await sql`SELECT last_value, is_called FROM seen`;
    const findings = await lint(migrationOf("ALTER TABLE bait ALTER a TYPE bigint"), {
      measure: measureOn(database.session()),
    });
    assertEquals(findings.map(({ code }) => code), ["change-column-type"]);
    const [after] = await sql`SELECT last_value, is_called FROM seen`;
    assertEquals({ ...after }, { ...analyzed }, JSON.stringify(before));
  } finally {
    await sql.unsafe(`DROP OWNED BY ${role} CASCADE`);
    await withAdmin((admin) => admin.unsafe(`DROP ROLE ${role}`));
  }
});

Deno.test("lint: how many rows a statement is about is said, and on a small table it keeps nobody waiting for long", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(SETUP);
  const session = database.session();
  const found = async (smallTable: number) => {
    const [finding] = await lint(migrationOf("ALTER TABLE t ALTER a TYPE bigint"), {
      ...{ measure: measureOn(session), smallTable },
    });
    return [finding?.message, finding?.blocks];
  };
  await database.sql.unsafe("CREATE TABLE fresh (a int)");
  const [unknown] = await lint(migrationOf("ALTER TABLE fresh ALTER a TYPE bigint"), {
    ...{ measure: measureOn(session), smallTable: 1000 },
  });
  // Nobody knows before ANALYZE.
  assertEquals([unknown?.message, unknown?.blocks], ["changes the type of fresh.a", "reads and writes"]);
  await database.sql.unsafe("ANALYZE t");
  assertEquals(await found(1000), ["changes the type of t.a (about 300 rows)", "nobody"]);
  assertEquals(await found(299), ["changes the type of t.a (about 300 rows)", "reads and writes"]);
});

/** For each rule: files in order, the last of which is the safe way to what the rule finds. */
const NO_TX = "-- pipeweave: no-transaction\n";
const ALLOW = (rule: string) => `-- pipeweave: allow ${rule} nothing uses it any more\n`;
const MAINTENANCE = "-- pipeweave: requires maintenance\n";
const SAFE: Readonly<Record<keyof typeof LINT_RULES, readonly string[]>> = {
  "index-not-concurrently": [`${NO_TX}CREATE INDEX CONCURRENTLY x ON t (a)`],
  "drop-index-not-concurrently": [`${NO_TX}DROP INDEX CONCURRENTLY t_b`],
  "reindex-not-concurrently": [`${NO_TX}REINDEX TABLE CONCURRENTLY t`],
  "set-not-null": [
    "ALTER TABLE t ADD CONSTRAINT b_given CHECK (b IS NOT NULL) NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT b_given",
    "ALTER TABLE t ALTER b SET NOT NULL",
  ],
  "add-required-column": ["ALTER TABLE t ADD x int NOT NULL DEFAULT 0"],
  "add-column-volatile-default": ["ALTER TABLE t ADD x float8; ALTER TABLE t ALTER x SET DEFAULT random()"],
  "add-generated-column": ["ALTER TABLE t ADD x int"],
  "change-column-type": ["ALTER TABLE t ADD new_a bigint"],
  "add-foreign-key": [
    `${NO_TX}CREATE INDEX CONCURRENTLY t_a ON t (a)`,
    "ALTER TABLE t ADD CONSTRAINT x FOREIGN KEY (a) REFERENCES u NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT x",
  ],
  "add-check": [
    "ALTER TABLE t ADD CONSTRAINT x CHECK (c > 0) NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT x",
  ],
  "validate-in-same-transaction": [
    "ALTER TABLE t ADD CONSTRAINT x CHECK (c > 0) NOT VALID",
    "ALTER TABLE t VALIDATE CONSTRAINT x",
  ],
  "add-unique-constraint": [
    `${NO_TX}CREATE UNIQUE INDEX CONCURRENTLY x ON t (a)`,
    "ALTER TABLE t ADD CONSTRAINT x UNIQUE USING INDEX x",
  ],
  "add-exclusion-constraint": [`${MAINTENANCE}ALTER TABLE t ADD EXCLUDE (a WITH =)`],
  "rename-table": ["ALTER TABLE u RENAME TO uu; CREATE VIEW u AS SELECT * FROM uu"],
  "rename-column": ["ALTER TABLE t ADD bb text"],
  "drop-table": [`${ALLOW("drop-table")}DROP TABLE p1`],
  "drop-view": ["DROP VIEW vv; CREATE VIEW vv AS SELECT id, a FROM t"],
  "drop-column": [`${ALLOW("drop-column")}ALTER TABLE t DROP d`],
  "truncate": [`${ALLOW("truncate")}TRUNCATE p1`],
  "whole-table-change": ["UPDATE t SET a = 1 WHERE id BETWEEN 1 AND 10"],
  "work-under-lock": ["ALTER TABLE t ADD x int", "UPDATE t SET x = 1 WHERE id BETWEEN 1 AND 10"],
  "lock-after-lock": ["ALTER TABLE t ADD x int", "ALTER TABLE u ADD x int"],
  "lock-table": ["LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE"],
  "rewrite-table": [`${MAINTENANCE}ALTER TABLE p1 SET UNLOGGED`],
  "refresh-not-concurrently": ["REFRESH MATERIALIZED VIEW CONCURRENTLY mv"],
  "attach-partition": [
    "ALTER TABLE p1 ADD CONSTRAINT x CHECK (k IS NOT NULL AND k >= 0 AND k < 10) NOT VALID",
    "ALTER TABLE p1 VALIDATE CONSTRAINT x",
    "ALTER TABLE pt ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10)",
  ],
  "detach-not-concurrently": [
    "CREATE TABLE p2 PARTITION OF pt FOR VALUES FROM (20) TO (30)",
    `${NO_TX}ALTER TABLE pt DETACH PARTITION p2 CONCURRENTLY`,
  ],
  "json-column": ["ALTER TABLE t ADD x jsonb"],
  "change-domain": ["ALTER DOMAIN plain ADD CONSTRAINT x CHECK (value > 0) NOT VALID"],
  "create-partition": [
    "CREATE TABLE p2 (LIKE pt)",
    "CREATE TABLE p3 (LIKE pt); ALTER TABLE pt ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30)",
  ],
  "create-trigger": [
    `${ALLOW("create-trigger")}CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`,
  ],
  "drop-cascade": ["DROP FUNCTION any_one()"],
  "drop-database": ["SELECT 1"],
  "lock-timeout-off": ["-- pipeweave: lock-timeout 10s\nALTER TABLE t ADD x int"],
  "rename-enum-value": ["CREATE TYPE e AS ENUM ('a')", "ALTER TYPE e ADD VALUE 'b'"],
  "row-level-security": [
    `CREATE POLICY x ON t USING (true);\n${
      ALLOW("row-level-security")
    }ALTER TABLE t ENABLE ROW LEVEL SECURITY`,
  ],
  "foreign-key-without-index": [
    "CREATE TABLE f (id int PRIMARY KEY, u_id int REFERENCES u)",
    `${NO_TX}CREATE INDEX CONCURRENTLY x ON f (u_id)`,
  ],
  "long-identifier": [`CREATE TABLE ${"n".repeat(63)} (id int)`],
  "unused-allow": ["SELECT 1"],
  "unseen-code": ["ALTER TABLE t ADD x int"],
};

for (const [rule, files] of Object.entries(SAFE)) {
  Deno.test(`lint: the safe way of ${rule} is clean, and does no work while others wait`, async () => {
    await using database = await TestDatabase.empty();
    await database.sql.unsafe(SETUP);
    const session = database.session();
    const memory = new Memory();
    for (const [index, sql] of files.entries()) {
      const migration = migrationOf(sql);
      const isLast = index === files.length - 1;
      const withDatabase = await lint(migration, { memory, measure: measureOn(session) });
      if (isLast) assertEquals(withDatabase.map(({ code }) => code), [], sql);
      const { noTransaction, requiresMaintenance } = migration.directives;
      if (isLast && !noTransaction && !requiresMaintenance) {
        const { locks, works } = await run(database.sql, sql);
        const isExempt = /REFRESH|allow|BETWEEN/.test(sql);
        assert(isExempt || !works || [...locks.values()].every((mode) => mode < 5), sql);
      }
      if (noTransaction) {
        for (const { start, end } of await parseStatements(sql)) {
          await database.sql.unsafe(sql.slice(start, end));
        }
      } else await database.sql.begin((transaction) => transaction.unsafe(sql));
    }
  });
}

Deno.test("lint: functions that count as not volatile are so on this server", async () => {
  await using database = await TestDatabase.empty();
  const rows = await database.sql`SELECT DISTINCT proname AS name FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v' AND prokind = 'f'`;
  // One of its forms, of timetz, was volatile in older versions.
  const older = await majorVersion(database) < 18 ? ["timezone"] : [];
  const wrong = rows.map(({ name }) => String(name)).filter((name) => NOT_VOLATILE.has(name));
  assertEquals(wrong.filter((name) => !older.includes(name)), []);
});
