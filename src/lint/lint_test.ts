import { assert, assertEquals } from "@std/assert";
import { readDirectives } from "../migrations/directives.ts";
import { lint } from "./lint.ts";
import { LINT_RULES } from "./rules.ts";
import { migrationOf } from "../../tests/support/migration.ts";

const rulesIn = async (sql: string) => (await lint(migrationOf(sql))).map(({ code }) => code as string);

const NO_TX = "-- pipeweave: no-transaction\n";
/** An index for foreign keys on a, before the statement that is looked at. */
const T_A = "CREATE INDEX CONCURRENTLY t_a ON t (a); ";

/** SQL, and the rules that it breaks. */
const TABLE: readonly (readonly [sql: string, rules: readonly string[]])[] = [
  ["CREATE INDEX i ON t (a)", ["index-not-concurrently"]],
  ["CREATE INDEX ON s.t (a)", ["index-not-concurrently"]],
  [`${NO_TX}CREATE INDEX CONCURRENTLY i ON t (a)`, []],
  ["CREATE TABLE t (a int); CREATE INDEX i ON t (a)", []],
  ["CREATE TABLE s.t (a int); CREATE INDEX i ON t (a)", []],
  ["CREATE TABLE s.t (a int); CREATE INDEX i ON r.t (a)", ["index-not-concurrently"]],
  ["CREATE TABLE t AS SELECT 1; CREATE INDEX i ON t (a)", []],
  ["SELECT 1 AS a INTO t; CREATE INDEX i ON t (a)", []],
  [
    "CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE UNIQUE INDEX i ON m (a); REFRESH MATERIALIZED VIEW m",
    [],
  ],
  ["DROP INDEX i", ["drop-index-not-concurrently"]],
  [`${NO_TX}DROP INDEX CONCURRENTLY i`, []],
  ["CREATE TABLE t (a int); CREATE INDEX i ON t (a); DROP INDEX i", []],
  ["REINDEX TABLE t", ["reindex-not-concurrently"]],
  [`${NO_TX}REINDEX (CONCURRENTLY) TABLE t`, []],
  [`${NO_TX}REINDEX TABLE CONCURRENTLY t`, []],
  ["ALTER TABLE t ALTER a SET NOT NULL", ["set-not-null"]],
  // Whether c says anything of a is not known here.
  ["ALTER TABLE t VALIDATE CONSTRAINT c; ALTER TABLE t ALTER a SET NOT NULL", ["set-not-null"]],
  ["ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL AND a > 0); ALTER TABLE t ALTER a SET NOT NULL", [
    "add-check",
  ]],
  ["ALTER TABLE t ADD CONSTRAINT c CHECK (b IS NOT NULL); ALTER TABLE t ALTER a SET NOT NULL", [
    "add-check",
    "set-not-null",
  ]],
  [
    "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL OR b) NOT VALID; ALTER TABLE t ALTER a SET NOT NULL",
    ["set-not-null"],
  ],
  ["ALTER TABLE t ADD CONSTRAINT n NOT NULL a", ["set-not-null"]],
  ["ALTER TABLE t ADD CONSTRAINT n NOT NULL a NOT VALID", []],
  ["ALTER TABLE t ADD a int", []],
  ["ALTER TABLE t ADD a int NOT NULL", ["add-required-column"]],
  ["ALTER TABLE t ADD a int NOT NULL DEFAULT 0", []],
  ["ALTER TABLE t ADD a timestamptz DEFAULT now()", []],
  ["ALTER TABLE t ADD a timestamptz DEFAULT CURRENT_TIMESTAMP", []],
  ["ALTER TABLE t ADD a timestamptz DEFAULT clock_timestamp()", ["add-column-volatile-default"]],
  ["ALTER TABLE t ADD a uuid DEFAULT gen_random_uuid()", ["add-column-volatile-default"]],
  ["ALTER TABLE t ADD a text DEFAULT 'x' || random()", ["add-column-volatile-default"]],
  ["ALTER TABLE t ADD a bigserial", ["add-column-volatile-default"]],
  ["ALTER TABLE t ADD a int GENERATED ALWAYS AS IDENTITY", ["add-column-volatile-default"]],
  ["ALTER TABLE t ADD a int GENERATED ALWAYS AS (b + 1) STORED", ["add-generated-column"]],
  ["ALTER TABLE t ADD a int GENERATED ALWAYS AS (b + 1) VIRTUAL", []],
  ["ALTER TABLE t ALTER a TYPE bigint", ["change-column-type"]],
  ["CREATE TABLE t (a int); ALTER TABLE t ALTER a TYPE bigint, ADD b json, ALTER a SET NOT NULL", []],
  [`${T_A}ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id)`, ["add-foreign-key"]],
  [`${T_A}ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id) NOT VALID`, []],
  ["ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id) NOT VALID", ["foreign-key-without-index"]],
  ["CREATE TABLE t (a int REFERENCES u (id))", ["foreign-key-without-index"]],
  ["CREATE TABLE t (a int REFERENCES u (id)); CREATE INDEX ON t (b, a)", ["foreign-key-without-index"]],
  ["CREATE TABLE t (a int REFERENCES u (id)); CREATE INDEX ON t (a) WHERE a > 0", [
    "foreign-key-without-index",
  ]],
  ["CREATE TABLE t (a int REFERENCES u (id)); CREATE INDEX ON t (a, b)", []],
  ["CREATE TABLE t (a int, b int, PRIMARY KEY (b, a), FOREIGN KEY (a, b) REFERENCES u)", []],
  ["CREATE TABLE t (a int PRIMARY KEY REFERENCES u)", []],
  ["CREATE TABLE s.t (a int REFERENCES u); CREATE INDEX CONCURRENTLY i ON r.t (a)", [
    "foreign-key-without-index",
  ]],
  [`CREATE TABLE ${"n".repeat(63)} (a int)`, []],
  [`CREATE TABLE ${"n".repeat(64)} (a int)`, ["long-identifier"]],
  [`CREATE TABLE "${"é".repeat(32)}" (a int)`, ["long-identifier"]],
  [`CREATE TABLE n (a text DEFAULT '${"n".repeat(64)}') -- ${"m".repeat(64)}`, []],
  ["ALTER TABLE t ADD PRIMARY KEY USING INDEX i", ["set-not-null"]],
  ["CREATE TABLE p (a int NOT NULL); ALTER TABLE p ADD PRIMARY KEY USING INDEX i", []],
  // Of a column that is NULL everywhere PostgreSQL knows that it fulfils it.
  [`${T_A}ALTER TABLE t ADD a int REFERENCES u (id)`, []],
  [`${T_A}ALTER TABLE t ADD a int DEFAULT 1 REFERENCES u (id)`, ["add-foreign-key"]],
  [`${T_A}ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id) NOT ENFORCED`, []],
  ["ALTER TABLE t ADD CHECK (a > 0) NOT ENFORCED", []],
  ["ALTER TABLE t ADD a text DEFAULT repeat('x', 3) || format('%s', 1)", []],
  ["ALTER TABLE t ADD a text DEFAULT to_slug()", ["add-column-volatile-default"]],
  ["ALTER TABLE t ADD a timestamptz DEFAULT app.now()", ["add-column-volatile-default"]],
  ["ALTER TABLE t ADD a int[] DEFAULT array_shuffle('{1,2}'::int[])", ["add-column-volatile-default"]],
  [
    "CREATE FUNCTION one() RETURNS int IMMUTABLE LANGUAGE sql AS 'select 1'; ALTER TABLE t ADD a int DEFAULT one()",
    [],
  ],
  ["CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'select 1'; ALTER TABLE t ADD a int DEFAULT one()", [
    "add-column-volatile-default",
  ]],
  ["CREATE DOMAIN d AS int CHECK (value > 0); ALTER TABLE t ADD a d", ["add-column-volatile-default"]],
  ["CREATE DOMAIN d AS int; ALTER TABLE t ADD a d", []],
  ["ALTER TABLE t ALTER a SET EXPRESSION AS (b + 1)", ["add-generated-column"]],
  ["CREATE TABLE t (a int REFERENCES u (id) CHECK (a > 0) UNIQUE)", []],
  ["ALTER TABLE t ADD CHECK (a > 0)", ["add-check"]],
  ["ALTER TABLE t ADD CHECK (a > 0) NOT VALID", []],
  ["ALTER TABLE t VALIDATE CONSTRAINT c", []],
  [
    "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID; ALTER TABLE t VALIDATE CONSTRAINT c",
    ["validate-in-same-transaction"],
  ],
  [`${NO_TX}ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID; ALTER TABLE t VALIDATE CONSTRAINT c`, []],
  ["ALTER TABLE t ADD UNIQUE (a)", ["add-unique-constraint"]],
  ["ALTER TABLE t ADD PRIMARY KEY (a)", ["add-unique-constraint"]],
  ["ALTER TABLE t ADD a int UNIQUE", ["add-unique-constraint"]],
  ["ALTER TABLE t ADD CONSTRAINT u UNIQUE USING INDEX i", []],
  ["ALTER TABLE t ADD EXCLUDE USING gist (a WITH &&)", ["add-exclusion-constraint"]],
  ["ALTER TABLE t RENAME TO u", ["rename-table"]],
  ["ALTER VIEW t RENAME TO u", ["rename-table"]],
  ["ALTER SCHEMA a RENAME TO b", ["rename-table"]],
  ["ALTER TABLE t SET SCHEMA u", ["rename-table"]],
  ["ALTER TABLE t RENAME a TO b", ["rename-column"]],
  ["CREATE TYPE p AS (a int); ALTER TYPE p RENAME ATTRIBUTE a TO b", []],
  ["ALTER INDEX i RENAME TO j", []],
  ["DROP TABLE t", ["drop-table"]],
  ["DROP VIEW IF EXISTS t", ["drop-view"]],
  ["DROP VIEW v; CREATE VIEW v AS SELECT 1", []],
  ["ALTER TABLE t RENAME TO u; CREATE VIEW t AS SELECT * FROM u", []],
  ["CREATE TABLE IF NOT EXISTS t (a int); DROP TABLE t", ["drop-table"]],
  ["CREATE TABLE IF NOT EXISTS t (a int); CREATE INDEX i ON t (a)", ["index-not-concurrently"]],
  ["CREATE MATERIALIZED VIEW IF NOT EXISTS t AS SELECT 1; DROP MATERIALIZED VIEW t", []],
  ["CREATE OR REPLACE VIEW v AS SELECT 1; DROP VIEW v", []],
  ["ALTER TABLE t ADD IF NOT EXISTS a int; ALTER TABLE t DROP a", ["drop-column"]],
  ["CREATE TABLE r.t (a int); DROP TABLE s.t", ["drop-table"]],
  ["DROP TYPE e CASCADE", ["drop-cascade"]],
  ["DROP EXTENSION x CASCADE", ["drop-cascade"]],
  ["DROP FUNCTION f(int) CASCADE", ["drop-cascade"]],
  ["DROP SEQUENCE s", []],
  ["DROP OWNED BY joe", ["drop-cascade"]],
  [`${NO_TX}DROP DATABASE d`, ["drop-database"]],
  ["ALTER TYPE e RENAME VALUE 'a' TO 'b'", ["rename-enum-value"]],
  ["ALTER TYPE e ADD VALUE 'c'", []],
  ["ALTER TYPE c ALTER ATTRIBUTE a TYPE bigint CASCADE", ["rewrite-table"]],
  ["ALTER DOMAIN d ADD CONSTRAINT c CHECK (value > 0)", ["change-domain"]],
  ["ALTER DOMAIN d ADD CONSTRAINT c CHECK (value > 0) NOT VALID", []],
  ["ALTER DOMAIN d SET NOT NULL", ["change-domain"]],
  ["ALTER DOMAIN d DROP NOT NULL", []],
  ["CREATE TABLE p PARTITION OF t FOR VALUES IN (1)", ["create-partition"]],
  ["CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t FOR VALUES IN (1)", []],
  ["CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", ["create-trigger"]],
  ["CREATE TABLE t (a int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()", []],
  ["ALTER TABLE t ENABLE ROW LEVEL SECURITY", ["row-level-security"]],
  ["SET lock_timeout = 0", ["lock-timeout-off"]],
  ["SET LOCAL lock_timeout = '0'", ["lock-timeout-off"]],
  ["SET lock_timeout = '5s'", []],
  ["DO $$BEGIN CREATE INDEX i ON t (a); END$$", ["index-not-concurrently"]],
  ["DO $$BEGIN IF true THEN EXECUTE 'DROP TABLE t'; END IF; END$$", ["drop-table"]],
  ["DO $$BEGIN EXECUTE format('ALTER TABLE t ADD CHECK (%I > 0)', 'a'); END$$", ["add-check"]],
  ["DO $$DECLARE s text; BEGIN s := 'x'; EXECUTE s; END$$", ["unseen-code"]],
  ["DO LANGUAGE plpython3u 'pass'", ["unseen-code"]],
  ["-- pipeweave: allow drop-table nobody uses it\nSELECT 1", ["unused-allow"]],
  ["CREATE TABLE t (a int); DO $$BEGIN CREATE INDEX i ON t (a); END$$", []],
  ["DROP SCHEMA s CASCADE", ["drop-table"]],
  ["CREATE TABLE t (a int); DROP TABLE t", []],
  ["DROP FUNCTION f()", []],
  ["ALTER TABLE t DROP COLUMN a", ["drop-column"]],
  ["ALTER TABLE t ADD a int; ALTER TABLE t DROP a", []],
  ["TRUNCATE t, u", ["truncate", "truncate"]],
  ["UPDATE t SET a = 1", ["whole-table-change"]],
  ["UPDATE t SET a = 1 WHERE b", []],
  ["DELETE FROM t", ["whole-table-change"]],
  ["UPDATE t SET a = 1 WHERE true", ["whole-table-change"]],
  ["DELETE FROM t WHERE 1 = 1", ["whole-table-change"]],
  ["UPDATE t SET a = 1 WHERE a IS NULL OR a IS NOT NULL", ["whole-table-change"]],
  ["UPDATE t SET a = 1 WHERE a IS NULL OR b IS NOT NULL", []],
  ["UPDATE t SET a = 1 WHERE true AND (b OR true)", ["whole-table-change"]],
  ["UPDATE t SET a = 1 WHERE true AND b", []],
  ["DELETE FROM t USING u WHERE t.a = u.a", []],
  ["WITH x AS (UPDATE t SET a = a RETURNING 1) SELECT count(*) FROM x", ["whole-table-change"]],
  ["ALTER TABLE t ADD a int; UPDATE t SET a = 1 WHERE b", ["work-under-lock"]],
  ["ALTER TABLE t ADD a int; INSERT INTO u SELECT * FROM t", ["work-under-lock"]],
  ["ALTER TABLE t ADD a int; CREATE TABLE n AS SELECT * FROM big", ["work-under-lock"]],
  ["ALTER TABLE t ADD a int; CREATE TABLE n AS SELECT * FROM big WITH NO DATA", []],
  ["ALTER TABLE t ADD a int; REFRESH MATERIALIZED VIEW CONCURRENTLY m", [
    "work-under-lock",
    "lock-after-lock",
  ]],
  ["ALTER TABLE t ADD a int; SELECT backfill()", ["work-under-lock"]],
  ["ALTER TABLE t ADD a int; CALL backfill()", ["work-under-lock"]],
  ["ALTER TABLE t ADD a int; SELECT set_config('a.b', 'c', true), now()", []],
  ["ALTER TABLE t ADD a int; SELECT 1 FROM pg_class", []],
  ["ALTER TABLE t ADD a int; WITH x AS (SELECT 1 AS a) INSERT INTO u SELECT a FROM x", []],
  ["ALTER TABLE t ADD a int; MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", [
    "work-under-lock",
  ]],
  ["CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); UPDATE t SET a = 1 WHERE b", [
    "create-trigger",
    "work-under-lock",
  ]],
  ["ALTER TABLE t ALTER a SET STATISTICS 500; UPDATE t SET a = 1 WHERE b", []],
  ["ALTER TABLE t SET (fillfactor = 80); ALTER TABLE u SET (fillfactor = 80)", []],
  ["ALTER TABLE t ADD a int; ALTER TABLE u VALIDATE CONSTRAINT c", ["work-under-lock"]],
  ["ALTER TABLE t ADD a int; ALTER TABLE u ADD b int; ALTER TABLE t ADD c int; ALTER TABLE u ADD d int", [
    "lock-after-lock",
  ]],
  // A stronger one is waited for too.
  [`${T_A}ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id) NOT VALID; ALTER TABLE u ADD b int`, [
    "lock-after-lock",
  ]],
  [`${T_A}ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id) NOT VALID; ALTER TABLE w ADD b int`, [
    "lock-after-lock",
  ]],
  ["DROP TRIGGER g ON t; DROP POLICY p ON u", ["lock-after-lock"]],
  ["ALTER TABLE t ADD a int; CREATE TABLE n (a int PRIMARY KEY REFERENCES u)", ["lock-after-lock"]],
  ["ALTER TABLE t ADD a int; INSERT INTO u VALUES (1)", []],
  ["ALTER TABLE t ADD a int; ALTER TABLE u ADD a int", ["lock-after-lock"]],
  ["ALTER TABLE t ADD a int; ALTER TABLE t ADD b int", []],
  [`${NO_TX}ALTER TABLE t ADD a int; ALTER TABLE u ADD a int; UPDATE u SET a = 1 WHERE b`, []],
  ["LOCK TABLE t", ["lock-table"]],
  ["LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE", []],
  [`${NO_TX}VACUUM FULL t`, ["rewrite-table"]],
  [`${NO_TX}VACUUM (FULL false) t`, []],
  [`${NO_TX}VACUUM t`, []],
  ["CLUSTER t USING i", ["rewrite-table"]],
  ["ALTER TABLE t SET UNLOGGED", ["rewrite-table"]],
  ["ALTER TABLE t SET TABLESPACE u", ["rewrite-table"]],
  ["REFRESH MATERIALIZED VIEW m", ["refresh-not-concurrently"]],
  ["REFRESH MATERIALIZED VIEW CONCURRENTLY m", []],
  ["ALTER TABLE t ATTACH PARTITION p DEFAULT", ["attach-partition"]],
  ["CREATE TABLE p (a int); ALTER TABLE t ATTACH PARTITION p DEFAULT", []],
  ["ALTER TABLE t DETACH PARTITION p", ["detach-not-concurrently"]],
  [`${NO_TX}ALTER TABLE t DETACH PARTITION p CONCURRENTLY`, []],
  ["ALTER TABLE t ADD a json", ["json-column"]],
  ["ALTER TABLE t ADD a jsonb", []],
  ["CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC DELETE FROM t; SELECT 1; END", []],
  ["syntax error here", []],
];

