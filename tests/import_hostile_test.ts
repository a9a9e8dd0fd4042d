/**
 * What hostile folders and histories do to `db:import`: a half that is run, a file that is passed over, a history that is taken
 * for another. What the old tools do with each was measured with them.
 */

import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { importFolder, type ImportOptions, type ImportResult } from "../src/commands/import.ts";
import { PipeweaveError } from "../src/errors.ts";
import type { Tool } from "../src/import/foreign.ts";
import { folderWith, pipeweave } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

/** Reads a folder; nothing is written. */
async function look(
  files: Readonly<Record<string, string | Uint8Array>>,
  from?: Tool,
  more: Partial<ImportOptions> = {},
): Promise<ImportResult> {
  await using folder = await folderWith({});
  for (const [name, text] of Object.entries(files)) {
    await Deno.mkdir(`${folder.path}/${name}/..`.replace(/[^/]+\/\.\.$/, ""), { recursive: true });
    const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
    await Deno.writeFile(`${folder.path}/${name}`, bytes);
  }
  return await importFolder(undefined, { folder: folder.path, from, ...more });
}

const upOf = (result: ImportResult) => result.files.map(({ sql }) => sql.replace(/\s+/g, " ").trim());
const downOf = (result: ImportResult) => result.files.map(({ down }) => down?.replace(/\s+/g, " ").trim());
const told = (result: ImportResult) =>
  [...result.decisions, ...result.files.flatMap(({ decisions }) => decisions)].join("\n");
const problemsOf = (result: ImportResult) =>
  result.problems.map(({ file, message }) => `${file}: ${message}`).join("\n");

Deno.test("import: a mark is one where the old tool takes it for one, and a comment elsewhere", async () => {
  for (
    const [tool, text, up, down] of [
      [
        "dbmate",
        "-- migrate:up\nCREATE TABLE a();\n  -- migrate:down is below\nCREATE TABLE b();\n-- migrate:down\nDROP TABLE a;",
        "CREATE TABLE a(); -- was: migrate:down is below CREATE TABLE b();",
        "DROP TABLE a;",
      ],
      [
        "sql-migrate",
        "CREATE TABLE lead();\n-- +migrate Up\nCREATE TABLE a();\n  -- +migrate Down see below\n-- +migrate down\nCREATE TABLE b();\n-- +migrate Down\nDROP TABLE a;",
        "CREATE TABLE a(); -- was: +migrate Down see below -- was: +migrate down CREATE TABLE b();",
        "DROP TABLE a;",
      ],
      [
        "goose",
        "-- +goose Up\nCREATE TABLE a();\n  -- +goose Down\nCREATE TABLE b();\n-- +goose Down\nDROP TABLE a;",
        "CREATE TABLE a(); -- was: +goose Down CREATE TABLE b();",
        "DROP TABLE a;",
      ],
      [
        "node-pg-migrate",
        "CREATE TABLE lead();\n-- Up Migration: makes a\nCREATE TABLE a();\n---- Down Migration (undoes it) ----\nDROP TABLE a;",
        "CREATE TABLE a();",
        "DROP TABLE a;",
      ],
      [
        "node-pg-migrate",
        "-- Down Migration\nDROP TABLE a;\n  -- up migration\nCREATE TABLE a();",
        "CREATE TABLE a();",
        "DROP TABLE a;",
      ],
    ] as const
  ) {
    const read = await look({ "001_x.sql": text }, tool);
    assertEquals([upOf(read), downOf(read), read.problems], [[up], [down], []], `${tool}: ${text}`);
  }
});

Deno.test("import: a comment of another tool keeps all of its lines, so that nothing in it is run", async () => {
  const read = await look({
    "1_a.up.sql": "-- up\nCREATE TABLE t(id int);\n/* down\nDROP TABLE t;\n-- */\n",
  }, "golang-migrate");
  assertEquals(upOf(read), ["-- was: up CREATE TABLE t(id int); /* was: down DROP TABLE t; -- */"]);
  assertStringIncludes(told(read), "became remarks");
});

Deno.test("import: the files that the old tool reads, by its names and in its order; others are told", async () => {
  const order = async (tool: Tool, files: Record<string, string>) => {
    const read = await look(files, tool);
    return [read.files.map(({ from }) => from), told(read)] as const;
  };
  const a = "-- migrate:up\nSELECT 1;";
  assertEquals(
    (await order("dbmate", {
      "9_b.sql": a,
      "10_a.sql": a,
      "2020.b.sql": a,
      "3c.sql": a,
      "seed.sql": "SELECT 1;",
    }))[0],
    ["10_a.sql", "2020.b.sql", "3c.sql", "9_b.sql"],
  );
  assertEquals(
    (await order("sql-migrate", {
      "init.sql": "-- +migrate Up\n",
      "2a_b.sql": "-- +migrate Up\n",
      "10.sql": "-- +migrate Up\n",
    }))[0],
    ["2a_b.sql", "10.sql", "init.sql"],
  );
  const golang = await order("golang-migrate", {
    ...{ "1_a.up.sql": "SELECT 1;", "1_drop_a.down.sql": "SELECT 2;", "2-b.up.sql": "SELECT 1;" },
    ...{ "3_seed.sql": "SELECT 1;", "5_e.up.pgsql": "SELECT 1;", "9/7_deep.up.sql": "SELECT 1;" },
  });
  assertEquals(golang[0], ["1_a.up.sql", "5_e.up.pgsql"]);
  assertStringIncludes(golang[1], "3 file(s) were left out, since golang-migrate does not read them");
  assertEquals(
    downOf(await look({ "1_a.up.sql": "SELECT 1;", "1_drop_a.down.sql": "SELECT 2;" }, "golang-migrate")),
    ["SELECT 2;"],
    "the version alone makes them a pair",
  );
  assertEquals(
    (await order("node-pg-migrate", {
      "20200101000000000_a.sql": "SELECT 1;",
      "1600000000000_b.sql": "SELECT 1;",
      "1500000000000c.sql": "SELECT 1;",
    }))[0],
    ["1500000000000c.sql", "20200101000000000_a.sql", "1600000000000_b.sql"],
  );
  assertEquals(
    upOf(
      await look({
        "001_a.up.sql": "SELECT 1;",
        "001_a.down.sql": "SELECT 0;",
        "002_b.sql": "-- Up Migration\nSELECT 2;\n-- Down Migration\nSELECT 0;",
      }, "node-pg-migrate"),
    ),
    ["SELECT 1;", "SELECT 2;"],
  );
  const diesel = await look({
    "2018-01-01-000000/up.sql": "SELECT 1;",
    "2019-01-01-000000_b/up.sql": "SELECT 1;",
  }, "diesel");
  assertEquals(diesel.files.map(({ key }) => key), ["20180101000000", "20190101000000"]);
});

