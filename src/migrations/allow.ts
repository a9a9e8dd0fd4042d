/**
 * `-- pipeweave: allow <rule> <reason>`: the author knows, and says why it is right here. Among the directives at the top
 * of a file it holds for the whole file, in the comment before a later statement for that one.
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
  "drop-column",
  "truncate",
  "whole-table-change",
  "data-change-under-lock",
  "lock-after-lock",
  "lock-table",
  "rewrite-table",
  "refresh-not-concurrently",
  "attach-partition",
  "detach-not-concurrently",
  "json-column",
] as const;

/** The name of a rule. */
export type RuleId = typeof RULES[number];

const isRule = (name: string): name is RuleId => (RULES as readonly string[]).includes(name);

const ALLOW = /^\s*--\s*pipeweave:\s*allow\b[ \t]*(.*)$/gm;

/** What is wrong with the text behind `allow`; undefined when it is right. */
export function problemOfAllow(text: string): string | undefined {
  const [rule = "", ...reason] = text.trim().split(/\s+/);
  if (!isRule(rule)) {
    return `"allow" takes a rule and a reason; there is no rule "${rule}"; rules are: ${RULES.join(", ")}`;
  }
  return reason.length === 0 ? `"allow ${rule}" needs a reason behind it` : undefined;
}

/** A function that tells whether a rule is allowed for a statement, by its index. */
export function allowances(
  text: string,
  statements: readonly Statement[],
): (rule: RuleId, index: number) => boolean {
  const before = statements.map(({ start }, index) =>
    rulesIn(text.slice(index === 0 ? 0 : statements[index - 1]!.end, start))
  );
  return (rule, index) => before[0]!.has(rule) || before[index]!.has(rule);
}

/** Where in a text an `allow` is that says nothing usable: line, counted from 1, and what is wrong. */
export function badAllowances(text: string): readonly { line: number; message: string }[] {
  return [...text.matchAll(ALLOW)].flatMap((match) => {
    const message = problemOfAllow(match[1]!);
    return message ? [{ line: text.slice(0, match.index).split("\n").length, message }] : [];
  });
}

function rulesIn(comments: string): ReadonlySet<string> {
  return new Set(
    [...comments.matchAll(ALLOW)].filter((match) => problemOfAllow(match[1]!) === undefined)
      .map((match) => match[1]!.trim().split(/\s+/)[0]!),
  );
}
