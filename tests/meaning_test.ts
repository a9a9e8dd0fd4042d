/** A file is what its author meant: dialects of other tools, whose number it is, which sets take part, where names go. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { folderWith, type Outcome, pipeweave } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const UP = "CREATE TABLE live (id int);";
const DOWN = "DROP TABLE live;";

/** Runs a command on the files given. */
async function on(
  database: TestDatabase | undefined,
  command: string,
  files: Record<string, string>,
  ...more: string[]
): Promise<Outcome> {
  await using folder = await folderWith(files);
  const [name, ...args] = command.split(" ");
  return await pipeweave([name!, ...args, "--dir", folder.path, ...more], {
    env: database ? { DATABASE_URL: database.url } : {},
  });
}

const DIALECTS: readonly (readonly [tool: string, text: string])[] = [
  ["dbmate", `-- migrate:up\n${UP}\n\n-- migrate:down\n${DOWN}\n`],
  ["dbmate", `--migrate:up transaction:false\n${UP}\n--  migrate: down\n${DOWN}\n`],
  ["dbmate", `-- MIGRATE:UP\r\n${UP}\r\n-- MIGRATE:DOWN\r\n${DOWN}\r\n`],
  ["goose", `-- +goose Up\n${UP}\n-- +goose Down\n${DOWN}\n`],
  ["goose", `--+goose UP\n-- +goose StatementBegin\n${UP}\n-- +goose StatementEnd\n`],
  ["goose", `   --  +  goose up\n${UP}`],
  ["sql-migrate", `-- +migrate Up\n${UP}\n-- +migrate Down\n${DOWN}\n`],
  ["Rambler", `-- rambler up\n${UP}\n-- rambler down\n${DOWN}\n`],
  ["tern", `${UP}\n---- create above / drop below ----\n${DOWN}\n`],
  ["tern", `${UP}\n---- Create above/drop below ----\n${DOWN}\n`],
  ["sqitch", `-- Deploy flipr:users to pg\n\n${UP}\n`],
  ["sqitch", `-- Revert users from pg\n${DOWN}\n`],
  ["Liquibase", `--liquibase formatted sql\n\n--changeset ann:1\n${UP}\n--rollback ${DOWN}\n`],
  ["Liquibase", `-- changeset bob:create-live context:all\n${UP}\n`],
  ["graphile-migrate", `--! Previous: sha1:abc\n--! Hash: sha1:def\n\n${UP}\n`],
  ["graphile-migrate", `--!no-transaction\n${UP}\n`],
  ["node-pg-migrate", `-- Up Migration\n${UP}\n-- Down Migration\n${DOWN}\n`],
  ["another tool", `-- Up Migration: makes it\n${UP}\n---- Down Migration (drops it) ----\n${DOWN}\n`],
  ["Aerich", `-- upgrade --\n${UP}\n-- downgrade --\n${DOWN}\n`],
  ["Mojo::Pg", `-- 1 up\n${UP}\n-- 1 down\n${DOWN}\n`],
  ...[
    ["-- up 1", "-- down 1"],
    ["-- Up Script", "-- Down Script"],
    ["-- SQL UP", "-- SQL DOWN"],
    ["-- forward", "-- backward"],
    ["-- apply", "-- revert"],
    ["-- do", "-- undo"],
    ["-- name: up", "-- name: down"],
    ["--;; up", "--;; down"],
    ["/* up */", "/* down */"],
  ].map(([up, down]) => ["another tool", `${up}\n${UP}\n${down}\n${DOWN}\n`] as const),
  ["another tool", `-- up\n${UP}\n-- down\n${DOWN}\n`],
  ["another tool", `--- [UP] ---\n${UP}\n--- [DOWN] ---\n${DOWN}\n`],
  ["another tool", `-- @up\n${UP}\n-- @rollback\n${DOWN}\n`],
  // Without a semicolon in front of the mark it is no SQL either.
  ["dbmate", `-- migrate:up\nCREATE TABLE live (id int)\n-- migrate:down\nDROP TABLE live\n`],
];

Deno.test("a file of another tool is refused everywhere, with the tool and the way over", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe("CREATE TABLE live (id int); INSERT INTO live VALUES (1)");
  for (const [tool, text] of DIALECTS) {
    const files = { "001_live.sql": text };
    const found = await on(undefined, "db:validate --offline --no-embedded --json", files);
    const { findings } = JSON.parse(found.stdout);
    assertEquals([found.code, findings[0].code], [5, "foreign_dialect"], `${tool}: ${text}${found.stdout}`);
    assertStringIncludes(findings[0].message, `is a migration of ${tool}:`);
    assertMatch(findings[0].hint, /NNN_name\.sql/);
  }
  const files = { "001_live.sql": DIALECTS[0]![1] };
  for (
    const command of [
      "db:validate",
      "db:lint",
      "db:lint --offline",
      "db:migrate --dry-run",
      "db:migrate --dry-run=execute",
      "db:migrate",
    ]
  ) {
    const { code, stdout, stderr } = await on(database, command, files);
    assertEquals(code, 5, `${command}: ${stdout}${stderr}`);
    assertStringIncludes(stdout + stderr, "dbmate", command);
  }
  assertEquals((await database.sql`SELECT FROM live`).length, 1);
});

