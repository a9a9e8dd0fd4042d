/**
 * SQL text from values. Every message goes out by the simple protocol, which has no parameters, so values are
 * quoted here and nowhere else.
 *
 * @module
 */

/** Text that is SQL already and goes in as it is. */
export class SqlText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand in a {@linkcode sql} template. */
export type SqlValue = SqlText | string | number | boolean | null | Date;

/** Quotes an identifier, as libpq's `PQescapeIdentifier`. */
export function identifier(name: string): SqlText {
  return new SqlText(`"${name.replaceAll('"', '""')}"`);
}

/** Quotes a value; right under either setting of `standard_conforming_strings`, as libpq's `PQescapeLiteral`. */
function literal(value: Exclude<SqlValue, SqlText>): string {
  if (value === null) return "NULL";
  if (typeof value === "boolean") return value ? "true" : "false";
  if (typeof value === "number") {
    if (!Number.isFinite(value)) throw new RangeError(`${value} has no SQL literal`);
    return String(value);
  }
  const text = value instanceof Date ? value.toISOString() : value;
  if (text.includes("\0")) throw new RangeError("PostgreSQL text cannot hold a zero byte");
  const quoted = `'${text.replaceAll("'", "''").replaceAll("\\", "\\\\")}'`;
  return text.includes("\\") ? ` E${quoted}` : quoted;
}

/** Statements one behind the other. */
export function sequence(statements: readonly SqlText[]): SqlText {
  return new SqlText(statements.map(({ text }) => text).join("\n"));
}

/**
 * Builds SQL: values are quoted, {@linkcode SqlText} goes in as it is.
 *
 * @example
 * ```ts
 * import { identifier, sql } from "./sql.ts";
 *
 * const text = sql`SELECT * FROM ${identifier("tasks")} WHERE id = ${"it's"}`.text;
 * if (text !== `SELECT * FROM "tasks" WHERE id = 'it''s'`) throw new Error(text);
 * ```
 */
export function sql(strings: TemplateStringsArray, ...values: SqlValue[]): SqlText {
  let text = strings[0]!;
  for (const [index, value] of values.entries()) {
    text += (value instanceof SqlText ? value.text : literal(value)) + strings[index + 1]!;
  }
  return new SqlText(text);
}
