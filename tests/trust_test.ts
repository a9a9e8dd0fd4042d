/**
 * A hostile role owns what it can of the schema: operators, functions, types, casts, and objects of PipeWeave's names made
 * beforehand. Whatever command a superuser runs, nothing of the role's ever runs with the superuser's rights.
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type postgres from "postgres";
import { type Outcome, pipeweave, Run } from "./support/binary.ts";
import { connect, queueTasks, TestDatabase } from "./support/database.ts";

/** A role that may create objects in `public`, and its client. */
class Hostile implements AsyncDisposable {
  private constructor(
    readonly role: string,
    readonly database: TestDatabase,
    readonly sql: postgres.Sql,
  ) {}

  static async in(database: TestDatabase): Promise<Hostile> {
    const role = `mallory_${database.name}`;
    await database.sql.unsafe(`CREATE ROLE ${role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC`);
    const sql = connect(database.url.replace("postgres@", `${role}@`));
    // What runs as a superuser makes one of the role.
    await sql.unsafe(`CREATE FUNCTION public.pwn() RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
          EXECUTE 'ALTER ROLE ${role} SUPERUSER';
        END IF;
      EXCEPTION WHEN OTHERS THEN NULL;
      END $$`);
    return new Hostile(role, database, sql);
  }

  async isSuperuser(): Promise<boolean> {
    const [row] = await this.database.sql`SELECT rolsuper FROM pg_roles WHERE rolname = ${this.role}`;
    return row!["rolsuper"];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sql.end({ timeout: 1 });
    await this.database.sql.unsafe(`DROP OWNED BY ${this.role} CASCADE; DROP ROLE ${this.role}`);
  }
}

/** Every command that connects. */
const COMMANDS: readonly (readonly string[])[] = [
  ["db:status"],
  ["db:validate"],
  ["db:history"],
  ["db:migrate", "--dry-run=execute"],
  ["db:migrate"],
  ["db:migrate", "--maintenance=always"],
  ["db:lint"],
  ["db:cleanup", "--dry-run"],
  ["db:cleanup"],
  ["db:wait", "--migrated", "--timeout", "1s"],
  ["db:repair", "--version", "001", "--reason", "x"],
  ["db:baseline", "--version", "002", "--reason", "x"],
  ["db:rollback", "--yes"],
  ["db:selftest"],
  ["maintenance:status"],
  ["maintenance:tasks"],
  ["maintenance:history"],
  ["maintenance:watch", "--once"],
  ["maintenance:request", "--ignore-stale"],
  ["maintenance:status"],
  ["maintenance:enter"],
  ["maintenance:wait", "--for", "running", "--timeout", "300ms"],
  ["maintenance:exit", "--force"],
];

async function runAll(
  hostile: Hostile,
  before: () => Promise<void> = () => Promise.resolve(),
): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const command of COMMANDS) {
    await before();
    outcomes.push(await pipeweave(command, { env: { DATABASE_URL: hostile.database.url } }));
    assertEquals(await hostile.isSuperuser(), false, command.join(" "));
  }
  return outcomes;
}

/** Operators on the types that our SQL compares and computes with, each of which calls `pwn()` and then does the right thing. */
async function makeOperators({ sql, database }: Hostile): Promise<void> {
  const operators = await database.sql<{ name: string; left: string; right: string; result: string }[]>`
    SELECT DISTINCT ON (1, 2, 3) o.oprname AS name, l.typname AS left, r.typname AS right, t.typname AS result
      FROM pg_operator o JOIN pg_type t ON t.oid = o.oprresult, pg_type l, pg_type r
     WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '||', '->>', '?', '~')
       AND (o.oprleft, o.oprright) IN (SELECT a.oid, b.oid FROM pg_type a, pg_type b WHERE a.typname IN ('text', 'int4', 'timestamptz', 'numeric') AND b.typname IN ('text', 'int4', 'timestamptz', 'numeric', 'interval'))
       AND l.typname IN ('int4', 'int8', 'text', 'varchar', 'timestamptz', 'numeric', 'float8') AND r.typname IN ('int4', 'numeric', 'text', 'varchar', 'timestamptz', 'interval', 'float8')`;
  for (const [index, { name, left, right, result }] of operators.entries()) {
    // Where PostgreSQL has no such operator, the role's is the best match.
    await sql.unsafe(
      `CREATE FUNCTION public.op${index}(${left}, ${right}) RETURNS ${result} LANGUAGE plpgsql AS $$
      BEGIN PERFORM public.pwn(); RETURN NULL; END $$;
      CREATE OPERATOR public.${name} (LEFTARG = ${left}, RIGHTARG = ${right}, FUNCTION = public.op${index})`,
    );
  }
  assert(operators.length > 100, `${operators.length} operators`);
  const functions = [
    "coalesce_(text)",
    "now()",
    "count(text)",
    "format(text, text)",
    "to_regclass(varchar)",
    "round(float8)",
  ];
  for (
    const signature of [...functions, "date_trunc(varchar, timestamptz)", "jsonb_build_object(text, text)"]
  ) {
    await sql.unsafe(`CREATE FUNCTION public.${signature} RETURNS text LANGUAGE plpgsql AS $$
      BEGIN PERFORM public.pwn(); RETURN NULL; END $$`);
  }
  // A type of the name of one of PostgreSQL's, and a cast that runs a function.
  await sql.unsafe(`CREATE DOMAIN public.timestamptz AS text CHECK (public.pwn() IS NULL);
    CREATE TYPE public.mood AS ENUM ('running');
    CREATE FUNCTION public.mood_text(public.mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN 'running'; END $$;
    CREATE CAST (public.mood AS text) WITH FUNCTION public.mood_text(public.mood) AS IMPLICIT`);
}

