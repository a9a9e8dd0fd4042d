/**
 * What to do about a migration that failed: by the state, by what it is about, and by whose SQL it was.
 *
 * @module
 */

import { READ_ONLY } from "../database/failures.ts";
import type { Session, StatementError } from "../database/session.ts";
import { EMBEDDED, type Migration } from "../migrations/migration.ts";
import { historyTable } from "./history.ts";
import { findOtherHistory } from "./other_tools.ts";

const OUTSIDE = "starts with the line: -- pipeweave: no-transaction";

/** What is known of a failure besides the error. */
export interface Failing {
  readonly session: Session;
  readonly migration: Migration;
  /** Whether it was the file's own text that failed, and not what stands around it. */
  readonly isInFile: boolean;
  /** Whether none of the user's migrations was applied before. */
  readonly isFirst: boolean;
  /** The command to run then. */
  readonly again: string;
}

/**
 * What to do next; undefined where the file itself has to be corrected.
 *
 * @param error of PostgreSQL's
 */
export async function adviceAbout(error: StatementError, failing: Failing): Promise<string | undefined> {
  const { migration, isInFile } = failing;
  const { sqlstate = "", hint } = error.details;
  if (!isInFile) return aroundTheFile(error, failing) ?? hint ?? "See the server's log, and run it again.";
  if (migration.source === EMBEDDED) {
    return hint ??
      `This is PipeWeave's own SQL: see what in this database differs from what it expects, and run ${failing.again} again.`;
  }
  if (DUPLICATES.has(sqlstate) && failing.isFirst) return await adopt(failing);
  return inTheFile(error, failing);
}

/** Something that the file makes is there already. */
const DUPLICATES: ReadonlySet<string> = new Set(["42P07", "42701", "42710", "42P06", "42723"]);

async function adopt({ session, again }: Failing): Promise<string> {
  const [other] = await findOtherHistory(session).catch(() => []);
  const whose = other
    ? `This database has a history of ${other.tool} (${other.table}).`
    : "What it makes is there already.";
  return `${whose} Where the schema has what the first migrations make, say so: pipeweave db:baseline <the last version that it has>; then run ${again} again.`;
}

/** What is about our own statements around a file. */
function aroundTheFile(error: StatementError, { session: { settings } }: Failing): string | undefined {
  // What was deferred is checked behind the file's last statement.
  if (error.details.sqlstate?.startsWith("23") && error.completed > 0 && !isOfHistory(error)) {
    return "A constraint that the file deferred does not hold at its end: correct the file, or the rows; nothing of it stays.";
  }
  if (["42883", "42P01", "3F000"].includes(error.details.sqlstate ?? "") && error.completed > 0) {
    return "The file has moved or dropped tables or functions of PipeWeave's own. Give those a schema that the file does not touch: --schema <name>.";
  }
  const { cause } = error.details as { cause?: { constraint_name?: string } };
  if (cause?.constraint_name === "schema_migrations_pkey") {
    const table = historyTable(settings.schema).text;
    return "The sequence of its key is behind the rows, as logical replication and some restores leave it: " +
      `SELECT setval(pg_get_serial_sequence('${
        table.replaceAll("'", "''")
      }', 'id'), (SELECT max(id) FROM ${table}));`;
  }
  return undefined;
}

function isOfHistory(error: StatementError): boolean {
  const { cause } = error.details as { cause?: { table_name?: string } };
  return cause?.table_name === "schema_migrations";
}

/** Version of PostgreSQL whose grammar reads the files. */
const GRAMMAR = 18;

function major(session: Session): number {
  return Number.parseInt(session.parameter("server_version") ?? "", 10);
}

function inTheFile(
  { message, details: { sqlstate, context } }: StatementError,
  { session, migration, again }: Failing,
): string | undefined {
  const timeout = "-- pipeweave: statement-timeout";
  switch (sqlstate) {
    case "25001":
      if (migration.directives.noTransaction) {
        return "It cannot run from a function or a DO block: write it as a statement of its own.";
      }
      return `It cannot run inside a transaction. Put it in a migration of its own that ${OUTSIDE}`;
    case "2D000":
      return `It commits inside, and a migration is one transaction. Put it in a migration of its own that ${OUTSIDE}`;
    case "55P04":
      return `A new value of an enum can be used when it is committed: add it in a migration before this one, or in a file that ${OUTSIDE}`;
    case "57014":
      return /statement timeout/.test(message)
        ? `A statement took longer than it may: raise the limit with --statement-timeout, or for this file with the line ${timeout} 10m; then run ${again} again.`
        : `Somebody cancelled it: find out why before you run ${again} again.`;
    case "53100":
      return `The server's disk is full: make room there, and run ${again} again.`;
    case "53200":
    case "53300":
    case "53400":
    case "54000":
      return `The server is at a limit of its own: see its log, and run ${again} again when it has room.`;
    case "25006":
      return READ_ONLY;
    case "42501":
      return /^must be owner/.test(message)
        ? "Only the owner may do that, and grants do not help: connect as the owner, or as a member of it."
        : /SET ROLE|member/.test(message)
        ? "The role that connects has to be a member of the other one: GRANT that role to it, or connect as one that is."
        : "The role that runs the statement lacks the right, after a SET ROLE in the file that one: have it granted by the owner, or connect as a role that has it.";
    case "58P01":
      return `Install the extension on the server, and run ${again} again: most are in PostgreSQL's contrib package.`;
    case "0A000":
      return aboutFeature(message, again);
    case "22P05":
    case "22021":
      return "The file has a character that the database's encoding has not, maybe in a comment: write it as an escape or leave it out, or use a database in UTF8.";
    case "42601":
      // What a function's body or a query's meaning has wrong has this code, too.
      if (!/^syntax error/.test(message) || context || major(session) >= GRAMMAR) return undefined;
      return `The file is right for PostgreSQL ${GRAMMAR}, whose grammar reads it first; this server is older, and does not know the syntax. Write it as that one has it, and run ${again} again.`;
    case "40001":
      return `Others changed the same rows at the same time: run ${again} again.`;
    default:
      return migration.directives.noTransaction && ["42P07", "42P06", "42701"].includes(sqlstate!)
        ? `What it makes is there already. Where an attempt of before made it, write IF NOT EXISTS; then run ${again} again.`
        : undefined;
  }
}

function aboutFeature(message: string, again: string): string | undefined {
  if (/extension .* is not available/.test(message)) {
    return `Install the extension on the server, and run ${again} again: most are in PostgreSQL's contrib package.`;
  }
  if (/used by a view or rule|used in a (?:policy|trigger|generated)/.test(message)) {
    return "Drop the view (rule, policy, trigger) in the same file before it, and create it again behind it.";
  }
  if (/partitioned table .* concurrently/.test(message)) {
    return "CREATE INDEX … ON ONLY the partitioned table, CREATE INDEX CONCURRENTLY on each partition, and ALTER INDEX … ATTACH PARTITION each.";
  }
  return undefined;
}
