/**
 * Tools that keep the way up and the way down in two files or a folder, or know no way down: golang-migrate, pop, sqlx,
 * knex, diesel, prisma, flyway.
 *
 * @module
 */

import { basename, dirname } from "node:path";
import type { Files, ForeignMigration, Read } from "./foreign.ts";
import { compareNumbers } from "./sections.ts";

const isCode = (name: string) =>
  /^\d+.*\.(?:go|js|ts|mjs|cjs|py|rb|fizz)$/.test(basename(name)) && !/_test\.go$/.test(name);
const asCode = (file: string) => ({
  file,
  message: "is code, and no SQL: write what it does as a migration",
});
const PAIR = /^(\d+)[_-](.+?)\.(up|down)\.sql$/;
const PLAIN = /^(\d+)[_-](.+)\.sql$/;
const key = (version: string) => version.replace(/^0+(?=\d)/, "");

/** golang-migrate, sqlx, knex: `NNN_name.up.sql`, `NNN_name.down.sql`, or `NNN_name.sql`. */
export function readPairs(files: Files, tool: "golang-migrate" | "sqlx" | "knex"): Read {
  const decisions: string[] = [];
  // Boundary and its like have a folder for each release, by number.
  const isNumbered = files.names.some((name) => /^\d+\/\d+_.*\.up\.sql$/.test(name));
  if (isNumbered) {
    decisions.push("folders with numbers for names were read in their order, one after the other");
  }
  const names = files.names.filter((name) => isNumbered ? /^\d+\/[^/]+$/.test(name) : !name.includes("/"));
  const downs = new Map<string, string>();
  for (const name of names) {
    const [, version, title, direction] = PAIR.exec(basename(name)) ?? [];
    if (direction === "down") downs.set(`${dirname(name)}/${version}_${title}`, name);
  }
  const migrations = names.flatMap((file): ForeignMigration[] => {
    const name = basename(file);
    const pair = PAIR.exec(name);
    const match = pair ?? PLAIN.exec(name);
    if (!match || pair?.[3] === "down" || /\.down\.sql$/.test(name)) return [];
    const [, version, title] = match;
    const text = files.text(file);
    const down = downs.get(`${dirname(file)}/${version}_${title}`);
    return [{
      key: tool === "knex" ? name.replace(/(?:\.up)?\.sql$/, "") : key(version!),
      ...{ version: version!, title: title!, file, up: text, down: down && files.text(down) },
      noTransaction: tool === "sqlx" && /^--\s*no-transaction\b/.test(text),
      decisions: [],
    }];
  });
  migrations.sort((a, b) =>
    (isNumbered ? compareNumbers(dirname(a.file), dirname(b.file)) : 0) ||
    compareNumbers(a.version!, b.version!) || (a.file < b.file ? -1 : 1)
  );
  return {
    migrations: isNumbered ? migrations.map((one) => ({ ...one, version: undefined })) : migrations,
    problems: names.filter(isCode).map(asCode),
    decisions,
  };
}

/** Databases that pop and its like name in a file's name. */
const DIALECT = /\.(postgres(?:ql)?|cockroach|mysql|sqlite3?|mssql)$/;

/** pop: `NNN_name[.dialect][.autocommit].up.sql`. A file for PostgreSQL goes before the one for all. */
export function readPop(files: Files): Read {
  const found = new Map<string, { file: string; isOwn: boolean; noTransaction: boolean }>();
  const left = new Set<string>();
  for (const file of files.names.filter((name) => PAIR.test(name))) {
    const [, version, words, direction] = PAIR.exec(file)!;
    const noTransaction = /\.autocommit\b/.test(words!);
    const rest = words!.replace(/\.autocommit\b/, "");
    const dialect = DIALECT.exec(rest)?.[1];
    if (dialect && !dialect.startsWith("postgres")) {
      left.add(dialect);
      continue;
    }
    const id = `${version}_${rest.replace(DIALECT, "")}.${direction}`;
    if (!found.get(id) || dialect) found.set(id, { file, isOwn: dialect !== undefined, noTransaction });
  }
  const migrations = [...found].filter(([id]) => id.endsWith(".up")).map(([id, { file, noTransaction }]) => {
    const down = found.get(id.replace(/\.up$/, ".down"));
    const [, version, title] = /^(\d+)_(.*)\.up$/.exec(id)!;
    return {
      ...{ key: key(version!), version: version!, title: title!, file, up: files.text(file) },
      ...{ down: down && files.text(down.file), noTransaction, decisions: [] },
    };
  }).sort((a, b) => compareNumbers(a.version, b.version));
  return {
    migrations,
    problems: files.names.filter(isCode).map(asCode),
    decisions: left.size > 0 ? [`files for ${[...left].sort().join(", ")} were left out`] : [],
  };
}

