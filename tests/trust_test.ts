/**
 * A hostile role owns what it can of the schema: operators, functions, types, casts, and objects of PipeWeave's names made
 * beforehand. Whatever command a superuser runs, nothing of the role's ever runs with the superuser's rights.
 */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type postgres from "postgres";
import { folderWith, type Outcome, pipeweave, Run, until } from "./support/binary.ts";
import { cleanup } from "../src/cleanup/cleanup.ts";
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

for (
  const [how, before, meanwhile] of [
    ["made", "", "CREATE TRIGGER mine BEFORE DELETE ON dlq FOR EACH ROW EXECUTE FUNCTION mine()"],
    [
      "replaced",
      "CREATE TRIGGER mine BEFORE UPDATE ON dlq FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
      "CREATE OR REPLACE TRIGGER mine BEFORE DELETE ON dlq FOR EACH ROW EXECUTE FUNCTION mine()",
    ],
  ] as const
) {
  Deno.test(`a trigger that is ${how} between two batches of a cleanup does not run`, async () => {
    await using database = await TestDatabase.migrated();
    await using hostile = await Hostile.in(database);
    await database.sql.unsafe(`GRANT TRIGGER ON dlq TO ${hostile.role};
      INSERT INTO dlq (id, task_run_id, task_id, code_version, code_hash, error, attempts, previous_attempts, failed_at)
      SELECT i, 'r', 't', 1, 'x', 'e', 3, '[]', now() - interval '90 days' FROM generate_series(1, 2000) i;
      ${before}`);
    await hostile.sql.unsafe(
      "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN OLD; END $$",
    );
    const session = database.session();
    let made: Promise<unknown> | undefined;
    const refused = await cleanup(session, {
      batchSize: 10,
      onBatch: () => void (made ??= hostile.sql.unsafe(meanwhile).then(() => {})),
    }).then(() => undefined, (error: Error) => error);
    await made;
    assertEquals(await hostile.isSuperuser(), false);
    // Either every row was gone by the time it was there, or it is refused, and says how many went before.
    const [left] = await database.sql`SELECT count(*)::int AS rows FROM dlq`;
    if (left!["rows"] > 0) {
      assertStringIncludes(String(refused?.message), `runs a function of ${hostile.role}`);
    }
  });
}

Deno.test("what an application's role owns is not even read by a superuser who is no member of it, and is told how", async () => {
  await using database = await TestDatabase.empty();
  const app = `app_${database.name}`;
  await database.sql.unsafe(`CREATE ROLE ${app} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO ${app}`);
  try {
    const as = (role: string) => ({ env: { DATABASE_URL: database.url.replace("postgres@", `${role}@`) } });
    assertEquals((await pipeweave(["db:migrate"], as(app))).code, 0);
    for (const args of [["db:status"], ["maintenance:status"], ["maintenance:request"]]) {
      const { code, stderr } = await pipeweave(args, as("postgres"));
      assertEquals([args, code], [args, 1]);
      assertStringIncludes(stderr, `GRANT "${app}" TO "postgres"`);
    }
    // Word for word as it is told.
    await database.sql.unsafe(`GRANT "${app}" TO "postgres"`);
    for (
      const args of [["db:status"], ["maintenance:status"], ["maintenance:request"], [
        "maintenance:exit",
        "--force",
      ]]
    ) {
      const { code, stderr } = await pipeweave(args, as("postgres"));
      assertEquals([args, code], [args, 0], stderr);
    }
  } finally {
    await database.sql.unsafe(`REVOKE ${app} FROM postgres; DROP OWNED BY ${app} CASCADE; DROP ROLE ${app}`);
  }
});

Deno.test("the planner runs nothing of a role's that made a plain table: index, predicate, statistics", async () => {
  for (
    const made of [
      "CREATE INDEX ON schema_migrations ((ix(1)))",
      "CREATE INDEX ON schema_migrations (id) WHERE ix(1) = 1",
      "CREATE STATISTICS s ON (ix(1)), id FROM schema_migrations",
    ]
  ) {
    await using database = await TestDatabase.empty();
    await using hostile = await Hostile.in(database);
    await hostile.sql.unsafe(
      `CREATE TABLE schema_migrations (id int, version text, name text, checksum text, applied_at timestamptz, execution_time_ms int);
      CREATE FUNCTION ix(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.pwn(); RETURN 1; END $$; ${made}`,
    );
    await runAll(hostile);
  }
});

Deno.test("an overload that fits better, made while migrations run, is not called", async () => {
  await using database = await TestDatabase.migrated();
  await using hostile = await Hostile.in(database);
  await database.sql`CREATE TABLE go (id int)`;
  await using folder = await folderWith({
    "101_waits.sql":
      "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM public.go) LOOP PERFORM pg_sleep(0.02); END LOOP; END $$;",
    "102_next.sql": "SELECT 1;",
  });
  const run = new Run(["db:migrate", "--dir", folder.path], { env: { DATABASE_URL: database.url } });
  await until(
    async () =>
      (await database
        .sql`SELECT FROM pg_stat_activity WHERE query LIKE '-- pipeweave: 101%' AND state = 'active' AND datname = current_database()`)
        .length > 0,
    "the first one runs",
  );
  await hostile.sql.unsafe(
    `CREATE FUNCTION public.migration_guard(text, text, text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); END $$;
    CREATE FUNCTION public.record_migration(a text, b text, c text, d text, e integer, f text, g text, h text, i text, j text, k text, OUT applied_at timestamptz, OUT execution_time_ms integer) LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); END $$;
    CREATE FUNCTION public.maintenance_printable(text, bigint) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN $1; END $$`,
  );
  await database.sql`INSERT INTO go VALUES (1)`;
  const { code, stderr } = await run.outcome;
  assertEquals([code, await hostile.isSuperuser()], [0, false], stderr);
});

