/** `db:lint`, `db:validate --lint` and `db:new`, by the binary. */

import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { folderWith, pipeweave } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const HARMLESS = "CREATE TABLE users (id int);";
const INDEX = "CREATE INDEX users_id ON users (id);\n";

Deno.test("db:lint: text, JSON, GitHub's annotations and SARIF name rule, place, reason and the safe way: exit 5", async () => {
  await using folder = await folderWith({
    "101_users.sql": HARMLESS,
    "102_index.sql": `-- why not\n${INDEX}`,
  });
  const lint = async (...args: string[]) =>
    await pipeweave(["db:lint", "--offline", "--dir", folder.path, ...args]);
  const file = `${folder.path}/102_index.sql`;

  const text = await lint();
  assertEquals(text.code, 5, text.stderr);
  assertStringIncludes(
    text.stdout,
    `${file}:2:1: builds an index on users without CONCURRENTLY (index-not-concurrently)`,
  );
  for (const part of ["  why: CREATE INDEX locks", "  blocks: writes", "  safe: CREATE INDEX CONCURRENTLY"]) {
    assertStringIncludes(text.stdout, part);
  }
  assertStringIncludes(text.stdout, "✗ 1 finding(s) in 2 migration(s)");

  for (const args of [["--format", "json"], ["--json"]]) {
    const { code, stdout } = await lint(...args);
    const { findings } = JSON.parse(stdout);
    assertEquals([code, findings.length], [5, 1]);
    const { code: rule, line, column, blocks } = findings[0];
    assertEquals([rule, line, column, blocks], ["index-not-concurrently", 2, 1, "writes"]);
  }

  const github = await lint("--format", "github");
  assertEquals(github.code, 5);
  assertMatch(
    github.stdout,
    /^::error file=[^,]+\/102_index\.sql,line=2,col=1,title=index-not-concurrently::[^\n]+%0ASafe: [^\n]+\n$/,
  );

  const [run] = JSON.parse((await lint("--format", "sarif")).stdout).runs;
  assertEquals(run.tool.driver.rules.map(({ id }: { id: string }) => id), ["index-not-concurrently"]);
  assertEquals(run.results[0].locations[0].physicalLocation, {
    artifactLocation: { uri: file },
    region: { startLine: 2, startColumn: 1 },
  });

  assertEquals((await lint("--since", "102")).code, 0);
  assertEquals((await lint("--since", "109")).code, 2);
  assertEquals((await lint("--format", "xml")).code, 2);
});

Deno.test("db:lint: what is applied is past; a reason accepts a finding; nothing for the embedded set to be ashamed of", async () => {
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({ "101_users.sql": HARMLESS, "102_index.sql": INDEX });
  const env = { DATABASE_URL: database.url };
  assertEquals((await pipeweave(["db:lint", "--dir", folder.path], { env })).code, 5);
  assertEquals((await pipeweave(["db:migrate", "--dir", folder.path], { env })).code, 0);
  const past = await pipeweave(["db:lint", "--dir", folder.path], { env });
  assertEquals([past.code, past.stdout], [
    0,
    "✓ 0 pending migration(s): nothing found that would hurt a live database\n",
  ]);

  await using accepted = await folderWith({
    "101_index.sql": `-- pipeweave: allow index-not-concurrently the table has ten rows\n${INDEX}`,
  });
  assertEquals((await pipeweave(["db:lint", "--offline", "--dir", accepted.path])).code, 0);
  await using unexplained = await folderWith({
    "101_index.sql": `-- pipeweave: allow index-not-concurrently\n${INDEX}`,
  });
  const refused = await pipeweave(["db:lint", "--offline", "--dir", unexplained.path]);
  assertEquals(refused.code, 5);
  assertStringIncludes(refused.stderr, "reason");
});

Deno.test("db:validate --lint has both kinds of findings; without it the files are valid", async () => {
  await using folder = await folderWith({ "101_index.sql": INDEX });
  const plain = await pipeweave(["db:validate", "--offline", "--dir", folder.path]);
  assertEquals(plain.code, 0, plain.stderr);
  const linted = await pipeweave(["db:validate", "--lint", "--offline", "--dir", folder.path, "--json"]);
  assertEquals(linted.code, 5);
  const codes = JSON.parse(linted.stdout).findings.map(({ code }: { code: string }) => code);
  assertEquals(codes, ["index-not-concurrently"]);
});

Deno.test("db:validate reads down files too", async () => {
  await using folder = await folderWith({
    "101_a.sql": HARMLESS,
    "101_a.down.sql": "DROP TABLE;",
    "102_b.sql": HARMLESS,
    "103_c.down.sql": "SELECT 1;",
  });
  const { code, stdout } = await pipeweave(["db:validate", "--offline", "--dir", folder.path, "--json"]);
  assertEquals(code, 5);
  const found = JSON.parse(stdout).findings.map((
    { code, file }: { code: string; file: string },
  ) => [code, file.split("/").at(-1)]);
  assertEquals(found.sort(), [["orphan_down", "103_c.down.sql"], ["syntax", "101_a.down.sql"]]);
});