Deno.test("marks in strings, function bodies and remarks are nobody's", async () => {
  for (
    const text of [
      `INSERT INTO notes VALUES ('line\n-- migrate:down\nline');`,
      `CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN\n-- +goose Down\nNULL; END $$;`,
      `-- This moves rows up\n${UP}\n-- and nothing goes down`,
      `-- Migrate users to the new table\n${UP}`,
      `-- down\n${UP}`,
      `/* see\n-- of the old tool\n*/ ${UP}`,
      `-- deploy notes: tell ann\n${UP}`,
      `-- verify email on signup\n${UP}`,
      `-- revert changes to constraint\n${UP}`,
      `-- Revert permissions from public\n${UP}`,
      `-- Down migration is not needed: the column is new\n${UP}`,
    ]
  ) {
    const { code, stdout } = await on(undefined, "db:validate --offline --no-embedded", {
      "001_a.sql": text,
    });
    assertEquals(code, 0, `${text}\n${stdout}`);
  }
});

Deno.test("layouts of other tools: a folder a migration, .up.sql, fizz, V1__; and names that are almost right", async () => {
  await using folder = await folderWith({ "001_a.sql": UP });
  const { path } = folder;
  const validate = async () => {
    const { code, stdout } = await pipeweave([
      "db:validate",
      "--offline",
      "--no-embedded",
      "--dir",
      path,
      "--json",
    ]);
    return {
      code,
      findings: JSON.parse(stdout).findings as { file: string; code: string; message: string }[],
    };
  };
  for (const name of ["20240101120000_init/migration.sql", "2024-01-01-000000_init/up.sql"]) {
    await Deno.mkdir(`${path}/${name.split("/")[0]}`);
    await Deno.writeTextFile(`${path}/${name}`, UP);
    const { code, findings } = await validate();
    assertEquals([code, findings[0]!.code], [5, "foreign_dialect"]);
    assertMatch(findings[0]!.message, name.includes("migration.sql") ? /Prisma/ : /Diesel/);
    await Deno.remove(`${path}/${name.split("/")[0]}`, { recursive: true });
  }
  for (
    const [name, tool] of [
      ["002_b.up.sql", "golang-migrate"],
      ["V2__b.sql", "Flyway"],
      ["U2__b.sql", "Flyway"],
    ]
  ) {
    await Deno.writeTextFile(`${path}/${name}`, UP);
    const { code, findings } = await validate();
    assertEquals([code, findings[0]!.code], [5, "bad_name"]);
    assertStringIncludes(findings[0]!.message, tool!);
    await Deno.remove(`${path}/${name}`);
  }
  const almost = [
    "002_b.SQL",
    "003_c.sql.txt",
    "004_d.sql.gz",
    "._001_a.sql",
    ".#001_a.sql",
    "001_a.sql~",
    "005_e.fizz",
    "006_f.js",
  ];
  for (const name of almost) await Deno.writeTextFile(`${path}/${name}`, UP);
  await Deno.mkdir(`${path}/2024`);
  await Deno.writeTextFile(`${path}/2024/007_g.sql`, UP);
  await Deno.writeTextFile(`${path}/README.md`, "none of them");
  const { code, findings } = await validate();
  assertEquals(code, 0);
  assertEquals(
    findings.filter((one) => one.code === "passed_over").map(({ file }) => file.slice(path.length + 1))
      .sort(),
    [...almost, "2024"].sort(),
  );
  await Deno.remove(`${path}/001_a.sql`);
  const empty = await pipeweave(["db:validate", "--offline", "--no-embedded", "--dir", path]);
  assertEquals(empty.code, 2);
  assertStringIncludes(empty.stderr, "002_b.SQL is passed over");

  const mixed = await on(undefined, "db:validate --offline --no-embedded", {
    "001_a.sql": UP,
    "20240101_b.sql": UP,
    "20240102120000_c.sql": UP,
  });
  assertStringIncludes(mixed.stdout, "has a version of another length than those before it");
});

