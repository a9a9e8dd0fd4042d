/**
 * Tries pending migrations without applying them: all that run in a transaction go out as one message, which is one
 * transaction, and the last statement of it fails on purpose. Between the statements of the files stand probes, which
 * report what each took: time, locks, rewritten tables.
 *
 * @module
 */

import { type Notice, Session, StatementError } from "../database/session.ts";
import { sequence, sql, SqlText } from "../database/sql.ts";
import { PipeweaveError } from "../errors.ts";
import { explainFailure, isRefusedByGuard } from "./explain.ts";
import { createBookkeeping, GUARD, guard, type GuardTerms, lockKey } from "./history.ts";
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
} from "./message.ts";
import { labelOf, type Migration } from "../migrations/migration.ts";
import { type Statement, statementsOf } from "../sql/statements.ts";
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
}

/** What a probe reports. */
interface Report {
  /** When it was asked, and when its answer was ready: seconds of the epoch. */
  readonly from: number;
  readonly until: number;
  /** By oid: the table's name, the locks on it, and the file that its rows are in. */
  readonly tables: Readonly<Record<string, readonly [name: string, modes: readonly string[], file: number]>>;
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
  const reports: Report[] = [];
  const { options, settings } = session;
  const onNotice = (notice: Notice) => {
    if (notice.code === PROBE) reports.push(JSON.parse(notice.message));
    else options.onNotice?.(notice);
  };
  const own = new Session(settings, { ...options, onNotice });
  try {
    const { text, parts, guardAt } = await build(session, migrations, terms, limits);
    const error = await own.send(text).then(() => undefined, (error: unknown) => error);
    if (isRefusedByGuard(error, { statementsBeforeGuard: guardAt }, GUARD)) throw refused(error);
    if (error instanceof StatementError && error.details.sqlstate === ROLLED_BACK) {
      return { tried: evaluate(parts, reports), failed: null };
    }
    const part = error instanceof StatementError
      ? parts.findLast(({ statementsBefore }) => statementsBefore <= error.completed) ?? parts[0]!
      : undefined;
    const explained = part &&
      await explainFailure(error, part.migration, { ...part, text }, {
        heldBy: undefined,
        again: "the dry run",
      });
    if (!explained) throw error;
    return {
      tried: evaluate(parts.slice(0, parts.indexOf(part)), reports),
      failed: { migration: part.migration, error: explained },
    };
  } finally {
    await own.close();
  }
}

async function build(
  { settings: { schema } }: Session,
  migrations: readonly Migration[],
  terms: Omit<GuardTerms, "key" | "version">,
  limits: Limits,
): Promise<{ text: string; parts: readonly Part[]; guardAt: number }> {
  const fresh = [...freshSession(limitsOf(migrations[0]!, limits)), ...ownershipChecks(schema, terms)];
  const before = [
    ...fresh,
    guard(schema, { ...terms, key: lockKey(schema), version: migrations[0]!.version }),
    probe("all"),
    ...(terms.complete ? [] : [createBookkeeping(schema)]),
  ];
  let text = `-- pipeweave: dry run\n${before.map((part) => part.text).join("\n")}\n`;
  let count = before.length;
  const parts: Part[] = [];
  const held = probe("held").text;
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
    const after = `${held}\n${endOfBody().text}${END_OF_MESSAGE.text}\n`;
    text += `${body.text}\n;\n${after}`;
    count += statements.length * (1 + body.each) + 1 + statementsIn(endOfBody()) +
      statementsIn(END_OF_MESSAGE);
  }
  const end = sql`BEGIN RAISE EXCEPTION 'end of the dry run' USING ERRCODE = ${ROLLED_BACK}; END`;
  // What is checked at the commit has to be checked here too.
  text += sql`SET CONSTRAINTS ALL IMMEDIATE; DO ${end.text};`.text;
  return { text, parts, guardAt: fresh.length };
}

function statementsIn({ text }: SqlText): number {
  return text.split(";").length - 1;
}

/**
 * A statement that reports, without changing anything.
 *
 * @param which all tables, or those that this transaction holds locks on
 */
function probe(which: "all" | "held"): SqlText {
  const locks = new SqlText(
    which === "all" ? "'[]'::pg_catalog.json" : `pg_catalog.json_agg(DISTINCT l.mode)`,
  );
  const join = new SqlText(
    which === "all"
      ? ""
      : `JOIN pg_catalog.pg_locks l ON l.relation = c.oid AND l.pid = pg_catalog.pg_backend_pid()
       AND l.granted AND l.locktype = 'relation'
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())`,
  );
  const body = sql`
DECLARE
  since timestamptz := pg_catalog.clock_timestamp();
  path text := pg_catalog.current_setting('search_path');
  visible name[] := pg_catalog.current_schemas(false);
  tables json;
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  SELECT pg_catalog.json_object_agg(t.oid, pg_catalog.json_build_array(t.name, t.modes, t.file)) INTO tables FROM (
    SELECT c.oid, CASE WHEN n.nspname = ANY (visible) THEN pg_catalog.quote_ident(c.relname)
                    ELSE c.oid::pg_catalog.regclass::text END AS name, ${locks} AS modes, c.relfilenode::int8 AS file
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ${join}
     WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
     GROUP BY c.oid, n.nspname) t;
  RAISE INFO USING ERRCODE = ${PROBE}, MESSAGE = pg_catalog.json_build_object(
    'from', extract(epoch FROM since), 'tables', coalesce(tables, '{}'),
    'until', extract(epoch FROM pg_catalog.clock_timestamp()))::text;
  PERFORM pg_catalog.set_config('search_path', path, true);
END`;
  return sql`DO ${body.text};`;
}

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

function evaluate(parts: readonly Part[], reports: readonly Report[]): readonly TriedMigration[] {
  const [start, ...rest] = reports;
  const strongest = new Map<string, number>();
  const files = new Map(Object.entries(start!.tables).map(([oid, [, , file]]) => [oid, file]));
  let next = 0;
  return parts.map(({ migration, statements }) => {
    // One probe before each statement, and one behind the last.
    const own = rest.slice(next, next += statements.length + 1);
    // What the guard holds by then is none of the file's.
    for (const [oid, [, modes]] of Object.entries(own[0]!.tables)) {
      strongest.set(oid, Math.max(strongest.get(oid) ?? -1, levelOf(modes)));
    }
    return {
      migration,
      statements: statements.map((_, index): TriedStatement => {
        const [before, after] = [own[index]!, own[index + 1]!];
        const existing = Object.entries(after.tables).filter(([oid]) => files.has(oid));
        const locks = existing.flatMap(([oid, [table, modes]]): LockTaken[] => {
          const level = levelOf(modes);
          if (level <= (strongest.get(oid) ?? -1)) return [];
          strongest.set(oid, level);
          return [{ table, mode: modeName(MODES[level]!) }];
        });
        const rewritten = existing.flatMap(([oid, [table, , file]]) => {
          if (files.get(oid) === file) return [];
          files.set(oid, file);
          return [table];
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
export function untriedReason(pending: readonly Migration[]): string | undefined {
  const first = pending.find(({ directives }) => directives.noTransaction);
  return first &&
    `${labelOf(first)} runs outside a transaction, so neither it nor what follows it can be tried`;
}
