/**
 * `-- pipeweave: allow <rule> <reason>`: the author knows, and says why it is right here. Among the directives at the top
 * of a file it holds for the whole file, in the comment before a later statement for that one.
 *
 * @module
 */

import { isRule, LINT_RULES, type RuleId } from "./lint_rules.ts";
import type { Statement } from "./statements.ts";

const ALLOW = /^\s*--\s*pipeweave:\s*allow\b[ \t]*(.*)$/gm;

/** What is wrong with the text behind `allow`; undefined when it is right. */
export function problemOfAllow(text: string): string | undefined {
  const [rule = "", ...reason] = text.trim().split(/\s+/);
  if (!isRule(rule)) {
    return `"allow" takes a rule and a reason; there is no rule "${rule}"; rules are: ${
      Object.keys(LINT_RULES).join(", ")
    }`;
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