Deno.test("another file under an applied number is another migration: told so, and never repaired", async () => {
  await using database = await TestDatabase.empty();
  const first = { "001_a.sql": UP, "002_alpha.sql": "CREATE TABLE alpha (id int);" };
  assertEquals((await on(database, "db:migrate", first)).code, 0);
  const merged = { "001_a.sql": UP, "002_beta.sql": "CREATE TABLE beta (id int);" };
  for (
    const command of ["db:migrate", "db:validate", "db:status --check", "db:repair --version 002 --reason x"]
  ) {
    const { code, stdout, stderr } = await on(database, command, merged);
    assertEquals(code, 5, `${command}: ${stdout}${stderr}`);
    assertStringIncludes(
      stdout + stderr,
      "002_beta is not applied: another migration has its number, 002_alpha",
    );
    assert(!/was changed/.test(stdout + stderr));
  }
  // The same text under another name may be recorded.
  const renamed = { "001_a.sql": UP, "002_gamma.sql": first["002_alpha.sql"] };
  assertStringIncludes(
    (await on(database, "db:migrate", renamed)).stderr,
    "002_gamma was applied under another name: 002_alpha",
  );
  assertEquals((await on(database, "db:repair --version 002 --reason renamed", renamed)).code, 0);
  assertEquals((await on(database, "db:status --check", renamed)).code, 0);
});

Deno.test("the guide of the Node tool has a 002 of its own: the way out is told, and leads to the right schema", async () => {
  await using database = await TestDatabase.migrated();
  // As the Node tool 1.0 and its user left it.
  await database.sql.unsafe(`DELETE FROM schema_migrations WHERE version NOT IN ('000', '001');
    UPDATE schema_migrations SET migration_set = NULL; DROP TABLE temp_uploads;
    ALTER TABLE tasks DROP COLUMN input_schema;
    INSERT INTO schema_migrations (version, name, checksum) VALUES ('002', 'add_user_preferences', 'x')`);
  const env = { DATABASE_URL: database.url };
  const refused = await pipeweave(["db:migrate"], { env });
  assertEquals(refused.code, 5, refused.stdout);
  assertStringIncludes(
    refused.stderr,
    "002_input_schemas_and_temp_uploads is not applied: another migration has its number, 002_add_user_preferences, which another tool recorded",
  );
  assertStringIncludes(refused.stderr, "pipeweave db:repair --version 002 --renumber <number> --reason");
  assertEquals((await pipeweave(["db:repair", "--version", "002", "--reason", "x"], { env })).code, 5);
  for (const [number, code] of [["001", 2], ["90007", 2], ["abc", 2], ["1002", 0]] as const) {
    const moved = await pipeweave(["db:repair", "--version", "002", "--renumber", number, "--reason", "x"], {
      env,
    });
    assertEquals(moved.code, code, moved.stderr);
  }
  const migrated = await pipeweave(["db:migrate"], { env });
  assertEquals(migrated.code, 0, migrated.stderr);
  assertStringIncludes(migrated.stdout, "Of another tool, and left alone: 1002_add_user_preferences");
  const [row] = await database.sql`SELECT to_regclass('temp_uploads') IS NOT NULL AS uploads,
    EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'tasks'::regclass AND attname = 'input_schema') AS schema`;
  assertEquals({ ...row }, { uploads: true, schema: true });
  const status = JSON.parse((await pipeweave(["db:status", "--json", "--check"], { env })).stdout);
  assertEquals([status.others[0].version, status.missing], ["1002", []]);
});

