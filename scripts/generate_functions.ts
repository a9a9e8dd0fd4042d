/**
 * Makes src/lint/functions.ts: PostgreSQL's own functions, by whether they may give a value of their own for every row.
 *
 * Usage: deno run -A scripts/postgres_server.ts deno run -A scripts/generate_functions.ts   (on the newest version)
 */

import { fileURLToPath } from "node:url";
import postgres from "postgres";

const sql = postgres(Deno.env.get("PIPEWEAVE_TEST_SERVER")!, { max: 1 });
const rows = await sql<{ name: string; volatile: boolean }[]>`
  SELECT proname AS name, bool_or(provolatile = 'v') AS volatile FROM pg_proc
   WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' GROUP BY proname ORDER BY proname COLLATE "C"`;
const [version] = await sql`SHOW server_version`;
await sql.end();

const list = (isVolatile: boolean) =>
  rows.filter((row) => row.volatile === isVolatile).map(({ name }) => name)
    .reduce<string[]>((lines, name) => {
      const last = lines.at(-1);
      if (last !== undefined && last.length + name.length < 104) lines[lines.length - 1] = `${last} ${name}`;
      else lines.push(name);
      return lines;
    }, []).map((line) => `  "${line} " +\n`).join("").replace(/ " \+\n$/, '"');

const text = `/**
 * PostgreSQL's own functions (pg_catalog of ${
  version!["server_version"]
}), by name. Made by scripts/generate_functions.ts.
 *
 * @module
 */

const set = (names: string): ReadonlySet<string> => new Set(names.split(" "));

/** Those that have a volatile form: each row may get a value of its own. */
export const VOLATILE: ReadonlySet<string> = set(
${list(true)},
);

/** Those whose value is the same for all rows of a statement, with the same arguments. */
export const NOT_VOLATILE: ReadonlySet<string> = set(
${list(false)},
);
`;
Deno.writeTextFileSync(fileURLToPath(new URL("../src/lint/functions.ts", import.meta.url)), text);
