/**
 * Directives: `-- pipeweave: …` in the comment lines before the first statement.
 *
 * @module
 */

import { badAllowances } from "./allow.ts";
import { parseDuration } from "../config/duration.ts";

/** What a migration file asks of the tool. */
export interface Directives {
  /** Statements run one by one, outside a transaction. */
  readonly noTransaction: boolean;
  /** Not to be applied while the orchestrator runs and tasks are active. */
  readonly requiresMaintenance: boolean;
  /** Milliseconds; absent means the command's. */
  readonly lockTimeoutMs?: number;
  /** Milliseconds, 0 for no limit; absent means the role's or the server's. */
  readonly statementTimeoutMs?: number;
}

/** A directive that cannot be understood. */
export interface DirectiveProblem {
  /** Counted from 1. */
  readonly line: number;
  readonly message: string;
}

const KNOWN =
  "no-transaction, requires maintenance, lock-timeout <duration>, statement-timeout <duration>, allow <rule> <reason>, allow-file <rule> <reason>";

/** Reads the directives of a canonical text, and finds those that are wrong. */
export function readDirectives(
  text: string,
): { directives: Directives; problems: readonly DirectiveProblem[] } {
  let directives: Directives = { noTransaction: false, requiresMaintenance: false };
  const problems: DirectiveProblem[] = [];
  for (const { index, line } of commentLines(text)) {
    const directive = /^--\s*pipeweave:\s*(.*)$/.exec(line)?.[1];
    if (directive === undefined) continue;
    const [name, ...values] = directive.split(/\s+/);
    const duration = values.length === 1 ? parseDuration(values[0]!) : undefined;
    // Looked at with all others of its kind, which may stand further down too.
    if (name === "allow" || name === "allow-file") continue;
    if (directive === "no-transaction") directives = { ...directives, noTransaction: true };
    else if (name === "requires" && values.join(" ") === "maintenance") {
      directives = { ...directives, requiresMaintenance: true };
    } else if (name === "lock-timeout" && duration) directives = { ...directives, lockTimeoutMs: duration };
    else if (name === "statement-timeout" && duration !== undefined) {
      directives = { ...directives, statementTimeoutMs: duration };
    } else if (name === "lock-timeout" || name === "statement-timeout") {
      problems.push({
        line: index + 1,
        message: `"${name}" takes a duration such as 10s${name === "lock-timeout" ? ", greater than 0" : ""}`,
      });
    } else {problems.push({
        line: index + 1,
        message: `unknown directive "${directive}"; known are: ${KNOWN}`,
      });}
  }
  return { directives, problems: [...problems, ...badAllowances(text)] };
}

/** The `--` lines before the first statement; block comments, which nest, are passed over. */
function commentLines(text: string): { index: number; line: string }[] {
  const found: { index: number; line: string }[] = [];
  let depth = 0;
  // PostgreSQL ends a comment at a lone CR too.
  let index = -1;
  for (const [raw] of text.matchAll(/^[^\n\r]*/gm)) {
    index++;
    let line = raw.trim();
    if (depth === 0 && line.startsWith("--")) {
      found.push({ index, line });
      continue;
    }
    while (line !== "") {
      const mark = depth === 0 ? (line.startsWith("/*") ? 0 : -1) : line.search(/\/\*|\*\//);
      if (depth === 0 && mark === -1) return found;
      if (mark === -1) break;
      depth += line.startsWith("/*", mark) ? 1 : -1;
      line = line.slice(mark + 2).trim();
    }
  }
  return found;
}
