/** Everyday use: status with many migrations, history, new files, the project file, metrics. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { folderWith, pipeweave } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

/** Files 001 to 120, of which the first hundred are applied. */
async function many(database: TestDatabase) {
  const names = Array.from({ length: 120 }, (_, index) => String(index + 1).padStart(3, "0"));
  const folder = await folderWith(Object.fromEntries(names.map((name) => [`${name}_m.sql`, "SELECT 1;"])));
  const { code, stderr } = await pipeweave(["db:migrate", "--dir", folder.path, "--to", "100", "--quiet"], {
    env: { DATABASE_URL: database.url },
  });
  assertEquals(code, 0, stderr);
  return folder;
}

Deno.test("db:status: what is pending, a limit, and gauges for machines", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await many(database);
  const status = async (...args: string[]) =>
    (await pipeweave(["db:status", "--dir", folder.path, ...args], { env: { DATABASE_URL: database.url } }))
      .stdout;
  const lines = (text: string, sign: string) =>
    text.split("\n").filter((line) => line.startsWith(`${sign} `)).length;
  const plain = await status();
  assertEquals([lines(plain, "✓"), lines(plain, "·")], [50, 20]);
  const pending = await status("--pending");
  assertEquals([lines(pending, "✓"), lines(pending, "·")], [0, 20]);
  const limited = await status("--limit", "3");
  assertEquals([lines(limited, "✓"), lines(limited, "·")], [3, 3]);
  assertStringIncludes(limited, "17 later ones");
  assertStringIncludes(limited, "Pending migrations: 20");
  assertEquals(lines(await status("--all"), "✓"), 100);
  const gauges = await status("--format", "prometheus");
  assertMatch(gauges, /^# HELP pipeweave_migrations .*\n# TYPE pipeweave_migrations gauge\n/);
  assertStringIncludes(gauges, 'pipeweave_migrations{state="applied"} 100\n');
  assertStringIncludes(gauges, 'pipeweave_migrations{state="pending"} 20\n');
  assert(gauges.trimEnd().endsWith("# EOF"));
  for (const line of gauges.trimEnd().split("\n")) {
    assertMatch(line, /^(?:# .*|[a-z_]+(?:\{[a-z_]+="[^"]*"\})? [\d.]+)$/);
  }
});

Deno.test("maintenance:status as gauges", async () => {
  await using database = await TestDatabase.migrated();
  const { stdout } = await pipeweave(["maintenance:status", "--format", "prometheus"], {
    env: { DATABASE_URL: database.url },
  });
  assertStringIncludes(stdout, 'pipeweave_maintenance_mode{mode="running"} 1\n');
  assertStringIncludes(stdout, 'pipeweave_maintenance_mode{mode="maintenance"} 0\n');
  assertStringIncludes(stdout, 'pipeweave_tasks{status="pending"} 0\n');
});

Deno.test("db:history: by version, by what was done, and what failed", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_a.sql": "SELECT 1;", "002_b.sql": "SELECT 1/0;" });
  const env = { DATABASE_URL: database.url };
  await pipeweave(["db:migrate", "--dir", folder.path], { env });
  const versions = async (...args: string[]) => {
    const { code, stdout, stderr } = await pipeweave(["db:history", "--json", ...args], { env });
    assertEquals(code, 0, `${stdout}${stderr}`);
    return (JSON.parse(stdout).history as { version: string }[]).map(({ version }) => version);
  };
  assertEquals(await versions(), ["002", "001"]);
  assertEquals(await versions("--version", "1"), ["001"]);
  assertEquals(await versions("--failed"), ["002"]);
  assertEquals(await versions("--action", "apply"), ["002", "001"]);
  assertEquals(await versions("--action", "rollback"), []);
});

Deno.test("db:new --write: the files, in any alphabet, and never over another one or outside", async () => {
  await using folder = await folderWith({ "001_a.sql": "SELECT 1;" });
  const run = (...args: string[]) => pipeweave(["db:new", "--dir", ".", ...args], { cwd: folder.path });
  assertEquals(
    (await run("Größe ändern!", "--write")).stdout,
    "✓ Written 002_größe_ändern.sql\n✓ Written 002_größe_ändern.down.sql\n",
  );
  assertEquals(
    (await run("日本語 テーブル", "--write", "--no-down")).stdout,
    "✓ Written 003_日本語_テーブル.sql\n",
  );
  assertEquals([...Deno.readDirSync(folder.path)].length, 4);
  // An unfinished one is not applied by mistake.
  const unfinished = await pipeweave(["db:validate", "--offline", "--dir", "."], { cwd: folder.path });
  assertEquals(unfinished.code, 5);
  assertStringIncludes(unfinished.stdout, "002_größe_ändern.down.sql holds comments and no statement");
  await using elsewhere = await folderWith({ "001_a.sql": "SELECT 1;" });
  const outside = await pipeweave(["db:new", "b", "--write", "--dir", elsewhere.path], { cwd: folder.path });
  assertEquals(outside.code, 2);
  assertStringIncludes(outside.stderr, "is outside of the working folder");
  assertEquals([...Deno.readDirSync(elsewhere.path)].length, 1);
});

Deno.test("pipeweave.json: --target goes to one of its databases; config tells which and why", async () => {
  await using database = await TestDatabase.migrated();
  const url = new URL(database.url);
  const password = decodeURIComponent(url.password);
  url.password = "";
  await using folder = await folderWith({
    "pipeweave.json": JSON.stringify({ targets: { here: url.href, gone: "postgres://u@127.0.0.1:1/d" } }),
  });
  const run = (args: readonly string[], env: Record<string, string> = {}) =>
    pipeweave(args, { cwd: folder.path, env: { ...(password ? { PGPASSWORD: password } : {}), ...env } });
  const there = await run(["db:status", "--target", "here", "--json"], {
    DATABASE_URL: "postgres://x@127.0.0.1:1/x",
  });
  assertEquals([there.code, JSON.parse(there.stdout).pending], [0, []], there.stderr);
  assertEquals((await run(["db:status", "-t", "gone"])).code, 6);
  const unknown = await run(["db:status", "--target", "other"]);
  assertEquals(unknown.code, 2);
  assertStringIncludes(unknown.stderr, "--target must be one of here, gone");
  assertStringIncludes(
    (await run(["db:status", "--target", "here", "--url", database.url])).stderr,
    "--target and --url exclude each other",
  );
  const connection = async (args: readonly string[], env: Record<string, string> = {}) =>
    (await run(["config", ...args], env)).stdout.split("\n")[0];
  assertEquals(
    await connection(["--target", "gone"]),
    "connection = u@127.0.0.1:1/d  (pipeweave.json, target gone)",
  );
  assertEquals(
    await connection([], { DATABASE_URL: "postgres://x:pw@db1/x" }),
    "connection = x@db1:5432/x  (host in DATABASE_URL)",
  );
  assertEquals(await connection([], { PGUSER: "me" }), "connection = me@localhost:5432/me  (PGUSER)");
  const wrong = await run(["config"], { DATABASE_URL: "mysql://h/db" });
  assertEquals(wrong.code, 2);
  assertStringIncludes(wrong.stderr, "DATABASE_URL");
});

Deno.test("pipeweave.json: its settings hold where nothing is typed; the environment goes before it", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({
    "pipeweave.json": JSON.stringify({ dir: "sql", schema: "books", embedded: false, lockTimeout: "2s" }),
  });
  await Deno.mkdir(`${folder.path}/sql`);
  await Deno.writeTextFile(
    `${folder.path}/sql/001_a.sql`,
    "SELECT set_config('x.y', current_setting('lock_timeout'), false);",
  );
  await Deno.mkdir(`${folder.path}/other`);
  await Deno.writeTextFile(`${folder.path}/other/007_o.sql`, "SELECT 7;");
  const run = (args: readonly string[], env: Record<string, string> = {}) =>
    pipeweave(args, { cwd: folder.path, env: { DATABASE_URL: database.url, ...env } });
  const migrated = await run(["db:migrate", "--json"]);
  assertEquals([migrated.code, JSON.parse(migrated.stdout).applied.length], [0, 1], migrated.stderr);
  assertEquals((await database.sql`SELECT version FROM books.schema_migrations`).length, 1);
  const shown = JSON.parse((await run(["config", "--json", "--schema", "typed"])).stdout);
  const source = (name: string) => shown.settings.find((one: { name: string }) => one.name === name)?.source;
  assertEquals([source("dir"), source("schema"), source("lockTimeout")], [
    "pipeweave.json",
    "flag --schema",
    "pipeweave.json",
  ]);
  assert(!JSON.stringify(shown).includes("password"));
  const pending = async (args: readonly string[], env: Record<string, string> = {}) =>
    (JSON.parse((await run(["db:status", "--json", ...args], env)).stdout).pending as { version: string }[])
      .map(({ version }) => version);
  assertEquals(await pending([], { PIPEWEAVE_MIGRATIONS_DIR: "other" }), ["007"]);
  assertEquals(await pending(["--dir", "other"]), ["007"]);
  assertEquals(await pending(["--schema", "public"]), ["001"]);

  for (
    const [text, message] of [
      ["{", "it is not JSON"],
      ["[]", "it must be an object"],
      ['{"lockTimeout":"soon"}', "lockTimeout must be a duration"],
      ['{"lockTimeOut":"1s"}', "lockTimeOut is not a setting: did you mean lockTimeout?"],
      ['{"lock-timeout":"1s"}', "lock-timeout is not a setting: did you mean lockTimeout?"],
      ['{"frobnicate":1}', "frobnicate is not a setting: there are dir, embedded,"],
      ['{"dir":42}', "dir must be a text"],
      ['{"dir":""}', "dir must name a folder"],
      ['{"lockRetries":"3"}', "lockRetries must be a number"],
      ['{"targets":{"a":"postgres://u:secret@h/d"}}', "targets must have no password, and a has one"],
      ['{"targets":{"a":"postgres://u@h/d?password=secret"}}', "targets must have no password"],
      ['{"targets":{"a":"mysql://h/d"}}', "targets must have URLs that begin with postgres://; a is none"],
      ['{"url":"postgres://u:secret@h/d"}', "url does not belong in it"],
      ['{"embedded":"yes"}', "embedded must be true or false"],
    ] as const
  ) {
    await Deno.writeTextFile(`${folder.path}/pipeweave.json`, text);
    const refused = await run(["db:status"]);
    assertEquals(refused.code, 2, text);
    assertStringIncludes(refused.stderr, message);
    assert(!refused.stderr.includes("secret"));
  }
  await Deno.writeTextFile(`${folder.path}/pipeweave.json`, '{"dir":"sql"}');
  await Deno.chmod(`${folder.path}/pipeweave.json`, 0o666);
  const writable = await run(["db:status"]);
  assertEquals(writable.code, 2);
  assertStringIncludes(writable.stderr, "can be written by everybody");
  assertEquals((await run(["--help"])).code, 0, "help is there whatever the file says");
});