Deno.test("lint: every rule, what breaks it and what does not", async () => {
  const broken = new Set<string>();
  for (const [sql, rules] of TABLE) {
    assertEquals(await rulesIn(sql), rules, sql);
    for (const rule of rules) broken.add(rule);
  }
  assertEquals([...broken].sort(), Object.keys(LINT_RULES).sort(), "every rule has a case");
});

Deno.test("lint: a finding tells where, why and the safe way", async () => {
  const [finding] = await lint(migrationOf("SELECT 1;\n\n  CREATE INDEX i ON t (a);"));
  assertEquals([finding?.location?.line, finding?.location?.column, finding?.blocks], [3, 3, "writes"]);
  assertEquals(finding?.message, "builds an index on t without CONCURRENTLY");
  assert(finding!.why.length > 0 && finding!.hint!.includes("CONCURRENTLY"));
});

Deno.test("lint: a finding points at the subcommand that it is about", async () => {
  const findings = await lint(
    migrationOf("-- ü 🐘\nALTER TABLE t ADD a int,\n  ADD b text CHECK (b <> ''),\n  ADD UNIQUE (a);"),
  );
  assertEquals(findings.map(({ code, location }) => [code, location?.line, location?.column]), [
    ["add-check", 3, 7],
    ["add-unique-constraint", 4, 7],
  ]);
  assertEquals(findings[0]!.location!.excerpt.split("\n").length, 3);
});

