/**
 * Tries pending migrations without applying them: all that run in a transaction go out as one message, which is one
 * transaction, and the last statement of it fails on purpose. Between the statements of the files stand probes, which
 * report what each took: time, locks, rewritten tables.
 *
 * @module
 */

import { type Notice, OWN_SQL, Session, StatementError } from "../database/session.ts";
import { sequence, sql, SqlText } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { explainFailure, isRefusedByGuard } from "./explain.ts";
import { ENGINE_TABLES, GUARD, guard, type GuardTerms, historyTable, lockKey } from "./history.ts";
import {
  END_OF_MESSAGE,
  endOfBody,
  freshSession,
  KEEP_SETTINGS,
  type Limits,
  limitsOf,
  messageHead,
  ownershipChecks,
  settingsOf,
  STATEMENTS_AT_END,
  unknownCharacter,
} from "./message.ts";
import { labelOf, type Migration, setOf } from "../migrations/migration.ts";
import { type Statement, statementsOf } from "../sql/statements.ts";
import { unitsBefore } from "../sql/offsets.ts";
import { weave, type Woven } from "../sql/weave.ts";

/** SQLSTATE of the statement that ends a dry run, and of what its probes report. */
const ROLLED_BACK = "PW009";
const PROBE = "PW010";

/** A lock on a table that was there before. */
export interface LockTaken {
  readonly table: string;
  /** As PostgreSQL's documentation has it: `ACCESS EXCLUSIVE`. */
  readonly mode: string;
}

/** What one statement took. */
export interface TriedStatement {
  /** Milliseconds. */
  readonly durationMs: number;
  /** The strongest lock on each table that the statements before it did not hold as strongly already. */
  readonly locks: readonly LockTaken[];
  /** Tables that it wrote anew. */
  readonly rewritten: readonly string[];
}

/** A migration that was tried. */
export interface TriedMigration {
  readonly migration: Migration;
  /** One for each statement of the file. */
  readonly statements: readonly TriedStatement[];
}

/** How a dry run ended; the database is as it was before. */
export interface DryRunResult {
  readonly tried: readonly TriedMigration[];
  readonly failed: { readonly migration: Migration; readonly error: PipeweaveError } | null;
  /** One that cannot be tried in one transaction with those before it, and why; it may be applied all the same. */
  readonly untriable: { readonly migration: Migration; readonly reason: string } | null;
}

/** What a probe reports. */
interface Report {
  /** When it was asked, and when its answer was ready: seconds of the epoch. */
  readonly from: number;
  readonly until: number;
  /** By oid, where the last report had something else: the locks, and the file that the rows are in; null where it is gone. */
  readonly tables: Readonly<Record<string, readonly [modes: readonly string[], file: number | null]>>;
}

/** One migration's part of the message. */
interface Part {
  readonly migration: Migration;
  readonly statements: readonly Statement[];
  readonly body: Woven;
  readonly bodyStart: number;
  readonly statementsBefore: number;
}

/**
 * Tries migrations, and rolls back.
 *
 * @param migrations pending ones, in order; all of them run in a transaction
 * @param terms what the guard of the first has to know
 * @throws {PipeweaveError} when it could not be tried: another migrator at work, the connection
 */
