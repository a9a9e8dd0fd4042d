/** Moving in: other tools' folders and histories. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname } from "node:path";
import { importFolder } from "../src/commands/import.ts";
import { migrate } from "../src/commands/migrate.ts";
import type { Tool } from "../src/import/foreign.ts";
import { readForeignFolder } from "../src/import/folder.ts";
import { versionsFor } from "../src/import/convert.ts";
import { folderWith, pipeweave, Terminal } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const ONE = "CREATE TABLE one (id int PRIMARY KEY);";
const TWO = "CREATE TABLE two (id int REFERENCES one);";
const INDEX = "CREATE INDEX CONCURRENTLY two_id ON two (id);";
const DATE = "'2024-05-06 07:08:09+00'";

interface Case {
  readonly tool: Tool;
  readonly files: Readonly<Record<string, string>>;
  /** The tool's history of the first two, as that tool writes it. */
  readonly history: string;
  readonly labels: readonly string[];
  readonly downs?: number;
  /** Whether the tool keeps when it applied them. */
  readonly hasTimes?: boolean;
}

const LABELS = ["20240101000000_make_one", "20240102000000_make_two", "20240103000000_index_two"];
const counted = ["001_make_one", "002_make_two", "003_index_two"];

const CASES: readonly Case[] = [
  {
    tool: "dbmate",
    files: {
      "20240101000000_make_one.sql": `-- migrate:up\n${ONE}\n\n-- migrate:down\nDROP TABLE one;\n`,
      "20240102000000_make-two.sql": `-- migrate:up\n${TWO}\n-- migrate:down\n\n`,
      "20240103000000_index_two.sql":
        `-- migrate:up transaction:false\n${INDEX}\n-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY two_id;`,
    },
    history:
      "CREATE TABLE schema_migrations (version varchar PRIMARY KEY); INSERT INTO schema_migrations VALUES ('20240101000000'), ('20240102000000')",
    ...{ labels: LABELS, downs: 2 },
  },
  {
    tool: "goose",
    files: {
      "20240101000000_make_one.sql": `-- +goose Up\n${ONE}\n-- +goose Down\nDROP TABLE one;\n`,
      "20240102000000_make_two.sql":
        `-- +goose Up\n-- +goose StatementBegin\nDO $$ BEGIN ${TWO} END $$;\n-- +goose StatementEnd\n-- +goose Down\nDROP TABLE two;`,
      "20240103000000_index_two.sql": `-- +goose NO TRANSACTION\n-- +goose Up\n${INDEX}`,
    },
    history:
      `CREATE TABLE goose_db_version (id serial, version_id bigint, is_applied bool, tstamp timestamptz);
      INSERT INTO goose_db_version (version_id, is_applied, tstamp) VALUES (0, true, ${DATE}), (20240101000000, true, ${DATE}),
        (20240102000000, true, ${DATE}), (20240103000000, true, ${DATE}), (20240103000000, false, ${DATE})`,
    ...{ labels: LABELS, downs: 2, hasTimes: true },
  },
  {
    tool: "golang-migrate",
    files: {
      "001_make_one.up.sql": `BEGIN;\n${ONE}\nCOMMIT;\n`,
      "001_make_one.down.sql": "DROP TABLE one;",
      "002_make_two.up.sql": TWO,
      "002_make_two.down.sql": "DROP TABLE two;",
      "003_index_two.up.sql": INDEX,
    },
    history:
      "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean); INSERT INTO schema_migrations VALUES (2, false)",
    ...{ labels: counted, downs: 2 },
  },
  {
    tool: "flyway",
    files: {
      "V1.0__make_one.sql": ONE,
      "U1.0__make_one.sql": "DROP TABLE one;",
      "V1.0.2__make_two.sql": "CREATE TABLE ${table} (id int REFERENCES one);",
      "V1.10__index_two.sql": INDEX,
      "V1.10__index_two.sql.conf": "executeInTransaction=false",
    },
    history:
      `CREATE TABLE flyway_schema_history (installed_rank int, version text, script text, type text, checksum int, success bool, installed_on timestamptz, execution_time int);
      INSERT INTO flyway_schema_history VALUES (1, '1.0', 'a', 'SQL', NULL, true, ${DATE}, 5), (2, '1.0.2', 'b', 'SQL', NULL, true, ${DATE}, 6)`,
    ...{ labels: counted, downs: 1, hasTimes: true },
  },
  {
    tool: "liquibase",
    files: {
      "a.sql":
        `--liquibase formatted sql\n--changeset ann:make_one\n${ONE}\n--rollback DROP TABLE one;\n--changeset ann:make_two context:test\n${TWO}\n--changeset ann:mysql dbms:mysql\nDROP IT;\n--changeset ann:index_two runInTransaction:false\n${INDEX}\n`,
    },
    history:
      `CREATE TABLE databasechangelog (id text, author text, filename text, orderexecuted int, dateexecuted timestamptz);
      INSERT INTO databasechangelog VALUES ('make_one', 'ann', 'db/a.sql', 1, ${DATE}), ('make_two', 'ann', 'db/a.sql', 2, ${DATE})`,
    ...{ labels: ["001_make_one_a", "002_make_two_a", "003_index_two_a"], downs: 1, hasTimes: true },
  },
  {
    tool: "sqitch",
    files: {
      "sqitch.plan":
        "%syntax-version=1.0.0\n%project=x\n\nmake_one 2024-01-01T00:00:00Z Ann <a@b> # one\n@v1 2024-01-01T01:00:00Z Ann <a@b>\nmake_two [make_one] 2024-01-02T00:00:00Z Ann <a@b>\nmake_one [make_one@v1] 2024-01-03T00:00:00Z Ann <a@b> # again\n",
      "deploy/make_one@v1.sql": `-- Deploy x:make_one to pg\nBEGIN;\n${ONE}\nCOMMIT;\n`,
      "deploy/make_one.sql":
        `-- Deploy x:make_one to pg\n\\set ON_ERROR_STOP 1\nBEGIN;\nALTER TABLE one ADD name text;\nCOMMIT;\n`,
      "deploy/make_two.sql":
        `-- Deploy x:make_two to pg\nBEGIN;\n${TWO}\nCREATE INDEX two_id ON two (id);\nCOMMIT;\n`,
      "revert/make_two.sql": "-- Revert x:make_two from pg\nBEGIN;\nDROP TABLE two;\nCOMMIT;",
    },
    history:
      `CREATE SCHEMA sqitch; CREATE TABLE sqitch.changes (change_id text, change text, project text, committed_at timestamptz, planned_at timestamptz);
      INSERT INTO sqitch.changes VALUES ('a', 'make_one', 'x', ${DATE}, '2024-01-01'), ('b', 'make_two', 'x', ${DATE}, '2024-01-02')`,
    ...{ labels: ["001_make_one", "002_make_two", "003_make_one"], downs: 1, hasTimes: true },
  },
  {
    tool: "sqlx",
    files: {
      "20240101000000_make_one.sql": ONE,
      "20240102000000_make_two.sql": TWO,
      "20240103000000_index_two.sql": `-- no-transaction\n${INDEX}`,
    },
    history:
      `CREATE TABLE _sqlx_migrations (version bigint, checksum bytea, installed_on timestamptz, success bool, execution_time bigint);
      INSERT INTO _sqlx_migrations VALUES (20240101000000, '', ${DATE}, true, 5000000), (20240102000000, '', ${DATE}, true, 1)`,
    ...{ labels: LABELS, downs: 0, hasTimes: true },
  },
  {
    tool: "diesel",
    files: {
      "2024-01-01-000000_make_one/up.sql": ONE,
      "2024-01-01-000000_make_one/down.sql": "DROP TABLE one;",
      "2024-01-02-000000_make_two/up.sql": `${TWO}\nDROP TABLE IF EXISTS __diesel_schema_migrations;`,
      "2024-01-03-000000_index_two/up.sql": INDEX,
      "2024-01-03-000000_index_two/metadata.toml": "run_in_transaction = false",
    },
    history: `CREATE TABLE __diesel_schema_migrations (version varchar, run_on timestamptz);
      INSERT INTO __diesel_schema_migrations VALUES ('20240101000000', ${DATE}), ('20240102000000', ${DATE})`,
    ...{ labels: LABELS, downs: 1, hasTimes: true },
  },
  {
    tool: "prisma",
    files: {
      "20240101000000_make_one/migration.sql": ONE,
      "2024010200_make_two/migration.sql": TWO,
      "20240103000000_index_two/migration.sql": INDEX,
      "migration_lock.toml": "",
    },
    history:
      `CREATE TABLE _prisma_migrations (checksum text, migration_name text, started_at timestamptz, finished_at timestamptz, rolled_back_at timestamptz);
      INSERT INTO _prisma_migrations VALUES ('x', '20240101000000_make_one', ${DATE}, ${DATE}, NULL), ('y', '2024010200_make_two', ${DATE}, ${DATE}, NULL)`,
    ...{ labels: LABELS, downs: 0, hasTimes: true },
  },
  {
    tool: "node-pg-migrate",
    files: {
      "1704067200000_make-one.sql": `-- Up Migration\n${ONE}\n-- Down Migration\nDROP TABLE one;`,
      "1704067200001_make-two.sql": `-- Up Migration\n${TWO}`,
      "1704067200002_index-two.sql": `-- Up Migration\nCREATE INDEX two_id ON two (id);`,
    },
    history: `CREATE TABLE pgmigrations (id serial, name text, run_on timestamptz);
      INSERT INTO pgmigrations (name, run_on) VALUES ('1704067200000_make-one', ${DATE}), ('1704067200001_make-two', ${DATE})`,
    ...{
      labels: ["1704067200000_make_one", "1704067200001_make_two", "1704067200002_index_two"],
      downs: 1,
      hasTimes: true,
    },
  },
  {
    tool: "graphile-migrate",
    files: {
      "committed/000001-make-one.sql": `--! Previous: -\n--! Hash: sha1:a\n--! Message: make one\n\n${ONE}`,
      "committed/000002.sql": `--! Previous: sha1:a\n--! Hash: sha1:b\n\n${TWO}\n--! split: 1-x\n`,
      "committed/000003-index.sql": `--! Previous: sha1:b\n--! Hash: sha1:c\n--! no-transaction\n${INDEX}`,
      "current.sql": "DROP TABLE one;",
    },
    history:
      `CREATE SCHEMA graphile_migrate; CREATE TABLE graphile_migrate.migrations (hash text, previous_hash text, filename text, date timestamptz);
      INSERT INTO graphile_migrate.migrations VALUES ('a', NULL, '000001.sql', ${DATE}), ('b', 'a', '000002.sql', ${DATE})`,
    ...{ labels: ["000001_make_one", "000002_committed", "000003_index"], downs: 0, hasTimes: true },
  },
  {
    tool: "tern",
    files: {
      "001_make_one.sql": `${ONE}\n---- create above / drop below ----\nDROP TABLE one;`,
      "002_make_two.sql": TWO,
      "003_index_two.sql":
        `---- tern: disable-tx ----\n${INDEX}\n---- create above / drop below ----\nDROP INDEX two_id;`,
    },
    history: "CREATE TABLE schema_version (version int); INSERT INTO schema_version VALUES (2)",
    ...{ labels: counted, downs: 2 },
  },
  {
    tool: "sql-migrate",
    files: {
      "20240101000000-make_one.sql": `-- +migrate Down\nDROP TABLE one;\n-- +migrate Up\n${ONE}`,
      "20240102000000-make_two.sql":
        `-- +migrate Up\n-- +migrate StatementBegin\n${TWO}\n-- +migrate StatementEnd`,
      "20240103000000-index_two.sql": `-- +migrate Up notransaction\n${INDEX}`,
    },
    history: `CREATE TABLE gorp_migrations (id text, applied_at timestamptz);
      INSERT INTO gorp_migrations VALUES ('20240101000000-make_one.sql', ${DATE}), ('20240102000000-make_two.sql', ${DATE})`,
    ...{ labels: LABELS, downs: 1, hasTimes: true },
  },
  {
    tool: "pop",
    files: {
      "20240101000000_make_one.up.sql": "CREATE TABLE wrong (id int);",
      "20240101000000_make_one.postgres.up.sql": ONE,
      "20240101000000_make_one.mysql.up.sql": "CREATE TABLE `one` (id int);",
      "20240101000000_make_one.down.sql": "DROP TABLE one;",
      "20240102000000_make_two.up.sql": TWO,
      "20240103000000_index_two.autocommit.up.sql": INDEX,
    },
    history:
      "CREATE TABLE schema_migration (version varchar); INSERT INTO schema_migration VALUES ('20240101000000'), ('20240102000000')",
    ...{ labels: LABELS, downs: 1 },
  },
  {
    tool: "knex",
    files: {
      "20240101000000_make_one.up.sql": ONE,
      "20240101000000_make_one.down.sql": "DROP TABLE one;",
      "20240102000000_make_two.up.sql": TWO,
      "20240103000000_index_two.up.sql": INDEX,
    },
    history: `CREATE TABLE knex_migrations (id serial, name text, batch int, migration_time timestamptz);
      INSERT INTO knex_migrations (name, batch, migration_time) VALUES ('20240101000000_make_one.js', 1, ${DATE}), ('20240102000000_make_two.js', 1, ${DATE})`,
    ...{ labels: LABELS, downs: 1, hasTimes: true },
  },
];