Deno.test("which sets take part: --dir alone adds none of PipeWeave's tables; the history and --embedded do", async () => {
  const files = { "101_a.sql": UP };
  const setsOf = async (database: TestDatabase, ...more: string[]) =>
    JSON.parse((await on(database, "db:status --json", files, ...more)).stdout).sets.map((
      { source }: { source: string },
    ) => source === "embedded" ? source : "own");
  await using empty = await TestDatabase.empty();
  assertEquals(await setsOf(empty), ["own"]);
  assertEquals(await setsOf(empty, "--embedded"), ["embedded", "own"]);
  const alone = await on(empty, "db:migrate", files);
  assertEquals(alone.code, 0);
  assertMatch(alone.stdout, /Sets: \S+ \(1\)\n/);
  const tables = await empty
    .sql`SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`;
  assertEquals(tables.map(({ relname }) => relname).sort(), [
    "live",
    "migration_journal",
    "migration_lease",
    "migration_log",
    "schema_migrations",
  ]);
  const both = await on(empty, "db:migrate", files, "--embedded");
  assertEquals(both.code, 0, both.stderr);
  assertMatch(both.stdout, /Sets: PipeWeave's own \(5\), \S+ \(1\)\n/);
  // From now on the history has them, and nobody has to say so.
  assertEquals(await setsOf(empty), ["embedded", "own"]);
  assertEquals(await setsOf(empty, "--no-embedded"), ["own"]);

  await using migrated = await TestDatabase.migrated();
  assertEquals(await setsOf(migrated), ["embedded", "own"]);
  // A history of the Node tool has them too.
  await migrated.sql`UPDATE schema_migrations SET migration_set = NULL`;
  await migrated.sql`DELETE FROM schema_migrations WHERE version > '002'`;
  assertEquals(await setsOf(migrated), ["embedded", "own"]);
});

Deno.test("numbers from 90000 to 99999 are PipeWeave's own", async () => {
  for (const [version, code] of [["90000", 5], ["099999", 5], ["9000", 0], ["100000", 0]] as const) {
    const found = await on(undefined, "db:validate --offline --no-embedded", { [`${version}_a.sql`]: UP });
    assertEquals(found.code, code, found.stdout);
  }
});

Deno.test("a database of an earlier build of 2.0.0 is brought along as the docs say", async () => {
  await using database = await TestDatabase.migrated();
  await database.sql.unsafe(`UPDATE schema_migrations SET version = '003' WHERE version = '90003';
    UPDATE schema_migrations SET version = '004' WHERE version = '90004';
    ALTER TABLE schema_migrations DROP COLUMN migration_set; DROP FUNCTION migration_guard;
    ALTER TABLE migration_journal DROP COLUMN name, DROP COLUMN before`);
  const docs = await Deno.readTextFile(new URL("../docs/migrations-and-maintenance.md", import.meta.url));
  const statement = /DELETE FROM schema_migrations WHERE [^;]*;/.exec(docs)![0];
  await database.sql.unsafe(statement);
  const env = { DATABASE_URL: database.url };
  const { code, stderr } = await pipeweave(["db:migrate"], { env });
  assertEquals(code, 0, stderr);
  assertEquals((await pipeweave(["db:status", "--check"], { env })).code, 0);
  const journalled = await on(database, "db:migrate", {
    "101_a.sql": "-- pipeweave: no-transaction\nSELECT 1;\nVACUUM;",
  });
  assertEquals(journalled.code, 0, journalled.stderr);
});

Deno.test("unqualified names go where role, database or URL send them, as in psql; --schema is for the books alone", async () => {
  for (const how of ["database", "role", "url"] as const) {
    await using database = await TestDatabase.empty();
    await database.sql.unsafe("CREATE SCHEMA app; CREATE SCHEMA books");
    let url = database.url;
    if (how === "database") {
      await database.sql.unsafe(`ALTER DATABASE ${database.name} SET search_path = app`);
    }
    if (how === "role") {
      await database.sql.unsafe(
        `CREATE ROLE path_${database.name} LOGIN SUPERUSER; ALTER ROLE path_${database.name} SET search_path = app`,
      );
      url = url.replace("postgres@", `path_${database.name}@`);
    }
    if (how === "url") url += "?options=-csearch_path%3Dapp";
    await using folder = await folderWith({
      "001_a.sql": "CREATE TABLE t (id int);",
      "002_b.sql": "-- pipeweave: no-transaction\nCREATE INDEX CONCURRENTLY t_id ON t (id);",
    });
    const { code, stderr } = await pipeweave(["db:migrate", "--dir", folder.path, "--schema", "books"], {
      env: { DATABASE_URL: url },
    });
    assertEquals(code, 0, `${how}: ${stderr}`);
    const rows = await database
      .sql`SELECT relname || ' in ' || relnamespace::regnamespace AS name FROM pg_class
      WHERE relname IN ('t', 't_id', 'schema_migrations') ORDER BY 1`;
    assertEquals(
      rows.map(({ name }) => name),
      ["schema_migrations in books", "t in app", "t_id in app"],
      how,
    );
    if (how === "role") {
      await database.sql.unsafe(
        `DROP OWNED BY path_${database.name} CASCADE; DROP ROLE path_${database.name}`,
      );
    }
  }
});

Deno.test("a live database of dbmate: the hint leads to one schema, and no second copy of anything", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(
    `CREATE TABLE schema_migrations (version varchar PRIMARY KEY); INSERT INTO schema_migrations VALUES ('001'), ('002');
    CREATE TABLE accounts (id int); INSERT INTO accounts VALUES (1); CREATE TABLE orders (id int)`,
  );
  const files = {
    "001_accounts.sql": "CREATE TABLE accounts (id int);",
    "002_orders.sql": "CREATE TABLE orders (id int);",
  };
  const refused = await on(database, "db:migrate", files);
  assertEquals(refused.code, 5);
  const [, baseline, migrate] = [...refused.stderr.matchAll(/pipeweave (db:\w+[^;,.]*)/g)].map(([, line]) =>
    line!.trim().replace("<the last version applied>", "002").replace(" --dir <your folder>", "")
  );
  assertEquals((await on(database, baseline!, files)).code, 0, baseline);
  const more = {
    ...files,
    "003_invoices.sql": "CREATE TABLE invoices (id int REFERENCES accounts2);".replace(
      " REFERENCES accounts2",
      "",
    ),
  };
  const applied = await on(database, migrate!, more);
  assertEquals(applied.code, 0, applied.stderr);
  const rows = await database.sql`SELECT relname || ' in ' || relnamespace::regnamespace AS name FROM pg_class
    WHERE relname IN ('accounts', 'orders', 'invoices') ORDER BY 1`;
  assertEquals(rows.map(({ name }) => name), [
    "accounts in public",
    "invoices in public",
    "orders in public",
  ]);
});

