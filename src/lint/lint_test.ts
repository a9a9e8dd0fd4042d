import { assert, assertEquals } from "@std/assert";
import { readDirectives } from "../migrations/directives.ts";
import { lint } from "./lint.ts";
import { LINT_RULES } from "./rules.ts";
import type { Migration } from "../migrations/migration.ts";

function migrationOf(sql: string): Migration {
  const { directives } = readDirectives(sql);
  return {
    version: "001",
    name: "a",
    checksum: "",
    size: sql.length,
    sql,
    file: "m/001_a.sql",
    source: "m",
    directives,
  };
}

const rulesIn = async (sql: string) => (await lint(migrationOf(sql))).map(({ code }) => code as string);

const NO_TX = "-- pipeweave: no-transaction\n";

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
  ["ALTER TABLE t VALIDATE CONSTRAINT c; ALTER TABLE t ALTER a SET NOT NULL", []],
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
  ["ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id)", ["add-foreign-key"]],
  ["ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id) NOT VALID", []],
  ["ALTER TABLE t ADD a int REFERENCES u (id)", ["add-foreign-key"]],
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
  ["DROP VIEW IF EXISTS t", ["drop-table"]],
  ["DROP SCHEMA s CASCADE", ["drop-table"]],
  ["CREATE TABLE t (a int); DROP TABLE t", []],
  ["DROP FUNCTION f()", []],
  ["ALTER TABLE t DROP COLUMN a", ["drop-column"]],
  ["ALTER TABLE t ADD a int; ALTER TABLE t DROP a", []],
  ["TRUNCATE t, u", ["truncate", "truncate"]],
  ["UPDATE t SET a = 1", ["whole-table-change"]],
  ["UPDATE t SET a = 1 WHERE b", []],
  ["DELETE FROM t", ["whole-table-change"]],
  ["ALTER TABLE t ADD a int; UPDATE t SET a = 1 WHERE b", ["data-change-under-lock"]],
  ["ALTER TABLE t ADD a int; INSERT INTO u SELECT * FROM t", ["data-change-under-lock"]],
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

Deno.test("allow: for the file at its top, for a statement before it, and never without a reason", async () => {
  const index = "CREATE INDEX i ON t (a)";
  const top = "-- pipeweave: allow index-not-concurrently the table has ten rows\n";
  assertEquals(await rulesIn(`${top}${index}; ${index};`), []);
  assertEquals(await rulesIn(`SELECT 1;\n${top}${index};\n${index};`), ["index-not-concurrently"]);
  assertEquals(await rulesIn(`${top}DROP TABLE t;`), ["drop-table"]);
  assertEquals(await rulesIn(`-- pipeweave: allow index-not-concurrently\n${index};`), [
    "index-not-concurrently",
  ]);
  const problems = (sql: string) => readDirectives(sql).problems.map(({ line }) => line);
  assertEquals(problems(`SELECT 1;\n-- pipeweave: allow nonsense because\n${index};`), [2]);
  assertEquals(problems(`-- pipeweave: allow truncate\n${index};`), [1]);
  assertEquals(problems(`${top}${index};`), []);
});
