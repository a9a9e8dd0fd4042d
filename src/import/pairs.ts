/**
 * Tools that keep the way up and the way down in two files or a folder, or know no way down: golang-migrate, pop, sqlx,
 * knex, diesel, prisma, flyway.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { basename, dirname } from "node:path";
import {
  CODE,
  codeMigration,
  compareNumbers,
  compareTexts,
  type Files,
  type ForeignMigration,
  numberOf,
  type Read,
} from "./foreign.ts";
import { numberedOrNot } from "./sections.ts";

const PAIR = /^(\d+)[_-](.+?)\.(up|down)\.sql$/;

/** A program whose name begins with a version. */
function asCode(file: string): ForeignMigration[] {
  const [, version, title] = /^(\d+)[_-](.*)\.[^.]+$/.exec(basename(file)) ?? [];
  if (version === undefined || !CODE.test(file) || /_test\.go$/.test(file)) return [];
  return [codeMigration({ key: numberOf(version), version, title: title!, file })];
}

/**
 * golang-migrate: `NNN_name.up.sql` and `NNN_name.down.sql` with any end, at the top of the folder. The version alone makes
 * them a pair.
 */
export function readGolangMigrate(files: Files): Read {
  const NAME = /^(\d+)_(.*)\.(up|down)\.(.*)$/;
  const top = files.names.filter((name) => !name.includes("/"));
  // Boundary and its like have a folder for each release, by number, and a program that reads them in turn.
  const isNumbered = !top.some((name) => NAME.test(name)) &&
    files.names.some((name) => /^\d+\/\d+_.*\.up\.sql$/.test(name));
  const names = isNumbered ? files.names.filter((name) => /^\d+\/[^/]+$/.test(name)) : top;
  const partOf = (file: string) => `${dirname(file)}/${numberOf(NAME.exec(basename(file))![1]!)}`;
  const titleOf = (file: string) => NAME.exec(basename(file))![2]!;
  const downs = names.filter((file) => NAME.exec(basename(file))?.[3] === "down");
  /** Of several of one version the one of that name; the version alone decides where there is one. */
  const downOf = (file: string) => {
    const own = downs.filter((down) => partOf(down) === partOf(file));
    return own.length === 1 ? own[0] : own.find((down) => titleOf(down) === titleOf(file));
  };
  const migrations = names.flatMap((file): ForeignMigration[] => {
    const match = NAME.exec(basename(file));
    if (!match) return asCode(file);
    const [, version, title, direction] = match as unknown as [string, string, string, string];
    const key = numberOf(version);
    if (direction === "down") {
      const hasUp = names.some((other) =>
        NAME.exec(basename(other))?.[3] === "up" && partOf(other) === partOf(file)
      );
      if (hasUp || downOf(file) !== file) return [];
      return [{
        ...{ key, version, title, file, up: "", down: files.text(file), noTransaction: false },
        decisions: ["it has a way down alone: golang-migrate runs nothing on the way up"],
      }];
    }
    const down = downOf(file);
    if (CODE.test(file)) {
      const code = codeMigration({ key, version, title, file });
      if (down) files.know(down);
      return [down ? { ...code, decisions: [`its way down, ${down}, is yours to take over with it`] } : code];
    }
    return [{
      ...{ key, version, title, file, up: files.text(file), down: down && files.text(down) },
      ...{ noTransaction: false, decisions: [] },
    }];
  });
  migrations.sort((a, b) =>
    (isNumbered ? compareNumbers(dirname(a.file), dirname(b.file)) : 0) ||
    compareNumbers(a.version!, b.version!) || compareTexts(a.file, b.file)
  );
  return {
    migrations: isNumbered ? migrations.map((one) => ({ ...one, version: undefined })) : migrations,
    problems: [],
    decisions: isNumbered
      ? ["folders with numbers for names were read in their order, one after the other"]
      : [],
  };
}

