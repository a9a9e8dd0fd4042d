/**
 * `-- pipeweave: allow <rule> <reason>`: the author knows, and says why it is right here. In the comment before a statement
 * it holds for that one; `allow-file` holds for the whole file.
 *
 * @module
 */

import type { Statement } from "../sql/statements.ts";

/** What may be allowed: the rules of `db:lint`, which src/lint/rules.ts explains. */
export const RULES = [
  "index-not-concurrently",
  "drop-index-not-concurrently",
  "reindex-not-concurrently",
  "set-not-null",
  "add-required-column",
  "add-column-volatile-default",
  "add-generated-column",
  "change-column-type",
  "add-foreign-key",
  "add-check",
  "validate-in-same-transaction",
  "add-unique-constraint",
  "add-exclusion-constraint",
  "rename-table",
  "rename-column",
  "drop-table",
  "drop-view",
  "drop-column",
  "truncate",
  "whole-table-change",
  "work-under-lock",
  "lock-after-lock",
  "lock-table",
  "rewrite-table",
  "refresh-not-concurrently",
  "attach-partition",
  "detach-not-concurrently",
  "json-column",
  "change-domain",
  "create-partition",
  "create-trigger",
  "drop-cascade",
  "drop-database",
  "lock-timeout-off",
  "rename-enum-value",
  "row-level-security",
  "foreign-key-without-index",
  "long-identifier",
  "unseen-code",
  "unused-allow",
] as const;

/** The name of a rule. */
export type RuleId = typeof RULES[number];

const isRule = (name: string): name is RuleId => (RULES as readonly string[]).includes(name);

const ALLOW = /^[ \t]*--[ \t]*pipeweave:[ \t]*allow(-file)?\b[ \t]*(.*)$/gm;

/** What is wrong with the text behind `allow`; undefined when it is right. */
export function problemOfAllow(text: string): string | undefined {
  const [rule = "", ...reason] = text.trim().split(/\s+/);
  if (!isRule(rule)) {
    return `"allow" takes a rule and a reason; there is no rule "${rule}"; rules are: ${RULES.join(", ")}`;
  }
  return reason.length === 0 ? `"allow ${rule}" needs a reason behind it` : undefined;
}

/** An `allow` of a file. */
interface Allowance {
  readonly rule: string;
  /** Where its line begins, in UTF-16 units. */
  readonly offset: number;
  /** The statement that it stands before; undefined where it is for the whole file. */
  readonly index: number | undefined;
  isUsed: boolean;
}

/** What a file allows. */
export class Allowances {
  readonly #all: readonly Allowance[];

  constructor(text: string, statements: readonly Statement[]) {
    // Behind the last statement one accepts nothing.
    const starts = [...statements.map(({ start }) => start), text.length];
    this.#all = starts.flatMap((start, index) => {
      const from = index === 0 ? 0 : statements[index - 1]!.end;
      return [...text.slice(from, start).matchAll(ALLOW)]
        .filter((match) => problemOfAllow(match[2]!) === undefined)
        .map((match): Allowance => ({
          rule: match[2]!.trim().split(/\s+/)[0]!,
          offset: from + match.index,
          index: match[1] ? undefined : index,
          isUsed: false,
        }));
    });
  }

  /** Whether a rule is allowed for a statement, by its index. */
  has(rule: RuleId, index: number): boolean {
    const allowance = this.#all.find((one) =>
      one.rule === rule && (one.index === undefined || one.index === index)
    );
    if (allowance) allowance.isUsed = true;
    return allowance !== undefined;
  }

  /** Those that allowed nothing so far: the finding is gone, or they stand in the wrong place. */
  unused(): readonly { readonly rule: string; readonly offset: number }[] {
    return this.#all.filter(({ isUsed }) => !isUsed);
  }
}

/** Where in a text an `allow` is that says nothing usable: line, counted from 1, and what is wrong. */
export function badAllowances(text: string): readonly { line: number; message: string }[] {
  return [...text.matchAll(ALLOW)].flatMap((match) => {
    const message = problemOfAllow(match[2]!);
    return message ? [{ line: text.slice(0, match.index).split("\n").length, message }] : [];
  });
}