Deno.test("import of Liquibase: authors with blanks, databases, ignored sets and lines, properties, files without a header", async () => {
  const read = await look({
    "a.sql": `--liquibase formatted sql
--property name:tbl value:b1
--changeset John Doe:1
CREATE TABLE one();
  --changeset bob:2 dbms:!postgresql
CREATE TABLE not_here();
--changeset bob:3 dbms:h2,postgresql
CREATE TABLE three(); COMMENT ON TABLE three IS 'from \${tbl}';
--changeset bob:4 ignore:true
CREATE TABLE ignored();
--changeset bob:5
--ignoreLines:1
CREATE TABLE line_ignored();
CREATE TABLE five();
--ignoreLines:start
CREATE TABLE also_ignored();
--ignoreLines:end
`,
    "b.sql": "--liquibase formatted sql\n--changeset bob:3\nCREATE TABLE other();",
    "c.sql": "CREATE TABLE raw();",
    "sub/d.xml": '<databaseChangeLog><changeSet id="1"/></databaseChangeLog>',
  }, "liquibase");
  assertEquals(upOf(read), [
    "CREATE TABLE one();",
    "CREATE TABLE three(); COMMENT ON TABLE three IS 'from b1';",
    "CREATE TABLE five();",
    "CREATE TABLE other();",
    "CREATE TABLE raw();",
  ]);
  assertEquals(read.files.map(({ key }) => key), [
    ...["1::John Doe::a.sql", "3::bob::a.sql", "5::bob::a.sql", "3::bob::b.sql", "raw::includeAll::c.sql"],
  ]);
  assertStringIncludes(problemsOf(read), "sub/d.xml: is no SQL");
});

Deno.test("import: placeholders are seen in strings and bodies too, and only those of the tool are filled in", async () => {
  for (
    const [tool, name, text, mark] of [
      ["tern", "001_a.sql", "INSERT INTO t VALUES ('{{.prefix}}x');", "{{.prefix}}"],
      ["flyway", "V1__a.sql", "ALTER TABLE t ALTER a SET DEFAULT '${env}';", "${env}"],
      ["tern", "001_a.sql", "DO $$ BEGIN EXECUTE 'CREATE TABLE {{.prefix}}t()'; END $$;", "{{.prefix}}"],
    ] as const
  ) {
    assertStringIncludes(problemsOf(await look({ [name]: text }, tool)), `it holds placeholders: ${mark}`);
    const filled = await look({ [name]: text }, tool, { placeholders: { prefix: "zz", env: "zz" } });
    assert(filled.problems.length === 0 && upOf(filled)[0]!.includes("zz"), problemsOf(filled));
  }
  const json = `-- +goose Up\nINSERT INTO t VALUES ('{"k":env}');`;
  assertEquals(upOf(await look({ "1_a.sql": json }, "goose", { placeholders: { env: "prod" } })), [
    `INSERT INTO t VALUES ('{"k":env}');`,
  ]);
  assertStringIncludes(
    problemsOf(await look({ "1_a.sql": "-- +goose Up\n-- +goose ENVSUB ON\nSELECT '${A}';" }, "goose")),
    "goose fills in variables of the environment",
  );
  const sqitch = {
    "sqitch.plan": "%project=x\n\na 2024-01-01T00:00:00Z A <a@b>\n",
    "deploy/a.sql": `CREATE TABLE :"name" (x text DEFAULT :'value');`,
  };
  assertEquals(
    upOf(await look(sqitch, "sqitch", { placeholders: { name: "t", value: "it's" } })),
    [`CREATE TABLE "t" (x text DEFAULT 'it''s');`],
  );
});

Deno.test("import: psql reads no further than \\q; a line in a string is no command; COMMIT PREPARED stays", async () => {
  const of = (text: string) =>
    look({ "sqitch.plan": "%project=x\n\na 2024-01-01T00:00:00Z A <a@b>\n", "deploy/a.sql": text }, "sqitch");
  const quit = await of("\\set ON_ERROR_STOP 1\nCREATE TABLE a();\n\\q\nCREATE TABLE after_q();\n");
  assertEquals(upOf(quit), ["CREATE TABLE a();"]);
  assertStringIncludes(told(quit), "what stands behind \\q was left out");
  const string = await of("INSERT INTO t VALUES ('a\n\\echo b\n\\q\nc');\n\\echo done\n");
  assertEquals(upOf(string), ["INSERT INTO t VALUES ('a \\echo b \\q c');"]);
  const prepared = await of("COMMIT PREPARED 'x';\n");
  assertStringIncludes(upOf(prepared)[0]!, "COMMIT PREPARED");
});

