/**
 * What a statement with transactions of its own leaves in the catalog: whether it is done, what is left where it was cut
 * off, and how to go on from there.
 *
 * @module
 */

import { identifier, sql, SqlText } from "../database/sql.ts";
import type { Statement } from "../sql/statements.ts";
import { isConcurrentDetach, transactionClassOf } from "../sql/transactions.ts";
import { nameOf, nodesOf, type TableName, tableOf } from "../sql/tree.ts";

/** What a {@linkcode Trace} saw, as JSON: kept in the journal while the statement runs. */
export type State = Readonly<Record<string, unknown>>;

/** An index that an attempt left behind. */
export interface Remains {
  readonly oid: string;
  /** Schema and name, quoted. */
  readonly name: string;
  /** Process id of a session that may be at work on it. */
  readonly busy: number | null;
}

/** Looks at what a statement does. */
export interface Trace {
  /** Names of relations to be looked up where the statement's own are, quoted. */
  readonly relations: readonly string[];
  /**
   * A query of one row with the column `state`, jsonb.
   *
   * @param oids of {@linkcode relations}, 0 where there is none
   * @param before what was seen before the statement was begun
   */
  look(oids: readonly SqlText[], before: State | undefined): SqlText;
  /** Whether the statement was carried out between two looks, by whatever attempt. */
  wasDone(before: State, now: State): boolean;
  /** Whether things are as the statement wants them, after the server said that it is done. Otherwise what is wrong. */
  problem(before: State, now: State): string | undefined;
  /** Indexes that attempts have left, of this statement alone. */
  remains(before: State, now: State): readonly Remains[];
  /** What to send in place of the statement, to finish what was begun. */
  goOn?(now: State): SqlText | undefined;
}

/** The trace of a statement; undefined where it leaves none, and may be run again all the same. */
export function traceOf(statement: Statement): Trace | undefined {
  const { type, fields } = statement.node;
  if (transactionClassOf(statement).atomicity !== "resumable") return undefined;
  switch (type) {
    case "IndexStmt":
      return createdIndex(String(fields["idxname"]), quoted(tableOf(fields["relation"])!));
    case "DropStmt":
      return droppedIndex(quoted(nameOf(itemsOf(fields["objects"]))));
    case "ReindexStmt":
      return isConcurrentReindex(statement) ? reindexed(String(fields["kind"]), fields) : undefined;
    case "AlterTableStmt":
      return detached(quoted(tableOf(fields["relation"])!), quoted(tableOf(partitionOf(fields["cmds"]))!));
    case "CreatedbStmt":
      return made(sql`pg_database WHERE datname = ${String(fields["dbname"])}`);
    case "DropdbStmt":
      return removed(sql`pg_database WHERE datname = ${String(fields["dbname"])}`);
    case "CreateTableSpaceStmt":
      return made(sql`pg_tablespace WHERE spcname = ${String(fields["tablespacename"])}`);
    case "DropTableSpaceStmt":
      return removed(sql`pg_tablespace WHERE spcname = ${String(fields["tablespacename"])}`);
    case "CreateSubscriptionStmt":
      return made(subscription(fields["subname"]));
    case "DropSubscriptionStmt":
      return removed(subscription(fields["subname"]));
    default:
      return undefined;
  }
}

const subscription = (name: unknown) =>
  sql`pg_subscription WHERE subname = ${
    String(name)
  } AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())`;

const isConcurrentReindex = (statement: Statement) => transactionClassOf(statement).blocksNobody === true;

function itemsOf(objects: unknown): unknown {
  const [first] = nodesOf(objects);
  return first?.fields["items"];
}

function partitionOf(cmds: unknown): unknown {
  const command = nodesOf(cmds).find(({ fields }) => isConcurrentDetach(fields));
  return (command?.fields["def"] as { PartitionCmd: { name: unknown } }).PartitionCmd.name;
}

function quoted({ schema, name }: TableName): string {
  return schema === undefined ? identifier(name).text : `${identifier(schema).text}.${identifier(name).text}`;
}

/** Schema and name of a row of pg_class, quoted. */
const qualified = (c: SqlText) =>
  sql`(SELECT quote_ident(n.nspname) || '.' || quote_ident(${c}.relname) FROM pg_namespace n WHERE n.oid = ${c}.relnamespace)`;

interface IndexSeen {
  readonly oid: string;
  readonly name: string;
  readonly valid: boolean;
  readonly onTable: boolean;
  readonly busy: number | null;
}

function createdIndex(name: string, table: string): Trace {
  const seen = ({ index }: State) => index as IndexSeen | null;
  return {
    relations: [table],
    look: ([oid]) =>
      sql`SELECT jsonb_build_object('index', (
        SELECT jsonb_build_object('oid', c.oid::text, 'name', ${
        qualified(sql`c`)
      }, 'onTable', i.indrelid = t.oid,
          'valid', i.indisvalid AND i.indisready AND i.indislive,
          'busy', (SELECT pid FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid))
          FROM pg_class t JOIN pg_class c ON c.relnamespace = t.relnamespace AND c.relname = ${name}
          JOIN pg_index i ON i.indexrelid = c.oid WHERE t.oid = ${oid!})) AS state;`,
    wasDone: (before, now) =>
      seen(now)?.valid === true && seen(now)!.onTable && seen(now)!.oid !== seen(before)?.oid,
    problem: (_, now) => {
      const index = seen(now);
      if (!index) return `there is no index ${name} on ${table}`;
      if (!index.onTable) return `the index ${index.name} is another table's`;
      return index.valid ? undefined : `the index ${index.name} is INVALID`;
    },
    remains: (_, now) => {
      const index = seen(now);
      return index && !index.valid && index.onTable ? [index] : [];
    },
  };
}

