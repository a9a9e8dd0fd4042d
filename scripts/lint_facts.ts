/**
 * Holds the linter against measured facts: statements of which it is known what they locked, read through, rewrote and
 * built anew. Prints each disagreement, and counts of them: by the files' text alone, and with a database to ask.
 *
 * Usage: deno run -A scripts/postgres_server.ts deno run -A scripts/lint_facts.ts <folder>
 *
 * The folder holds JSON files and a `setup.sql` for psql, which makes a database `facts_<name of the file>` for each.
 */

import postgres from "postgres";
import { measureOn } from "../src/commands/measured_alter.ts";
import type { Session } from "../src/database/session.ts";
import { lint } from "../src/lint/lint.ts";
import { sessionFor } from "../tests/support/database.ts";
import { migrationOf } from "../tests/support/migration.ts";

interface Fact {
  readonly sql: string;
  readonly locks: Readonly<Record<string, string>> | null;
  readonly rewrites: readonly string[];
  readonly scans: Readonly<Record<string, number>> | null;
  readonly rebuildsIndex: readonly string[];
  readonly changes: Readonly<Record<string, number>> | null;
  readonly error: string | null;
  readonly setup?: string;
  readonly from?: string;
  readonly timeZone?: string;
  readonly steps?: readonly Fact[];
}

/** Locks that keep writers out. */
const STRONG = ["SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"];
/** Rows of every table with rows. */
const ALL_ROWS = 500;
/** Materialized views: nobody but another REFRESH writes to them, so that EXCLUSIVE keeps nobody waiting. */
const VIEWS = ["mv"];

/** Whether others have to wait for work: on a table, while one is locked, or since all its rows are. */
function isHeavy(fact: Fact): boolean {
  if (/^LOCK TABLE .* (?:ACCESS )?EXCLUSIVE MODE/.test(fact.sql)) return true;
  const held = new Map<string, string>();
  for (const step of fact.steps ?? [fact]) {
    for (const [table, lock] of Object.entries(step.locks ?? {})) held.set(table, lock);
    const isStrong = [...held].some(([table, lock]) =>
      STRONG.includes(lock) && !(lock === "EXCLUSIVE" && VIEWS.includes(table))
    );
    const works = step.rewrites.length > 0 || step.rebuildsIndex.length > 0 ||
      Object.values(step.scans ?? {}).some((n) => n > 0) || Object.values(step.changes ?? {}).some((n) =>
        n > 0
      );
    if (isStrong && works) return true;
    if (
      Object.values(step.changes ?? {}).includes(ALL_ROWS) && /\b(?:UPDATE|DELETE)\b/.test(step.sql)
    ) return true;
  }
  return false;
}

const [folder] = Deno.args;
const server = Deno.env.get("PIPEWEAVE_TEST_SERVER");
if (!folder || !server) throw new Error("usage: lint_facts.ts <folder>, beside a server");
await new Deno.Command("psql", {
  args: ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", `${folder}/setup.sql`, server],
  stdout: "null",
}).output();
const admin = postgres(server, { max: 1, onnotice: () => {} });

async function withDatabase<T>(
  template: string,
  fact: Fact,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  await admin.unsafe(`CREATE DATABASE fact TEMPLATE ${template}`);
  if (fact.timeZone) await admin.unsafe(`ALTER DATABASE fact SET timezone = '${fact.timeZone}'`);
  const url = new URL(server!);
  url.pathname = "/fact";
  try {
    if (fact.setup) {
      const sql = postgres(url.href, { max: 1, onnotice: () => {} });
      await sql.unsafe(fact.setup);
      await sql.end();
    }
    await using session = sessionFor(url.href);
    return await work(session);
  } finally {
    await admin.unsafe("DROP DATABASE fact WITH (FORCE)");
  }
}

const rules = new Map<string, { right: number; needless: number }>();
const totals = {
  offline: { missed: 0, needless: 0, blocking: 0 },
  database: { missed: 0, needless: 0, blocking: 0 },
};
let all = 0;
let heavy = 0;
for (const { name } of [...Deno.readDirSync(folder)].toSorted((a, b) => a.name.localeCompare(b.name))) {
  if (!name.endsWith(".json")) continue;
  const facts = JSON.parse(Deno.readTextFileSync(`${folder}/${name}`)) as readonly Fact[];
  for (const fact of facts) {
    if (fact.error !== null || fact.locks === null) continue;
    all++;
    const expected = isHeavy(fact);
    if (expected) heavy++;
    const migration = migrationOf(fact.sql);
    const found = {
      offline: await lint(migration),
      database: await withDatabase(
        `facts_${name.replace(".json", "")}`,
        fact,
        (session) => lint(migration, { measure: measureOn(session) }),
      ),
    };
    for (const way of ["offline", "database"] as const) {
      const blocking = found[way].filter(({ blocks }) => blocks !== "nobody");
      const total = totals[way];
      if (blocking.length > 0) total.blocking++;
      if (way === "database") {
        for (const { code } of blocking) {
          const count = rules.get(code) ?? { right: 0, needless: 0 };
          rules.set(
            code,
            expected ? { ...count, right: count.right + 1 } : { ...count, needless: count.needless + 1 },
          );
        }
      }
      if (expected === blocking.length > 0) continue;
      total[expected ? "missed" : "needless"]++;
      console.log(
        `${name}, ${way}: ${expected ? "MISSED" : "needless"} ${fact.from ? `(${fact.from}) ` : ""}${
          fact.sql.replaceAll("\n", " ")
        } [${found[way].map(({ code }) => code).join(", ")}]`,
      );
    }
  }
}
await admin.end();
for (const [rule, { right, needless }] of rules) console.log(`${rule}: ${right} right, ${needless} needless`);
for (const [way, { missed, needless, blocking }] of Object.entries(totals)) {
  console.log(
    `${way}: ${all} facts, ${heavy} with work that others wait for; ${missed} missed, ${needless} of ${blocking} findings needless`,
  );
}