/** sqlx: `NNN_name.sql`, or `NNN_name.up.sql` and `NNN_name.down.sql`. */
export function readSqlx(files: Files): Read {
  const own = files.names.filter((file) => /^\d+_[^/]*\.sql$/.test(file));
  const downs = own.filter((file) => file.endsWith(".down.sql"));
  const versionOf = (file: string) => /^\d+/.exec(file)![0];
  const migrations = own.filter((file) => !file.endsWith(".down.sql")).map((file): ForeignMigration => {
    const version = versionOf(file);
    const text = files.text(file);
    const down = downs.find((other) => numberOf(versionOf(other)) === numberOf(version));
    return {
      ...{
        key: numberOf(version),
        version,
        title: file.slice(version.length + 1).replace(/(?:\.up)?\.sql$/, ""),
      },
      ...{ file, up: text, down: down && files.text(down) },
      ...{ noTransaction: /^--\s*no-transaction\b/.test(text), decisions: [] },
      checksum: createHash("sha384").update(text).digest("hex"),
    };
  });
  migrations.sort((a, b) => compareNumbers(a.version!, b.version!) || compareTexts(a.file, b.file));
  return { migrations, problems: [], decisions: [] };
}

/** knex: files of SQL in pairs or alone, as a source of migrations of the user's own reads them; by their names. */
export function readKnex(files: Files): Read {
  const names = files.names.filter((name) => !name.includes("/"));
  const migrations = names.flatMap((file): ForeignMigration[] => {
    if (CODE.test(file)) {
      return asCode(file).map((one) => ({ ...one, key: file.replace(/\.[^.]+$/, "") }));
    }
    const [, version, title] = /^(\d+)[_-](.+?)(?:\.up)?\.sql$/.exec(file) ?? [];
    if (version === undefined || file.endsWith(".down.sql")) return [];
    const stem = file.replace(/(?:\.up)?\.sql$/, "");
    const undo = `${stem}.down.sql`;
    return [{
      ...{ key: stem, version, title: title!, file, up: files.text(file) },
      down: names.includes(undo) ? files.text(undo) : undefined,
      ...{ noTransaction: false, decisions: [] },
    }];
  });
  migrations.sort((a, b) => compareTexts(a.file, b.file));
  return { migrations, problems: [], decisions: [] };
}

/** Databases that pop and its like name in a file's name. */
const DIALECT = /\.(postgres(?:ql)?|cockroach|mysql|sqlite3?|mssql)$/;

/** pop: `NNN_name[.dialect][.autocommit].up.sql`. A file for PostgreSQL goes before the one for all. */
export function readPop(files: Files): Read {
  const found = new Map<string, { file: string; isOwn: boolean; noTransaction: boolean }>();
  const left = new Set<string>();
  for (const file of files.names.filter((name) => PAIR.test(basename(name)))) {
    files.know(file);
    const [, version, words, direction] = PAIR.exec(basename(file))!;
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
      ...{ key: numberOf(version!), version: version!, title: title!, file, up: files.text(file) },
      ...{ down: down && files.text(down.file), noTransaction, decisions: [] },
    };
  });
  const all: ForeignMigration[] = [
    ...migrations,
    ...files.names.flatMap(asCode),
  ];
  return {
    migrations: all.sort((a, b) => compareNumbers(a.version!, b.version!)),
    problems: [],
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
    // All up to the first underscore, without its dashes, as diesel has it; a folder may have no underscore.
    const [, prefix, title] = /^([^_]*)_?(.*)$/.exec(folder)!;
    const key = prefix!.replaceAll("-", "");
    const version = /^\d+/.exec(key)?.[0];
    if (version === undefined) {
      problems.push({ file: folder, message: "has no version in its name" });
      return [];
    }
    const has = (name: string) => files.names.includes(`${folder}/${name}`);
    const metadata = has("metadata.toml") ? files.text(`${folder}/metadata.toml`) : "";
    return [{
      ...{
        key,
        version,
        title: title || key.slice(version.length) || "migration",
        file: `${folder}/up.sql`,
        up: files.text(`${folder}/up.sql`),
      },
      down: has("down.sql") ? files.text(`${folder}/down.sql`) : undefined,
      noTransaction: /^\s*run_in_transaction\s*=\s*false/m.test(metadata),
      decisions: [],
    }];
  });
  // Diesel compares versions as texts.
  migrations.sort((a, b) => compareTexts(a.key, b.key));
  return { migrations, problems, decisions: [] };
}