Deno.test("GitHub Actions: a migration that fails is annotated at its line; db:validate speaks every format", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_a.sql": "SELECT 1;\nSELECT nothing_of_this_name;\n" });
  const args = ["db:migrate", "--dir", folder.path, "--quiet"];
  const env = { DATABASE_URL: database.url };
  const annotated = await pipeweave(args, { env: { ...env, GITHUB_ACTIONS: "true" } });
  assertMatch(
    annotated.stderr,
    /^::error file=\S+001_a\.sql,line=2,col=8,title=db%3Amigrate::.*nothing_of_this_name/m,
  );
  assert(!(await pipeweave(args, { env })).stderr.includes("::error"));
  await using broken = await folderWith({ "001_a.sql": "SELEC 1;" });
  for (
    const [format, part] of [["github", "::error file="], ["sarif", '"2.1.0"'], ["junit", "<testsuite"], [
      "gitlab",
      '"check_name"',
    ]]
  ) {
    const { code, stdout } = await pipeweave([
      "db:validate",
      "--offline",
      "--dir",
      broken.path,
      "--format",
      format!,
    ]);
    assertEquals(code, 5);
    assertStringIncludes(stdout, part!);
  }
});

Deno.test("a report that cannot be written is told, and ends with 1", async () => {
  const { code, stderr } = await new Deno.Command("bash", {
    args: ["-c", `"$1" --help > /dev/full`, "bash", new URL("../dist/pipeweave", import.meta.url).pathname],
  }).output();
  assertEquals(code, 1);
  assertStringIncludes(
    new TextDecoder().decode(stderr),
    "The report cannot be written: No space left on device",
  );
});

