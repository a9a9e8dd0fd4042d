/** Fifty migrators at once, some of them killed, over and over: what is promised holds each time. */

import { assert, assertEquals } from "@std/assert";
import type postgres from "postgres";
import { PostgresServer } from "../scripts/postgres_server.ts";
import { migrate } from "../src/commands/migrate.ts";
import { folderWith, Run, until } from "./support/binary.ts";
import { connect, sessionFor } from "./support/database.ts";

const ROUNDS = 200;
const MIGRATORS = 50;
/** Processes of their own among them; the others share this one. */
const PROCESSES = 5;
const KILLED = 4;
/** Rounds in which a migration outside a transaction is among them. */
const EVERY_OUTSIDE = 10;

const IN_TRANSACTION = {
  "001_counted.sql": "CREATE TABLE counted (version int);\nINSERT INTO counted VALUES (1);",
  "002_b.sql": "INSERT INTO counted SELECT 2 FROM pg_sleep(0.02);",
  "003_c.sql": "CREATE TABLE c AS SELECT generate_series(1, 1000) AS n;\nINSERT INTO counted VALUES (3);",
  "004_d.sql": "CREATE INDEX c_n ON c (n);\nINSERT INTO counted SELECT 4 FROM pg_sleep(0.02);",
  "005_e.sql": "INSERT INTO counted VALUES (5);",
};
const OUTSIDE = {
  ...IN_TRANSACTION,
  "006_f.sql": `-- pipeweave: no-transaction
INSERT INTO counted SELECT 6 FROM pg_sleep(0.05);
CREATE INDEX CONCURRENTLY c_again ON c (n);
INSERT INTO counted VALUES (7);`,
};

Deno.test(`${MIGRATORS} migrators, some killed with -9, ${ROUNDS} rounds: each version once, nothing left, the history true`, async () => {
  const server = await PostgresServer.start({ settings: { max_connections: "300" } });
  const admin = connect(server.url(), { fetch_types: true });
  await using transacted = await folderWith(IN_TRANSACTION);
  await using outside = await folderWith(OUTSIDE);
  let [cutOff, holdersCut] = [0, 0];
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const isOutside = round % EVERY_OUTSIDE === EVERY_OUTSIDE - 1;
      const folder = isOutside ? outside : transacted;
      const { cut, holders } = await oneRound(admin, server.url(), `r${round}`, folder.path);
      cutOff += cut;
      holdersCut += holders;
      // A killed client's backend goes on with what it was sent.
      await until(
        async () =>
          (await admin`SELECT FROM pg_stat_activity WHERE application_name LIKE ${`%r${round}\\_process\\_%`}`)
            .length === 0,
        "the backends of the killed are gone",
      );
      await assertWhole(admin, `r${round}`, isOutside ? 6 : 5);
      await admin.unsafe(`SET client_min_messages = warning; DROP SCHEMA r${round} CASCADE`);
    }
  } finally {
    await admin.end();
    await server.stop();
  }
  assert(cutOff > ROUNDS / 4, `only ${cutOff} kills met a migrator at work`);
  assert(holdersCut > 0, "no kill hit a run that held the lease");
});

/** How many processes were cut off before they had ended by themselves, and how many of them held the lease then. */
interface Killed {
  readonly cut: number;
  readonly holders: number;
}