function droppedIndex(index: string): Trace {
  return {
    relations: [index],
    look: ([oid], before) =>
      sql`SELECT jsonb_build_object('oid', nullif(${oid!}, 0)::text, 'isThere', EXISTS (
        SELECT FROM pg_class WHERE oid = ${oidOf(before)})) AS state;`,
    wasDone: (before, now) => before["oid"] !== null && now["isThere"] === false,
    problem: (before, now) =>
      before["oid"] !== null && now["isThere"] === true ? `the index ${index} is still there` : undefined,
    remains: () => [],
  };
}

const oidOf = (before: State | undefined) => sql`${String(before?.["oid"] ?? "0")}::oid`;

/** What REINDEX … CONCURRENTLY builds beside an index, or keeps of the old one, until it is done. */
const INTERIM = "_cc(new|old)[0-9]*$";

function reindexed(kind: string, fields: Statement["node"]["fields"]): Trace {
  const target = tableOf(fields["relation"]);
  // It has no rows for what is neither a partition nor partitioned.
  const tree = (oid: SqlText) => sql`SELECT relid FROM pg_partition_tree(${oid}) UNION SELECT ${oid}`;
  const isIndex = /_INDEX$/.test(kind);
  const tables = (oid: SqlText) =>
    isIndex
      ? sql`SELECT indrelid FROM pg_index WHERE indexrelid IN (${tree(oid)})`
      : /_TABLE$/.test(kind)
      ? sql`${tree(oid)}`
      : /_SCHEMA$/.test(kind)
      ? sql`SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace(${
        identifier(String(fields["name"])).text
      })`
      : sql`SELECT oid FROM pg_class`;
  const left = ({ interim }: State) => interim as readonly Remains[];
  const remains = (before: State, now: State) =>
    left(now).filter(({ oid }) => left(before).every((one) => one.oid !== oid));
  return {
    relations: target ? [quoted(target)] : [],
    look: ([oid = sql`0::oid`]) =>
      sql`SELECT jsonb_build_object(
        'valid', ${
        isIndex ? sql`(SELECT indisvalid FROM pg_index WHERE indexrelid = ${oid})` : sql`NULL::boolean`
      },
        'interim', (SELECT coalesce(jsonb_agg(jsonb_build_object('oid', c.oid::text, 'name', ${
        qualified(sql`c`)
      },
          'busy', (SELECT l.pid FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'relation' AND l.relation = i.indrelid AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND l.pid <> pg_backend_pid() AND a.backend_type IS DISTINCT FROM 'autovacuum worker' LIMIT 1))
          ORDER BY c.oid), '[]')
          FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE NOT i.indisvalid AND c.relname ~ ${INTERIM} AND i.indrelid IN (
           WITH scope(oid) AS (${tables(oid)})
           SELECT oid FROM scope UNION SELECT reltoastrelid FROM pg_class WHERE oid IN (SELECT oid FROM scope)))) AS state;`,
    // Nothing tells a new index from an old one; to build it again does no harm.
    wasDone: () => false,
    problem: (before, now) =>
      now["valid"] === false && before["valid"] !== false
        ? "the index is INVALID"
        : remains(before, now).length > 0
        ? `INVALID indexes are left: ${remains(before, now).map(({ name }) => name).join(", ")}`
        : undefined,
    remains,
  };
}

function detached(parent: string, partition: string): Trace {
  return {
    relations: [parent, partition],
    look: ([parentOid, partitionOid]) =>
      sql`SELECT jsonb_build_object('partition', ${partitionOid!}::text,
        'parentName', (SELECT ${qualified(sql`c`)} FROM pg_class c WHERE c.oid = ${parentOid!}),
        'partitionName', (SELECT ${qualified(sql`c`)} FROM pg_class c WHERE c.oid = ${partitionOid!}),
        'attached', (SELECT CASE WHEN inhdetachpending THEN 'pending' ELSE 'yes' END FROM pg_inherits
          WHERE inhrelid = ${partitionOid!} AND inhparent = ${parentOid!})) AS state;`,
    wasDone: (before, now) =>
      before["attached"] !== null && now["attached"] === null && now["partition"] === before["partition"],
    problem: (_, now) =>
      now["attached"] === null
        ? undefined
        : now["attached"] === "pending"
        ? `${partition} is pending detach: its rows are out of ${parent} already`
        : `${partition} is still a partition of ${parent}`,
    remains: () => [],
    goOn: (now) =>
      now["attached"] === "pending"
        ? sql`ALTER TABLE ${new SqlText(String(now["parentName"]))} DETACH PARTITION ${new SqlText(
          String(now["partitionName"]),
        )} FINALIZE`
        : undefined,
  };
}

/** An object of a catalog of its own, by its name. */
function lookUp(where: SqlText): Trace["look"] {
  return (_, before) =>
    sql`SELECT jsonb_build_object('oid', (SELECT oid::text FROM ${where}), 'isThere', EXISTS (SELECT FROM ${where}
      AND oid = ${oidOf(before)})) AS state;`;
}

function made(where: SqlText): Trace {
  return {
    relations: [],
    look: lookUp(where),
    wasDone: (before, now) => before["oid"] === null && now["oid"] !== null,
    problem: (_, now) => now["oid"] === null ? "it is not there" : undefined,
    remains: () => [],
  };
}

function removed(where: SqlText): Trace {
  return {
    relations: [],
    look: lookUp(where),
    wasDone: (before, now) => before["oid"] !== null && now["isThere"] === false,
    problem: (before, now) =>
      before["oid"] !== null && now["isThere"] === true ? "it is still there" : undefined,
    remains: () => [],
  };
}