async function folderOf(files: Readonly<Record<string, string>>) {
  const folder = await folderWith({});
  for (const [name, text] of Object.entries(files)) {
    await Deno.mkdir(dirname(`${folder.path}/old/${name}`), { recursive: true });
    await Deno.writeTextFile(`${folder.path}/old/${name}`, text);
  }
  return folder;
}

for (const { tool, files, history, labels, downs, hasTimes } of CASES) {
  Deno.test(`import of ${tool}: files, an empty database, and one that it migrated half-way`, async () => {
    await using folder = await folderOf(files);
    const old = `${folder.path}/old`;
    const output = `${folder.path}/new`;
    const isNamed = tool !== "knex";
    if (isNamed) assertEquals(readForeignFolder(old).tool, tool, "it is recognised");
    const terms = { folder: old, from: isNamed ? undefined : tool, output, placeholders: { table: "two" } };
    const alone = await importFolder(undefined, terms);
    assertEquals(alone.problems, []);
    assertEquals(alone.files.map(({ version, name }) => `${version}_${name}`), labels);
    if (downs !== undefined) assertEquals(alone.files.filter(({ down }) => down !== undefined).length, downs);

    await using empty = await TestDatabase.empty();
    const whole = await migrate(empty.session(), { dirs: [output] });
    assertEquals([whole.failed?.error.message, whole.applied.length], [undefined, labels.length]);
    const [made] = await empty.sql`SELECT to_regclass('two_id') AS found, to_regclass('wrong') AS wrong`;
    assertEquals([made!["found"], made!["wrong"]], ["two_id", null]);

    await using half = await TestDatabase.empty();
    await half.sql.unsafe(
      `${ONE} ${TWO} ${tool === "sqitch" ? "CREATE INDEX two_id ON two (id);" : ""} ${history}`,
    );
    const before = await half.sql`SELECT count(*)::int AS n FROM pg_class WHERE relkind = 'r'`;
    const asked: string[] = [];
    const taken = await importFolder(half.session(), {
      ...terms,
      confirm: ({ table }) => Promise.resolve(void asked.push(table)),
    });
    assertEquals(taken.written, "there already");
    assertEquals(taken.history?.adopted, labels.slice(0, 2));
    const clashes = ["dbmate", "golang-migrate"].includes(tool);
    assertEquals(asked, clashes ? ["public.schema_migrations"] : []);
    const rows = await half.sql`SELECT version, applied_at FROM schema_migrations ORDER BY id`;
    assertEquals(rows.map(({ version }) => version), labels.slice(0, 2).map((label) => label.split("_")[0]));
    if (hasTimes) assertEquals(rows[0]!["applied_at"].toISOString(), "2024-05-06T07:08:09.000Z");
    const logged = await half.sql`SELECT details ->> 'importedFrom' AS tool FROM migration_log`;
    assertEquals(logged.map((row) => row["tool"]), [tool, tool]);
    assert(
      (await half.sql`SELECT count(*)::int AS n FROM pg_class WHERE relkind = 'r'`)[0]!["n"] >
        before[0]!["n"],
    );

    const rest = await migrate(half.session(), { dirs: [output] });
    assertEquals([rest.failed?.error.message, rest.applied.length], [undefined, 1]);
    const again = await importFolder(half.session(), terms);
    assertEquals(again.history?.adopted ?? [], [], "a second time changes nothing");
  });
}