Deno.test("allow: for the file at its top, for a statement before it, and never without a reason", async () => {
  const index = "CREATE INDEX i ON t (a)";
  const top = "-- pipeweave: allow index-not-concurrently the table has ten rows\n";
  assertEquals(await rulesIn(`${top}${index}; ${index};`), ["index-not-concurrently"]);
  assertEquals(await rulesIn(`${top.replace("allow", "allow-file")}${index}; ${index};`), []);
  assertEquals(await rulesIn(`SELECT 1;\n${top}${index};\n${index};`), ["index-not-concurrently"]);
  assertEquals(await rulesIn(`${top}DROP TABLE t;`), ["drop-table", "unused-allow"]);
  assertEquals(await rulesIn(`SELECT 1;\n${top}`), ["unused-allow"]);
  assertEquals(await rulesIn(`-- pipeweave: allow index-not-concurrently\n${index};`), [
    "index-not-concurrently",
  ]);
  const problems = (sql: string) => readDirectives(sql).problems.map(({ line }) => line);
  assertEquals(problems(`SELECT 1;\n-- pipeweave: allow nonsense because\n${index};`), [2]);
  assertEquals(problems(`-- pipeweave: allow truncate\n${index};`), [1]);
  assertEquals(problems(`${top}${index};`), []);
});
