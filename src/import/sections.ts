/**
 * Tools that keep the way up and the way down in one file, apart by comment lines: dbmate, goose, sql-migrate, tern,
 * node-pg-migrate.
 *
 * @module
 */

import type { Files, ForeignMigration, Read } from "./foreign.ts";

/** What a line of a file means. */
interface Meaning {
  /** Which part begins behind it; undefined for a line that is left out. */
  readonly part?: "up" | "down";
  readonly noTransaction?: boolean;
  /** What is to be told of it. */
  readonly decision?: string;
}

/** A way to keep both in one file. */
export interface Dialect {
  /** Which part a file begins with. */
  readonly first: "up" | "none";
  /** What a line means; undefined where it is part of the SQL. */
  readonly meaningOf: (line: string) => Meaning | undefined;
}

const NO_TRANSACTION = { noTransaction: true } as const;

export const DIALECTS: Readonly<
  Record<"dbmate" | "goose" | "sql-migrate" | "tern" | "node-pg-migrate", Dialect>
> = {
  "dbmate": {
    first: "none",
    meaningOf: (line) => {
      const match = /^--\s*migrate:(up|down)\b(.*)$/.exec(line);
      return match
        ? { part: match[1] as "up" | "down", noTransaction: /\btransaction:\s*false\b/.test(match[2]!) }
        : undefined;
    },
  },
  "goose": {
    first: "none",
    meaningOf: (line) => {
      const word = /^--\s*\+goose\s+(.*?)\s*$/i.exec(line)?.[1]?.toLowerCase();
      if (word === undefined) return undefined;
      if (word === "up" || word === "down") return { part: word };
      if (word === "no transaction") return NO_TRANSACTION;
      return /^statement(?:begin|end)$/.test(word)
        ? {}
        : { decision: `the mark "+goose ${word}" was left out` };
    },
  },
  "sql-migrate": {
    first: "none",
    meaningOf: (line) => {
      const match = /^--\s*\+migrate\s+(\w+)(.*)$/i.exec(line);
      const word = match?.[1]?.toLowerCase();
      if (word === undefined) return undefined;
      if (word !== "up" && word !== "down") return {};
      return { part: word, noTransaction: /\bnotransaction\b/i.test(match![2]!) };
    },
  },
  "tern": {
    first: "up",
    meaningOf: (line) =>
      /^-{2,}\s*create above\s*\/\s*drop below/i.test(line)
        ? { part: "down" }
        : /^-{2,}\s*tern:\s*disable-tx/i.test(line)
        ? NO_TRANSACTION
        : undefined,
  },
  "node-pg-migrate": {
    first: "up",
    meaningOf: (line) => {
      const word = /^--\s*(up|down)\s+migration\s*$/i.exec(line)?.[1]?.toLowerCase();
      return word === undefined ? undefined : { part: word as "up" | "down" };
    },
  },
};

/** Splits a file. */
export function splitSections(
  text: string,
  { first, meaningOf }: Dialect,
): Pick<ForeignMigration, "up" | "down" | "noTransaction" | "decisions"> & { readonly hasMarks: boolean } {
  const parts = { none: [] as string[], up: [] as string[], down: [] as string[] };
  const decisions: string[] = [];
  let current: keyof typeof parts = first;
  let noTransaction = false;
  let hasMarks = false;
  let hasDown = false;
  for (const line of text.split(/\r?\n/)) {
    const meaning = meaningOf(line.trim());
    if (!meaning) {
      parts[current].push(line);
      continue;
    }
    hasMarks = true;
    if (meaning.part) current = meaning.part;
    if (meaning.part === "down") hasDown = true;
    if (meaning.noTransaction && (meaning.part ?? "up") === "up") noTransaction = true;
    if (meaning.decision) decisions.push(meaning.decision);
  }
  const lead = parts.none.join("\n").trim();
  const down = parts.down.join("\n").trim();
  return {
    ...{ hasMarks, noTransaction, decisions },
    up: `${lead === "" ? "" : `${lead}\n`}${parts.up.join("\n")}`.trim(),
    down: hasDown && down !== "" ? down : undefined,
  };
}

/** Names of files that such a tool reads. */
const NAME = /^(\d+)(?:[_-](.*))?\.sql$/;

/** Reads a folder of such files. */
export function readSections(files: Files, tool: keyof typeof DIALECTS): Read {
  const own = files.names.filter((name) => NAME.test(name));
  const problems = files.names.filter((name) => /^\d+.*\.(?:go|js|ts|mjs|cjs|py|rb)$/.test(name))
    .map((file) => ({ file, message: "is code, and no SQL: write what it does as a migration" }));
  const migrations = own.map((file): ForeignMigration => {
    const [, version, title = ""] = NAME.exec(file)!;
    const { up, down, noTransaction, decisions } = splitSections(files.text(file), DIALECTS[tool]);
    // What each tool's history has of a file.
    const key = tool === "sql-migrate"
      ? file
      : tool === "node-pg-migrate"
      ? file.replace(/\.sql$/, "")
      : version!.replace(/^0+(?=\d)/, "");
    return { key, version: version!, title, file, up, down, noTransaction, decisions };
  });
  // By number, as they do; sql-migrate and node-pg-migrate too, where names are numbers of one length.
  migrations.sort((a, b) => compareNumbers(a.version!, b.version!) || (a.file < b.file ? -1 : 1));
  return { migrations, problems, decisions: [] };
}

/** Orders digits as numbers, whatever their length. */
export function compareNumbers(a: string, b: string): number {
  const [x, y] = [BigInt(a), BigInt(b)];
  return x < y ? -1 : x > y ? 1 : 0;
}
