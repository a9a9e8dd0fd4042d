/** Taking over a live database of PipeWeave 1.x: of its Node tool, of `pipeweave-db init`, of the set-up's admin. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { migrate } from "../src/commands/migrate.ts";
import { folderWith, pipeweave, Run, until } from "./support/binary.ts";
import { queueTasks, TestDatabase } from "./support/database.ts";

/** What the Node tool (1.1) recorded for its own files, whose schema is that of our first three. */
const NODE_CHECKSUMS = [
  ["000", "migration_tracking", "47949e3ddde295a1fb054b563810ad0704db212a18aede25a774641c31e8de58"],
  ["001", "initial_schema", "e6d6c11d0cfa1cd052976cc1857b94912cb6a9663359755a570820450aef44aa"],
  [
    "002",
    "input_schemas_and_temp_uploads",
    "c4985514d2aca505d722b23b0085f3e3bab10cf41cc4b8d24152609e37fa0480",
  ],
] as const;

/** A database as the Node tool leaves it, with an active task of each kind. */
async function nodeDatabase(): Promise<TestDatabase> {
  const database = await TestDatabase.empty();
  const { failed } = await migrate(database.session(), { to: "002" });
  if (failed) throw failed.error;
  const { sql } = database;
  await sql`DROP TABLE migration_log, migration_journal, migration_lease CASCADE`;
  await sql.unsafe(
    "DROP FUNCTION migration_guard, record_migration, refuse_change_of_migration_log; TRUNCATE schema_migrations",
  );
  for (const [version, name, checksum] of NODE_CHECKSUMS) {
    await sql`INSERT INTO schema_migrations (version, name, checksum, execution_time_ms) VALUES (${version}, ${name}, ${checksum}, 1)`;
  }
  await queueTasks(sql, ["running", "pending"]);
  return database;
}

Deno.test("a live database of the Node tool: every documented command works beside active tasks", async () => {
  await using database = await nodeDatabase();
  const { sql } = database;
  const env = { DATABASE_URL: database.url };
  await using folder = await folderWith({
    "101_orders.sql": "-- pipeweave: requires maintenance\nCREATE TABLE orders (id int);",
  });
  assertEquals((await pipeweave(["db:lint"], { env })).code, 0);
  assertEquals((await pipeweave(["db:lint", "--offline"], {})).code, 0);
  assertEquals((await pipeweave(["db:migrate", "--dry-run"], { env })).code, 0);
  // What has to be migrated first says so, and that works.
  for (const command of ["maintenance:request", "maintenance:status"]) {
    const { code, stderr } = await pipeweave([command], { env });
    assertEquals(code, 1);
    assertStringIncludes(
      stderr,
      "next: PipeWeave's own tables are missing. Make them: pipeweave db:migrate --embedded\n",
    );
  }
  // The deployment script of the README, word for word but for the folder.
  const deployment = new Run(
    ["db:migrate", "--dir", folder.path, "--maintenance", "--drain-timeout", "10m"],
    { env },
  );
  await until(
    async () => (await sql`SELECT mode FROM orchestrator_state`)[0]!["mode"] === "waiting_for_maintenance",
    "it drains, by what it has just brought",
  );
  assertEquals((await sql`SELECT count(*)::int AS n FROM schema_migrations`)[0]!["n"], 5);
  await sql`UPDATE task_runs SET status = 'completed'`;
  const { code, stdout, stderr } = await deployment.outcome;
  assertEquals(code, 0, stderr);
  assertMatch(
    stdout,
    /✓ Applied 90003_\S+ .*\n[\s\S]*✓ Applied 101_orders[\s\S]*✓ Applied 3 migration\(s\)\n$/,
  );
  assertEquals((await sql`SELECT mode FROM orchestrator_state`)[0]!["mode"], "running");
  assertEquals((await pipeweave(["db:status", "--check", "--dir", folder.path], { env })).code, 0);
});

Deno.test("a live database of the Node tool: db:migrate alone is done in a moment, and doubles nothing", async () => {
  await using database = await nodeDatabase();
  const { sql } = database;
  // Somebody works on the queue all the time.
  await using _worker = await database.hold(
    "UPDATE task_runs SET priority = 1",
  );
  const { code, stderr } = await pipeweave(["db:migrate"], { env: { DATABASE_URL: database.url } });
  assertEquals(code, 0, stderr);
  const doubled =
    await sql`SELECT tgrelid::regclass::text || ' ' || tgfoid::regproc AS of, count(*)::int AS n FROM pg_trigger
    WHERE NOT tgisinternal GROUP BY 1 HAVING count(*) > 1`;
  assertEquals(doubled.length, 0);
  const twice = await sql`SELECT indrelid::regclass::text AS on_table, count(*)::int AS n FROM pg_index
    GROUP BY indrelid, indkey::text, coalesce(pg_get_expr(indpred, indrelid), ''), indisunique HAVING count(*) > 1`;
  assertEquals(twice.filter(({ on_table }) => !String(on_table).startsWith("pg_")), []);
});