Deno.test("a database with another tool's history: the first thing that is there already leads to db:baseline", async () => {
  for (
    const [tool, table] of [
      ["goose", "CREATE TABLE goose_db_version (id int, version_id bigint, is_applied boolean)"],
      ["Prisma", "CREATE TABLE _prisma_migrations (id text, migration_name text)"],
      [
        "graphile-migrate",
        "CREATE SCHEMA graphile_migrate; CREATE TABLE graphile_migrate.migrations (hash text)",
      ],
      [undefined, ""],
    ]
  ) {
    await using database = await TestDatabase.empty();
    await database.sql.unsafe(`CREATE TABLE accounts (id int); ${table}`);
    const { code, stderr } = await on(database, "db:migrate", {
      "001_a.sql": "CREATE TABLE accounts (id int);",
    });
    assertEquals(code, 1);
    assertMatch(stderr, /next: .*pipeweave db:baseline/);
    if (tool) assertStringIncludes(stderr, `a history of ${tool}`);
    const status = await on(database, "db:status", { "001_a.sql": "CREATE TABLE accounts (id int);" });
    assertEquals(status.stdout.includes(`History of ${tool}: `), tool !== undefined, status.stdout);
  }
});

for (
  const statement of [
    "DROP TABLE IF EXISTS schema_migrations;",
    "ALTER TABLE public.schema_migrations ADD COLUMN data_version int;",
    "ALTER TABLE schema_migrations RENAME TO old;",
    "ALTER TABLE schema_migrations SET SCHEMA other;",
    "TRUNCATE users, migration_log;",
    "DELETE FROM migration_journal;",
    "WITH gone AS (DELETE FROM migration_lease RETURNING *) SELECT * FROM gone;",
    "INSERT INTO schema_migrations (version) VALUES ('1');",
    "UPDATE orchestrator_state SET mode = 'running';",
    "CREATE TABLE IF NOT EXISTS schema_migrations (version text);",
    "CREATE TRIGGER t BEFORE INSERT ON schema_migrations FOR EACH ROW EXECUTE FUNCTION f();",
    "CREATE POLICY p ON schema_migrations USING (true);",
    "DROP TRIGGER migration_log_is_append_only ON migration_log;",
    "DROP SCHEMA public CASCADE;",
    "ALTER SCHEMA public RENAME TO other;",
    "DROP SEQUENCE schema_migrations_id_seq CASCADE;",
    "ALTER SEQUENCE schema_migrations_id_seq OWNED BY NONE;",
    "CREATE TABLE k () INHERITS (schema_migrations);",
    "ALTER TABLE k INHERIT public.schema_migrations;",
    "DO $$ BEGIN DELETE FROM schema_migrations; END $$;",
  ]
) {
  Deno.test(`our tables are guarded: ${statement}`, async () => {
    for (const mark of ["", "-- pipeweave: no-transaction\n"]) {
      const { code, stdout } = await on(undefined, "db:validate --offline --no-embedded --json", {
        "001_a.sql": mark + statement,
      });
      assertEquals([code, JSON.parse(stdout).findings[0]?.code], [5, "own_table"], statement);
    }
  });
}

Deno.test("with the books in a schema of their own, a table of the same name is the user's", async () => {
  await using database = await TestDatabase.empty();
  await database.sql`CREATE TABLE schema_migrations (version text)`;
  const { code, stderr } = await on(database, "db:migrate --schema books", {
    "001_a.sql": "DROP TABLE schema_migrations; CREATE TABLE migration_log (id serial, msg text);",
  });
  assertEquals(code, 0, stderr);
  const refused = await on(database, "db:migrate --schema books", {
    "001_a.sql": "DROP TABLE schema_migrations; CREATE TABLE migration_log (id serial, msg text);",
    "002_b.sql": "DROP TABLE books.schema_migrations;",
  });
  assertEquals(refused.code, 5);
  for (
    const set of ["SET search_path = books;", "SELECT set_config('search_path', 'public, books', false);"]
  ) {
    const led = await on(database, "db:validate --schema books", {
      "001_a.sql": `${set} DELETE FROM schema_migrations;`,
    });
    assertStringIncludes(led.stdout, "in which PipeWeave keeps its books");
  }
});

