/**
 * Finds in a migration, by its parse tree, what would hurt a live database.
 *
 * @module
 */

import { Allowances, type RuleId } from "../migrations/allow.ts";
import { type Finding, locate } from "../migrations/finding.ts";
import type { Migration } from "../migrations/migration.ts";
import { unitsByBytes } from "../sql/offsets.ts";
import { contentOfDo } from "../sql/plpgsql.ts";
import { type Node, SqlSyntaxError, type Statement, statementsOf } from "../sql/statements.ts";
import type { Hit } from "./hit.ts";
import { absentOf, remadeIn } from "./made.ts";
import { corrected, type Measure, sized } from "./measure.ts";
import { Memory } from "./memory.ts";
import { type Blocks, IN_MAINTENANCE, ruleOf } from "./rules.ts";

import { LintedFile } from "./linted_file.ts";
import { longNames } from "./long_names.ts";

/** A finding of a rule. */
export interface LintFinding extends Finding {
  readonly code: RuleId;
  /** Who waits while the statement runs. */
  readonly blocks: Blocks;
  readonly why: string;
}

/** What is known beside a file. */
export interface LintContext {
  /** Of the files before it. */
  readonly memory?: Memory;
  /** Where there is a database to ask. */
  readonly measure?: Measure | undefined;
  /** Rows up to which a table is small: work on it keeps nobody waiting for long. Default: 0 */
  readonly smallTable?: number | undefined;
}

/**
 * All findings of one migration, but for those that the file allows with a reason.
 *
 * Text that PostgreSQL cannot read has none: `validateSql` says what is wrong with it.
 *
 * @param context what is known beside the file; its memory takes in what this one makes
 */
export async function lint(
  migration: Migration,
  { memory = new Memory(), measure, smallTable = 0 }: LintContext = {},
): Promise<readonly LintFinding[]> {
  let statements: readonly Statement[];
  try {
    statements = await statementsOf(migration);
  } catch (error) {
    if (error instanceof SqlSyntaxError) return [];
    throw error;
  }
  for (const { node } of statements) memory.indexes.foresee(node);
  const file = new LintedFile(
    migration.directives.noTransaction,
    memory,
    remadeIn(statements),
    measure ? await absentOf(statements, memory, measure) : [],
  );
  const allowed = new Allowances(migration.sql, statements);
  const unitsOf = unitsByBytes(migration.sql);
  const findings: LintFinding[] = [];
  for (const [index, { node, start, end }] of statements.entries()) {
    const text = migration.sql.slice(start, end);
    const isStale = memory.isStale(node);
    const told = [
      ...(node.type === "DoStmt" ? await hitsOfDo(node, text, file) : file.look(node)),
      ...longNames(node, text),
    ];
    const kept = told.filter(({ rule }) => !allowed.has(rule, index));
    const known = measure && !isStale ? await corrected(kept, node, text, measure, memory) : kept;
    const hits = measure ? await sized(known, node, smallTable, measure) : known;
    for (const hit of hits) {
      if (migration.directives.requiresMaintenance && IN_MAINTENANCE.has(hit.rule)) continue;
      const at = hit.at === undefined ? start : unitsOf(hit.at);
      // In a file of several pieces the parser counts from the start of each.
      findings.push(findingOf(migration, hit, start, at > start && at < end ? at : start));
    }
  }
  for (const { rule, offset } of allowed.unused()) {
    const message = `allows ${rule}, which is not found here`;
    findings.push(findingOf(migration, { rule: "unused-allow", message }, offset, offset));
  }
  return findings;
}

function findingOf(
  { file, sql }: Migration,
  { rule, message, blocks: whom }: Hit,
  start: number,
  at: number,
): LintFinding {
  const { blocks, why, safe } = ruleOf(rule);
  return {
    ...{ severity: "error", code: rule, file, message, blocks: whom ?? blocks, why, hint: safe },
    location: locate(file, sql, at, start),
  };
}

/** What files make that are not looked at themselves. @param areApplied whether the database has it */
export async function memoryOf(migrations: readonly Migration[], areApplied: boolean): Promise<Memory> {
  const memory = new Memory();
  for (const migration of migrations) {
    const statements = await statementsOf(migration).catch(() => []);
    for (const { node } of statements) {
      memory.indexes.foresee(node);
      memory.note(node);
    }
  }
  if (areApplied) memory.settle();
  return memory;
}

/** All findings of migrations, in order: each is looked at with what those before it have made. */
export async function lintAll(
  migrations: readonly Migration[],
  { memory = new Memory(), ...context }: LintContext = {},
): Promise<readonly LintFinding[]> {
  for (const migration of migrations) {
    for (const { node } of await statementsOf(migration).catch(() => [])) memory.indexes.foresee(node);
  }
  const findings: LintFinding[] = [];
  for (const migration of migrations) findings.push(...await lint(migration, { ...context, memory }));
  return findings;
}

/** What the statements in a DO block break, and whether there is more in it than can be read. */
async function hitsOfDo(node: Node, text: string, file: LintedFile): Promise<readonly Hit[]> {
  const { statements, isWhole } = await contentOfDo(node, text);
  const inside = statements.flatMap((one) => file.look(one)).map((hit) => ({
    ...hit,
    message: `a DO block ${hit.message}`,
  }));
  return isWhole ? inside : [...inside, {
    rule: "unseen-code",
    message: "runs code in a DO block that cannot be read from outside",
  }];
}