Deno.test("import: texts stay as they are, or are told: line ends, encodings, NUL", async () => {
  const crlf = await look({ "1_a.up.sql": "INSERT INTO t VALUES ('a\r\nb');\r\n" }, "golang-migrate");
  assertStringIncludes(crlf.files[0]!.sql, "'a\r\nb'");
  // Go's scanner of lines, which goose and sql-migrate use, takes it away.
  const goose = await look({ "1_a.sql": "-- +goose Up\r\nINSERT INTO t VALUES ('a\r\nb');\r\n" }, "goose");
  assertStringIncludes(goose.files[0]!.sql, "'a\nb'");
  const latin = new Uint8Array([
    ...new TextEncoder().encode("SELECT 'caf"),
    0xe9,
    ...new TextEncoder().encode("';"),
  ]);
  assertStringIncludes(
    problemsOf(await look({ "1_a.up.sql": latin }, "golang-migrate")),
    "is not text in UTF-8",
  );
  assertStringIncludes(
    problemsOf(await look({ "1_a.up.sql": "SELECT 1;\0" }, "golang-migrate")),
    "is not text in UTF-8",
  );
});

Deno.test("import: what ends with a transaction, and what a session keeps, is told", async () => {
  const several = await look({
    "1_a.up.sql": "BEGIN; SET LOCAL search_path TO s; CREATE TABLE one(); COMMIT; CREATE TABLE two();",
  }, "golang-migrate");
  assertStringIncludes(
    problemsOf(several),
    "it has several transactions, and one of them sets what ends with it",
  );
  const session = await look(
    { "1_a.up.sql": "SET search_path TO a;", "2_b.up.sql": "CREATE TABLE t();" },
    "golang-migrate",
  );
  assertStringIncludes(
    told(session),
    "it sets search_path, which the old tool may keep for the files behind it",
  );
});

Deno.test("import: a table of the user's that is called like the old tool's, in another schema, stays", async () => {
  const read = await look({
    "001_a.sql":
      "CREATE TABLE app.schema_version(v int);\nINSERT INTO app.schema_version VALUES (1);\nDROP TABLE schema_version;",
  }, "tern");
  assertEquals(upOf(read), [
    "CREATE TABLE app.schema_version(v int); INSERT INTO app.schema_version VALUES (1);",
  ]);
});

Deno.test("import of sqitch: sqitch.conf says where its files are", async () => {
  const plan = "%project=x\n\na 2024-01-01T00:00:00Z A <a@b>\n";
  const read = await look({
    "sqitch.conf":
      '[core]\n\tengine = pg\n\ttop_dir = sql\n\tplan_file = sqitch.plan\n[engine "pg"]\n\tregistry = books\n',
    ...{ "sqitch.plan": plan, "sql/deploy/a.sql": "SELECT 1;", "sql/revert/a.sql": "SELECT 0;" },
  });
  assertEquals([read.tool, upOf(read), downOf(read)], ["sqitch", ["SELECT 1;"], ["SELECT 0;"]]);
});

Deno.test("import: marks as each tool parts a file, to the letter", async () => {
  const up = (name: string, text: string, tool: Tool) =>
    look({ [name]: text }, tool).then((read) =>
      [upOf(read)[0], downOf(read)[0], read.files[0]!.sql.includes("no-transaction")] as const
    );
  assertEquals(
    await up(
      "1_a.sql",
      "-- +migrate  Up\nCREATE TABLE a();\n-- +migrate  Down\nDROP TABLE a;",
      "sql-migrate",
    ),
    [
      "CREATE TABLE a();",
      "DROP TABLE a;",
      false,
    ],
  );
  const tern = "---- create above / drop below ----";
  assertEquals(await up("001_a.sql", `CREATE TABLE a(); ${tern}\nDROP TABLE a;`, "tern"), [
    "CREATE TABLE a();",
    "DROP TABLE a;",
    false,
  ]);
  const two = await up(
    "001_a.sql",
    "CREATE TABLE a();\n-- create above / drop below\nDROP TABLE a;\n-- tern: disable-tx",
    "tern",
  );
  assertEquals([two[1], two[2]], [undefined, false], "tern runs both, in a transaction");
  for (const options of ["transaction: false", "transaction:falsey"]) {
    assertEquals(
      (await up("1_a.sql", `-- migrate:up ${options}\nSELECT 1;\n-- migrate:down\n`, "dbmate"))[2],
      false,
      options,
    );
  }
  for (
    const [tool, text] of [["dbmate", "-- migrate: up\nSELECT 1;"], ["goose", "SELECT 1;"], [
      "sql-migrate",
      "SELECT 1;",
    ]] as const
  ) {
    const refused = await look({ "1_a.sql": text, "2_b.sql": "" }, tool);
    assertStringIncludes(problemsOf(refused), `has no mark for the way up, and ${tool} refuses it`);
    assertStringIncludes(upOf(refused)[0]!, "SELECT 1;");
  }
});

Deno.test("import of Liquibase: whose change set one is", async () => {
  const read = await look({
    "a/001.sql": "--liquibase formatted sql\n--changeset me:1\nSELECT 1;",
    "b/001.sql": "--liquibase formatted sql logicalFilePath:db/other.sql\n--changeset me:1\nSELECT 2;",
    "c.sql": "-- a remark\n--liquibase formatted sql\n--changeset me:1\nSELECT 3;",
    "d.sql":
      "--liquibase formatted sql\n--property name:t value:one\n--property name:t value:two\n--property name:w value:ora dbms:oracle\n--property name:w value:pg dbms:postgresql\n--changeset me:2\nSELECT '${t} ${w}';\n--changeset me:3 ignore:TRUE\nSELECT 4;",
    "build.py": "import os",
  }, "liquibase");
  assertEquals(read.files.map(({ key }) => key), [
    ...["1::me::a/001.sql", "1::me::db/other.sql", "raw::includeAll::c.sql", "2::me::d.sql"],
  ]);
  assertEquals(upOf(read).at(-1), "SELECT 'one pg';");
  assertEquals(read.problems, []);
  const table =
    "CREATE TABLE databasechangelog (id text, author text, filename text, orderexecuted int, dateexecuted timestamptz);";
  const half = await imported(
    {
      "a/001.sql": "--liquibase formatted sql\n--changeset me:1\nCREATE TABLE a();",
      "b/001.sql": "--liquibase formatted sql\n--changeset me:1\nCREATE TABLE b();",
    },
    `${table} INSERT INTO databasechangelog VALUES ('1', 'me', 'db/changelog/a/001.sql', 1, now())`,
  );
  assertEquals([half.code, half.rows], [0, ["001"]], half.stderr);
});