/** prisma: `<date>_name/migration.sql`, in the order of the folders' names. */
export function readPrisma(files: Files): Read {
  const migrations = files.names.filter((name) => /^[^/]+\/migration\.sql$/.test(name)).map((file) => {
    const folder = dirname(file);
    const match = /^(\d+)_?(.*)$/.exec(folder);
    const text = files.text(file);
    return {
      ...{ key: folder, version: match?.[1], title: match?.[2] || folder, file, up: text },
      ...{ down: undefined, noTransaction: false, decisions: [] },
      checksum: createHash("sha256").update(text).digest("hex"),
    };
  }).sort((a, b) => compareTexts(a.key, b.key));
  return {
    migrations: numberedOrNot(migrations),
    problems: [],
    decisions: ["prisma keeps no way back: there are no down files"],
  };
}

/** `1.02_3` as Flyway compares it: numbers, the zeros at their end left out. */
export function flywayVersion(text: string): string {
  return text.split(/[._]/).map((part) => part.replace(/^0+(?=\d)/, "")).join(".").replace(/(?:\.0)+$/, "");
}

/** What Flyway keeps of a file: the CRC-32 of its lines without their ends, as a signed number. */
function flywayChecksum(text: string): string {
  const lines = text.replace(/^\ufeff/, "").split(/\r\n|\r|\n/);
  return String(crc32(lines.join("")) | 0);
}

/** flyway: `V1.2__name.sql`, `U1.2__name.sql` undoes it, `R__name.sql` runs whenever it has changed. */
export function readFlyway(files: Files): Read {
  const named = files.names.flatMap((file) => {
    const match = /^([VURB])([\d._]*)__(.*)\.sql$/.exec(basename(file));
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
      checksum: flywayChecksum(files.text(file)),
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
  const code = files.names.flatMap((file): ForeignMigration[] => {
    const [, version = "", title = ""] = /^V([\d._]+)__(.*)\.(?:java|kt|class|js)$/.exec(basename(file)) ??
      [];
    if (version === "") return [];
    const own = flywayVersion(version);
    return [codeMigration({ key: own, version: /^\d+$/.test(own) ? own : undefined, title, file })];
  });
  const withCode = [...all, ...code].sort((a, b) =>
    isRepeatable(a) || isRepeatable(b)
      ? Number(isRepeatable(a)) - Number(isRepeatable(b))
      : compareDotted(a.key, b.key)
  );
  for (const { file } of named) files.know(file);
  const isCallback = (name: string) => /^(?:before|after)[A-Z]\w*(?:__.*)?\.sql$/.test(basename(name));
  return {
    migrations: numberedOrNot(withCode),
    problems: files.names.filter((name) => /^R__.*\.(?:java|class|kt|js)$/.test(basename(name)))
      .map((file) => ({ file, message: "is code, and no SQL: write what it does as a migration" })),
    decisions: [
      ...named.filter(({ kind }) => kind === "B").map(({ file }) =>
        `the baseline ${file} was left out: an empty database gets every version instead`
      ),
      ...files.names.filter(isCallback).map((file) => {
        files.know(file);
        return `the callback ${file} was left out: Flyway alone knows when to run it`;
      }),
    ],
  };
}

/** Of a repeatable file the key is its name. */
const isRepeatable = ({ key }: ForeignMigration) => !/^[\d.]+$/.test(key);

/** Orders versions of dotted numbers. */
export function compareDotted(a: string, b: string): number {
  const [x, y] = [a.split("."), b.split(".")];
  for (let index = 0; index < Math.max(x.length, y.length); index++) {
    const order = compareNumbers(x[index] || "0", y[index] || "0");
    if (order !== 0) return order;
  }
  return 0;
}