export async function dryRun(
  session: Session,
  migrations: readonly Migration[],
  terms: Omit<GuardTerms, "key" | "version">,
  limits: Limits,
): Promise<DryRunResult> {
  const known = await knownTables(session);
  const reports: Report[] = [];
  const last = new Map<string, string>();
  const { options, settings } = session;
  const onNotice = (notice: Notice) => {
    if (notice.code !== PROBE) return options.onNotice?.(notice);
    const report = JSON.parse(notice.message) as Report;
    const changed = Object.entries(report.tables).filter(([oid, seen]) => {
      const text = JSON.stringify(seen);
      if (!known.tables.has(oid) || last.get(oid) === text) return false;
      last.set(oid, text);
      return true;
    });
    reports.push({ ...report, tables: Object.fromEntries(changed) });
  };
  const own = new Session(settings, { ...options, onNotice });
  try {
    const { text, parts, guardAt } = await build(session, migrations, terms, limits, known);
    const error = await own.send(text).then(() => undefined, (error: unknown) => error);
    if (isRefusedByGuard(error, { statementsBeforeGuard: guardAt }, GUARD)) throw refused(error);
    if (error instanceof StatementError && error.details.sqlstate === ROLLED_BACK) {
      return { tried: evaluate(parts, reports, known), failed: null, untriable: null };
    }
    if (!(error instanceof StatementError) || error.kind === "interrupted") throw error;
    const part = partOf(error, text, parts);
    const tried = evaluate(parts.slice(0, parts.indexOf(part)), reports, known);
    const { migration } = part;
    const reason = part === parts[0] ? undefined : reasonOfOneTransaction(error, part);
    if (reason) return { tried, failed: null, untriable: { migration, reason } };
    const explained = await explainFailure(error, migration, { ...part, text }, {
      ...{ session, heldBy: undefined, isFirst: false, again: "the dry run" },
    });
    return { tried, failed: { migration, error: explained! }, untriable: null };
  } finally {
    await own.close();
  }
}

/** The part of the message that failed: by the place that PostgreSQL names, or by the statements that were done. */
function partOf(error: StatementError, text: string, parts: readonly Part[]): Part {
  const { position = 0 } = (error.details.cause ?? {}) as { position?: number | string };
  // The place is in the whole message where PostgreSQL read it and refused all of it.
  const at = error.completed === 0 && Number(position) > 0
    ? unitsBefore(text, Number(position) - 1)
    : undefined;
  const odd = unknownCharacter(error);
  const holder = odd && parts.find(({ migration }) => migration.sql.includes(odd));
  if (holder) return holder;
  return (at === undefined
    ? parts.findLast(({ statementsBefore }) => statementsBefore <= error.completed)
    : parts.findLast(({ bodyStart }) => bodyStart <= at)) ?? parts[0]!;
}

/** Why a failure is one of trying it in the transaction of others; undefined where it is the migration's own. */
function reasonOfOneTransaction(error: StatementError, { statements }: Part): string | undefined {
  switch (error.details.sqlstate) {
    case "55P04": {
      const value = /new value "(.*)" of enum/.exec(error.message)?.[1];
      const addsIt = statements.some(({ node }) =>
        node.type === "AlterEnumStmt" && node.fields["newVal"] === value
      );
      return addsIt
        ? undefined
        : "it uses a value of an enum that one before it adds, and that has to be committed first";
    }
    case "55006":
      return /pending trigger events|used by active queries in this session/.test(error.message)
        ? "what one before it did has to be committed first"
        : undefined;
    case "53200":
      return "the locks of so many migrations do not fit into one transaction of this server (max_locks_per_transaction)";
    default:
      return undefined;
  }
}

async function build(
  { settings: { schema } }: Session,
  migrations: readonly Migration[],
  terms: Omit<GuardTerms, "key" | "version">,
  limits: Limits,
  known: Known,
): Promise<{ text: string; parts: readonly Part[]; guardAt: number }> {
  const fresh = [...freshSession(limitsOf(migrations[0]!, limits)), ...ownershipChecks(schema, terms)];
  const before = [
    ...fresh,
    guard(schema, { ...terms, key: lockKey(schema), version: migrations[0]!.version }),
  ];
  let text = `-- pipeweave: dry run\n${before.map((part) => part.text).join("\n")}\n`;
  let count = before.length;
  const parts: Part[] = [];
  const probe = probeOf(known);
  const held = probe.text;
  for (const migration of migrations) {
    const statements = await statementsOf(migration);
    const settings = [
      sql`SET LOCAL search_path TO DEFAULT;`,
      ...KEEP_SETTINGS,
      ...settingsOf(migration, schema, limitsOf(migration, limits)),
    ];
    text += `${messageHead(migration)}${sequence(settings).text}\n`;
    const body = weave(migration.sql, statements, () => `${held} `);
    count += settings.length;
    parts.push({ migration, statements, body, bodyStart: text.length, statementsBefore: count });
    const after = [
      // What is checked at a commit is checked at each.
      sql`SET CONSTRAINTS ALL IMMEDIATE;`,
      probe,
      endOfBody(),
      recordTrial(schema, migration, parts.length),
      END_OF_MESSAGE,
      RENEW_CONSTRAINTS,
    ];
    text += `${body.text}\n;\n${sequence(after).text}\n`;
    count += statements.length * (1 + body.each) + AFTER;
  }
  const end = sql`BEGIN RAISE EXCEPTION 'end of the dry run' USING ERRCODE = ${ROLLED_BACK}; END`;
  text += sql`DO ${end.text};`.text;
  return { text, parts, guardAt: fresh.length };
}