Deno.test("import of Liquibase: a change log has the order, and a precondition is not passed over", async () => {
  const set = (id: string, sql: string) => `--liquibase formatted sql\n--changeset me:${id}\n${sql}`;
  const files = {
    "sql/b.sql": set("b", "SELECT 1;"),
    "sql/a.sql": set("a", "SELECT 2;"),
    "more/c.sql": "SELECT 3;",
  };
  for (
    const [log, text] of [
      [
        "master.yaml",
        "databaseChangeLog:\n  - include:\n      file: sql/b.sql\n  - include:\n      file: sql/a.sql\n  - includeAll:\n      path: more/\n",
      ],
      [
        "master.xml",
        '<databaseChangeLog><include file="sql/b.sql"/><include relativeToChangelogFile="true" file="sql/a.sql"/><includeAll path="more"/></databaseChangeLog>',
      ],
      [
        "master.json",
        '{"databaseChangeLog":[{"include":{"file":"sql/b.sql"}},{"include":{"file":"sql/a.sql"}},{"includeAll":{"path":"more/"}}]}',
      ],
      [
        "master.xml",
        '<databaseChangeLog><include file="db/sub.xml"/><include file="/db/more/c.sql"/></databaseChangeLog>',
      ],
    ] as const
  ) {
    const sub = {
      "sub.xml":
        '<databaseChangeLog><include file="sql/b.sql"/><include file="sql/a.sql"/></databaseChangeLog>',
    };
    const read = await look({ ...files, ...(text.includes("sub.xml") ? sub : {}), [log]: text }, "liquibase");
    assertEquals(read.files.map(({ from }) => from), ["sql/b.sql", "sql/a.sql", "more/c.sql"], text);
    assertEquals(read.problems, []);
  }
  const conditional = await look({
    "a.sql":
      "--liquibase formatted sql\n--changeset me:1\n--preconditions onFail:MARK_RAN\n--precondition-sql-check expectedResult:0 SELECT 1\nSELECT 1;",
  }, "liquibase");
  assertStringIncludes(problemsOf(conditional), "it runs only where its precondition holds");
  const renamed = await imported(
    { "1_b.sql": set("b", "SELECT 1;") },
    `CREATE TABLE databasechangelog (id text, author text, filename text, orderexecuted int, dateexecuted timestamptz);
      INSERT INTO databasechangelog VALUES ('b', 'me', 'db/b.sql', 1, now())`,
  );
  assertEquals([renamed.code, renamed.rows], [5, []]);
  assertStringIncludes(
    renamed.stdout,
    "public.databasechangelog: has 1 applied, and none of them is in this folder",
  );
});

Deno.test("import: names of the history as the tool has them: 1 is not 01, a loader's .up, a baseline of a file", async () => {
  const dbmate = await imported(
    { "1_a.sql": "-- migrate:up\nSELECT 1;", "01_b.sql": "-- migrate:up\nSELECT 2;" },
    "CREATE TABLE schema_migrations (version varchar); INSERT INTO schema_migrations VALUES ('1')",
  );
  assertEquals([dbmate.code, dbmate.rows.length], [0, 1], dbmate.stdout);
  assertStringIncludes(dbmate.stdout, "not applied, though later ones are: 01_b");
  const loader = await imported(
    { "1_a.up.sql": "SELECT 1;", "1_a.down.sql": "SELECT 0;" },
    "CREATE TABLE pgmigrations (id int, name text, run_on timestamp); INSERT INTO pgmigrations VALUES (1, '1_a.up', now())",
    ["--from", "node-pg-migrate"],
  );
  assertEquals([loader.code, loader.rows], [0, ["1"]], loader.stdout);
  const flyway = await imported(
    { "B3__base.sql": "SELECT 0;", "V2__b.sql": "SELECT 2;", "V4__d.sql": "SELECT 4;" },
    `CREATE TABLE flyway_schema_history (installed_rank int, version text, script text, type text, checksum int, success bool, installed_on timestamptz, execution_time int);
      INSERT INTO flyway_schema_history VALUES (1, '3', 'B3__base.sql', 'SQL_BASELINE', 5, true, now(), 1)`,
  );
  assertEquals([flyway.code, flyway.rows], [0, ["2"]], flyway.stdout);
});

Deno.test("import: other options do not make an old output count as edited", async () => {
  await using folder = await folderWith({});
  await Deno.mkdir(`${folder.path}/old`);
  await Deno.writeTextFile(`${folder.path}/old/V1__a.sql`, "SELECT 'env=${env}';");
  await Deno.writeTextFile(`${folder.path}/old/V2__b.sql`, "SELECT 2;");
  const run = (...args: string[]) =>
    pipeweave(["db:import", "old", "--output", "new", "--offline", ...args], { cwd: folder.path });
  assertEquals((await run()).code, 5);
  const again = await run("--placeholder", "env=prod");
  assertEquals(again.code, 5);
  assertStringIncludes(
    again.stdout,
    "still holds placeholders: ${env}; fill them in there, or remove the folder",
  );
  await Deno.remove(`${folder.path}/new`, { recursive: true });
  assertEquals((await run("--placeholder", "env=prod")).code, 0);
  assertEquals(await Deno.readTextFile(`${folder.path}/new/1_a.sql`), "SELECT 'env=prod';\n");
});

