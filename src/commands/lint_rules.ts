/**
 * What the rules of `db:lint` are, in words.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { LINT_RULES } from "../lint/rules.ts";

/** Their names. */
export const RULES: readonly string[] = Object.keys(LINT_RULES);

/**
 * The rules, or what one of them says.
 *
 * @throws {PipeweaveError} of kind `usage` when there is no such rule
 */
export function ruleText(rule: string | undefined): string {
  if (rule === undefined) {
    const width = Math.max(...Object.keys(LINT_RULES).map(({ length }) => length));
    return Object.entries(LINT_RULES).map(([id, { blocks }]) =>
      blocks === "nobody" ? id : `${id.padEnd(width)}  blocks ${blocks}`
    ).join("\n");
  }
  const found = LINT_RULES[rule as keyof typeof LINT_RULES];
  if (!found) {
    throw new PipeweaveError("usage", "no_such_rule", `There is no rule "${rule}"`, {
      hint: "See: pipeweave db:lint --list-rules",
    });
  }
  return [
    rule,
    `  why: ${found.why}`,
    ...(found.blocks === "nobody" ? [] : [`  blocks: ${found.blocks}`]),
    `  safe: ${found.safe}`,
    `  to accept it: -- pipeweave: allow ${rule} <reason>`,
  ].join("\n");
}