/** Statements behind a file's own. */
const AFTER = 4 + STATEMENTS_AT_END.body + STATEMENTS_AT_END.message;

/**
 * Puts into the history what the migration would put there, so that what keeps it out is found. Under ids that nobody has:
 * a sequence would not be rolled back.
 */
function recordTrial(schema: string, migration: Migration, place: number): SqlText {
  const { version, name, checksum } = migration;
  return sql`INSERT INTO ${historyTable(schema)} (id, version, name, checksum, migration_set)
    VALUES (${-place - 1}, ${version}, ${name}, ${checksum}, ${setOf(migration)});`;
}

/** Tables that were there before anything was tried. */
interface Known {
  /** By oid: the name, as the connection's search_path has it, and the file that the rows are in. */
  readonly tables: ReadonlyMap<string, { readonly name: string; readonly file: number }>;
  /** The largest oid of them; 0 where there are none. What is made later has a larger one. */
  readonly last: number;
}

async function knownTables(session: Session): Promise<Known> {
  const { schema } = session.settings;
  const engine = sql`ANY (${`{${ENGINE_TABLES.join(",")}}`}::name[])`;
  const sets = await session.transaction(sql`
    SET LOCAL search_path TO DEFAULT;
    SELECT pg_catalog.set_config('pipeweave.visible', pg_catalog.current_schemas(false)::pg_catalog.text, true);
    ${sequence(OWN_SQL)}
    SELECT c.oid::int8 AS oid, c.relfilenode::int8 AS file,
           CASE WHEN n.nspname = ANY (current_setting('pipeweave.visible')::name[]) THEN quote_ident(c.relname)
             ELSE c.oid::regclass::text END AS name
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
       AND NOT (n.nspname = ${schema} AND c.relname = ${engine});`);
  const rows = sets.at(-1)!;
  return {
    tables: new Map(
      rows.map((row) => [String(row["oid"]), { name: String(row["name"]), file: Number(row["file"]) }]),
    ),
    last: Math.max(0, ...rows.map((row) => Number(row["oid"]))),
  };
}

/** A statement that reports the locks of this transaction on tables that were there before, and the files of those. */
function probeOf({ last }: Known): SqlText {
  // In a database without tables there is nothing to be held up, and to look through thousands of locks takes its time.
  const look = last === 0 ? sql`` : sql`
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  SELECT jsonb_object_agg(t.relation, jsonb_build_array(t.modes, c.relfilenode::int8)) INTO tables FROM (
    SELECT l.relation, jsonb_agg(DISTINCT l.mode) AS modes FROM pg_locks l
     WHERE l.pid = pg_backend_pid() AND l.granted AND l.locktype = 'relation' AND l.relation BETWEEN 16384 AND ${last}
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
     GROUP BY l.relation) t LEFT JOIN pg_class c ON c.oid = t.relation;
  PERFORM set_config('search_path', path, true);`;
  return sql`DO ${
    sql`
DECLARE
  since timestamptz := pg_catalog.clock_timestamp();
  path text := pg_catalog.current_setting('search_path');
  tables jsonb;
BEGIN${look}
  RAISE INFO USING ERRCODE = ${PROBE}, MESSAGE = pg_catalog.jsonb_build_object('from', extract(epoch FROM since),
    'tables', coalesce(tables, '{}'), 'until', extract(epoch FROM pg_catalog.clock_timestamp()))::pg_catalog.text;
END`.text
  };`;
}

/**
 * Each constraint is checked when it says, as in a new transaction: to have been checked at the end of the last migration
 * holds for the rest of this one.
 */