Deno.test("import: placeholders where each tool fills them in", async () => {
  const graphile = {
    "committed/000001.sql":
      "--! Previous: -\n--! Hash: sha1:x\n\nSELECT 'of :DATABASE_OWNER\n--! b', '12:MI';",
  };
  assertStringIncludes(
    problemsOf(await look(graphile, "graphile-migrate")),
    "it holds placeholders: :DATABASE_OWNER;",
  );
  const filled = await look(graphile, "graphile-migrate", { placeholders: { DATABASE_OWNER: "ann" } });
  assertEquals(upOf(filled), ["SELECT 'of ann --! b', '12:MI';"]);
  const sqitch = {
    "sqitch.plan": "%project=x\n\n+ a 2024-01-01T00:00:00Z A <a@b>\n+b 2024-01-01T00:00:00Z A <a@b>\n",
    "deploy/a.sql": "INSERT INTO t VALUES ('hello :name', :'name', $$ :name $$, :name); -- :name",
    "deploy/b.sql": "SELECT 1;",
  };
  const read = await look(sqitch, "sqitch", { placeholders: { name: "val" } });
  assertEquals(upOf(read), [
    "INSERT INTO t VALUES ('hello :name', 'val', $$ :name $$, val); -- :name",
    "SELECT 1;",
  ]);
});

Deno.test("import: what undoes itself, sets for the session by a function, or has no way up", async () => {
  const undone = await look(
    { "1_a.up.sql": "BEGIN; CREATE TABLE a(); ROLLBACK; CREATE TABLE b();" },
    "golang-migrate",
  );
  assertStringIncludes(problemsOf(undone), "it rolls a part of itself back");
  const set = await look(
    { "1_a.up.sql": "SELECT pg_catalog.set_config('search_path', 'app', false);" },
    "golang-migrate",
  );
  assertStringIncludes(told(set), "it sets search_path");
  const nothing = await look({
    "1_a.up.sql":
      "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('x.y', 'z', false); END $$;",
    "2_b.up.sql":
      "-- once: SELECT set_config('a.b', 'c', false)\nSELECT set_config('c.d', 'x', true), coalesce(null, false);",
    "3_c.up.sql": "SELECT set_config('e.f', 'x;y', false);",
  }, "golang-migrate");
  assertEquals(nothing.files.map(({ decisions }) => decisions.length), [0, 0, 1]);
  const down = await imported(
    { "1_a.up.sql": "SELECT 1;", "2_b.down.sql": "SELECT 0;" },
    "CREATE TABLE schema_migrations (version bigint, dirty bool); INSERT INTO schema_migrations VALUES (2, false)",
  );
  assertEquals([down.code, down.rows], [0, ["1", "2"]], down.stdout);
  const long = await look({
    "1_a.sql": "",
    "2_b.sql": "SELECT 1;",
    [`3_${"x".repeat(200)}.sql`]: "SELECT 1;",
  }, "sqlx");
  assert(long.files[2]!.name.length <= 150);
});

Deno.test("import: an empty history of that name is in the way as well, and goes after the question", async () => {
  const empty = await imported(
    { "1_a.sql": "-- migrate:up\nSELECT 1;" },
    "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)",
  );
  assertEquals([empty.code, empty.rows], [0, []], empty.stderr);
  assertStringIncludes(empty.stdout, "the old table is now public.schema_migrations_of_dbmate");
  const elsewhere =
    "CREATE SCHEMA a; CREATE TABLE a.schema_migrations (version bigint, dirty bool); INSERT INTO a.schema_migrations VALUES (1, false)";
  const anybodys = await imported({ "1_a.up.sql": "SELECT 1;" }, elsewhere);
  assertEquals(anybodys.code, 5);
  assertStringIncludes(anybodys.stderr, "--history-table a.schema_migrations");
  const said = await imported({ "1_a.up.sql": "SELECT 1;" }, elsewhere, [
    "--history-table",
    "a.schema_migrations",
  ]);
  assertEquals([said.code, said.rows], [0, ["1"]], said.stderr);
});

Deno.test("import: pipes and folders in the output, and links in circles", async () => {
  await using folder = await folderWith({});
  await Deno.mkdir(`${folder.path}/old/deep`, { recursive: true });
  await Deno.writeTextFile(`${folder.path}/old/V1__a.sql`, "SELECT 1;");
  await Deno.symlink(".", `${folder.path}/old/a`);
  await Deno.symlink("..", `${folder.path}/old/deep/b`);
  await Deno.mkdir(`${folder.path}/taken/1_a.sql`, { recursive: true });
  await Deno.mkdir(`${folder.path}/piped`);
  await new Deno.Command("mkfifo", { args: [`${folder.path}/piped/1_a.sql`] }).output();
  const run = (output: string) =>
    pipeweave(["db:import", "old", "--output", output, "--offline"], { cwd: folder.path });
  for (const output of ["taken", "piped"]) {
    const refused = await run(output);
    assertEquals(refused.code, 2, output);
    assertStringIncludes(refused.stderr, "is not empty; nothing was written");
  }
  const done = await run("my out");
  assertEquals(done.code, 0, done.stderr);
  assertStringIncludes(done.stdout, "flyway: 1 migration(s)");
  assertStringIncludes(done.stdout, "Go on with: pipeweave db:status --dir 'my out'\n");
});

