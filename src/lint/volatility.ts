/**
 * Whether a default gives every row the same value, so that PostgreSQL need not write it into each of them (since 11).
 *
 * @module
 */

import { descendants, nameOf, type TableName, written } from "../sql/tree.ts";
import { NOT_VOLATILE, VOLATILE } from "./functions.ts";
import type { Memory } from "./memory.ts";

/** What is known of an expression. */
export type Verdict =
  | "the same"
  | "differs"
  /** It depends on a function or operator that is not PostgreSQL's own. */
  | { readonly unknown: string };

/** Judges an expression by the functions that it calls. */
export function verdictOn(expression: unknown, memory: Memory): Verdict {
  let unknown: string | undefined;
  for (const { type, fields } of descendants(expression)) {
    if (type === "A_Expr") {
      const operator = nameOf(fields["name"]);
      if (operator.schema !== undefined && operator.schema !== "pg_catalog") unknown ??= written(operator);
    }
    if (type !== "FuncCall") continue;
    const name = nameOf(fields["funcname"]);
    switch (volatilityOf(name, memory)) {
      case "volatile":
        return "differs";
      case undefined:
        unknown ??= `${written(name)}()`;
    }
  }
  return unknown === undefined ? "the same" : { unknown };
}

function volatilityOf(name: TableName, memory: Memory): "volatile" | "not volatile" | undefined {
  const isOwn = name.schema === undefined || name.schema === "pg_catalog";
  // PostgreSQL's own come first in every search_path.
  if (isOwn && VOLATILE.has(name.name)) return "volatile";
  if (isOwn && NOT_VOLATILE.has(name.name)) return "not volatile";
  return memory.volatilityOf(name);
}

/** Whether a function is PostgreSQL's own. */
export function isBuiltIn({ schema, name }: TableName): boolean {
  return (schema === undefined || schema === "pg_catalog") && (VOLATILE.has(name) || NOT_VOLATILE.has(name));
}
