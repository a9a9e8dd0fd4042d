/**
 * Holds the linter against a real folder: applies each file to a server, looks at what every statement locked, read
 * through, rewrote and built anew, and compares that with what was found in it before.
 *
 * Usage: deno run -A scripts/postgres_server.ts deno run -A scripts/lint_folder.ts <folder> [<folder>…]
 *
 * Files: any `.sql` below the folder, but for those of a way back, in the order of their paths. Tables are empty, so work
 * is told by what PostgreSQL did, and not by how long it took.
 */

import postgres from "postgres";
import { measureOn } from "../src/commands/measured_alter.ts";
import { lint } from "../src/lint/lint.ts";
import { Memory } from "../src/lint/memory.ts";
import { lineOf } from "../src/migrations/finding.ts";
import { parseStatements } from "../src/sql/statements.ts";
import { sessionFor } from "../tests/support/database.ts";
import { migrationOf } from "../tests/support/migration.ts";

const server = Deno.env.get("PIPEWEAVE_TEST_SERVER");
if (Deno.args.length === 0 || !server) throw new Error("usage: lint_folder.ts <folder>…, beside a server");
const admin = postgres(server, { max: 1, onnotice: () => {} });

/** Locks that keep writers out. */
const STRONG = new Set(["ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]);

function* sqlFiles(folder: string): Generator<string> {
  for (
    const { name, isDirectory } of [...Deno.readDirSync(folder)].toSorted((a, b) => a.name < b.name ? -1 : 1)
  ) {
    if (isDirectory) yield* sqlFiles(`${folder}/${name}`);
    else if (name.endsWith(".sql") && !/(^|[._])down\.sql$/.test(name)) yield `${folder}/${name}`;
  }
}

interface Look {
  /** Tables and materialized views, and their indexes: the file of each. */
  readonly files: Readonly<Record<string, string>>;
  readonly scans: Readonly<Record<string, number>>;
  readonly locks: Readonly<Record<string, readonly string[]>>;
}

const LOOK = `SELECT
  (SELECT json_object_agg(c.oid, pg_relation_filenode(c.oid)::text) FROM pg_class c
    WHERE c.relkind IN ('r', 'm', 'i') AND c.oid >= 16384) AS files,
  (SELECT json_object_agg(c.oid, pg_stat_get_xact_numscans(c.oid)) FROM pg_class c
    WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384) AS scans,
  (SELECT json_object_agg(relation, modes) FROM (SELECT relation, json_agg(mode) AS modes FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384 GROUP BY 1) l) AS locks`;

for (const folder of Deno.args) {
  await admin.unsafe("DROP DATABASE IF EXISTS folder WITH (FORCE)");
  await admin.unsafe("CREATE DATABASE folder");
  const url = new URL(server);
  url.pathname = "/folder";
  const session = sessionFor(url.href);
  const sql = postgres(url.href, { max: 1, onnotice: () => {}, fetch_types: false });
  const memory = new Memory();
  const count = {
    files: 0,
    failed: 0,
    statements: 0,
    heavy: 0,
    missed: 0,
    blocking: 0,
    needless: 0,
    waits: 0,
    wrongWaits: 0,
  };
  for (const path of sqlFiles(folder)) {
    const text = Deno.readTextFileSync(path);
    count.files++;
    const findings = await lint(migrationOf(text, path), { memory, measure: measureOn(session) });
    // From here on the database has it.
    memory.settle();
    const statements = await parseStatements(text).catch(() => []);
    await sql.begin(async (transaction) => {
      const look = async () => (await transaction.unsafe<Look[]>(LOOK))[0]!;
      const first = await look();
      const old = (oid: string) => first.files?.[oid] !== undefined || first.locks?.[oid] !== undefined;
      const held = new Set<string>();
      const strong = (at: Look) =>
        Object.entries(at.locks ?? {}).filter(([, modes]) => modes.some((mode) => STRONG.has(mode))).map((
          [oid],
        ) => oid);
      let before = first;
      const known = new Set(Object.keys(
        (await transaction.unsafe(
          "SELECT json_object_agg(oid, 1) AS all FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm', 'v')",
        ))[0]!["all"] ?? {},
      ));
      for (const { start, end, node } of statements) {
        if (node.type === "TransactionStmt") continue;
        await transaction.unsafe(text.slice(start, end)).simple();
        const after = await look();
        count.statements++;
        const locked = strong(after).filter((oid) => known.has(oid));
        const changed = (kind: "files" | "scans") =>
          Object.entries(before[kind] ?? {}).filter(([oid]) => old(oid)).some((
            [oid, value],
          ) => after[kind]?.[oid] !== undefined && String(after[kind]![oid]) !== String(value));
        const isHeavy = locked.length > 0 && (changed("files") || changed("scans"));
        const [line, last] = [lineOf(text, start), lineOf(text, end)];
        const here = findings.filter(({ location }) => location!.line >= line && location!.line <= last);
        const isFound = here.some(({ blocks }) => blocks !== "nobody");
        // What changes or keeps out by intention blocks without work.
        const isMeant = here.some(({ code }) => ["whole-table-change", "lock-table"].includes(code));
        if (isHeavy) count.heavy++;
        if (isFound) count.blocking++;
        const shown = () => text.slice(start, Math.min(end, start + 140)).replace(/\s+/g, " ");
        if (isHeavy && !isFound) {
          count.missed++;
          console.log(`MISSED ${path}:${line} ${shown()}`);
        }
        if (isFound && !isHeavy && !isMeant) {
          count.needless++;
          console.log(`needless ${path}:${line} ${here.map(({ code }) => code).join(", ")}: ${shown()}`);
        }
        if (here.some(({ code }) => code === "lock-after-lock")) {
          count.waits++;
          const isNew = locked.some((oid) => !held.has(oid)) && held.size > 0;
          const gone = Object.keys(before.files ?? {}).some((oid) =>
            known.has(oid) && after.files?.[oid] === undefined
          );
          if (!isNew && !gone) {
            count.wrongWaits++;
            const { message } = here.find(({ code }) => code === "lock-after-lock")!;
            console.log(`wrong wait ${path}:${line} ${message}: ${shown()}`);
          }
        }
        for (const oid of locked) held.add(oid);
        before = after;
      }
    }).catch((error: Error) => {
      count.failed++;
      console.log(`FAILED ${path}: ${error.message}`);
    });
  }
  await session.close();
  await sql.end();
  console.log(folder, JSON.stringify(count));
}
await admin.end();