Deno.test("tables that refer to ours, and what a cascade runs: refused", async () => {
  await using database = await TestDatabase.migrated();
  await using hostile = await Hostile.in(database);
  await database.sql.unsafe(`GRANT REFERENCES, SELECT ON dlq, schema_migrations, task_runs TO ${hostile.role};
    INSERT INTO dlq (id, task_run_id, task_id, code_version, code_hash, error, attempts, previous_attempts, failed_at) VALUES ('1', 'r', 't', 1, 'x', 'e', 3, '[]', now() - interval '90 days')`);
  await hostile.sql.unsafe(
    `CREATE TABLE evil (ref text REFERENCES dlq (id) ON DELETE CASCADE); INSERT INTO evil VALUES ('1');
    CREATE TABLE evil2 (ref text REFERENCES schema_migrations (version) ON DELETE CASCADE);
    CREATE FUNCTION sp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('search_path', 'public, pg_catalog', true); RETURN OLD; END $$;
    CREATE TRIGGER t BEFORE DELETE ON evil FOR EACH ROW EXECUTE FUNCTION sp();
    CREATE FUNCTION public.current_setting(t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN pg_catalog.current_setting(t); END $$`,
  );
  const { code, stderr } = await pipeweave(["db:cleanup"], { env: { DATABASE_URL: database.url } });
  assertEquals(code, 1);
  assertStringIncludes(stderr, `table public.evil belongs to ${hostile.role}`);
  await runAll(hostile);
});

Deno.test("with every privilege on the tables a role makes no trigger run as the owner of the gate: not by any change of the mode of its own", async () => {
  await using database = await TestDatabase.migrated();
  await using hostile = await Hostile.in(database);
  const { sql, role } = { sql: database.sql, role: hostile.role };
  await queueTasks(sql, ["running"]);
  await sql.unsafe(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ${role}`);
  await hostile.sql.unsafe(
    `CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.pwn(); RETURN NEW; END $$`,
  );
  for (
    const table of [
      "maintenance_log",
      "maintenance_held_tasks",
      "maintenance_recent_ends",
      "maintenance_accepted_runs",
      "task_runs",
      "dlq",
      "orchestrator_state",
    ]
  ) {
    await hostile.sql.unsafe(
      `CREATE TRIGGER z BEFORE INSERT OR UPDATE OR DELETE ON ${table} FOR EACH ROW EXECUTE FUNCTION tr()`,
    );
  }
  const attempts = [
    "UPDATE orchestrator_state SET mode = 'waiting_for_maintenance', wait_expires_at = now() + interval '1 hour'",
    "UPDATE task_runs SET status = 'failed'",
    "UPDATE orchestrator_state SET mode = 'maintenance'",
    "UPDATE task_runs SET status = 'pending'",
    "UPDATE orchestrator_state SET mode = 'running'",
    "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM pg_class LIMIT 1; UPDATE task_runs SET status = 'pending'; COMMIT",
  ];
  for (const attempt of attempts) {
    await hostile.sql.unsafe(attempt).catch(() => hostile.sql.unsafe("ROLLBACK"));
  }
  assertEquals(await hostile.isSuperuser(), false);
  // Closed by the superuser before there were any triggers, and used by the role then.
  await sql.unsafe(
    "DROP TRIGGER z ON orchestrator_state; DROP TRIGGER z ON maintenance_log; DROP TRIGGER z ON maintenance_accepted_runs",
  );
  await sql`UPDATE orchestrator_state SET mode = 'running'`;
  await sql`UPDATE orchestrator_state SET mode = 'waiting_for_maintenance'`;
  for (const attempt of attempts) {
    await hostile.sql.unsafe(attempt).catch(() => hostile.sql.unsafe("ROLLBACK"));
  }
  assertEquals(await hostile.isSuperuser(), false);
});

Deno.test("the gate's functions take nothing from who calls them: quoting, a temporary table of the state's name", async () => {
  await using database = await TestDatabase.migrated();
  await using hostile = await Hostile.in(database);
  await queueTasks(database.sql, []);
  await database.sql.unsafe(`GRANT SELECT, INSERT, UPDATE ON task_runs, tasks TO ${hostile.role}`);
  assertEquals((await pipeweave(["maintenance:request"], { env: { DATABASE_URL: database.url } })).code, 0);
  await hostile.sql.unsafe(`SET quote_all_identifiers = on;
    CREATE TEMP VIEW orchestrator_state AS SELECT 'singleton'::text id, 'running'::text mode, now() mode_changed_at, now() requested_at, ''::text owner, ''::text reason, NULL::timestamptz wait_expires_at FROM (SELECT public.pwn()) x`);
  const error = await hostile.sql.unsafe(
    `DO $do$ BEGIN EXECUTE 'INSERT INTO public.task_runs (id, task_id, code_version, code_hash, max_retries, status)
    VALUES (''2'', ''t'', 1, ''h'', 3, ''pending'') /* pg_temp.maintenance_gate( */'; END $do$`,
  ).catch((error) => error);
  assertEquals([error.code, await hostile.isSuperuser()], ["PW101", false]);
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
