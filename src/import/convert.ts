/**
 * Makes files of ours out of another tool's migrations: versions and names, and SQL that can run the way ours runs.
 *
 * @module
 */

import { checksumOf } from "../migrations/checksum.ts";
import { nameOfWords } from "../migrations/name.ts";
import { isReserved } from "../migrations/discover.ts";
import { withoutForeignMarks } from "../migrations/dialects.ts";
import { readDirectives } from "../migrations/directives.ts";
import { type Migration, versionKey } from "../migrations/migration.ts";
import { validateSql } from "../migrations/validate.ts";
import { parseStatements, SqlSyntaxError, type Statement } from "../sql/statements.ts";
import { nameOf, nodesOf, tableOf } from "../sql/tree.ts";
import { transactionClassOf } from "../sql/transactions.ts";
import { BOOKS, type ForeignFolder, type ForeignMigration, type Tool } from "./foreign.ts";
import { fillPlaceholders, placeholdersIn } from "./placeholders.ts";
import { withoutPsql } from "./psql.ts";

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
  /** Whether it is no SQL: somebody has to write the file. */
  readonly isCode: boolean;
  /** What the old history would keep of its text. */
  readonly checksum?: string | undefined;
}

/** Values for placeholders, by name. */
export type Placeholders = Readonly<Record<string, string>>;

const NO_TRANSACTION = "-- pipeweave: no-transaction\n";

/** What is taken out of a text, and filled in. */
interface Cleaning {
  readonly tool: Tool;
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
  const cleaning = {
    tool: folder.tool,
    placeholders,
    books: ["schema_migrations", "ar_internal_metadata", ...own],
  };
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
  const kept = given.every((version) => version !== undefined) ? keptVersions(given as string[]) : undefined;
  if (!kept || kept.some(({ version }) => isReserved(version))) {
    const width = Math.max(3, String(given.length).length);
    return given.map((old, index) => {
      const version = String(index + 1).padStart(width, "0");
      return { version, decision: old === undefined ? undefined : `its version ${old} became ${version}` };
    });
  }
  return kept;
}

