/**
 * What PipeWeave needs of a server, one thing at a time: for engines that speak PostgreSQL's protocol and are not
 * PostgreSQL (docs/database.md, "Engines").
 *
 * @module
 */

import { type Session, StatementError } from "../database/session.ts";
import { identifier, sql, type SqlText } from "../database/sql.ts";

/** Something that a server may lack. */
export interface Feature {
  readonly name: string;
  /** What does not work without it. */
  readonly without: string;
  /** Finds out. Throws where it is missing. */
  readonly probe: (session: Session) => Promise<void>;
}

/** Key of an advisory lock that nothing else takes. */
const PROBE_KEY = 5_081_726_354;

const tableOf = (session: Session): SqlText => sql`${identifier(session.settings.schema)}.probe`;

/** The features, the most basic first. Each probe leaves the scratch schema as it was. */
export const FEATURES: readonly Feature[] = [
  {
    name: "a message is one transaction, DDL and all",
    without: "nothing of pipeweave: a migration that fails would leave half of itself behind",
    probe: async (session) => {
      const table = tableOf(session);
      const outcome = await session.transaction(sql`CREATE TABLE ${table} (id int); SELECT 1 / 0;`)
        .catch((error: unknown) => error);
      const [[row] = []] = await session.transaction(
        sql`SELECT pg_catalog.to_regclass(${table.text}) IS NULL AS gone;`,
      );
      if (!(outcome instanceof StatementError) || row?.["gone"] !== true) {
        await session.transaction(sql`DROP TABLE IF EXISTS ${table};`).catch(() => {});
        throw new Error("a table stayed whose message had failed");
      }
    },
  },
  {
    name: "several changes of the schema in one transaction, rows among them",
    without: "migrations of more than one statement, and the history beside them",
    probe: async (session) => {
      const table = tableOf(session);
      await session.transaction(
        sql`CREATE TABLE ${table} (id int); ALTER TABLE ${table} ADD COLUMN name text; CREATE INDEX ON ${table} (id);
          INSERT INTO ${table} VALUES (1, 'one'); DROP TABLE ${table};`,
      );
    },
  },
  {
    name: "PL/pgSQL",
    without: "db:migrate and maintenance, whose checks are functions of the database",
    probe: async (session) => {
      await session.transaction(sql`DO 'BEGIN PERFORM 1; END';`);
    },
  },
  {
    name: "advisory locks",
    without: "nothing: migrators take turns by the row of the lease; two at once may say less of each other",
    probe: async (session) => {
      const [, [row] = []] = await session.transaction(
        sql`SELECT pg_advisory_xact_lock(${String(PROBE_KEY)}::bigint);
          SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()) AS held;`,
      );
      if (row?.["held"] !== true) throw new Error("the lock was granted, and nobody holds it");
    },
  },
  {
    name: "triggers",
    without: "PipeWeave's own tables and the gate (maintenance:*), and a log that nobody can change",
    probe: async (session) => {
      const table = tableOf(session);
      const refuse = sql`${identifier(session.settings.schema)}.probe_refuses`;
      const outcome = await session.transaction(sql`CREATE TABLE ${table} (id int);
          CREATE FUNCTION ${refuse}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION SQLSTATE ''PW999''; END';
          CREATE TRIGGER probe BEFORE INSERT ON ${table} FOR EACH ROW EXECUTE FUNCTION ${refuse}();
          INSERT INTO ${table} VALUES (1);`).catch((error: unknown) => error);
      if (outcome instanceof StatementError && outcome.details.sqlstate === "PW999") return;
      if (outcome instanceof Error) throw outcome;
      throw new Error("the trigger did not run");
    },
  },
  {
    name: "LISTEN and NOTIFY",
    without: "nothing but speed: a wait looks every few seconds",
    probe: async (session) => {
      await session.transaction(
        sql`LISTEN pipeweave_probe; NOTIFY pipeweave_probe; UNLISTEN pipeweave_probe;`,
      );
    },
  },
  {
    name: "pg_stat_activity, pg_locks and pg_blocking_pids",
    without: "the names of those who hold a lock",
    probe: async (session) => {
      await session.transaction(
        sql`SELECT pg_blocking_pids(pid) FROM pg_stat_activity WHERE pid = pg_backend_pid();`,
      );
    },
  },
];