Deno.test("import of Rails: structure.sql stands for all that it has run", async () => {
  await using folder = await folderOf({
    "structure.sql":
      `SET search_path = public;\nCREATE TABLE public.schema_migrations (version character varying NOT NULL);\n${ONE}\nALTER TABLE ONLY public.schema_migrations ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);\nINSERT INTO "schema_migrations" (version) VALUES\n('20240102000000'),\n('20240101000000');\n`,
  });
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(`${ONE} CREATE TABLE schema_migrations (version varchar);
    INSERT INTO schema_migrations VALUES ('20240101000000'), ('20240102000000')`);
  const result = await importFolder(database.session(), {
    folder: `${folder.path}/old`,
    output: `${folder.path}/new`,
  });
  assertEquals([result.tool, result.problems, result.history?.adopted], ["rails", [], ["001_structure"]]);
});

Deno.test("versions: kept where they sort as they were applied, mended and told where not", () => {
  const of = (...given: (string | undefined)[]) =>
    versionsFor(given.map((version) => ({ version }))).map(({ version }) => version);
  assertEquals(of("1", "2", "10"), ["1", "2", "10"]);
  assertEquals(of("1626194317", "1626194317", "1626194318"), ["1626194317", "1626194318", "1626194319"]);
  assertEquals(of("20240101000000", "2024010200", "20240103000000"), [
    "20240101000000",
    "20240102000000",
    "20240103000000",
  ]);
  assertEquals(of("20240101000000", "202401020000001234", "20240103000000"), [
    "20240101000000",
    "20240102000000",
    "20240103000000",
  ]);
  assertEquals(of(undefined, undefined), ["001", "002"]);
  assertEquals(of("90001", "90002"), ["001", "002"], "PipeWeave's own range");
});