Deno.test("import: many lines for psql are read in one go", async () => {
  const text = Array.from({ length: 2000 }, (_, i) => `\\echo step ${i}\nSELECT ${i};\n`).join("");
  const read = await look({
    "sqitch.plan": "%project=x\n\na 2024-01-01T00:00:00Z A <a@b>\n",
    "deploy/a.sql": text,
  }, "sqitch");
  assert(!read.files[0]!.sql.includes("\\echo"));
  assertEquals(read.problems, []);
});

Deno.test("import: what real folders hold: no underscore, two of one version, templates, folders of pop", async () => {
  const diesel = await look({
    "2023-01-01-000000_a/up.sql": "SELECT 1;",
    "2023-05-23-1715-update-x/up.sql": "SELECT 2;",
    "2023-06-01-000000_b/up.sql": "SELECT 3;",
  }, "diesel");
  assertEquals(diesel.files.map(({ key }) => key), [
    "20230101000000",
    "202305231715updatex",
    "20230601000000",
  ]);
  assertEquals(diesel.files.map(({ version }) => version), [
    "20230101000000",
    "20230523171500",
    "20230601000000",
  ]);
  const two = await look({
    ...{ "10_a.up.sql": "SELECT 1;", "10_a.down.sql": "SELECT -1;", "10_b.up.sql": "SELECT 2;" },
    ...{ "10_b.down.sql": "SELECT -2;", "11_c.up.go": "package c", "11_c.down.sql": "SELECT -3;" },
  }, "golang-migrate");
  assertEquals(downOf(two), ["SELECT -1;", "SELECT -2;", undefined]);
  assertStringIncludes(told(two), "its way down, 11_c.down.sql, is yours to take over with it");
  assert(!told(two).includes("left out"), told(two));
  assertStringIncludes(
    problemsOf(await look({ "001_a.sql": '{{ template "func/f.sql" . }}' }, "tern")),
    "it is made of other files: put their text in its place: func/f.sql",
  );
  const pop = await look({
    "20200101000000_a.postgres.up.sql": "SELECT 1;",
    "20200101000000_a.mysql.up.sql": "SELECT 0;",
    "sub/20200101000001_b.up.sql": "SELECT 2;",
  }, "pop");
  assertEquals(upOf(pop), ["SELECT 1;", "SELECT 2;"]);
  assertEquals(pop.decisions, ["files for mysql were left out"]);
  const guessed = await look({ "001_a.sql": "SELECT 1;" });
  assertStringIncludes(told(guessed), "taken for sqlx's by the names of its files alone");
  const settings = await look({
    "1_a.up.sql": "SET search_path TO a; RESET search_path;",
    "2_b.up.sql": "SET statement_timeout = 0;",
  }, "golang-migrate");
  assertEquals(settings.files.map(({ decisions }) => decisions.length), [0, 1]);
  assertEquals(
    (await look(
      { "20200101000000_a.sql": "-- migrate:up\n", "2020010100000_b.sql": "-- migrate:up\n" },
      "dbmate",
    )).files
      .map(({ version }) => version.length),
    [14, 14],
  );
});

/** Imports a folder into a database, in a working folder of its own. */
async function imported(
  files: Readonly<Record<string, string>>,
  history: string,
  args: readonly string[] = [],
  edit: (folder: string) => Promise<void> = () => Promise.resolve(),
) {
  await using folder = await folderWith({});
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(history);
  for (const [name, text] of Object.entries(files)) {
    await Deno.mkdir(`${folder.path}/old/${name.split("/").slice(0, -1).join("/")}`, { recursive: true });
    await Deno.writeTextFile(`${folder.path}/old/${name}`, text);
  }
  const run = () =>
    pipeweave(["db:import", "old", "--output", "new", "--yes", ...args], {
      cwd: folder.path,
      env: { DATABASE_URL: database.url },
    });
  let outcome = await run();
  if (outcome.code === 5 && edit !== undefined) {
    await edit(`${folder.path}/new`);
    outcome = await run();
  }
  const has = (await database
    .sql`SELECT to_regclass('public.schema_migrations') AS t, to_regclass('migration_log') AS l`)[0]!;
  const rows = has["t"] && has["l"]
    ? (await database.sql`SELECT version FROM schema_migrations ORDER BY id`).map((row) =>
      String(row["version"])
    )
    : [];
  const names = [...Deno.readDirSync(folder.path)].map(({ name }) => name).sort();
  return { ...outcome, rows, names };
}

const GOOSE =
  `CREATE TABLE goose_db_version (id serial, version_id bigint, is_applied bool, tstamp timestamp DEFAULT now());
  INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, true)`;

Deno.test("import: a database that something was applied to, without the tool's history, is not taken for a new one", async () => {
  const folder = { "001_a.sql": "CREATE TABLE a();" };
  const other = await imported(folder, "CREATE TABLE pgmigrations (id int, name text, run_on timestamp)");
  assertEquals([other.code, other.names], [5, ["old"]]);
  assertStringIncludes(other.stderr, "read as sqlx's, and ");
  assertStringIncludes(
    other.stderr,
    "has a history of node-pg-migrate (public.pgmigrations), and no history of sqlx",
  );
  const unnamed = await imported(folder, "CREATE TABLE a()");
  assertEquals([unnamed.code, unnamed.names], [5, ["old"]]);
  assertStringIncludes(unnamed.stderr, "has tables (public.a is one), and no history of sqlx");
  assertStringIncludes(unnamed.stderr, "--history-table");
  const own = await imported(
    { "00001_a.sql": "-- +goose Up\nCREATE TABLE a();" },
    `CREATE SCHEMA x; ${
      GOOSE.replaceAll("goose_db_version", "x._books")
    }; INSERT INTO x._books (version_id, is_applied) VALUES (1, true)`,
    ["--history-table", "x._books"],
  );
  assertEquals([own.code, own.rows], [0, ["00001"]], own.stderr);
});

