/**
 * Words that an old tool replaces in its files before it sends them.
 *
 * @module
 */

import type { Placeholders } from "./convert.ts";
import type { Tool } from "./foreign.ts";

/** A way to write one: how it looks for any name, and for a certain one. */
interface Form {
  readonly any: RegExp;
  readonly of: (word: string) => string;
}

const DOLLAR: Form = { any: /\$\{[\w.:-]+\}/g, of: (word) => `\\$\\{${word}\\}` };
const BRACES: Form = { any: /\{\{[^}\n]*\}\}/g, of: (word) => `\\{\\{\\s*\\.?${word}\\s*\\}\\}` };
const COLON: Form = {
  any: /(?<![:\w'"]):"?[A-Za-z]\w*"?/g,
  of: (word) => `(?<![:\\w]):(?:'${word}'|"${word}"|${word}(?!\\w))`,
};

/** Tools that replace by themselves, in strings and bodies too. */
const FORMS: Partial<Record<Tool, { readonly forms: readonly Form[]; readonly always: readonly Form[] }>> = {
  "flyway": { forms: [DOLLAR], always: [DOLLAR] },
  "liquibase": { forms: [DOLLAR], always: [DOLLAR] },
  "tern": { forms: [BRACES], always: [BRACES] },
  // A time such as '12:MI' looks like one of these, so but for its own two one counts only where PostgreSQL cannot read the file.
  "graphile-migrate": {
    forms: [COLON],
    always: [{ ...COLON, any: /(?<![:\w]):DATABASE_(?:NAME|OWNER)\b/g }],
  },
  "sqitch": { forms: [COLON], always: [] },
};
/** What programs of people's own put into files of the others. */
const OTHERS = { forms: [DOLLAR, BRACES], always: [] };

/** Strings, names, bodies and remarks. */
const QUOTED = String
  .raw`[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?<tag>\w*)\$[\s\S]*?\$\k<tag>\$|--.*|\/\*[\s\S]*?\*\/`;

function filledIn(mark: string, value: string, tool: Tool): string {
  if (mark.startsWith(":'")) return `'${value.replaceAll("'", "''")}'`;
  return mark.startsWith(':"') && tool === "sqitch" ? `"${value.replaceAll('"', '""')}"` : value;
}

/** Fills in what has a value. */
export function fillPlaceholders(
  sql: string,
  tool: Tool,
  placeholders: Placeholders,
  decisions: string[],
): string {
  const { forms } = FORMS[tool] ?? OTHERS;
  let text = sql;
  const filled: string[] = [];
  for (const [name, value] of Object.entries(placeholders)) {
    const word = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const mark = forms.map((form) => form.of(word)).join("|");
    // psql fills in nothing within what is quoted.
    const pattern = new RegExp(tool === "sqitch" ? `${mark}|${QUOTED}` : mark, "g");
    const own = new RegExp(`^(?:${mark})$`);
    const next = text.replace(pattern, (found) => own.test(found) ? filledIn(found, value, tool) : found);
    if (next !== text) filled.push(name);
    text = next;
  }
  if (filled.length > 0) decisions.push(`placeholders were filled in: ${filled.join(", ")}`);
  return text;
}

/**
 * What still looks like a placeholder.
 *
 * @param isUnreadable whether PostgreSQL cannot read the text: anything of that form may be one then
 * @param known names that have a value, which may look like the placeholder again
 */
export function placeholdersIn(
  sql: string,
  tool: Tool,
  isUnreadable: boolean,
  known: readonly string[] = [],
): readonly string[] {
  const { forms, always } = FORMS[tool] ?? OTHERS;
  const found = (isUnreadable ? forms : always).flatMap(({ any }) =>
    [...sql.matchAll(any)].map(([mark]) => mark)
  );
  const isKnown = (mark: string) =>
    known.some((name) => /[\w.:-]+/.exec(mark.replace(/^[{$:\s.]+/, ""))?.[0] === name);
  return [...new Set(found)].filter((mark) => !isKnown(mark));
}