function keptVersions(given: readonly string[]): readonly Numbered[] {
  const length = commonLength(given);
  let last = -1n;
  return given.map((old) => {
    // A date of another length is one that is less, or more, exact.
    const fitted = length >= 8 && old.length >= 8 ? old.slice(0, length).padEnd(length, "0") : old;
    let version = fitted;
    if (BigInt(version) <= last) {
      version = String(last + 1n).padStart(fitted.length, "0");
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
  const problems = [...foreign.problems ?? []];
  const name = shortened(nameOfWords(foreign.title)) || "migration";
  if (foreign.isCode) {
    const message = `is code, or missing, and no SQL: write what it does as ${version}_${name}.sql`;
    const { key, file: from } = foreign;
    return {
      key,
      version,
      name,
      from,
      sql: "",
      down: undefined,
      decisions,
      problems: [message],
      isCode: true,
    };
  }
  const up = await cleaned(foreign.up, { ...cleaning, decisions, problems });
  const isOutside = await runsOutside(up);
  const noTransaction = foreign.noTransaction || isOutside !== undefined;
  if (isOutside && !foreign.noTransaction) {
    decisions.push(`it runs outside a transaction: it holds ${isOutside}`);
  }
  const isEmpty = (await statements(up)).length === 0 && await canBeRead(up);
  if (isEmpty) decisions.push("it holds no statement");
  const body = isEmpty ? `${up === "" ? "-- The file of the old tool was empty." : up}\nSELECT 1;` : up;
  const sql = `${noTransaction ? NO_TRANSACTION : ""}${body}\n`;
  problems.push(...await problemsIn(sql, `${version}_${name}.sql`, cleaning));
  const down = foreign.down === undefined ? undefined : await convertDown(foreign.down, {
    ...cleaning,
    ...{ version, name, decisions },
  });
  return {
    ...{ key: foreign.key, version, name, from: foreign.file, sql, down, decisions, problems },
    isCode: false,
    checksum: foreign.checksum,
  };
}

/** Bytes of a name: with version, `.down.sql` and a draft's own end it has to fit what file systems take. */
const LONGEST_NAME = 150;

function shortened(name: string): string {
  const characters = [...name];
  while (new TextEncoder().encode(characters.join("")).length > LONGEST_NAME) characters.pop();
  return characters.join("").replace(/_+$/, "");
}

async function convertDown(
  text: string,
  { version, name, tool, placeholders, books, decisions }: Cleaning & {
    readonly version: string;
    readonly name: string;
    readonly decisions: string[];
  },
): Promise<string | undefined> {
  const own: string[] = [];
  let down = await cleaned(text, { tool, placeholders, books, decisions: own, problems: [] });
  if (await runsOutside(down)) {
    down = await withoutConcurrently(down);
    own.push("CONCURRENTLY was left out, since roll-backs run in a transaction");
  }
  if ((await statements(down)).length === 0) return undefined;
  const [problem] = await problemsIn(`${down}\n`, `${version}_${name}.down.sql`, {
    ...{ tool, placeholders, books },
  });
  if (problem) {
    decisions.push(`its way down was left out: ${problem}`);
    return undefined;
  }
  decisions.push(...own.filter((one) => !one.startsWith("it sets ")).map((one) => `way down: ${one}`));
  return `${down}\n`;
}

/** CONCURRENTLY stands behind INDEX, or behind a partition that is detached, and where the statement has it first. */
async function withoutConcurrently(sql: string): Promise<string> {
  let text = sql;
  for (const { start, end } of (await statements(sql)).toReversed()) {
    const statement = text.slice(start, end).replace(
      /^([^'"$]*?\b(?:INDEX|PARTITION\s+\S+))\s+CONCURRENTLY\b/i,
      "$1",
    );
    text = text.slice(0, start) + statement + text.slice(end);
  }
  return text;
}

async function cleaned(
  text: string,
  { tool, placeholders, books, decisions, problems }: Cleaning & {
    readonly decisions: string[];
    readonly problems: string[];
  },
): Promise<string> {
  if (text.includes("\r\n")) {
    decisions.push("its lines end with CR and LF, which ours sends as LF, in strings too");
  }
  const plain = await withoutPsql(text.replace(/^\ufeff/, ""), decisions);
  let sql = fillPlaceholders(plain, tool, placeholders, decisions);
  sql = await withoutTransactions(sql, decisions, problems);
  sql = await withoutBooks(sql, books, decisions);
  const unmarked = await withoutForeignMarks(sql, await statements(sql));
  if (unmarked.lines.length > 0) {
    decisions.push('comments that ours would take for marks of another tool became remarks: "was: …"');
  }
  if (!ALONE.includes(tool)) await tellSettings(sql, decisions);
  return unmarked.text.trim();
}

/** `set_config('search_path', 'app', false)`. */
const SET_CONFIG =
  /\bset_config\s*\(\s*'([^']+)'\s*,\s*(?:'(?:[^']|'')*'|[^',()]+)\s*,\s*'?f(?:alse)?'?\s*\)/gi;

/** Tools that give each file a session of its own, or have one file. */
const ALONE: readonly Tool[] = ["sqitch", "rails"];

/** Most old tools run all files in one session, so what a file sets holds for those behind it, until it is reset. */
async function tellSettings(sql: string, decisions: string[]): Promise<void> {
  const set = new Set<string>();
  for (const { start, end, node: { type, fields } } of await statements(sql)) {
    // A function's body sets nothing when it is made.
    if (type === "SelectStmt" || type === "DoStmt") {
      for (const [, name] of sql.slice(start, end).matchAll(SET_CONFIG)) set.add(name!);
    }
    if (type !== "VariableSetStmt" || fields["is_local"] === true) continue;
    const [name, kind] = [String(fields["name"]), String(fields["kind"])];
    if (kind === "VAR_RESET_ALL") set.clear();
    else if (kind === "VAR_RESET" || kind === "VAR_SET_DEFAULT") set.delete(name);
    else if (kind === "VAR_SET_VALUE") set.add(name);
  }
  if (set.size === 0) return;
  decisions.push(
    `it sets ${
      [...set].join(", ")
    }, which the old tool may keep for the files behind it: here each file starts anew`,
  );
}

/** BEGIN and COMMIT go, since each of our files runs in a transaction of its own, or says that it does not. */
async function withoutTransactions(sql: string, decisions: string[], problems: string[]): Promise<string> {
  const all = await statements(sql);
  const control = all.filter(({ node }) =>
    node.type === "TransactionStmt" && /^TRANS_STMT_(?:BEGIN|START|COMMIT)$/.test(String(node.fields["kind"]))
  );
  if (control.length === 0) return sql;
  if (
    all.some(({ node }) => node.type === "TransactionStmt" && node.fields["kind"] === "TRANS_STMT_ROLLBACK")
  ) {
    problems.push("it rolls a part of itself back: take out what is undone, with its BEGIN and ROLLBACK");
    return sql;
  }
  let text = sql;
  for (const { start, end } of control.toReversed()) {
    const behind = /^[ \t]*;?[ \t]*\r?\n?/.exec(text.slice(end))![0].length;
    text = text.slice(0, start) + text.slice(end + behind);
  }
  const isOne = control.length === 2 && all[0] === control[0] && all.at(-1) === control[1];
  if (!isOne && all.some(isOfItsTransaction)) {
    problems.push(
      "it has several transactions, and one of them sets what ends with it (SET LOCAL, ON COMMIT): split it by hand",
    );
  }
  decisions.push(
    isOne
      ? "BEGIN and COMMIT around it were left out: it runs in a transaction anyway"
      : `${control.length} BEGIN or COMMIT were left out: what they parted runs in one transaction, or, where the file is marked so, outside of any`,
  );
  return text;
}

/** What holds until its transaction ends. */
function isOfItsTransaction({ node: { type, fields } }: Statement): boolean {
  return type === "VariableSetStmt" && fields["is_local"] === true || type === "ConstraintsSetStmt" ||
    type === "CreateStmt" && ["ONCOMMIT_DROP", "ONCOMMIT_DELETE_ROWS"].includes(String(fields["oncommit"]));
}

/** What is done to the old tool's own table: it is that tool's, and no part of the schema. */
async function withoutBooks(sql: string, books: readonly string[], decisions: string[]): Promise<string> {
  const own = (await statements(sql)).filter(({ node: { type, fields } }) => {
    if (["CreateFunctionStmt", "DoStmt", "SelectStmt", "ViewStmt"].includes(type)) return false;
    const named = type === "DropStmt"
      ? nodesOf(fields["objects"]).map(({ fields: list }) => nameOf(list["items"]))
      : [tableOf(fields["relation"])];
    // In another schema it is a table of the user's.
    return named.length > 0 &&
      named.every((one) =>
        one !== undefined && books.includes(one.name) && ["", "public"].includes(one.schema ?? "")
      );
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

async function problemsIn(
  sql: string,
  file: string,
  { tool, placeholders }: Cleaning,
): Promise<readonly string[]> {
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
  const isUnreadable = found.some(({ code }) => code === "syntax" || code === "psql_command");
  const marks = placeholdersIn(sql, tool, isUnreadable, Object.keys(placeholders));
  const parts = marks.flatMap((mark) => /^\{\{-?\s*template\s+"([^"]*)"/.exec(mark)?.[1] ?? []);
  if (parts.length > 0) {
    return [`it is made of other files: put their text in its place: ${parts.join(", ")}`];
  }
  if (marks.length > 0) return [`it holds placeholders: ${marks.join(", ")}; give --placeholder name=value`];
  return found.map(({ message, location }) => location ? `line ${location.line}: ${message}` : message);
}
