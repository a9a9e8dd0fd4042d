/**
 * Reading libpg-query's parse trees: every node is an object with one key, its type, around its fields.
 *
 * @module
 */

import type { Node } from "./statements.ts";

/** Fields of a node. */
export type Fields = Readonly<Record<string, unknown>>;

/** A list of nodes, each as type and fields. */
export function nodesOf(list: unknown): readonly Node[] {
  return (Array.isArray(list) ? list : []).flatMap((item) => nodeOf(item) ?? []);
}

/** A node as type and fields. */
export function nodeOf(value: unknown): Node | undefined {
  const entry = value && typeof value === "object" ? Object.entries(value)[0] : undefined;
  return entry && { type: entry[0], fields: entry[1] as Fields };
}

/** A table as a statement names it. */
export interface TableName {
  readonly schema: string | undefined;
  readonly name: string;
}

/** The table of a RangeVar's fields. */
export function tableOf(rangeVar: unknown): TableName | undefined {
  const { schemaname, relname } = (rangeVar ?? {}) as { schemaname?: string; relname?: string };
  return relname === undefined ? undefined : { schema: schemaname, name: relname };
}

/** `schema.name` of a list of String nodes. */
export function nameOf(strings: unknown): TableName {
  const parts = nodesOf(strings).map(({ fields }) => String(fields["sval"]));
  return { schema: parts.at(-2), name: parts.at(-1) ?? "" };
}

/** Whether both may mean the same: a name without a schema is found by search_path, in any. */
export function mayBeSame(a: TableName, b: TableName): boolean {
  return a.name === b.name && (a.schema === undefined || b.schema === undefined || a.schema === b.schema);
}

/** As SQL would write it. */
export function written({ schema, name }: TableName): string {
  return schema === undefined ? name : `${schema}.${name}`;
}

/** Every node below, itself included. */
export function* descendants(value: unknown): Generator<Node> {
  if (Array.isArray(value)) {
    for (const item of value) yield* descendants(item);
  } else if (value && typeof value === "object") {
    for (const [type, fields] of Object.entries(value)) {
      if (/^[A-Z]/.test(type) && fields && typeof fields === "object" && !Array.isArray(fields)) {
        yield { type, fields: fields as Fields };
      }
      yield* descendants(fields);
    }
  }
}