Deno.test("import: of two histories, and of a table of another kind, none is taken by guess", async () => {
  const folder = { "00001_a.sql": "-- +goose Up\nCREATE TABLE a();" };
  const two = await imported(
    folder,
    `${GOOSE}; CREATE SCHEMA app; CREATE TABLE app.goose_db_version (LIKE goose_db_version)`,
  );
  assertEquals([two.code, two.names], [5, ["old"]]);
  assertStringIncludes(
    two.stderr,
    "several histories of goose: app.goose_db_version, public.goose_db_version",
  );
  const foreign = await imported(
    { "1_a.sql": "-- migrate:up\nCREATE TABLE a();" },
    "CREATE SCHEMA crm; CREATE TABLE crm.schema_migrations (version text, note text); INSERT INTO crm.schema_migrations VALUES ('1', '')",
  );
  assertEquals(foreign.code, 5);
  assertStringIncludes(foreign.stderr, "no history of dbmate");
});

Deno.test("import: a version that no file has leaves open what is applied", async () => {
  const gone = await imported(
    { "1_a.up.sql": "CREATE TABLE a();" },
    "CREATE TABLE schema_migrations (version bigint, dirty bool); INSERT INTO schema_migrations VALUES (7, false)",
  );
  assertEquals([gone.code, gone.rows], [5, []]);
  assertStringIncludes(
    gone.stdout,
    "public.schema_migrations: says that 7 was applied last, and no file has that version",
  );
});

Deno.test("import: code that was written by hand counts as applied where the old tool has applied it", async () => {
  const applied =
    `${GOOSE}; INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, true), (2, true)`;
  const folder = {
    "00001_a.sql": "-- +goose Up\nCREATE TABLE a();",
    "00002_b.go": "package x",
    "00003_c.sql": "-- +goose Up\nSELECT 3;",
  };
  const done = await imported(folder, applied, [], async (path) => {
    await Deno.writeTextFile(`${path}/00002_b.sql`, "UPDATE acct SET balance = balance * 2;");
  });
  assertEquals([done.code, done.rows], [0, ["00001", "00002"]], done.stdout + done.stderr);
  const flyway =
    `CREATE TABLE flyway_schema_history (installed_rank int, version text, script text, type text, checksum int, success bool, installed_on timestamptz, execution_time int);
    INSERT INTO flyway_schema_history VALUES (1, '1', 'V1__a.sql', 'SQL', 5, true, now(), 1), (2, '2', 'V2__b.java', 'JDBC', NULL, true, now(), 1)`;
  const java = await imported(
    { "V1__a.sql": "SELECT 1;", "V2__b.java": "class x" },
    flyway,
    [],
    async (path) => {
      await Deno.writeTextFile(`${path}/2_b.sql`, "SELECT 2;");
    },
  );
  assertEquals([java.code, java.rows], [0, ["1", "2"]], java.stdout + java.stderr);
  assertStringIncludes(java.stdout, "edited since flyway applied them, and taken as they are now: 1_a");
});

Deno.test("import of Flyway: what was undone is not applied, and what is below the baseline is", async () => {
  const table =
    "CREATE TABLE flyway_schema_history (installed_rank int, version text, script text, type text, checksum int, success bool, installed_on timestamptz, execution_time int);";
  const files = { "V1__a.sql": "SELECT 1;", "V2__b.sql": "SELECT 2;", "V3__c.sql": "SELECT 3;" };
  const undone = await imported(
    files,
    `${table} INSERT INTO flyway_schema_history VALUES
    (1, '1', 'V1__a.sql', 'SQL', NULL, true, now(), 1), (2, '2', 'V2__b.sql', 'SQL', NULL, true, now(), 1), (3, '2', 'U2__b.sql', 'UNDO_SQL', NULL, true, now(), 1)`,
  );
  assertEquals([undone.code, undone.rows], [0, ["1"]], undone.stderr);
  const baseline = await imported(
    files,
    `${table} INSERT INTO flyway_schema_history VALUES (1, '2', '<< Flyway Baseline >>', 'BASELINE', NULL, true, now(), 0)`,
  );
  assertEquals([baseline.code, baseline.rows], [0, ["1", "2"]], baseline.stderr);
});

Deno.test("import of sqitch: another project's changes are not this one's", async () => {
  const plan = (project: string) => `%project=${project}\n\nusers 2024-01-01T00:00:00Z A <a@b>\n`;
  const done = await imported(
    { "sqitch.plan": plan("mine"), "deploy/users.sql": "CREATE TABLE users();" },
    `CREATE SCHEMA sqitch; CREATE TABLE sqitch.changes (change_id text, change text, project text, committed_at timestamptz, planned_at timestamptz);
      INSERT INTO sqitch.changes VALUES ('a', 'users', 'theirs', now(), now())`,
  );
  assertEquals([done.code, done.rows], [0, []], done.stderr);
  assertStringIncludes(done.stdout, "History of sqitch.changes: 0 of 1 applied");
});

