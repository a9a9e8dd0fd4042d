/** The library as its users install it: the npm package under Node and Bun, the JSR package over http. */

import { fileURLToPath } from "node:url";
import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { queueTasks, TestDatabase } from "./support/database.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TOOLS = `${ROOT}scripts/release/node_modules`;
const RUNTIMES: Readonly<Record<string, string>> = {
  "Node 20": `${TOOLS}/node20/bin/node`,
  "Node 22": `${TOOLS}/node22/bin/node`,
  "Node 24": `${TOOLS}/node24/bin/node`,
  "Bun": `${TOOLS}/bun/bin/bun`,
};

/** The example of the document that the project began with, word for word. */
const EXAMPLE = `import { createOrchestrator } from "@pipeweave/orchestrator";

const orchestrator = createOrchestrator({
  databaseUrl: process.env.DATABASE_URL,
  autoMigrate: false, // Don't auto-run in production
  maintenanceCheckIntervalMs: 5000,
  // ... other config
});

await orchestrator.start();

// Before running migrations
await orchestrator.requestMaintenance();

// Wait for auto-transition
const status = await orchestrator.getMaintenanceStatus();
if (status.mode === "maintenance") {
  // Safe to run migrations
}

// After migrations
await orchestrator.exitMaintenance();
`;

/** What the test adds to it: it tells what it saw, and ends. */
const EPILOGUE = `
console.log("status", status.mode, "now", (await orchestrator.getMaintenanceStatus()).mode);
await orchestrator.stop();
`;

/** An orchestrator with the configuration of PipeWeave 1.x, typed. */
const OLD_CONFIGURATION =
  `import { createOrchestrator, type OrchestratorConfig } from "@pipeweave/orchestrator";

const configuration = {
  databaseConfig: { connectionString: process.env.DATABASE_URL, max: 10, ssl: false },
  storageBackends: [{ id: "local", provider: "local", endpoint: "file://", bucket: "b", credentials: {} }],
  secretKey: "secret",
  mode: "standalone",
  maxConcurrency: 10,
  logLevel: "normal",
} satisfies OrchestratorConfig;
const orchestrator = createOrchestrator(configuration);
orchestrator.addEventListener("modechange", ({ status, previous }) => {
  console.log("modechange", previous ?? null, status.mode);
});
await orchestrator.start();
await orchestrator.stop();
`;

/** Every function of the library, on a database of its own. */
const EVERY_FUNCTION = `import * as library from "@pipeweave/orchestrator";
import { mkdtempSync, writeFileSync } from "node:fs";

const url = process.env.DATABASE_URL;
const dir = mkdtempSync("own-");
writeFileSync(dir + "/20260101000000_orders.sql", "CREATE TABLE orders (id int);\\nCREATE INDEX ON orders (id);\\n");
writeFileSync(dir + "/20260101000000_orders.down.sql", "DROP TABLE orders;");
const sources = { dirs: [dir], embedded: true };
const seen = [];
seen.push((await library.discoverMigrations(sources)).migrations.length);
seen.push((await library.validateMigrations(undefined, sources)).valid);
const { applied, failed } = await library.runMigrations(url, sources);
seen.push(applied.length, failed);
seen.push((await library.getMigrationStatus(url, sources)).pending.length);
seen.push((await library.getMigrationHistory(url)).length);
const { rolledBack } = await library.rollbackMigrations(url, sources);
seen.push(rolledBack.length);
seen.push((await library.baselineMigrations(url, "20260101000000", sources)).adopted.length);
writeFileSync(dir + "/20260101000000_orders.sql", "CREATE TABLE orders (id bigint);");
seen.push((await library.repairMigration(url, "20260101000000", { ...sources, reason: "a test" })).repaired);
seen.push((await library.cleanup(url)).dlq);
seen.push((await library.requestMaintenance(url)).mode, await library.canAcceptTasks(url));
seen.push(await library.checkMaintenanceTransition(url), (await library.exitMaintenance(url)).mode);
seen.push((await library.deploy(url, sources)).applied.length);
const aborted = AbortSignal.abort();
await library.getMigrationStatus({ databaseUrl: url, signal: aborted }).catch((error) => seen.push(error.kind));
await library.getMigrationStatus("postgres://nobody@127.0.0.1:1/x").catch((error) => seen.push(error.kind));
await library.getMigrationStatus({ databaseUrl: undefined }).catch((error) => seen.push(error.code));
console.log(JSON.stringify(seen));
`;
const EXPECTED = [
  ...[6, true, 6, null, 0, 6, 1, 1, true, 0, "maintenance", false, false, "running", 0],
  ...["interrupted", "connection", "no_database"],
];

/** A folder with the package in it, as `npm install <tarball>` makes it. */
class Installed implements AsyncDisposable {
  private readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  static async make(): Promise<Installed> {
    const folder = await Deno.makeTempDir({ prefix: "pipeweave-library-" });
    const installed = new Installed(folder);
    const tarball = await execute(
      Deno.execPath(),
      ["run", "-A", `${ROOT}scripts/release/library.ts`, folder],
      {
        cwd: ROOT,
      },
    );
    await installed.write("package.json", `{"type": "module"}`);
    await execute("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error", tarball.trim()], {
      cwd: folder,
    });
    return installed;
  }

  write(name: string, text: string): Promise<void> {
    return Deno.writeTextFile(`${this.folder}/${name}`, text);
  }

  /** Runs a program of the folder and returns what it printed, on stdout and stderr. */
  run(runtime: string, name: string, databaseUrl: string): Promise<string> {
    return execute(runtime, [name], { cwd: this.folder, env: { DATABASE_URL: databaseUrl }, clearEnv: true });
  }

  /** Compiles a program as a user's strict project does; throws with the compiler's errors. */
  async typecheck(name: string): Promise<void> {
    const options = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess"];
    const platform = ["--target", "es2022", "--module", "nodenext", "--types", "node"];
    await execute("node", [
      `${TOOLS}/typescript/bin/tsc`,
      ...options,
      ...platform,
      ...["--typeRoots", `${TOOLS}/@types`, name],
    ], { cwd: this.folder });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function execute(
  command: string,
  args: readonly string[],
  options: Deno.CommandOptions,
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], ...options })
    .output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
  assert(success, `${command} ${args.join(" ")}:\n${out}${err}`);
  return out + err;
}

