/**
 * Tools that keep the way up and the way down in one file, apart by comment lines: dbmate, goose, sql-migrate, tern,
 * node-pg-migrate. A line is a mark where that tool takes it for one, and a comment elsewhere.
 *
 * @module
 */

import { basename } from "node:path";
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

/** What a line of a file means. */
interface Meaning {
  /** Which part begins behind it; undefined for a line that is left out. */
  readonly part?: "up" | "down";
  readonly noTransaction?: boolean;
  /** What is to be told of it. */
  readonly decision?: string;
  readonly problem?: string;
}

/** A file in its parts. */
export interface Sections
  extends Pick<ForeignMigration, "up" | "down" | "noTransaction" | "decisions" | "problems"> {
  /** Whether there was any mark. */
  readonly hasMarks: boolean;
}

/** Tools whose files have sections. */
export type SectionTool = "dbmate" | "goose" | "sql-migrate" | "tern" | "node-pg-migrate";

const NO_TRANSACTION = { noTransaction: true } as const;
const SUBSTITUTES = "goose fills in variables of the environment in it: write the values";

/** A way to keep both in one file, line by line. */
interface Dialect {
  /** Whether lines end as on Unix when that tool sends them, whatever the file has. */
  readonly unixLines: boolean;
  /** What becomes of SQL in front of the first mark: the tool passes over it, or refuses it. */
  readonly lead: "left out" | "refused";
  /** What a line means; undefined where it is part of the SQL. */
  readonly meaningOf: (line: string) => Meaning | undefined;
}

const DIALECTS: Readonly<Record<"dbmate" | "goose" | "sql-migrate", Dialect>> = {
  "dbmate": {
    ...{ unixLines: false, lead: "refused" },
    meaningOf: (line) => {
      const match = /^--\s*migrate:(up|down)(?:\s+(\S.*))?\s*$/.exec(line);
      return match
        ? {
          part: match[1] as "up" | "down",
          noTransaction: /(?:^|\s)transaction:false(?:\s|$)/.test(match[2] ?? ""),
        }
        : undefined;
    },
  },
  "goose": {
    ...{ unixLines: true, lead: "refused" },
    meaningOf: (line) => {
      const word = /^--\s*\+goose\s+(.*?)\s*$/i.exec(line)?.[1]?.toLowerCase();
      if (word === undefined) return undefined;
      if (word === "up" || word === "down") return { part: word };
      if (word === "no transaction") return NO_TRANSACTION;
      if (word === "envsub on") return { problem: SUBSTITUTES };
      return /^(?:statement(?:begin|end)|envsub off)$/.test(word)
        ? {}
        : { decision: `the mark "+goose ${word}" was left out` };
    },
  },
  "sql-migrate": {
    ...{ unixLines: true, lead: "left out" },
    meaningOf: (line) => {
      const [, word, rest = ""] = /^-- \+migrate\s+(\w+)(.*)$/.exec(line) ?? [];
      if (word === "StatementBegin" || word === "StatementEnd") return {};
      if (word !== "Up" && word !== "Down") return undefined;
      return { part: word === "Up" ? "up" : "down", noTransaction: /\bnotransaction\b/.test(rest) };
    },
  },
};

/** Splits a file the way a tool does. */
export function splitSections(text: string, tool: SectionTool): Sections {
  if (tool === "node-pg-migrate") return splitBySearch(text);
  return tool === "tern" ? splitByText(text) : splitByLines(text, DIALECTS[tool], tool);
}

/** tern parts a file at this text, wherever it stands. */
const ABOVE_AND_BELOW = "---- create above / drop below ----";

function splitByText(text: string): Sections {
  const at = text.indexOf(ABOVE_AND_BELOW);
  const isOutside = /^---- tern: disable-tx ----\r?$/m.test(text);
  const up = (at === -1 ? text : text.slice(0, at)).replace(/^---- tern: disable-tx ----\r?\n?/m, "").trim();
  const down = at === -1 ? "" : text.slice(at + ABOVE_AND_BELOW.length).trim();
  return {
    ...{ hasMarks: at !== -1 || isOutside, noTransaction: isOutside, decisions: [], problems: [] },
    ...{ up, down: down === "" ? undefined : down },
  };
}