Deno.test("--timeout 0s of db:migrate is refused, since no time would be left", async () => {
  const { code, stderr } = await pipeweave([
    "db:migrate",
    "--timeout",
    "0s",
    "--url",
    "postgres://u@127.0.0.1:1/d",
  ]);
  assertEquals(code, 2);
  assertStringIncludes(stderr, "--timeout must be greater than 0");
});

Deno.test("./migrations is the folder where nobody names one; --embedded, a variable and the project's file go before it", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({});
  await Deno.mkdir(`${folder.path}/migrations`);
  const run = (args: readonly string[], env: Record<string, string> = {}) =>
    pipeweave(args, { cwd: folder.path, env: { DATABASE_URL: database.url, ...env } });
  const sets = async (args: readonly string[] = [], env: Record<string, string> = {}) =>
    (await run(["db:status", ...args], env)).stdout.split("\n").find((line) => line.startsWith("Sets: "));
  await Deno.writeTextFile(`${folder.path}/migrations/20200101_a.js`, "x");
  assertEquals(await sets(), "Sets: PipeWeave's own (5)", "it holds no SQL");
  await Deno.writeTextFile(`${folder.path}/migrations/001_orders.sql`, "CREATE TABLE orders (id int);");
  const migrated = await run(["db:migrate"]);
  assertEquals(migrated.code, 0, migrated.stderr);
  const tables = await database.sql`SELECT relname FROM pg_class WHERE relname IN ('orders', 'task_runs')`;
  assertEquals(tables.map(({ relname }) => relname), ["orders"], "nobody asked for PipeWeave's own");
  assertEquals(await sets(["--embedded"]), "Sets: PipeWeave's own (5)");
  await Deno.mkdir(`${folder.path}/other`);
  await Deno.writeTextFile(`${folder.path}/other/001_x.sql`, "SELECT 1;");
  assertEquals(await sets([], { PIPEWEAVE_MIGRATIONS_DIR: "other" }), "Sets: other (1)");
  assertStringIncludes((await run(["config"])).stdout, 'dir = ["migrations"]  (default: it is there)\n');
  assertEquals((await run(["db:lint", "--offline", "other/001_x.sql"])).code, 0, "a file names its folder");
  assertStringIncludes((await run(["db:new", "more"])).stdout, "-- migrations/002_more.sql");
  // One that anybody can change would decide which SQL is run.
  await Deno.chmod(`${folder.path}/migrations`, 0o777);
  const open = await run(["db:status"]);
  assertEquals(open.code, 2);
  assertStringIncludes(open.stderr, "The folder ./migrations can be changed by everybody; nothing was tried");
  assertEquals(await sets(["--dir", "migrations"]), "Sets: migrations (1)");
  await Deno.writeTextFile(`${folder.path}/pipeweave.json`, '{"dir":"other"}');
  assertEquals(await sets(), "Sets: other (1)");
});