for (
  const table of [
    "migration_log (id serial, msg text)",
    "migration_lease (id serial, holder text)",
    "migration_lease (id text PRIMARY KEY, holder text)",
    "migration_journal (id int)",
  ]
) {
  Deno.test(`a table of the user's with one of our names is told before anything is written: ${table}`, async () => {
    await using database = await TestDatabase.empty();
    await database.sql.unsafe(`CREATE TABLE ${table}`);
    for (const command of ["db:migrate", "db:status", "db:baseline 001", "db:migrate --dry-run=execute"]) {
      const { code, stderr } = await on(database, command, { "001_a.sql": UP });
      assertEquals(code, 5, `${command}: ${stderr}`);
      assertStringIncludes(stderr, `The table public.${table.split(" ")[0]} is not PipeWeave's`);
    }
    const tables = await database
      .sql`SELECT FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`;
    assertEquals(tables.length, 1);
    assertEquals((await on(database, "db:migrate --schema books", { "001_a.sql": UP })).code, 0);
  });
}

Deno.test("encodings and invisible characters are told as what they are", async () => {
  const utf16 = (bom: boolean, little: boolean) => {
    const bytes = [...(bom ? [0xfeff] : []), ...[...UP].map((c) => c.charCodeAt(0))].flatMap((unit) =>
      little ? [unit & 255, unit >> 8] : [unit >> 8, unit & 255]
    );
    return Uint8Array.from(bytes);
  };
  for (
    const [bytes, part] of [
      [utf16(true, true), "iconv -f utf-16 "],
      [utf16(true, false), "iconv -f utf-16 "],
      [utf16(false, true), "iconv -f utf-16le "],
      [utf16(false, false), "iconv -f utf-16be "],
      [new TextEncoder().encode(`\u00a0${UP}`), "U+00A0"],
      [new TextEncoder().encode(`\ufeff\ufeff${UP}`), "U+FEFF"],
      [new TextEncoder().encode(`CREATE\u200b TABLE x (id int);`), "U+200B"],
      [
        new TextEncoder().encode(`\\restrict abc\n${UP}\n\\unrestrict abc`),
        "delete those that start with \\restrict",
      ],
    ] as const
  ) {
    await using folder = await folderWith({});
    await Deno.writeFile(`${folder.path}/001_a.sql`, bytes);
    const { code, stdout } = await pipeweave([
      "db:validate",
      "--offline",
      "--no-embedded",
      "--dir",
      folder.path,
    ]);
    assertEquals(code, 5);
    assertStringIncludes(stdout, part);
  }
  const inString = await on(undefined, "db:validate --offline --no-embedded", {
    "001_a.sql": "INSERT INTO t VALUES ('\u{1f468}\u200d\u{1f469}') oops;",
  });
  assert(!inString.stdout.includes("invisible"), inString.stdout);
});

Deno.test("a directive on a line that ends in CR counts; a dangling link is called one", async () => {
  const { code, stdout } = await on(undefined, "db:validate --offline --no-embedded", {
    "001_a.sql": "-- pipeweave: no-transaction\rVACUUM;\r",
  });
  assertEquals(code, 0, stdout);
  await using folder = await folderWith({ "001_a.sql": UP });
  await Deno.symlink("/no/such/file", `${folder.path}/002_b.sql`);
  const dangling = await pipeweave(["db:validate", "--offline", "--no-embedded", "--dir", folder.path]);
  assertStringIncludes(dangling.stdout, "it is a link to nothing");
});

Deno.test("SET TRANSACTION is refused; CONCURRENTLY in a down file leads out of the circle; a switched off lock_timeout is warned of", async () => {
  const validate = (files: Record<string, string>) =>
    on(undefined, "db:validate --offline --no-embedded", files);
  for (
    const set of [
      "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;",
      "SET transaction_isolation = 'serializable';",
    ]
  ) {
    const { code, stdout } = await validate({ "001_a.sql": `${set} ${UP}` });
    assertEquals(code, 5);
    assertStringIncludes(stdout, "it has begun when the file's text runs");
  }
  const down = await validate({ "001_i.sql": UP, "001_i.down.sql": "DROP INDEX CONCURRENTLY i;" });
  assertStringIncludes(down.stdout, "fix: Roll-backs run in a transaction: write it without CONCURRENTLY");
  const off = await validate({ "001_a.sql": `SET lock_timeout = 0; ALTER TABLE x ADD y int;` });
  assertEquals(off.code, 0);
  assertStringIncludes(off.stdout, "it switches the limit for locks off");
});