/** diesel: `<date>_name/up.sql`, `down.sql`, `metadata.toml`. */
export function readDiesel(files: Files): Read {
  const folders = [
    ...new Set(files.names.filter((name) => /^[^/]+\/up\.sql$/.test(name)).map((name) => dirname(name))),
  ];
  const problems: Read["problems"][number][] = [];
  const migrations = folders.flatMap((folder): ForeignMigration[] => {
    const match = /^([\d-]*\d)[_-](.*)$/.exec(folder) ?? /^(\d+)(.*)$/.exec(folder);
    if (!match) {
      problems.push({ file: folder, message: "has no version in its name" });
      return [];
    }
    const version = match[1]!.replaceAll("-", "");
    const has = (name: string) => files.names.includes(`${folder}/${name}`);
    const metadata = has("metadata.toml") ? files.text(`${folder}/metadata.toml`) : "";
    return [{
      ...{
        key: version,
        version,
        title: match[2]!,
        file: `${folder}/up.sql`,
        up: files.text(`${folder}/up.sql`),
      },
      down: has("down.sql") ? files.text(`${folder}/down.sql`) : undefined,
      noTransaction: /^\s*run_in_transaction\s*=\s*false/m.test(metadata),
      decisions: [],
    }];
  });
  // Diesel compares versions as texts.
  migrations.sort((a, b) => a.version! < b.version! ? -1 : a.version! > b.version! ? 1 : 0);
  return { migrations, problems, decisions: [] };
}

/** prisma: `<date>_name/migration.sql`, in the order of the folders' names. */
export function readPrisma(files: Files): Read {
  const migrations = files.names.filter((name) => /^[^/]+\/migration\.sql$/.test(name)).map((file) => {
    const folder = dirname(file);
    const match = /^(\d+)_?(.*)$/.exec(folder);
    return {
      ...{ key: folder, version: match?.[1], title: match?.[2] || folder, file, up: files.text(file) },
      ...{ down: undefined, noTransaction: false, decisions: [] },
    };
  }).sort((a, b) => a.key < b.key ? -1 : 1);
  return { migrations, problems: [], decisions: ["prisma keeps no way back: there are no down files"] };
}

/** `1.02_3` as Flyway compares it: numbers, the zeros at their end left out. */
export function flywayVersion(text: string): string {
  return text.split(/[._]/).map((part) => part.replace(/^0+(?=\d)/, "")).join(".").replace(/(?:\.0)+$/, "");
}

/** flyway: `V1.2__name.sql`, `U1.2__name.sql` undoes it, `R__name.sql` runs whenever it has changed. */
export function readFlyway(files: Files): Read {
  const named = files.names.flatMap((file) => {
    const match = /^([VUR])([\d._]*)__(.*)\.sql$/.exec(basename(file));
    return match ? [{ file, kind: match[1]!, version: flywayVersion(match[2]!), title: match[3]! }] : [];
  });
  const undo = new Map(named.filter(({ kind }) => kind === "U").map(({ version, file }) => [version, file]));
  const conf = (file: string) => files.names.includes(`${file}.conf`) ? files.text(`${file}.conf`) : "";
  const asMigration = ({ file, kind, version, title }: typeof named[number]): ForeignMigration => {
    const down = kind === "V" ? undo.get(version) : undefined;
    return {
      ...{
        key: kind === "R" ? file : version,
        version: /^\d+$/.test(version) ? version : undefined,
        title,
        file,
      },
      ...{ up: files.text(file), down: down && files.text(down) },
      noTransaction: /^\s*executeInTransaction\s*=\s*false/m.test(conf(file)),
      decisions: kind === "R"
        ? [
          "Flyway runs it whenever it has changed; here it is a migration, and runs once, as one of the last",
        ]
        : [],
    };
  };
  const versioned = named.filter(({ kind }) => kind === "V").sort((a, b) =>
    compareDotted(a.version, b.version)
  );
  const repeatable = named.filter(({ kind }) => kind === "R").sort((a, b) => a.title < b.title ? -1 : 1);
  const all = [...versioned, ...repeatable].map(asMigration);
  const isWhole = all.every(({ version }) => version !== undefined);
  const callbacks = files.names.filter((name) =>
    /^(?:before|after)[A-Z]\w*(?:__.*)?\.sql$/.test(basename(name))
  );
  return {
    migrations: isWhole ? all : all.map((one) => ({ ...one, version: undefined })),
    problems: files.names.filter((name) => /^[VR].*__.*\.(?:java|class|kt|js)$/.test(basename(name))).map(
      asCode,
    ),
    decisions: callbacks.map((file) =>
      `the callback ${file} was left out: Flyway alone knows when to run it`
    ),
  };
}

function compareDotted(a: string, b: string): number {
  const [x, y] = [a.split("."), b.split(".")];
  for (let index = 0; index < Math.max(x.length, y.length); index++) {
    const order = compareNumbers(x[index] || "0", y[index] || "0");
    if (order !== 0) return order;
  }
  return 0;
}