function splitByLines(
  text: string,
  { unixLines, lead: about, meaningOf }: Dialect,
  tool: SectionTool,
): Sections {
  const parts = { none: [] as string[], up: [] as string[], down: [] as string[] };
  const decisions: string[] = [];
  const problems: string[] = [];
  let current: keyof typeof parts = "none";
  let hasUp = false;
  let noTransaction = false;
  let hasMarks = false;
  let hasDown = false;
  const sent = unixLines ? text.replaceAll("\r\n", "\n") : text;
  // With what ends each: a text that spans lines stays as it is.
  for (const line of sent.replace(/^\ufeff/, "").split(/(?<=\n)/)) {
    const meaning = meaningOf(line.trimEnd());
    if (!meaning) {
      parts[current].push(line);
      continue;
    }
    hasMarks = true;
    if (meaning.part) current = meaning.part;
    if (meaning.part === "down") hasDown = true;
    if (meaning.part === "up") hasUp = true;
    if (meaning.noTransaction && (meaning.part ?? "up") === "up") noTransaction = true;
    if (meaning.decision) decisions.push(meaning.decision);
    if (meaning.problem) problems.push(meaning.problem);
  }
  const lead = parts.none.join("").trim();
  const isRemark = lead.split("\n").every((line) => /^\s*(?:--.*)?$/.test(line));
  if (!hasUp) {
    problems.push(`has no mark for the way up, and ${tool} refuses it: say what of it is to run`);
  } else if (!isRemark && about === "left out") {
    decisions.push("what stands before its first mark was left out: the old tool passes over it");
  } else if (!isRemark) {
    problems.push("SQL stands before its first mark, which the old tool refuses: put it where it belongs");
  }
  const down = parts.down.join("").trim();
  return {
    ...{ hasMarks, noTransaction, decisions, problems },
    // What nobody would run stays to be looked at.
    up: hasUp ? `${lead === "" || !isRemark ? "" : `${lead}\n`}${parts.up.join("")}`.trim() : lead,
    down: hasDown && down !== "" ? down : undefined,
  };
}

/** node-pg-migrate: a part begins where the first mark of its kind is, in whatever order. */
function splitBySearch(text: string): Sections {
  const start = (direction: string) =>
    text.search(new RegExp(`^\\s*--[\\s-]*${direction}\\s+migration`, "im"));
  const [up, down] = [start("up"), start("down")];
  const cut = (from: number, other: number) => text.slice(from, other > from ? other : undefined);
  const isWhole = up < 0 && down < 0;
  const undo = down < 0 ? undefined : withoutFirstMark(cut(down, up));
  return {
    ...{ hasMarks: !isWhole, noTransaction: false, problems: [] },
    // Without a mark for it the way up is all of the file, as that tool has it.
    up: up < 0 ? text : withoutFirstMark(cut(up, down)),
    down: undo === "" ? undefined : undo,
    decisions: up > 0 && /\S/.test(text.slice(0, up).replace(/^\s*--.*$/gm, "")) && down !== 0
      ? ["what stands before its first mark was left out: the old tool passes over it"]
      : [],
  };
}

function withoutFirstMark(part: string): string {
  return part.replace(/^\s*--.*(?:\n|$)/, "").trim();
}

/** Which files a tool reads, and what it makes of a name. */
interface Naming {
  /** Names of its files, with the version and the words; what it does not match the tool does not read. */
  readonly name: RegExp;
  /** By what its history knows a file. */
  readonly keyOf: (file: string, version: string) => string;
  readonly order: (a: ForeignMigration, b: ForeignMigration) => number;
}

const byNumber = (a: ForeignMigration, b: ForeignMigration) =>
  compareNumbers(a.version!, b.version!) || compareTexts(a.file, b.file);

