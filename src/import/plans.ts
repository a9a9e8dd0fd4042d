/**
 * Tools whose order stands in a file or in headers: sqitch, graphile-migrate, Liquibase's formatted SQL; and Rails, whose
 * structure.sql is taken over as one migration.
 *
 * @module
 */

import { dirname, join } from "node:path";
import { codeMigration, compareTexts, type Files, type ForeignMigration, type Read } from "./foreign.ts";

/** Where sqitch has its files, by `sqitch.conf`; paths end with `/`. */
interface SqitchFolders {
  readonly plan: string;
  readonly deploy: string;
  readonly revert: string;
  readonly verify: string;
  /** Schema of its history. */
  readonly registry: string | undefined;
}

/** Whether a folder is of sqitch: where its plan is. */
export function sqitchFolders(files: Files): SqitchFolders | undefined {
  const settings = files.names.includes("sqitch.conf") ? settingsOf(files.text("sqitch.conf")) : new Map();
  const get = (name: string): string | undefined =>
    settings.get(`engine.pg.${name}`) ?? settings.get(`core.${name}`);
  const folder = (path: string) => path.replace(/^\.\//, "").replace(/\/*$/, "/").replace(/^\.?\/$/, "");
  const top = folder(get("top_dir") ?? ".");
  const below = (name: string) =>
    get(`${name}_dir`) === undefined ? `${top}${name}/` : folder(get(`${name}_dir`)!);
  const plan = get("plan_file")?.replace(/^\.\//, "") ?? `${top}sqitch.plan`;
  if (!files.names.includes(plan)) return undefined;
  return {
    ...{ plan, deploy: below("deploy"), revert: below("revert"), verify: below("verify") },
    registry: settings.get("engine.pg.registry"),
  };
}

/** Git's form of settings: `[engine "pg"]`, `key = value`. */
function settingsOf(text: string): Map<string, string> {
  const settings = new Map<string, string>();
  let section = "";
  for (const line of text.split(/\r?\n/)) {
    const head = /^\s*\[([\w-]+)(?:\s+"([^"]*)")?\]/.exec(line);
    if (head) section = [head[1], ...(head[2] === undefined ? [] : [head[2]])].join(".");
    const pair = /^\s*([\w-]+)\s*=\s*(.*?)\s*(?:[#;].*)?$/.exec(line);
    if (pair) settings.set(`${section}.${pair[1]}`, pair[2]!.replace(/^"(.*)"$/, "$1"));
  }
  return settings;
}

/**
 * sqitch: its plan has the order. A change that was reworked stands there twice; the older file is
 * `deploy/name@tag.sql`, with a tag that the plan has between the two.
 */
export function readSqitch(files: Files): Read {
  const folders = sqitchFolders(files)!;
  const instances: { name: string; tags: string[] }[] = [];
  const lines = files.text(folders.plan).split(/\r?\n/);
  for (const line of lines) {
    // A change may have a plus before it: it is deployed.
    const word = /^\s*(?:\+\s*)?([^\s%#+][^\s]*)/.exec(line)?.[1];
    if (word === undefined) continue;
    if (word.startsWith("@")) {
      for (const one of instances) one.tags.push(word);
    } else instances.push({ name: word, tags: [] });
  }
  const migrations = instances.map(({ name, tags }, index): ForeignMigration => {
    const later = instances.findIndex((other, at) => at > index && other.name === name);
    // The tags up to where it was reworked; its file is named by one of them.
    const between = later === -1 ? [] : tags.slice(0, tags.length - instances[later]!.tags.length);
    const tag = between.findLast((one) => files.names.includes(`${folders.deploy}${name}${one}.sql`)) ??
      between.at(-1);
    const stem = later === -1 ? name : `${name}${tag ?? ""}`;
    const file = `${folders.deploy}${stem}.sql`;
    const count = instances.slice(0, index).filter((other) => other.name === name).length;
    const key = `${name}#${count}`;
    // The plan has it, and there is no such file: it keeps its place.
    if (!files.names.includes(file)) return codeMigration({ key, version: undefined, title: name, file });
    const revert = `${folders.revert}${stem}.sql`;
    return {
      ...{ key, version: undefined, title: name, file, up: files.text(file) },
      down: files.names.includes(revert) ? files.text(revert) : undefined,
      noTransaction: false,
      decisions: later === -1 ? [] : [`${name} was reworked later: this is ${stem}`],
    };
  });
  const verify = files.names.filter((name) => name.startsWith(folders.verify));
  for (const name of verify) files.know(name);
  return {
    migrations,
    problems: [],
    decisions: verify.length > 0 ? ["verify scripts were left out: there is no counterpart"] : [],
    book: {
      schema: folders.registry,
      project: lines.map((line) => /^\s*%project\s*=\s*(\S+)/.exec(line)?.[1]).find(Boolean),
    },
  };
}

/** graphile-migrate: `committed/000001[-message].sql`. */
export function readGraphile(files: Files): Read {
  const prefix = files.names.some((name) => name.startsWith("committed/")) ? "committed/" : "";
  const own = files.names.filter((name) =>
    name.startsWith(prefix) && /^\d+.*\.sql$/.test(name.slice(prefix.length))
  );
  const migrations = own.map((file): ForeignMigration => {
    const text = files.text(file);
    const name = file.slice(prefix.length);
    const [, version, title] = /^(\d+)-?(.*)\.sql$/.exec(name)!;
    const message = /^--! Message: *(.*)$/m.exec(text)?.[1];
    const hash = /^--! Hash: *(\S+)/m.exec(text)?.[1];
    return {
      ...{ key: version!, version: version!, title: title || message || "committed", file },
      // Its header; a line that begins so further down may be one of a text.
      up: text.replace(/^(?:--!.*\r?\n)+/, "").trim(),
      ...(hash ? { checksum: hash } : {}),
      down: undefined,
      noTransaction: /^--! no-transaction\b/m.test(text),
      decisions: [],
    };
  }).sort((a, b) => compareTexts(a.key, b.key));
  const current = files.names.find((name) => /^current(?:\.sql|\/)/.test(name));
  if (current) files.know(current);
  return {
    migrations,
    problems: [],
    decisions: [
      "graphile-migrate keeps no way back: there are no down files",
      ...(current ? [`${current} was left out: it is not committed yet`] : []),
    ],
  };
}

/** Attributes of a change set that change what a run of it means. */
const TOLD: Readonly<Record<string, string>> = {
  runonchange: "Liquibase runs it whenever it has changed; here it runs once",
  runalways: "Liquibase runs it each time; here it runs once",
  context: "it has a context, and runs in every one here",
  contextfilter: "it has a context, and runs in every one here",
  labels: "it has labels, and runs with any here",
  failonerror: "Liquibase may go on when it fails; here a failure ends the run",
  enddelimiter: "it has a delimiter of its own: statements end with a semicolon here",
};

/** The first line, which makes a file one of change sets. */
const FORMATTED = /^\s*--\s*liquibase\s+formatted\s+sql\b(.*)/i;
const isFormatted = (text: string) => FORMATTED.test(text.replace(/^\ufeff/, ""));
/** A change set's header; the author may have blanks, the id where it is quoted. */
const CHANGE_SET = /^\s*--\s*changeset\s+("[^"]+"|[^:"]+):\s*("[^"]+"|\S+)(.*)$/i;
const unquoted = (word: string) => word.trim().replace(/^"(.*)"$/, "$1");

/** Liquibase's formatted SQL: each change set is a migration of its own. */
export function readLiquibase(files: Files): Read {
  const decisions: string[] = [];
  const logs = files.names.filter((name) =>
    /\.(?:xml|ya?ml|json)$/.test(name) && /databaseChangeLog\b/.test(files.text(name))
  );
  const ordered = orderOf(logs, files);
  const own = ordered.length > 0 ? ordered : files.names.filter((name) => name.endsWith(".sql"));
  const migrations = own.flatMap((file) => {
    const text = files.text(file);
    if (isFormatted(text)) return changeSetsOf(text, file, decisions);
    // Such a file is one change set where its folder is included whole.
    return [{
      ...{ key: `raw::includeAll::${file}`, version: undefined, title: `raw_${titleOf(file)}`, file },
      ...{ up: text, down: undefined, noTransaction: false },
      decisions: ["it has no header: Liquibase runs it where its folder is included whole, and so does this"],
    }];
  });
  const isGuess = ordered.length === 0 && new Set(own).size > 1;
  return {
    migrations,
    problems: logs.filter((name) => /\bchangeSet\b/.test(files.text(name)))
      .map((file) => ({ file, message: "is no SQL: write what its change sets do as migrations" })),
    decisions: [
      ...decisions,
      ...(ordered.length > 0 ? [`files were read in the order of ${logs.join(", ")}`] : []),
      ...(isGuess
        ? [
          "files were read in the order of their names: where a change log has another one, import its folder with it",
        ]
        : []),
    ],
  };
}

/** What a change log includes: files, or folders whole. */
const INCLUDED = /(?:^|[\s<{,"'])(file|path)["']?\s*[:=]\s*["']?([^"'\s,}>]+)/g;

/** Files of SQL in the order in which change logs include them, from those that none includes on. */
function orderOf(logs: readonly string[], files: Files): readonly string[] {
  const beside = (log: string, path: string) => join(dirname(log), path).replace(/^\.\//, "");
  const find = (log: string, path: string) => {
    const bare = path.replace(/^classpath:/, "").replace(/^\.?\//, "");
    return files.names.find((name) => name === beside(log, bare)) ??
      files.names.find((name) => name === bare || bare.endsWith(`/${name}`) || name.endsWith(`/${bare}`));
  };
  const within = (log: string, path: string) => {
    const bare = path.replace(/^classpath:/, "").replace(/^\.?\//, "").replace(/\/*$/, "/");
    const folder = beside(log, bare);
    return files.names.filter((name) =>
      name.startsWith(folder) || name.startsWith(bare) || name.includes(`/${bare}`)
    );
  };
  const includedBy = new Map(logs.map((log) => [
    log,
    [...files.text(log).matchAll(INCLUDED)].flatMap(([, kind, path]) =>
      kind === "file" ? find(log, path!) ?? [] : within(log, path!)
    ),
  ]));
  const included = new Set([...includedBy.values()].flat());
  const order = new Set<string>();
  const walk = (name: string, above: readonly string[]): void => {
    if (above.includes(name)) return;
    if (name.endsWith(".sql")) order.add(name);
    else for (const one of includedBy.get(name) ?? []) walk(one, [...above, name]);
  };
  for (const log of logs.filter((name) => !included.has(name))) walk(log, []);
  return [...order];
}

interface ChangeSet {
  readonly id: string;
  readonly author: string;
  readonly attributes: ReadonlyMap<string, string>;
  readonly lines: string[];
}

function changeSetsOf(text: string, file: string, decisions: string[]): readonly ForeignMigration[] {
  const properties = new Map<string, string>();
  const logicalPath = /\blogicalFilePath:\s*("[^"]*"|\S+)/i.exec(
    FORMATTED.exec(text.replace(/^\ufeff/, ""))?.[1] ?? "",
  )?.[1];
  const sets: ChangeSet[] = [];
  let ignored = 0;
  for (const line of text.replace(/^\ufeff/, "").split(/(?<=\n)/)) {
    const header = CHANGE_SET.exec(line.trimEnd());
    const property = /^\s*--\s*property\s+name[:=]\s*(\S+)\s+value[:=]\s*(.*?)\s*$/i.exec(line);
    const ignore = /^\s*--\s*ignoreLines:\s*(\d+|start|end)\b/i.exec(line)?.[1]?.toLowerCase();
    if (ignore !== undefined) {
      ignored = ignore === "start" ? Infinity : ignore === "end" ? 0 : Number(ignore);
    } else if (ignored > 0) ignored--;
    else if (property) {
      setProperty(properties, property[1]!, property[2]!);
    } else if (header) {
      sets.push({
        ...{ author: unquoted(header[1]!), id: unquoted(header[2]!), lines: [] },
        attributes: new Map(
          [...header[3]!.matchAll(/(\w+):\s*("[^"]*"|\S+)/g)].map(([, name, value]) =>
            [name!.toLowerCase(), unquoted(value!)] as const
          ),
        ),
      });
    } else sets.at(-1)?.lines.push(line);
  }
  return sets.flatMap(({ id, author, attributes, lines }): ForeignMigration[] => {
    const named = `${file}: the change set ${author}:${id} was left out`;
    const dbms = attributes.get("dbms");
    if (dbms !== undefined && !isForPostgres(dbms)) {
      decisions.push(`${named}: it is for ${dbms}`);
      return [];
    }
    if (attributes.get("ignore")?.toLowerCase() === "true") {
      decisions.push(`${named}: Liquibase ignores it`);
      return [];
    }
    const undo = lines.flatMap((line) => /^\s*--\s*rollback\s+(.*?)\s*$/i.exec(line)?.[1] ?? []);
    const up = lines.filter((line) =>
      !/^\s*--\s*(?:rollback|comment:?|precondition\S*|validCheckSum:?)(?:\s|$)/i.test(line)
    );
    const told = [...attributes.keys()].flatMap((name) => TOLD[name] ?? []);
    const conditions = lines.filter((line) => /^\s*--\s*precondition/i.test(line)).join(" ");
    // Where it would have halted, it has held.
    const isConditional = /\bon(?:Fail|Error):\s*"?(?:MARK_RAN|CONTINUE)/i.test(conditions);
    if (conditions !== "" && !isConditional) {
      told.push("its preconditions were left out: Liquibase halts where they fail");
    }
    const filled = (sql: string) =>
      sql.replace(/\$\{([\w.-]+)\}/g, (mark, name) => properties.get(name) ?? mark);
    return [{
      key: `${id}::${author}::${attributes.get("logicalfilepath") ?? unquoted(logicalPath ?? file)}`,
      ...{ version: undefined, title: `${id}_${titleOf(file)}`, file },
      up: filled(up.join("").trim()),
      down: undo.length > 0 && !/^(?:empty|not required)$/i.test(undo.join(" ").trim())
        ? filled(undo.join("\n"))
        : undefined,
      noTransaction: attributes.get("runintransaction")?.toLowerCase() === "false",
      decisions: told,
      problems: isConditional
        ? ["it runs only where its precondition holds: write it as a DO block with an IF, or leave it out"]
        : [],
    }];
  });
}

/** The first one of a name counts, of those that are for PostgreSQL. */
function setProperty(properties: Map<string, string>, name: string, rest: string): void {
  const [, value, conditions = ""] =
    /^(.*?)((?:\s+(?:dbms|context|contextFilter|labels|global)[:=]\s*\S+)*)$/i.exec(rest)!;
  const dbms = /\bdbms[:=]\s*(\S+)/i.exec(conditions)?.[1];
  if (!properties.has(name) && (dbms === undefined || isForPostgres(unquoted(dbms)))) {
    properties.set(name, value!);
  }
}

/** `postgresql,h2`, `!oracle`, `all`: whether PostgreSQL is among them. */
function isForPostgres(dbms: string): boolean {
  const names = dbms.split(",").map((name) => name.trim().toLowerCase());
  if (names.includes("none") || names.includes("!postgresql")) return false;
  const isAny = names.includes("all") || names.includes("postgresql");
  return isAny || names.every((name) => name.startsWith("!"));
}

const titleOf = (file: string) => file.replace(/^.*\//, "").replace(/\.sql$/, "").replace(/^\d+[_-]?/, "");

/** Rails: structure.sql, as one migration that a database which has run all of Rails' own is taken to have. */
export function readRails(files: Files): Read {
  const file = files.names.find((name) => /(?:^|\/)structure\.sql$/.test(name))!;
  const text = files.text(file);
  // Rails has written one INSERT of all versions, or one of each.
  const OWN = /^INSERT INTO (?:"?public"?\.)?"?schema_migrations"?[^;]*;[ \t]*\r?\n?/gim;
  const inserts = [...text.matchAll(OWN)].map(([insert]) => insert).join("");
  const versions = [...inserts.matchAll(/\(\s*'?(\d+)'?\s*\)/g)].map(([, version]) => version!).toSorted(
    compareTexts,
  );
  // Rails' own books are no part of the schema.
  const up = text.replace(OWN, "");
  return {
    migrations: [{
      ...{ key: versions.at(-1) ?? "", also: versions.slice(0, -1), version: undefined, title: "structure" },
      ...{ file, up, down: undefined, noTransaction: false },
      decisions: [`it stands for the ${versions.length} migrations that Rails has run`],
    }],
    problems: versions.length > 0
      ? []
      : [{ file, message: "names no version of schema_migrations: what it stands for cannot be told" }],
    decisions: [],
  };
}