Deno.test("the npm package: the first example word for word, every function, an old configuration; Node 20, 22, 24, Bun", async (t) => {
  await execute(`${ROOT}scripts/release/install_tools.sh`, [], { cwd: ROOT });
  await using installed = await Installed.make();
  await installed.write("example.ts", EXAMPLE);
  await installed.write("example.mjs", EXAMPLE + EPILOGUE);
  await installed.write("old.ts", OLD_CONFIGURATION);
  await installed.write("old.mjs", OLD_CONFIGURATION.replace(/, type \w+/, "").replace(/ satisfies \w+/, ""));
  await installed.write("every.mjs", EVERY_FUNCTION);
  await t.step("typed, in a strict project", async () => {
    await installed.typecheck("example.ts");
    await installed.typecheck("old.ts");
    await installed.write("wrong.ts", EXAMPLE.replace("5000", '"5 seconds"'));
    const wrong = await installed.typecheck("wrong.ts").then(() => "compiled", String);
    assert(wrong.includes("Type 'string' is not assignable to type 'number'"), wrong);
  });
  for (const [name, runtime] of Object.entries(RUNTIMES)) {
    await t.step(name, async () => {
      await using database = await TestDatabase.migrated();
      assertEquals(
        await installed.run(runtime, "example.mjs", database.url),
        "status maintenance now running\n",
      );
      const told = await installed.run(runtime, "old.mjs", database.url);
      assert(told.includes("modechange null running\n"), told);
      const unused = "Settings that are not used: storageBackends, secretKey, mode, maxConcurrency, logLevel";
      assert(told.includes(unused), told);
      await queueTasks(database.sql, ["pending"]);
      const early = await installed.run(runtime, "example.mjs", database.url);
      assertEquals(early, "status waiting_for_maintenance now running\n");
      await using empty = await TestDatabase.empty();
      assertEquals(JSON.parse(await installed.run(runtime, "every.mjs", empty.url)), EXPECTED);
    });
  }
});

Deno.test("Node runs the library from its sources: types are all that has to be stripped", async () => {
  await execute(`${ROOT}scripts/release/install_tools.sh`, [], { cwd: ROOT });
  await using database = await TestDatabase.migrated();
  const program = `import("./src/mod.ts").then((m) => m.getMaintenanceStatus(process.env.DATABASE_URL))
    .then(({ mode }) => console.log(mode));`;
  const told = await execute(RUNTIMES["Node 24"]!, ["--no-warnings", "-e", program], {
    ...{ cwd: ROOT, env: { DATABASE_URL: database.url }, clearEnv: true },
  });
  assertEquals(told, "running\n");
});

Deno.test("the JSR package: only the library is in it, and it works when it is imported over http", async () => {
  const listed = await execute(Deno.execPath(), ["publish", "--dry-run", "--allow-dirty", "--no-check"], {
    ...{ cwd: ROOT, env: { NO_COLOR: "1" } },
  });
  const files = [...listed.matchAll(/file:\/\/\S+/g)].map(([url]) => fileURLToPath(url).slice(ROOT.length));
  assert(files.includes("src/mod.ts"), listed);
  assertEquals(files.filter((file) => !/^(?:src\/.*\.ts|deno\.json|LICENSE|README\.md)$/.test(file)), []);
  assertEquals(files.filter((file) => /_test\.ts$|^src\/(?:cli|output)\//.test(file)), []);

  // As JSR does: bare specifiers are those of deno.json, and nothing else of the project is there.
  const published = new Set(files.map((file) => `/${file}`));
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, async (request) => {
    const { pathname } = new URL(request.url);
    if (!published.has(pathname)) return new Response("not published", { status: 404 });
    const text = (await Deno.readTextFile(ROOT + pathname.slice(1))).replaceAll(
      /(from |import\()"(postgres|libpg-query)"/g,
      (_, keyword, name: keyof typeof config.imports) => `${keyword}"${config.imports[name]}"`,
    );
    return new Response(text, { headers: { "content-type": "application/typescript" } });
  });
  const folder = await Deno.makeTempDir({ prefix: "pipeweave-jsr-" });
  try {
    await using database = await TestDatabase.empty();
    const from = `http://127.0.0.1:${server.addr.port}/src/mod.ts`;
    await Deno.writeTextFile(
      `${folder}/every.mjs`,
      EVERY_FUNCTION.replace("@pipeweave/orchestrator", from),
    );
    const told = await execute(Deno.execPath(), ["run", "-A", "--quiet", "every.mjs"], {
      ...{ cwd: folder, env: { DATABASE_URL: database.url, DENO_TLS_CA_STORE: "system" } },
    });
    assertEquals(JSON.parse(told), EXPECTED);
  } finally {
    await server.shutdown();
    await Deno.remove(folder, { recursive: true });
  }
});