Deno.test("db:new names the next file as the others are named, and what it prints can be started from", async () => {
  const first = async (...args: string[]) => (await pipeweave(["db:new", ...args])).stdout.split("\n")[0];
  await using counted = await folderWith({ "0041_a.sql": HARMLESS });
  assertEquals(
    await first("Add e-mail to users", "--dir", counted.path),
    `-- ${counted.path}/0042_add_e_mail_to_users.sql`,
  );
  await using dated = await folderWith({ "20200101000000_a.sql": HARMLESS });
  assertMatch((await first("b", "--dir", dated.path))!, /\/20\d{12}_b\.sql$/);
  await using future = await folderWith({ "29990101000000_a.sql": HARMLESS });
  assertMatch((await first("b", "--dir", future.path))!, /\/29990101000001_b\.sql$/);
  assertMatch((await first("b"))!, /^-- migrations\/20\d{12}_b\.sql$/);
  assertEquals(await first("b", "--no-embedded"), "-- migrations/001_b.sql");
  const nothing = await pipeweave(["db:new", "…"]);
  assertEquals(nothing.code, 2);

  // An unfinished template is not applied by mistake; a finished one is.
  const { file, template } = JSON.parse((await pipeweave(["db:new", "b", "--no-embedded", "--json"])).stdout);
  assertEquals(file, "migrations/001_b.sql");
  await using unfinished = await folderWith({ "001_b.sql": template });
  assertEquals(
    (await pipeweave(["db:validate", "--offline", "--no-embedded", "--dir", unfinished.path])).code,
    5,
  );
  await using finished = await folderWith({ "001_b.sql": `${template}${HARMLESS}` });
  const { code, stderr } = await pipeweave([
    "db:validate",
    "--offline",
    "--no-embedded",
    "--dir",
    finished.path,
  ]);
  assertEquals(code, 0, stderr);
  assert(!stderr.includes("warning"), stderr);
});

Deno.test("db:lint as a linter is used: files, rules, what fails, whole documents in every format", async () => {
  await using folder = await folderWith({
    "001_a.sql": "CREATE TABLE t (a int);",
    "001_a.down.sql": "DROP TABLE t;",
    "002_b.sql": "DROP TABLE u;\nCREATE INDEX i ON v (a);",
    "002_b.down.sql": "ALTER TABLE v ALTER a TYPE bigint;",
    "003_c.sql": "SELEC 1;",
  });
  const lint = async (args: readonly string[], code: number) => {
    const outcome = await pipeweave(["db:lint", "--offline", ...args], { cwd: folder.path });
    assertEquals(outcome.code, code, `${args}: ${outcome.stderr}`);
    return outcome.stdout;
  };
  const dir = ["--dir", folder.path];
  const all = await lint(dir, 5);
  for (const part of ["(drop-table)", "(index-not-concurrently)", "(syntax)", "002_b.down.sql:1:21"]) {
    assertStringIncludes(all, part);
  }
  // A way back drops what the way there made.
  assert(!all.includes("001_a.down.sql"), all);
  assertStringIncludes(await lint(["001_a.sql"], 0), "✓ 1 migration(s)");
  const one = await lint([`${folder.path}/002_b.sql`, "--rule", "drop-table"], 5);
  assert(one.includes("(drop-table)") && !one.includes("index-not") && !one.includes("syntax"), one);
  await lint(["002_b.sql", "--rule", "drop-table", "--fail-on", "blocking"], 0);
  await lint(["002_b.sql", "--fail-on", "never"], 0);
  await lint(["nowhere.sql"], 2);
  await lint([...dir, "--rule", "nonsense"], 2);
  await lint([...dir, "--skip", "nonsense"], 2);
  assert(
    !(await lint(["002_b.sql", "--skip", "drop-table, index-not-concurrently,lock-after-lock"], 0)).includes(
      "drop-table",
    ),
  );
  const warned = ["002_b.sql", "--warn", "drop-table,index-not-concurrently,lock-after-lock"];
  assertStringIncludes(await lint(warned, 0), "warning: drops");
  assertMatch(await lint([...warned, "--format", "github"], 0), /^::warning file=/);
  assert(!(await lint([...warned, "--format", "github"], 0)).includes("::error"));
  assertStringIncludes(await lint([...warned, "--format", "junit"], 0), 'failures="0"');
  assertEquals(
    JSON.parse(await lint([...warned, "--format", "sarif"], 0)).runs[0].results.map((
      one: { level: string },
    ) => one.level),
    ["warning", "warning", "warning"],
  );
  assertStringIncludes(await lint(["--list-rules"], 0), "set-not-null");
  assertStringIncludes(await lint(["--explain", "set-not-null"], 0), "safe: ADD CONSTRAINT");
  const codes = ["drop-table", "index-not-concurrently", "syntax"];
  const sarif = JSON.parse(await lint([...dir, "--format", "sarif"], 5));
  const gitlab = JSON.parse(await lint([...dir, "--format", "gitlab"], 5));
  const found = new Set(sarif.runs[0].results.map(({ ruleId }: { ruleId: string }) => ruleId));
  const checks = new Set(gitlab.map((one: { check_name: string }) => one.check_name));
  assertEquals(codes.filter((code) => !found.has(code) || !checks.has(code)), []);
  assertEquals(new Set(gitlab.map((one: { fingerprint: string }) => one.fingerprint)).size, gitlab.length);
  const junit = await lint([...dir, "--format", "junit"], 5);
  assertStringIncludes(junit, '<testcase classname="syntax"');
  assertEquals(junit.match(/<testcase /g)?.length, gitlab.length);
  assertStringIncludes(await lint([...dir, "--format", "github"], 5), "title=syntax");
  assertEquals(JSON.parse(await lint(["001_a.sql", "--format", "gitlab"], 0)), []);
});