const NAMINGS: Readonly<Record<Exclude<SectionTool, "node-pg-migrate">, Naming>> = {
  "dbmate": {
    name: /^(\d+)[_-]?(.*)\.sql$/,
    // As a text: 1 and 01 are two.
    keyOf: (_, version) => version,
    order: (a, b) => compareTexts(a.file, b.file),
  },
  "goose": { name: /^(\d+)_(.*)\.sql$/, keyOf: (_, version) => numberOf(version), order: byNumber },
  "tern": { name: /^(\d+)_(.+)\.sql$/, keyOf: (_, version) => numberOf(version), order: byNumber },
  "sql-migrate": {
    name: /^(\d*)[_-]?(.*)\.sql$/,
    keyOf: (file) => file,
    // Those with a number go first.
    order: (a, b) =>
      a.version !== undefined && b.version !== undefined
        ? byNumber(a, b)
        : a.version !== undefined
        ? -1
        : b.version !== undefined
        ? 1
        : compareTexts(a.file, b.file),
  },
};

/** Reads a folder of such files. */
export function readSections(files: Files, tool: Exclude<SectionTool, "node-pg-migrate">): Read {
  const { name, keyOf, order } = NAMINGS[tool];
  const migrations = files.names.filter((file) => !file.includes("/")).flatMap((file): ForeignMigration[] => {
    const code = tool === "goose" && /^(\d+)_(.*)\.go$/.exec(file);
    if (code && !file.endsWith("_test.go")) {
      return [codeMigration({ key: numberOf(code[1]!), version: code[1]!, title: code[2]!, file })];
    }
    const match = name.exec(file);
    if (!match) return [];
    const [, version, title] = match as unknown as [string, string, string];
    const { hasMarks: _, ...sections } = splitSections(files.text(file), tool);
    return [{ key: keyOf(file, version), version: version || undefined, title, file, ...sections }];
  });
  migrations.sort(order);
  return { migrations: numberedOrNot(migrations), problems: [], decisions: [] };
}

/** Where one has no version, none of them counts. */
export function numberedOrNot(migrations: readonly ForeignMigration[]): readonly ForeignMigration[] {
  const isNumbered = migrations.every(({ version }) => version !== undefined);
  return isNumbered ? migrations : migrations.map((one) => ({ ...one, version: undefined }));
}

/** 17 digits are a time to the millisecond, which node-pg-migrate compares with others as a number of milliseconds. */
function placeOf(prefix: string): number {
  const parts = /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(\d{3})$/.exec(prefix)?.slice(1).map(Number);
  if (!parts) return Number(prefix);
  const [year, month, ...rest] = parts as [number, number, number, number, number, number, number];
  return Date.UTC(year, month - 1, ...rest);
}

/** node-pg-migrate: files with marks, and pairs of `.up.sql` and `.down.sql`. */
export function readNodePgMigrate(files: Files): Read {
  const own = files.names.filter((file) => /^\d+[^/]*$/.test(file));
  const migrations = own.flatMap((file): ForeignMigration[] => {
    const [, prefix, title] = /^(\d+)[_-]?(.*?)(?:\.[^.]+)$/.exec(file) ?? [];
    if (prefix === undefined || file.endsWith(".down.sql")) return [];
    const key = file.replace(/\.[^.]+$/, "");
    if (CODE.test(file)) return [codeMigration({ key, version: prefix, title: title!, file })];
    if (!file.endsWith(".sql")) return [];
    const stem = /^(.*)\.up\.sql$/.exec(file)?.[1];
    if (stem === undefined) {
      const { hasMarks: _, ...sections } = splitSections(files.text(file), "node-pg-migrate");
      return [{ key, version: prefix, title: title!, file, ...sections }];
    }
    const undo = `${stem}.down.sql`;
    return [{
      // Its history has either, by the loader that is chosen.
      aliases: [`${stem}.up`],
      ...{ key: stem, version: prefix, title: title!.replace(/\.up$/, ""), file, up: files.text(file) },
      down: own.includes(undo) ? files.text(undo) : undefined,
      ...{ noTransaction: false, decisions: [] },
    }];
  });
  const byPlace = new Intl.Collator(undefined, { numeric: true, ignorePunctuation: true });
  migrations.sort((a, b) =>
    placeOf(a.version!) - placeOf(b.version!) || byPlace.compare(basename(a.file), basename(b.file))
  );
  const isMixed = new Set(migrations.map(({ version }) => version!.length === 17)).size > 1;
  return {
    migrations: isMixed ? migrations.map((one) => ({ ...one, version: undefined })) : migrations,
    ...{ problems: [], decisions: [] },
  };
}