Deno.test("import: what cannot be taken over is named, and the history waits for it", async () => {
  await using folder = await folderOf({
    "001_a.up.sql": ONE,
    "002_b.up.sql": "\\copy one FROM 'x.csv'\n",
    "003_c.up.go": "package main",
  });
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(
    "CREATE TABLE schema_migrations (version bigint, dirty boolean); INSERT INTO schema_migrations VALUES (1, false)",
  );
  const run = (...more: string[]) =>
    pipeweave(["db:import", "old", "--output", "new", "--url", database.url, ...more], { cwd: folder.path });
  const first = await run("--yes");
  assertEquals(first.code, 5);
  assertMatch(first.stdout, /002_b\.sql: line 1: .* \(from 002_b\.up\.sql\)/);
  assertStringIncludes(
    first.stdout,
    "003_c.up.go: is code, or missing, and no SQL: write what it does as 003_c.sql",
  );
  assertEquals(
    (await database.sql`SELECT dirty FROM schema_migrations`).length,
    1,
    "the old table is as it was",
  );
  await Deno.writeTextFile(`${folder.path}/new/002_b.sql`, "SELECT 2;\n");
  await Deno.writeTextFile(`${folder.path}/new/003_c.sql`, "SELECT 3;\n");
  const unasked = await run();
  assertEquals(unasked.code, 3);
  assertStringIncludes(unasked.stderr, "--schema pipeweave");
  const second = await run("--yes");
  assertEquals([second.code, second.stderr], [0, ""]);
  assertStringIncludes(second.stdout, "Recorded as applied: 1");
  assertEquals(
    (await database.sql`SELECT version FROM schema_migrations_of_golang_migrate`)[0]!["version"],
    "1",
  );
});