Deno.test("nothing of a migration's session is there in the next: PREPARE, cursors, LISTEN, locks, temporary tables", async () => {
  await using database = await TestDatabase.empty();
  const same =
    "PREPARE q AS SELECT 1; CREATE TEMP TABLE t (id int); SELECT pg_advisory_lock(7); LISTEN x; DECLARE c CURSOR WITH HOLD FOR SELECT 1;";
  const { code, stderr } = await on(database, "db:migrate", {
    "001_a.sql": same,
    "002_b.sql": same,
    "003_c.sql":
      "CREATE TABLE left_over AS SELECT (SELECT count(*) FROM pg_prepared_statements) + (SELECT count(*) FROM pg_cursors) + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7) + (SELECT count(*) FROM pg_listening_channels()) AS n;",
    "004_deferred.sql":
      "CREATE TEMP TABLE p (id int PRIMARY KEY); CREATE TEMP TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES (1); INSERT INTO p VALUES (1);",
  });
  assertEquals(code, 0, stderr);
  assertEquals(Number((await database.sql`SELECT n FROM left_over`)[0]!["n"]), 0);
  const broken = await on(database, "db:migrate --allow-missing", {
    "005_deferred.sql":
      "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES (1);",
  });
  assertEquals(broken.code, 1);
  assertStringIncludes(broken.stderr, "A constraint that the file deferred does not hold at its end");
});

Deno.test("hints speak of what happened", async () => {
  await using database = await TestDatabase.empty();
  await database.sql.unsafe(`CREATE TABLE v_base (a int); CREATE VIEW v AS SELECT a FROM v_base;
    CREATE TABLE part (d int) PARTITION BY RANGE (d); CREATE ROLE plain_${database.name} LOGIN;
    GRANT ALL ON SCHEMA public TO plain_${database.name}; GRANT CREATE ON DATABASE ${database.name} TO plain_${database.name}`);
  assertEquals((await on(database, "db:migrate", { "000_z.sql": "SELECT 1;" })).code, 0);
  try {
    for (
      const [sql, part, role] of [
        ["ALTER TABLE v_base ALTER a TYPE bigint;", "Drop the view", ""],
        [
          "-- pipeweave: no-transaction\nCREATE INDEX CONCURRENTLY i ON part (d);",
          "CREATE INDEX … ON ONLY the partitioned table",
          "",
        ],
        ["SET statement_timeout = 50; SELECT pg_sleep(5);", "--statement-timeout", ""],
        ["CREATE EXTENSION no_such_extension;", "Install the extension", ""],
        [
          "SET default_transaction_read_only = on; SET transaction_read_only = on; CREATE TABLE x (id int);",
          "cannot be chosen",
          "",
        ],
        ["ALTER TABLE v_base ADD b int;", "Only the owner may do that", "plain"],
        ["SELECT * FROM v_base;", "lacks the right", "plain"],
        ["SELECT 1/0;", "Correct the file", ""],
      ] as const
    ) {
      await using other = await TestDatabase.empty();
      const url = role ? database.url.replace("postgres@", `plain_${database.name}@`) : database.url;
      await using folder = await folderWith({ "000_z.sql": "SELECT 1;", "001_a.sql": sql });
      const { stderr } = await pipeweave([
        "db:migrate",
        "--dir",
        folder.path,
        ...(role ? ["--schema", `books_${role}`] : []),
      ], { env: { DATABASE_URL: url } });
      assertStringIncludes(stderr, part, `${sql}\n${stderr}`);
      void other;
    }
  } finally {
    await database.sql.unsafe(
      `DROP OWNED BY plain_${database.name} CASCADE; DROP ROLE plain_${database.name}`,
    );
  }
});

Deno.test("a sequence that is behind its rows is what the hint is about; what fails of our own is not the file's fault", async () => {
  await using database = await TestDatabase.empty();
  const files = { "001_a.sql": UP };
  assertEquals((await on(database, "db:migrate", files)).code, 0);
  for (const mark of ["", "-- pipeweave: no-transaction\n"]) {
    await database.sql`SELECT setval(pg_get_serial_sequence('schema_migrations', 'id'), 1, false)`;
    const { code, stderr } = await on(database, "db:migrate", { ...files, "002_b.sql": `${mark}SELECT 2;` });
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, "002_b");
    const [statement] = /SELECT setval\(.*\);/.exec(stderr)!;
    assert(!stderr.includes("Correct the file") && !stderr.includes("CONTEXT"), stderr);
    await database.sql.unsafe(statement!);
    assertEquals((await on(database, "db:migrate", { ...files, "002_b.sql": `${mark}SELECT 2;` })).code, 0);
    await database.sql`DELETE FROM schema_migrations WHERE version = '002'`;
  }
});

