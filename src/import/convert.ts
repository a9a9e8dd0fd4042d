/**
 * Makes files of ours out of another tool's migrations: versions and names, and SQL that can run the way ours runs.
 *
 * @module
 */

import { checksumOf } from "../migrations/checksum.ts";
import { nameOfWords } from "../migrations/name.ts";
import { isReserved } from "../migrations/discover.ts";
import { foreignMark } from "../migrations/dialects.ts";
import { readDirectives } from "../migrations/directives.ts";
import { type Migration, versionKey } from "../migrations/migration.ts";
import { validateSql } from "../migrations/validate.ts";
import { parseStatements, SqlSyntaxError, type Statement } from "../sql/statements.ts";
import { nameOf, nodesOf, tableOf } from "../sql/tree.ts";
import { transactionClassOf } from "../sql/transactions.ts";
import { BOOKS, type ForeignFolder, type ForeignMigration } from "./foreign.ts";

/** A file to be written. */
export interface Imported {
  readonly key: string;
  readonly version: string;
  readonly name: string;
  /** The file that it comes from. */
  readonly from: string;
  readonly sql: string;
  readonly down: string | undefined;
  /** What was decided, a sentence each. */
  readonly decisions: readonly string[];
  /** What has to be done by hand, a sentence each. */
  readonly problems: readonly string[];
}

/** Values for placeholders, by name. */
export type Placeholders = Readonly<Record<string, string>>;

const NO_TRANSACTION = "-- pipeweave: no-transaction\n";

/** What is taken out of a text, and filled in. */
interface Cleaning {
  readonly placeholders: Placeholders;
  /** Tables of the old tool's own. */
  readonly books: readonly string[];
}

/** Makes our files of a folder's migrations, in its order. */
export async function convertFolder(
  folder: ForeignFolder,
  placeholders: Placeholders,
): Promise<readonly Imported[]> {
  const versions = versionsFor(folder.migrations);
  // Names that are told by their schema alone may be the user's.
  const own = ["graphile-migrate", "sqitch"].includes(folder.tool) ? [] : [BOOKS[folder.tool]];
  const cleaning = { placeholders, books: ["schema_migrations", "ar_internal_metadata", ...own] };
  const imported: Imported[] = [];
  for (const [index, one] of folder.migrations.entries()) {
    imported.push(await convert(one, versions[index]!, cleaning));
  }
  return imported;
}

interface Numbered {
  readonly version: string;
  readonly decision: string | undefined;
}

/**
 * Versions that are numbers and grow in the order given. Those of the old tool stay where they can; one that would not
 * sort where it was applied gets the next number behind the one before it.
 */
export function versionsFor(migrations: readonly Pick<ForeignMigration, "version">[]): readonly Numbered[] {
  const given = migrations.map(({ version }) => version);
  const isKept = given.every((version) => version !== undefined) &&
    !given.some((version) => isReserved(version!));
  if (!isKept) {
    const width = Math.max(3, String(given.length).length);
    return given.map((old, index) => {
      const version = String(index + 1).padStart(width, "0");
      return { version, decision: old === undefined ? undefined : `its version ${old} became ${version}` };
    });
  }
  const length = commonLength(given as readonly string[]);
  let last = -1n;
  return (given as readonly string[]).map((old) => {
    // A date of another length is one that is less, or more, exact.
    const fitted = length >= 8 && old.length >= 8 ? old.slice(0, length).padEnd(length, "0") : old;
    let version = fitted;
    if (BigInt(version) <= last) {
      version = String(last + 1n).padStart(Math.max(old.length, fitted.length), "0");
    }
    last = BigInt(version);
    return { version, decision: version === old ? undefined : `its version ${old} became ${version}` };
  });
}