const RENEW_CONSTRAINTS = sql`DO ${
  sql`
DECLARE
  one record;
BEGIN
  SET CONSTRAINTS ALL DEFERRED;
  FOR one IN SELECT n.nspname, c.conname FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.connamespace
    WHERE c.condeferrable AND NOT c.condeferred LOOP
    EXECUTE pg_catalog.format('SET CONSTRAINTS %I.%I IMMEDIATE', one.nspname, one.conname);
  END LOOP;
END`.text
};`;

/** PostgreSQL's table-level locks, the weakest first (documentation, 13.3.1), as `pg_locks` names them. */
const MODES = [
  "AccessShareLock",
  "RowShareLock",
  "RowExclusiveLock",
  "ShareUpdateExclusiveLock",
  "ShareLock",
  "ShareRowExclusiveLock",
  "ExclusiveLock",
  "AccessExclusiveLock",
];

function levelOf(modes: readonly string[]): number {
  return Math.max(...modes.map((mode) => MODES.indexOf(mode)));
}

/** `AccessExclusiveLock` as the documentation has it. */
function modeName(mode: string): string {
  return mode.replace(/Lock$/, "").replace(/(?<=.)([A-Z])/g, " $1").toUpperCase();
}

function evaluate(
  parts: readonly Part[],
  reports: readonly Report[],
  { tables }: Known,
): readonly TriedMigration[] {
  const strongest = new Map<string, number>();
  const files = new Map([...tables].map(([oid, { file }]) => [oid, file]));
  let next = 0;
  return parts.flatMap(({ migration, statements }) => {
    // One probe before each statement, and one behind the last; none where the server refused the whole message.
    const own = reports.slice(next, next += statements.length + 1);
    if (own.length <= statements.length) return [];
    // What the guard holds by then is none of the file's.
    for (const [oid, [modes]] of Object.entries(own[0]!.tables)) {
      strongest.set(oid, Math.max(strongest.get(oid) ?? -1, levelOf(modes)));
    }
    return {
      migration,
      statements: statements.map((_, index): TriedStatement => {
        const [before, after] = [own[index]!, own[index + 1]!];
        const existing = Object.entries(after.tables);
        const locks = existing.flatMap(([oid, [modes]]): LockTaken[] => {
          const level = levelOf(modes);
          if (level <= (strongest.get(oid) ?? -1)) return [];
          strongest.set(oid, level);
          return [{ table: tables.get(oid)!.name, mode: modeName(MODES[level]!) }];
        });
        const rewritten = existing.flatMap(([oid, [, file]]) => {
          if (file === null || files.get(oid) === file) return [];
          files.set(oid, file);
          return [tables.get(oid)!.name];
        });
        return { durationMs: Math.max(0, (after.from - before.until) * 1000), locks, rewritten };
      }),
    };
  });
}

function refused(error: StatementError): PipeweaveError {
  return error.details.sqlstate === GUARD.locked
    ? new PipeweaveError("condition", "migration_lock", "Another migrator is at work. Nothing was tried.", {
      hint: "Try again when it is done.",
      cause: error,
    })
    : new PipeweaveError(
      "condition",
      "history_moved",
      "Another migrator has applied what was pending. Nothing was tried.",
      { hint: "Run it again: it looks anew.", cause: error },
    );
}

/** Whether all that is pending can be tried: what runs outside a transaction, and what comes after it, cannot. */
export function triable(pending: readonly Migration[]): readonly Migration[] {
  const index = pending.findIndex(({ directives }) => directives.noTransaction);
  return index === -1 ? pending : pending.slice(0, index);
}

/** Why the rest was not tried; undefined when nothing was left out. */
export function untriedReason(
  pending: readonly Migration[],
  { untriable }: Pick<DryRunResult, "untriable">,
): string | undefined {
  if (untriable) {
    return `${
      labelOf(untriable.migration)
    } cannot be tried in one transaction with those before it, since ${untriable.reason}; nor can what follows it`;
  }
  const first = pending.find(({ directives }) => directives.noTransaction);
  return first &&
    `${labelOf(first)} runs outside a transaction, so neither it nor what follows it can be tried`;
}