Deno.test("PipeWeave's own SQL is ASCII: it works in a database of any encoding", async () => {
  for await (const { name } of Deno.readDir(new URL("../migrations", import.meta.url))) {
    const text = await Deno.readTextFile(new URL(`../migrations/${name}`, import.meta.url));
    // deno-lint-ignore no-control-regex -- all of ASCII is meant
    assertEquals(text.match(/[^\x00-\x7f]/g), null, name);
  }
  await using database = await TestDatabase.empty();
  const name = `latin_${database.name}`;
  await database.sql.unsafe(
    `CREATE DATABASE ${name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`,
  );
  try {
    await using folder = await folderWith({
      "101_a.sql": "-- pipeweave: no-transaction\nSELECT 1;\nVACUUM;\nSELECT 'ä';",
    });
    const env = { DATABASE_URL: database.url.replace(database.name, name) };
    const { code, stderr } = await pipeweave(["db:migrate", "--embedded", "--dir", folder.path], { env });
    assertEquals(code, 0, stderr);
    const long = await pipeweave(["maintenance:request", "--reason", "x".repeat(2000)], { env });
    assertEquals(long.code, 0, long.stderr);
  } finally {
    await database.sql.unsafe(`DROP DATABASE ${name} WITH (FORCE)`);
  }
});

Deno.test("a character that the database's encoding has not: its place, whichever file it is in", async () => {
  await using database = await TestDatabase.empty();
  const name = `latin_${database.name}`;
  await database.sql.unsafe(
    `CREATE DATABASE ${name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`,
  );
  try {
    await using folder = await folderWith({
      "001_a.sql": UP,
      "002_b.sql": "SELECT 1;\n-- costs 5 €\nSELECT 2;",
    });
    const env = { DATABASE_URL: database.url.replace(database.name, name) };
    for (const more of [["--dry-run=execute"], []]) {
      const { code, stderr } = await pipeweave(["db:migrate", ...more, "--dir", folder.path], { env });
      assertEquals(code, 1);
      assertStringIncludes(stderr, "002_b.sql:2:12");
      assertStringIncludes(stderr, "the database's encoding has not");
    }
  } finally {
    await database.sql.unsafe(`DROP DATABASE ${name} WITH (FORCE)`);
  }
});

Deno.test("standard_conforming_strings off: as psql reads it, or refused", async () => {
  await using database = await TestDatabase.empty();
  assertEquals((await on(database, "db:migrate", { "000_z.sql": "SELECT 1;" })).code, 0);
  await database.sql.unsafe(`ALTER DATABASE ${database.name} SET standard_conforming_strings = off`);
  const dump =
    "SET standard_conforming_strings = on;\nCREATE TABLE paths AS SELECT 'c:\\new\\table'::text AS p;";
  assertEquals((await on(database, "db:migrate --allow-missing", { "001_a.sql": dump })).code, 0);
  assertEquals((await database.sql`SELECT p FROM paths`)[0]!["p"], "c:\\new\\table");
  for (const text of ["SELECT 'a\\nb';", "-- it's\nSELECT E'a\\n', 'c:\\x';"]) {
    const { code, stderr } = await on(database, "db:migrate --allow-missing", {
      "001_a.sql": dump,
      "002_b.sql": text,
    });
    assertEquals(code, 5);
    assertStringIncludes(stderr, "a backslash in a string is an escape in this database");
  }
  const fine = { "001_a.sql": dump, "002_b.sql": "-- c:\\x\nSELECT E'a\\n', $$ c:\\x $$;" };
  assertEquals((await on(database, "db:migrate --allow-missing", fine)).code, 0);
});

Deno.test("long lists and long messages are cut", async () => {
  await using database = await TestDatabase.empty();
  const files = Object.fromEntries(
    Array.from(
      { length: 120 },
      (_, i) => [`${String(i + 1).padStart(3, "0")}_m.sql`, `CREATE TABLE t${i} (id int);`],
    ),
  );
  const failed = await on(database, "db:migrate", { ...files, "100_m.sql": "SELECT 1/0;" });
  assertStringIncludes(
    failed.stderr,
    "applied by this run: 99 migrations, from 001_m to 099_m",
  );
  assertStringIncludes(failed.stderr, "not tried: 20 migrations, from 101_m to 120_m");
  const status = (await on(database, "db:status", files)).stdout;
  assertMatch(status, /49 earlier ones +applied; --all shows them/);
  assert((await on(database, "db:status --all", files)).stdout.split("\n").length > 120);
  const open = await on(undefined, "db:validate --offline --no-embedded", {
    "001_a.sql": `/* never closed\n${"x\n".repeat(300_000)}`,
  });
  assertEquals(open.code, 5);
  assert(open.stdout.length < 5000, String(open.stdout.length));
});