Deno.test("a superuser's commands use nothing of an untrusted schema: operators, functions, types, casts", async () => {
  await using database = await TestDatabase.empty();
  await using hostile = await Hostile.in(database);
  await makeOperators(hostile);
  // The role's things are in the way of the first migration, too.
  const first = await pipeweave(["db:migrate"], { env: { DATABASE_URL: database.url } });
  assertEquals([first.code, await hostile.isSuperuser()], [0, false], first.stderr);
  await queueTasks(database.sql, ["running", "pending"]);
  const outcomes = await runAll(hostile, async () => {
    await database.sql.unsafe(`UPDATE public.task_runs SET heartbeat_timeout_ms = 1`);
  });
  const codes = outcomes.map(({ code }, index) => `${COMMANDS[index]!.join(" ")}: ${code}`);
  assertEquals(
    codes.filter((line) =>
      /^(db:status|db:validate|db:cleanup|db:migrate|db:selftest|maintenance:(status|tasks|request|exit)).*: [^0]$/
        .test(line)
    ),
    [],
  );
});

/** Objects of PipeWeave's names that the role makes first, each of which runs `pwn()` when it is used. */
const PREMADE: Readonly<Record<string, string>> = {
  "a history with a trigger":
    `CREATE TABLE schema_migrations (id serial PRIMARY KEY, version text NOT NULL UNIQUE, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), checksum text NOT NULL, execution_time_ms integer);
     CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN NEW; END $$;
     CREATE TRIGGER t BEFORE INSERT ON schema_migrations FOR EACH ROW EXECUTE FUNCTION t()`,
  "a history that is a view":
    `CREATE FUNCTION rows() RETURNS TABLE (id int, version text, name text, applied_at timestamptz, checksum text, execution_time_ms int) LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); END $$;
     CREATE VIEW schema_migrations AS SELECT * FROM rows(); GRANT SELECT ON schema_migrations TO PUBLIC`,
  "a history of a type of its own":
    `CREATE TYPE v AS ENUM ('000'); CREATE FUNCTION vt(v) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN '000'; END $$;
     CREATE CAST (v AS text) WITH FUNCTION vt(v) AS IMPLICIT;
     CREATE TABLE schema_migrations (id serial, version v, name v, applied_at timestamptz, checksum v, execution_time_ms int); INSERT INTO schema_migrations (version, name, checksum) VALUES ('000', '000', '000')`,
  "a state with a rule":
    `CREATE TABLE orchestrator_state (id text PRIMARY KEY, mode text DEFAULT 'running', mode_changed_at timestamptz DEFAULT now(), pending_tasks_count int, running_tasks_count int, metadata jsonb, updated_at timestamptz DEFAULT now());
     CREATE RULE r AS ON INSERT TO orchestrator_state DO ALSO SELECT public.pwn()`,
  "a state with a default that runs":
    `CREATE FUNCTION d() RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN 'running'; END $$;
     CREATE TABLE orchestrator_state (id text PRIMARY KEY, mode text DEFAULT d(), mode_changed_at timestamptz DEFAULT now(), pending_tasks_count int, running_tasks_count int, metadata jsonb, updated_at timestamptz DEFAULT now())`,
  "a function that a trigger calls":
    `CREATE FUNCTION update_orchestrator_state_timestamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN NEW; END $$`,
  "the guard":
    `CREATE FUNCTION migration_guard(text, bigint, text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); END $$`,
  "tables of tasks":
    `CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN NEW; END $$;
     CREATE TABLE services (id text PRIMARY KEY, status text, last_heartbeat timestamptz); CREATE TABLE task_runs (id text PRIMARY KEY, status text);
     CREATE TRIGGER t BEFORE INSERT ON services FOR EACH ROW EXECUTE FUNCTION t()`,
};