Deno.test("import: a half-done history, an unknown folder, a full output and one out of reach", async () => {
  await using folder = await folderOf({ "001_a.up.sql": ONE, "readme.md": "x" });
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(
    "CREATE TABLE schema_migrations (version bigint, dirty boolean); INSERT INTO schema_migrations VALUES (1, true)",
  );
  const run = (args: readonly string[]) => pipeweave(["db:import", ...args], { cwd: folder.path });
  const dirty = await run(["old", "--output", "new", "--url", database.url]);
  assertEquals(dirty.code, 5);
  assertStringIncludes(dirty.stderr, "has left version 1 half done");
  const unknown = await run([".", "--from", "sqitch", "--output", "new"]);
  assertEquals(unknown.code, 2);
  assertStringIncludes(unknown.stderr, "there is no sqitch.plan");
  const full = await run(["old", "--output", "old", "--offline"]);
  assertEquals(full.code, 2);
  assertStringIncludes(full.stderr, "is not empty; nothing was written");
  await using elsewhere = await folderWith({});
  const outside = await run(["old", "--output", `${elsewhere.path}/new`, "--offline"]);
  assertEquals(outside.code, 2);
  assertStringIncludes(outside.stderr, "has no leave to write there");
  const look = await run(["old", "--dry-run", "--offline"]);
  assertEquals(look.code, 0);
  assertStringIncludes(look.stdout, "Nothing was written");
  const missing = await run(["old", "--offline"]);
  assertEquals(missing.code, 2);
  assertStringIncludes(missing.stderr, "--output is required");
});

