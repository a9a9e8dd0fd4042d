/** One of each JSON document that the binary prints, from databases in many states. */

import { folderWith, pipeweave } from "./binary.ts";
import { queueTasks, TestDatabase } from "./database.ts";

/** Returns documents by the name of their schema. */
export async function documents(): Promise<readonly (readonly [schema: string, document: unknown])[]> {
  const found: (readonly [string, unknown])[] = [];
  await using database = await TestDatabase.migrated();
  await using folder = await folderWith({
    "101_a.sql": "CREATE TABLE a (id int);",
    "101_a.down.sql": "DROP TABLE a;",
    "102_b.sql": "-- pipeweave: no-transaction\nCREATE INDEX CONCURRENTLY a_id ON a (id);",
    "103_c.sql": "CREATE INDEX i ON a (id);\nSELECT nothing_of_this_name;",
    "104_d.sql": "SELECT 4;",
  });
  await using old = await folderWith({
    "1_a.up.sql": "BEGIN; SELECT 1; COMMIT;",
    "1_a.down.sql": "SELECT 1;",
    "2_b.up.sql": "\\copy a from b",
  });
  await using foreign = await TestDatabase.empty();
  await foreign.sql.unsafe(
    "CREATE TABLE schema_migrations (version bigint, dirty boolean); INSERT INTO schema_migrations VALUES (1, false)",
  );
  const run = async (schema: string, args: readonly string[], url = database.url) => {
    const { stdout } = await pipeweave([...args, "--json"], { env: { DATABASE_URL: url } });
    for (const line of stdout.trimEnd().split("\n")) {
      const document = JSON.parse(line);
      const isError = Object.keys(document).join() === "error";
      found.push([isError ? "error" : schema, document]);
    }
  };
  const dir = ["--dir", folder.path];
  await run("db-status", ["db:status"]);
  await run("db-status", ["db:status", ...dir]);
  await run("db-validate", ["db:validate", ...dir]);
  await run("db-lint", ["db:lint", ...dir]);
  await run("db-dry-run", ["db:migrate", "--dry-run", ...dir]);
  await run("db-dry-run", ["db:migrate", "--dry-run=execute", "--to", "101", ...dir]);
  await run("db-migrate", ["db:migrate", "--to", "102", ...dir]);
  await run("db-migrate", ["db:migrate", ...dir]);
  await run("db-status", ["db:status", ...dir]);
  await run("db-history", ["db:history"]);
  await run("db-repair", ["db:repair", "--version", "101", "--reason", "same", ...dir]);
  await run("db-rollback", ["db:rollback", "--yes", ...dir]);
  await Deno.writeTextFile(`${folder.path}/103_c.sql`, "SELECT 3;");
  await Deno.writeTextFile(`${folder.path}/101_a.sql`, "CREATE TABLE a (id bigint);");
  await Deno.remove(`${folder.path}/102_b.sql`);
  await run("db-status", ["db:status", ...dir]);
  await run("db-migrate", ["db:migrate", ...dir]);
  await run("db-wait", ["db:wait"]);
  await run("db-cleanup", ["db:cleanup", "--dry-run"]);
  await run("db-cleanup", ["db:cleanup"]);
  await run("db-selftest", ["db:selftest"]);
  await run("db-new", ["db:new", "something", ...dir]);
  await run("db-import", ["db:import", old.path, "--dry-run"], foreign.url);
  await run("db-import", ["db:import", old.path, "--dry-run", "--offline"]);
  await run("config", ["config", ...dir]);
  await run("completions", ["completions", "bash"]);
  await run("version", ["--version"]);
  await queueTasks(database.sql, ["pending", "running"]);
  await run("maintenance-status", ["maintenance:status"]);
  await run("maintenance-tasks", ["maintenance:tasks"]);
  await run("maintenance-request", ["maintenance:request", "--reason", "x", "--ttl", "1h"]);
  await run("maintenance-status", ["maintenance:status"]);
  await run("maintenance-status", ["maintenance:enter"]);
  await run("maintenance-watch", ["maintenance:watch", "--once"]);
  await run("maintenance-exit", ["maintenance:exit"]);
  await run("maintenance-history", ["maintenance:history"]);
  await run("error", ["db:status", "--nonsense"]);
  await run("error", ["db:status"], "postgres://u@127.0.0.1:1/d");
  return found;
}