for (const [what, make] of Object.entries(PREMADE)) {
  Deno.test(`made beforehand by a hostile role: ${what}: refused, naming object, owner and the way out`, async () => {
    await using database = await TestDatabase.empty();
    await using hostile = await Hostile.in(database);
    await hostile.sql.unsafe(make);
    const [migrated] = [await pipeweave(["db:migrate"], { env: { DATABASE_URL: database.url } })];
    assertEquals([migrated.code, await hostile.isSuperuser()], [1, false], migrated.stderr);
    assertStringIncludes(migrated.stderr, `belongs to ${hostile.role}`);
    assertMatch(
      migrated.stderr,
      /to hand it over: ALTER (TABLE|VIEW|FUNCTION) public\.\S+ OWNER TO "postgres";|next: If that is right/,
    );
    assertStringIncludes(migrated.stderr, `connect as ${hostile.role}`);
    await runAll(hostile);
    const [left] = await database.sql`SELECT to_regclass('public.dlq') IS NULL AS nothing`;
    assertEquals(left!["nothing"], true);
  });
}

Deno.test("a trigger of somebody's function on a table of ours: by TRIGGER alone, by its condition, on a partition", async () => {
  for (
    const trigger of [
      "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN NEW; END $$; CREATE TRIGGER t BEFORE UPDATE ON orchestrator_state FOR EACH ROW EXECUTE FUNCTION t()",
      "CREATE FUNCTION c(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN false; END $$; CREATE TRIGGER t BEFORE UPDATE ON orchestrator_state FOR EACH ROW WHEN (c(NEW.id)) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
      "CREATE FUNCTION t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN OLD; END $$; CREATE TRIGGER t BEFORE DELETE ON idempotency_cache FOR EACH ROW EXECUTE FUNCTION t()",
    ]
  ) {
    await using database = await TestDatabase.migrated();
    await using hostile = await Hostile.in(database);
    await database.sql.unsafe(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${hostile.role};
      INSERT INTO idempotency_cache (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at) VALUES ('k', 't', 'r', 1, '/', now() - interval '1 hour')`);
    await hostile.sql.unsafe(trigger);
    const env = { DATABASE_URL: database.url };
    const outcomes = await Promise.all(
      [["maintenance:request"], ["db:cleanup"]].map((command) => pipeweave(command, { env })),
    );
    const refused = outcomes.find(({ code }) => code === 1);
    assertStringIncludes(refused!.stderr, `runs a function of ${hostile.role}`);
    await runAll(hostile);
  }
});

Deno.test("a superuser looks at what an application's role owns, changes nothing there, and is told how", async () => {
  await using database = await TestDatabase.empty();
  const app = `app_${database.name}`;
  await database.sql.unsafe(`CREATE ROLE ${app} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO ${app}`);
  try {
    const as = (role: string) => ({ env: { DATABASE_URL: database.url.replace("postgres@", `${role}@`) } });
    assertEquals((await pipeweave(["db:migrate"], as(app))).code, 0);
    for (
      const command of [
        "db:status",
        "maintenance:status",
        "maintenance:tasks",
        "maintenance:history",
        "db:history",
      ]
    ) {
      const { code, stderr } = await pipeweave([command], as("postgres"));
      assertEquals([command, code], [command, 0], stderr);
    }
    const refused = await pipeweave(["maintenance:request"], as("postgres"));
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.stderr, `GRANT "${app}" TO "postgres"`);
    // Word for word as it is told.
    await database.sql.unsafe(/GRANT "[^"]+" TO "[^"]+"/.exec(refused.stderr)![0]);
    assertEquals((await pipeweave(["maintenance:request"], as("postgres"))).code, 0);
    assertEquals((await pipeweave(["maintenance:exit", "--force"], as("postgres"))).code, 0);
  } finally {
    await database.sql.unsafe(`REVOKE ${app} FROM postgres; DROP OWNED BY ${app} CASCADE; DROP ROLE ${app}`);
  }
});

Deno.test("the binary opens no code cache in the temp folder, where anybody may plant one", async () => {
  const folder = await Deno.makeTempDir();
  try {
    // Who opens a pipe that nobody writes to waits for ever.
    const pipe = `${folder}/deno-compile-pipeweave.cache`;
    assertEquals((await new Deno.Command("mkfifo", { args: [pipe] }).output()).code, 0);
    const run = new Run(["db:validate", "--offline"], { env: { TMPDIR: folder, HOME: folder } });
    const late = setTimeout(() => run.kill("SIGKILL"), 20_000);
    assertEquals((await run.outcome).code, 0, "it waits for the planted file");
    clearTimeout(late);
    assertEquals([...Deno.readDirSync(folder)].length, 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