/** A folder of dbmate's in which a working folder is prepared, and a database that has the first and the last of it. */
async function ofDbmate() {
  const files = {
    "20240101000000_a.sql": "-- migrate:up\nCREATE TABLE a (id int);\n-- migrate:down\nDROP TABLE a;\n",
    "20240102000000_b.sql": "-- migrate:up\nCREATE TABLE b (id int);\n-- migrate:down\n",
    "20240103000000_c.sql": "-- migrate:up\nCREATE TABLE c (id int);\n-- migrate:down\nDROP TABLE c;\n",
  };
  const folder = await folderWith({});
  await Deno.mkdir(`${folder.path}/old`);
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(`${folder.path}/old/${name}`, text);
  }
  const database = await TestDatabase.empty();
  await database.sql.unsafe(`CREATE TABLE a (id int); CREATE TABLE c (id int);
    CREATE TABLE schema_migrations (version varchar PRIMARY KEY);
    INSERT INTO schema_migrations VALUES ('20240101000000'), ('20240103000000'), ('20231231000000');`);
  return {
    ...{ folder, database },
    /** Names in the working folder, and of the tables of history. */
    async state() {
      const tables = await database
        .sql`SELECT relname FROM pg_class WHERE relname LIKE 'schema_migrations%' AND relkind = 'r'`;
      return [
        ...[...Deno.readDirSync(folder.path)].map(({ name }) => name),
        ...tables.map(({ relname }) => relname),
      ].sort();
    },
    async [Symbol.asyncDispose]() {
      await folder[Symbol.asyncDispose]();
      await database[Symbol.asyncDispose]();
    },
  };
}

Deno.test("import: whoever is asked has seen the report; no, and a signal, leave all as it was", async () => {
  await using moved = await ofDbmate();
  const { folder, database } = moved;
  const command = "db:import old --output new";
  for (const [keys, code, words] of [["n\n", 3, "was not renamed"], ["\x03", 130, "Interrupted"]] as const) {
    await using terminal = new Terminal(command, database.url, 80, 24, folder.path);
    await terminal.shows("[y/N]");
    assertStringIncludes(terminal.text, "dbmate: 3 migration(s), 2 with a way down");
    assertStringIncludes(terminal.text, "History of public.schema_migrations: 2 of 3 applied");
    await terminal.types(keys);
    assertEquals(await terminal.ends(), code);
    assertStringIncludes(terminal.text, words);
    assertEquals(await moved.state(), ["old", "schema_migrations"]);
  }
  await using terminal = new Terminal(command, database.url, 80, 24, folder.path);
  await terminal.shows("[y/N]");
  await terminal.types("y\n");
  assertEquals(await terminal.ends(), 0);
  assertEquals(await moved.state(), ["new", "old", "schema_migrations", "schema_migrations_of_dbmate"]);
  // Once.
  assertEquals(terminal.text.split("2 of 3 applied").length, 2, terminal.text);
});

Deno.test("import: what the report says of one way, gaps, files that are gone, and of no database", async () => {
  await using moved = await ofDbmate();
  const run = (...args: string[]) =>
    pipeweave(["db:import", "old", ...args], {
      cwd: moved.folder.path,
      env: { DATABASE_URL: moved.database.url },
    });
  const look = (await run("--dry-run")).stdout;
  assertStringIncludes(look, "- no way down: 20240102000000_b\n");
  assertStringIncludes(
    look,
    "not applied, though later ones are: 20240102000000_b; db:migrate --out-of-order",
  );
  assertStringIncludes(look, "applied, and no file for it is here: 20231231000000;");
  assertStringIncludes(
    (await run("--dry-run", "--offline")).stdout,
    "History: no database was asked, so none is taken over",
  );
  const nobody = await run("--output", "new");
  assertEquals(nobody.code, 3);
  assertStringIncludes(nobody.stderr, "nobody could be asked");
  assertEquals(await moved.state(), ["old", "schema_migrations"]);
  const elsewhere = await run("--output", "new", "--schema", "pipeweave");
  assertEquals(elsewhere.code, 0, elsewhere.stderr);
  assertStringIncludes(elsewhere.stdout, "Go on with: pipeweave db:status --dir new --schema pipeweave\n");
  assertEquals(
    (await run("--output", "new", "--schema", "pipeweave")).stdout.split("\n").slice(-4),
    [
      "✓ new has these files already",
      "  nothing to record: ours has what public.schema_migrations has",
      "Go on with: pipeweave db:status --dir new --schema pipeweave",
      "",
    ],
  );
});