Deno.test("a database of pipeweave-db init, with tables and no history: taken over beside active tasks", async () => {
  await using database = await nodeDatabase();
  await database.sql`DROP TABLE schema_migrations`;
  const before = await database.sql`SELECT id, status FROM task_runs ORDER BY id`;
  const { code, stderr } = await pipeweave(["db:migrate", "--maintenance"], {
    env: { DATABASE_URL: database.url },
  });
  assertEquals(code, 0, stderr);
  assertEquals(await database.sql`SELECT id, status FROM task_runs ORDER BY id`, before);
  assertEquals((await pipeweave(["maintenance:request"], { env: { DATABASE_URL: database.url } })).code, 0);
});

Deno.test("a database whose tables belong to the set-up's admin: ownership is named, with statements that work", async () => {
  await using database = await nodeDatabase();
  const { sql, url, name } = database;
  const app = `app_${name}`;
  await sql.unsafe(
    `CREATE ROLE ${app} LOGIN; GRANT ALL ON SCHEMA public TO ${app}; GRANT ALL ON ALL TABLES IN SCHEMA public TO ${app};
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO ${app}; GRANT CREATE ON DATABASE ${name} TO ${app}`,
  );
  try {
    const env = { DATABASE_URL: url.replace("postgres@", `${app}@`) };
    const refused = await pipeweave(["db:migrate"], { env });
    assertEquals(refused.code, 1);
    assertStringIncludes(
      refused.stderr,
      `belongs to postgres, and ${app} is neither that role nor a member of it. Nothing was done`,
    );
    assert(
      refused.stderr.split("\n").length < 40 && !/CONTEXT|plpgsql|BEGIN/.test(refused.stderr),
      refused.stderr,
    );
    const tested = await pipeweave(["db:selftest"], { env });
    assertEquals(tested.code, 1);
    assertStringIncludes(tested.stdout, "belongs to postgres");
    assertEquals((await sql`SELECT FROM pg_namespace WHERE nspname LIKE 'pipeweave_selftest%'`).length, 0);
    // Word for word, as the admin.
    const statements = [...refused.stderr.matchAll(/ALTER (?:TABLE|FUNCTION) .*? OWNER TO "[^"]+";/g)].map((
      [text],
    ) => text);
    assert(statements.length > 10);
    await sql.unsafe(statements.join("\n"));
    const migrated = await pipeweave(["db:migrate"], { env });
    assertEquals(migrated.code, 0, migrated.stderr);
    assertEquals((await pipeweave(["db:selftest"], { env })).code, 0);
    assertEquals((await pipeweave(["maintenance:request"], { env })).code, 0);
  } finally {
    await sql.unsafe(`DROP OWNED BY ${app} CASCADE; DROP ROLE ${app}`);
  }
});

Deno.test("a migrator with CREATE on the schema alone: no extension is needed", async () => {
  await using database = await TestDatabase.empty();
  const role = `least_${database.name}`;
  await database.sql.unsafe(`CREATE ROLE ${role} LOGIN; GRANT USAGE, CREATE ON SCHEMA public TO ${role}`);
  try {
    const { code, stderr } = await pipeweave(["db:migrate"], {
      env: { DATABASE_URL: database.url.replace("postgres@", `${role}@`) },
    });
    assertEquals(code, 0, stderr);
  } finally {
    await database.sql.unsafe(`DROP OWNED BY ${role} CASCADE; DROP ROLE ${role}`);
  }
});

Deno.test("after EXECUTE was revoked from everybody by default, other roles look, request and leave", async () => {
  await using database = await TestDatabase.empty();
  const { sql, url, name } = database;
  const [owner, ops] = [`owner_${name}`, `ops_${name}`];
  await sql.unsafe(
    `CREATE ROLE ${owner} LOGIN; CREATE ROLE ${ops} LOGIN; GRANT USAGE, CREATE ON SCHEMA public TO ${owner};
    ALTER DEFAULT PRIVILEGES FOR ROLE ${owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC`,
  );
  try {
    const as = (role: string) => ({ env: { DATABASE_URL: url.replace("postgres@", `${role}@`) } });
    assertEquals((await pipeweave(["db:migrate"], as(owner))).code, 0);
    await sql.unsafe(
      `GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${ops}; GRANT UPDATE ON orchestrator_state, task_runs TO ${ops}`,
    );
    await queueTasks(sql, ["running"]);
    for (
      const args of [["maintenance:status"], ["maintenance:request"], ["maintenance:tasks"], [
        "maintenance:exit",
      ]]
    ) {
      const { code, stderr } = await pipeweave(args, as(ops));
      assertEquals([args, code], [args, 0], stderr);
    }
  } finally {
    await sql.unsafe(`DROP OWNED BY ${owner}, ${ops} CASCADE; DROP ROLE ${owner}, ${ops}`);
  }
});
