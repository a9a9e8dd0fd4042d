import { assertEquals, assertStringIncludes } from "@std/assert";
import { readDirectives } from "./directives.ts";
import { formatFinding, validateSql } from "./validate.ts";

function check(sql: string) {
  const { directives } = readDirectives(sql);
  return validateSql({
    version: "001",
    name: "x",
    checksum: "",
    size: sql.length,
    sql,
    file: "001_x.sql",
    source: "dir",
    directives,
  });
}

Deno.test("validateSql finds what a migration cannot hold", async () => {
  const table: readonly (readonly [string, string | undefined])[] = [
    ["CREATE TABLE t (a int);", undefined],
    ["BEGIN; SELECT 1; COMMIT;", "transaction_control"],
    ["START TRANSACTION; SELECT 1;", "transaction_control"],
    ["SELECT 1; ROLLBACK;", "transaction_control"],
    ["SAVEPOINT a;", "transaction_control"],
    ["PREPARE TRANSACTION 'x';", "transaction_control"],
    ["CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;", undefined],
    ["CREATE INDEX CONCURRENTLY i ON t (a);", "not_in_transaction"],
    ["-- pipeweave: no-transaction\nCREATE INDEX CONCURRENTLY i ON t (a);", undefined],
    ["-- pipeweave: no-transaction\nBEGIN;", "transaction_control"],
    ["CREATE INDEX i ON t (a);", undefined],
    ["DROP INDEX CONCURRENTLY i;", "not_in_transaction"],
    ["REINDEX TABLE CONCURRENTLY t;", "not_in_transaction"],
    ["REINDEX (CONCURRENTLY) INDEX i;", "not_in_transaction"],
    ["REINDEX TABLE t;", undefined],
    ["REINDEX SCHEMA s;", "not_in_transaction"],
    ["VACUUM t;", "not_in_transaction"],
    ["ANALYZE t;", undefined],
    ["CREATE DATABASE d;", "not_in_transaction"],
    ["DROP DATABASE d;", "not_in_transaction"],
    ["ALTER SYSTEM SET work_mem = '1MB';", "not_in_transaction"],
    ["ALTER TABLE p DETACH PARTITION c CONCURRENTLY;", "not_in_transaction"],
    ["ALTER TABLE p DETACH PARTITION c;", undefined],
    ["CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p;", "not_in_transaction"],
    ["DISCARD ALL;", "not_in_transaction"],
    ["COPY t FROM STDIN;", "copy_stdio"],
    ["COPY t TO STDOUT;", "copy_stdio"],
    ["COPY t FROM '/tmp/x';", undefined],
    ["\\set x 1\nSELECT 1;", "psql_command"],
    ["SELEKT 1;", "syntax"],
    ["CREATE TABLE t (", "syntax"],
    ["SELECT 'open;", "syntax"],
    ["-- nothing here", "no_statement"],
  ];
  for (const [sql, code] of table) assertEquals((await check(sql))[0]?.code, code, sql);
});

Deno.test("a finding shows the file, the place, the line and the fix", async () => {
  const [finding] = await check("-- é\nCREATE TABLE t (a int);\n  COMMIT;\n");
  assertEquals(
    formatFinding(finding!),
    `001_x.sql:3:3: COMMIT is not allowed in a migration
  3 |   COMMIT;
    |   ^
  fix: Leave it out: the file runs in a transaction of its own. For a part that may fail, use a DO block with EXCEPTION.`,
  );
  const [syntax] = await check("CREATE TABLE t (\n  a int,\n  b itn eger\n);");
  assertStringIncludes(formatFinding(syntax!), "001_x.sql:3:9");
});