function commonLength(versions: readonly string[]): number {
  const counts = new Map<number, number>();
  for (const { length } of versions) counts.set(length, (counts.get(length) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 0;
}

async function convert(
  foreign: ForeignMigration,
  { version, decision }: Numbered,
  cleaning: Cleaning,
): Promise<Imported> {
  const decisions = [...(decision ? [decision] : []), ...foreign.decisions];
  const problems: string[] = [];
  const name = nameOfWords(foreign.title) || "migration";
  const up = await cleaned(foreign.up, { ...cleaning, decisions });
  const isOutside = await runsOutside(up);
  const noTransaction = foreign.noTransaction || isOutside !== undefined;
  if (isOutside && !foreign.noTransaction) {
    decisions.push(`it runs outside a transaction: it holds ${isOutside}`);
  }
  const isEmpty = (await statements(up)).length === 0 && await canBeRead(up);
  if (isEmpty) decisions.push("it holds no statement");
  const body = isEmpty ? `${up === "" ? "-- The file of the old tool was empty." : up}\nSELECT 1;` : up;
  const sql = `${noTransaction ? NO_TRANSACTION : ""}${body}\n`;
  problems.push(...await problemsIn(sql, `${version}_${name}.sql`));
  const down = foreign.down === undefined ? undefined : await convertDown(foreign.down, {
    ...cleaning,
    ...{ version, name, decisions },
  });
  return { key: foreign.key, version, name, from: foreign.file, sql, down, decisions, problems };
}

async function convertDown(
  text: string,
  { version, name, placeholders, books, decisions }: Cleaning & {
    readonly version: string;
    readonly name: string;
    readonly decisions: string[];
  },
): Promise<string | undefined> {
  const own: string[] = [];
  let down = await cleaned(text, { placeholders, books, decisions: own });
  if (await runsOutside(down)) {
    down = down.replace(/\b(INDEX|PARTITION\s+\S+)\s+CONCURRENTLY\b/gi, "$1");
    own.push("CONCURRENTLY was left out, since roll-backs run in a transaction");
  }
  if ((await statements(down)).length === 0) return undefined;
  const [problem] = await problemsIn(`${down}\n`, `${version}_${name}.down.sql`);
  if (problem) {
    decisions.push(`its way down was left out: ${problem}`);
    return undefined;
  }
  decisions.push(...own.map((one) => `way down: ${one}`));
  return `${down}\n`;
}

/** Lines of psql that mean nothing to a schema. */
const META =
  /^\\(?:set\s+ON_ERROR_STOP\b.*|set\s+ECHO\b.*|echo\b.*|timing\b.*|pset\b.*|encoding\b.*|(?:un)?restrict\b.*|q)\s*$/i;

async function cleaned(
  text: string,
  { placeholders, books, decisions }: Cleaning & { readonly decisions: string[] },
): Promise<string> {
  let sql = text.replace(/^\ufeff/, "").replace(/\r\n?/g, "\n");
  const lines = sql.split("\n");
  const kept = lines.filter((line) => !META.test(line.trim()));
  if (kept.length < lines.length) {
    decisions.push(`${lines.length - kept.length} line(s) for psql alone were left out`);
    sql = kept.join("\n");
  }
  const set = Object.entries(placeholders).filter(([name]) => markOf(name).test(sql));
  for (const [name, value] of set) sql = sql.replace(new RegExp(markOf(name), "g"), () => value);
  if (set.length > 0) decisions.push(`placeholders were filled in: ${set.map(([name]) => name).join(", ")}`);
  sql = await withoutTransactions(sql, decisions);
  sql = await withoutBooks(sql, books, decisions);
  sql = await withoutMarks(sql, decisions);
  return sql.trim();
}

/** `${name}`, `{{name}}`, `{{.name}}` or `:NAME`. */
function markOf(name: string): RegExp {
  const word = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(`\\$\\{${word}\\}|\\{\\{\\s*\\.?${word}\\s*\\}\\}|(?<![:\\w]):"?${word}"?(?!\\w)`);
}

/** BEGIN and COMMIT go, since each of our files runs in a transaction of its own, or says that it does not. */
async function withoutTransactions(sql: string, decisions: string[]): Promise<string> {
  const all = await statements(sql);
  const control = all.filter(({ node }) =>
    node.type === "TransactionStmt" && /BEGIN|START|COMMIT/.test(String(node.fields["kind"]))
  );
  if (control.length === 0) return sql;
  let text = sql;
  for (const { start, end } of control.toReversed()) {
    const behind = /^[ \t]*;?[ \t]*\n?/.exec(text.slice(end))![0].length;
    text = text.slice(0, start) + text.slice(end + behind);
  }
  const isOne = control.length === 2 && all[0] === control[0] && all.at(-1) === control[1];
  decisions.push(
    isOne
      ? "BEGIN and COMMIT around it were left out: it runs in a transaction anyway"
      : `${control.length} BEGIN and COMMIT were left out: it runs in one transaction, or, marked so, outside`,
  );
  return text;
}

/** What is done to the old tool's own table: it is that tool's, and no part of the schema. */
async function withoutBooks(sql: string, books: readonly string[], decisions: string[]): Promise<string> {
  const own = (await statements(sql)).filter(({ node: { type, fields } }) => {
    if (["CreateFunctionStmt", "DoStmt", "SelectStmt", "ViewStmt"].includes(type)) return false;
    const names = type === "DropStmt"
      ? nodesOf(fields["objects"]).map(({ fields: list }) => nameOf(list["items"]).name)
      : [tableOf(fields["relation"])?.name];
    return names.length > 0 && names.every((name) => name !== undefined && books.includes(name));
  });
  let text = sql;
  for (const { start, end } of own.toReversed()) {
    text = text.slice(0, start) + text.slice(end).replace(/^[ \t]*;?[ \t]*\n?/, "");
  }
  if (own.length > 0) {
    decisions.push(`${own.length} statement(s) about the old tool's own table were left out`);
  }
  return text;
}

/** Comments that are another tool's marks, which ours refuses. */
async function withoutMarks(sql: string, decisions: string[]): Promise<string> {
  let text = sql;
  for (;;) {
    const mark = await foreignMark(text, await statements(text));
    if (!mark) return text;
    const end = text.indexOf("\n", mark.offset);
    text = text.slice(0, mark.offset) + (end === -1 ? "" : text.slice(end + 1));
    decisions.push(`the comment ${mark.line} was left out`);
  }
}

/** The statements of a text; none where PostgreSQL cannot read it. */
async function statements(sql: string): Promise<readonly Statement[]> {
  try {
    return await parseStatements(sql);
  } catch (error) {
    if (error instanceof SqlSyntaxError) return [];
    throw error;
  }
}

async function canBeRead(sql: string): Promise<boolean> {
  return await parseStatements(sql).then(() => true, () => false);
}

/** What in a text cannot run in a transaction. */
async function runsOutside(sql: string): Promise<string | undefined> {
  return (await statements(sql)).map((one) => transactionClassOf(one).outside).find((outside) => outside);
}

async function problemsIn(sql: string, file: string): Promise<readonly string[]> {
  const migration: Migration = {
    ...{
      version: versionKey(file.split("_")[0]!),
      name: "",
      checksum: checksumOf(sql),
      sql,
      size: sql.length,
    },
    ...{ file, source: "import", directives: readDirectives(sql).directives },
  };
  const found = (await validateSql(migration)).filter(({ severity }) => severity === "error");
  const marks = found.some(({ code }) => code === "syntax" || code === "psql_command")
    ? placeholdersIn(sql)
    : [];
  if (marks.length > 0) return [`it holds placeholders: ${marks.join(", ")}; give --placeholder name=value`];
  return found.map(({ message, location }) => location ? `line ${location.line}: ${message}` : message);
}

function placeholdersIn(sql: string): readonly string[] {
  const marks = [...sql.matchAll(/\$\{[\w.:-]+\}|\{\{[^}\n]*\}\}|(?<![:\w'"]):"?[A-Za-z]\w*"?/g)].map((
    [mark],
  ) => mark);
  return [...new Set(marks)];
}