Deno.test("import of Rails: all of its versions have to be there", async () => {
  const structure =
    "CREATE TABLE a();\nINSERT INTO \"schema_migrations\" (version) VALUES\n('20240101000000'),\n('20240102000000');\n";
  const partly = await imported(
    { "structure.sql": structure },
    "CREATE TABLE schema_migrations (version varchar); INSERT INTO schema_migrations VALUES ('20240102000000')",
  );
  assertEquals([partly.code, partly.rows], [5, []]);
  assertStringIncludes(partly.stdout, "1 version(s) of it are missing");
  const behind = await imported(
    { "structure.sql": structure },
    "CREATE TABLE schema_migrations (version varchar); INSERT INTO schema_migrations VALUES ('20240101000000')",
  );
  assertEquals([behind.code, behind.rows], [5, []]);
  const each =
    "CREATE TABLE a();\nINSERT INTO schema_migrations (version) VALUES ('20100101000000');\nINSERT INTO schema_migrations (version) VALUES ('20110101000000');\n";
  const old = await imported(
    { "structure.sql": each },
    "CREATE TABLE schema_migrations (version varchar); INSERT INTO schema_migrations VALUES ('20100101000000'), ('20110101000000')",
  );
  assertEquals([old.code, old.rows], [0, ["001"]], old.stdout);
  const none = await look({ "structure.sql": "CREATE TABLE a();" }, "rails");
  assertStringIncludes(problemsOf(none), "names no version of schema_migrations");
});

Deno.test("import: numbers that PipeWeave's own migrations have, and its reserved ones, are not given away", async () => {
  await using folder = await folderWith({});
  await using database = await TestDatabase.migrated();
  await Deno.mkdir(`${folder.path}/old`);
  await Deno.writeTextFile(`${folder.path}/old/001_a.sql`, "-- +goose Up\nSELECT 1;");
  await database.sql.unsafe(
    `${GOOSE}; INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, true)`,
  );
  const run = (...args: string[]) =>
    pipeweave(["db:import", "old", "--output", "new", ...args], {
      cwd: folder.path,
      env: { DATABASE_URL: database.url },
    });
  const taken = await run();
  assertEquals(taken.code, 5);
  assertStringIncludes(taken.stderr, "The number of 001_a is taken");
  assertEquals((await run("--schema", "own")).code, 0);
  const reserved = await look({
    "89999_a.sql": "-- +goose Up\nSELECT 1;",
    "089999_b.sql": "-- +goose Up\nSELECT 2;",
  }, "goose");
  assertEquals(reserved.files.map(({ version }) => version), ["001", "002"]);
});

Deno.test("import: an output that is anybody's, a file, or reached by a link out of the working folder", async () => {
  await using folder = await folderWith({ "plain": "x" });
  await using elsewhere = await folderWith({});
  await Deno.mkdir(`${folder.path}/old`);
  await Deno.writeTextFile(`${folder.path}/old/1_a.up.sql`, "CREATE TABLE a();");
  await Deno.mkdir(`${folder.path}/alien`);
  await Deno.writeTextFile(`${folder.path}/alien/1_a.sql`, "DROP TABLE users;");
  await Deno.symlink(elsewhere.path, `${folder.path}/link`);
  const run = (...args: string[]) => pipeweave(args, { cwd: folder.path });
  for (
    const [output, words] of [
      ["alien", "is not empty; nothing was written"],
      ["plain", "plain is no folder that can be read"],
      ["link/sub", "is outside of the working folder"],
      ["link", "is outside of the working folder"],
    ] as const
  ) {
    const refused = await run("db:import", "old", "--output", output, "--offline");
    assertEquals(refused.code, 2, output);
    assertStringIncludes(refused.stderr, words);
  }
  const created = await run("db:new", "x", "--write", "--dir", "link");
  assertEquals(created.code, 2);
  assertStringIncludes(created.stderr, "is outside of the working folder");
  assertEquals([...Deno.readDirSync(elsewhere.path)], []);
  await Deno.mkdir(`${folder.path}/.new.importing`);
  const twice = await run("db:import", "old", "--output", "new", "--offline");
  assertEquals(twice.code, 2);
  assertStringIncludes(twice.stderr, "another import is at work, or was cut off");
});

Deno.test("import: a pipe, a dangling link and an unreadable time are no reason to hang or to fall over", async () => {
  await using folder = await folderWith({});
  await Deno.mkdir(`${folder.path}/old`);
  await Deno.writeTextFile(`${folder.path}/old/00001_a.sql`, "-- +goose Up\nSELECT 1;");
  await new Deno.Command("mkfifo", { args: [`${folder.path}/old/00002_b.sql`] }).output();
  const piped = await pipeweave(["db:import", "old", "--dry-run", "--offline"], { cwd: folder.path });
  assertEquals(piped.code, 0, piped.stderr);
  await new Deno.Command("mkfifo", { args: [`${folder.path}/pipeweave.json`] }).output();
  const project = await pipeweave(["db:validate", "--offline", "--dir", "old"], { cwd: folder.path });
  assertEquals(project.code, 2);
  assertStringIncludes(project.stderr, "pipeweave.json cannot be read: it is not a file");
  await Deno.remove(`${folder.path}/pipeweave.json`);
  await Deno.symlink("nowhere", `${folder.path}/old/00003_c.sql`);
  const dangling = await pipeweave(["db:import", "old", "--dry-run", "--offline"], { cwd: folder.path });
  assertEquals(dangling.code, 2);
  assertStringIncludes(dangling.stderr, "cannot be read");
  const infinite = await imported(
    { "00001_a.sql": "-- +goose Up\nSELECT 1;" },
    `${GOOSE}; INSERT INTO goose_db_version (version_id, is_applied, tstamp) VALUES (1, true, 'infinity')`,
  );
  assertEquals([infinite.code, infinite.rows], [0, ["00001"]], infinite.stderr);
});

Deno.test("import: the value of an option is none, though it looks like one that asks for help", async () => {
  const { code, stderr } = await pipeweave(["db:validate", "--offline", "--dir", "--help"], {});
  assertEquals(code, 2);
  assertStringIncludes(stderr, "The folder --help does not exist");
  const error = await assertRejects(
    () => look({ "db/changes/x.sql": "" }),
    PipeweaveError,
    "It cannot be told",
  );
  assertMatch(error.details.hint!, /^Is \S+\/db\/changes meant\? Say it with --from, one of dbmate,/);
});
