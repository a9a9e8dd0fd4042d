/**
 * The floors: minimal clients that look at no history, check nothing and report nothing, and send everything in one
 * pipeline. With DATABASE_URL:
 *
 * `floor bare <folder>` sends each file with a row for a history table, in one transaction;
 * `floor same <folder>` sends the very statements that pipeweave sends: guard, file, history, log.
 */

import postgres from "postgres";
import { UNKNOWN_ACTOR } from "../../src/config/actor.ts";
import { discover } from "../../src/migrations/discover.ts";
import { lockKey } from "../../src/engine/history.ts";
import { messageFor } from "../../src/engine/message.ts";

const [kind, folder] = Deno.args as [string, string];
const sql = postgres(Deno.env.get("DATABASE_URL")!, {
  max: 1,
  prepare: false,
  fetch_types: false,
  max_pipeline: Number.MAX_SAFE_INTEGER,
  onnotice: () => {},
  // deno-lint-ignore no-explicit-any -- the driver's types lack max_pipeline
} as any);
const messages = kind === "same" ? sameStatements() : bareStatements();
await Promise.all(messages.map((message) => sql.unsafe(message).simple()));
await sql.end();

function bareStatements(): string[] {
  const history = `CREATE TABLE floor_migrations
    (version text PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`;
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  return [
    history,
    ...names.map((name) => {
      const record = `INSERT INTO floor_migrations (version, name) VALUES ('${
        name.split("_")[0]
      }', '${name}')`;
      return `${Deno.readTextFileSync(`${folder}/${name}`)}\n;${record}`;
    }),
  ];
}

function sameStatements(): string[] {
  const { migrations } = discover({ dirs: [folder], embedded: false });
  const key = lockKey("public");
  return migrations.map((migration, index) =>
    messageFor(migration, {
      schema: "public",
      applicationName: "floor",
      limits: {},
      statements: undefined,
      actor: UNKNOWN_ACTOR,
      terms: {
        key,
        predecessor: migrations[index - 1]?.version,
        complete: index > 0,
        outside: false,
      },
    }).text
  );
}