/** Calls back when a condition holds for the first time, and gives up when the process has ended. */
async function when(condition: () => Promise<boolean>, run: Run, then: () => void): Promise<void> {
  let ended = false;
  void run.outcome.then(() => ended = true);
  while (!ended) {
    if (await condition().catch(() => false)) return then();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function oneRound(
  admin: postgres.Sql,
  server: string,
  schema: string,
  folder: string,
): Promise<Killed> {
  // The files' own names go where their history is.
  const url = `${server}?options=${encodeURIComponent(`-csearch_path=${schema}`)}`;
  const args = [
    "db:migrate",
    "--no-embedded",
    "--dir",
    folder,
    "--schema",
    schema,
    "--quiet",
  ];
  // Those that are to be killed leave their turn soon; the others keep it, however slow the machine is.
  const argsOf = (index: number) => index < KILLED ? [...args, "--lease", "1s"] : args;
  const name = (index: number) => `${schema}_process_${index}`;
  const processes = Array.from(
    { length: PROCESSES },
    (_, index) => new Run(argsOf(index), { env: { DATABASE_URL: url, PGAPPNAME: name(index) } }),
  );
  let holders = 0;
  const holds = async (index: number) => {
    const [lease] = await admin.unsafe(
      `SELECT FROM ${schema}.migration_lease WHERE holder LIKE '%${name(index)}%'`,
    );
    return lease !== undefined;
  };
  const isAtWork = async (index: number) => {
    const rows = await admin.unsafe(
      `SELECT FROM pg_stat_activity WHERE application_name LIKE '%${name(index)}%'`,
    );
    return rows.length > 0;
  };
  const isOutside = Object.keys(OUTSIDE).length === [...Deno.readDirSync(folder)].length;
  // In the middle of what it does: as soon as it is connected, or holds the lease.
  const killings = processes.slice(0, KILLED).map((run, index) =>
    when(() => isOutside ? holds(index) : isAtWork(index), run, () => {
      try {
        run.kill("SIGKILL");
        if (isOutside) holders++;
      } catch {
        // It has ended just now.
      }
    })
  );
  // The others come when one of the processes has the turn, so that it is one of these.
  if (isOutside) {
    await Promise.race(processes.map((run, index) => when(() => holds(index), run, () => {})));
  }
  const sessions = Array.from({ length: MIGRATORS - PROCESSES }, () => sessionFor(url, {}, { schema }));
  const results = await Promise.all(
    sessions.map((session) => migrate(session, { dirs: [folder], embedded: false })),
  );
  await Promise.all(sessions.map((session) => session.close()));
  await Promise.all(killings);
  const outcomes = await Promise.all(processes.map(({ outcome }) => outcome));
  for (const { code, stderr } of outcomes.slice(KILLED)) assertEquals(code, 0, `${schema}: ${stderr}`);
  for (const { code, stderr } of outcomes) assert(code === 0 || code === 137, `${schema}: ${code} ${stderr}`);
  for (const { failed, status } of results) {
    assertEquals([failed, status.pending.length], [null, 0], schema);
  }
  const reported = results.flatMap(({ applied }) => applied.map(({ migration }) => migration.version));
  assertEquals(reported.length, new Set(reported).size, `${schema}: a version was reported twice`);
  return { cut: outcomes.filter(({ code }) => code === 137).length, holders };
}

async function assertWhole(admin: postgres.Sql, schema: string, versions: number): Promise<void> {
  const [row] = await admin.unsafe(`SET search_path = ${schema}; SELECT
    (SELECT array_agg(version ORDER BY version) FROM counted) AS counted,
    (SELECT array_agg(version ORDER BY id) FROM schema_migrations) AS history,
    (SELECT array_agg(version ORDER BY version) FROM migration_log WHERE outcome = 'done') AS log,
    (SELECT count(*)::int FROM migration_log WHERE outcome = 'failed') AS failed,
    (SELECT count(*)::int FROM migration_journal) AS journal,
    (SELECT count(*)::int FROM migration_lease WHERE holder IS NOT NULL) AS leases,
    (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory') AS locks,
    (SELECT count(*)::int FROM pg_index WHERE NOT indisvalid) AS invalid`).simple().then((sets) =>
    (sets as unknown as Record<string, unknown>[][]).at(-1)!
  );
  const names = Array.from({ length: versions }, (_, i) => `00${i + 1}`);
  const counted = versions === 5 ? [1, 2, 3, 4, 5] : [1, 2, 3, 4, 5, 6, 7];
  assertEquals({ ...row }, {
    ...{ counted, history: names, log: names },
    ...{ failed: 0, journal: 0, leases: 0, locks: 0, invalid: 0 },
  }, schema);
}
