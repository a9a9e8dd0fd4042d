/**
 * What a DO block runs: the statements in it, by PostgreSQL's own parser of PL/pgSQL.
 *
 * @module
 */

import { type Node, parseStatements } from "./statements.ts";
import { descendants, nodeOf, nodesOf } from "./tree.ts";

/** What was found in a block. */
export interface BlockContent {
  readonly statements: readonly Node[];
  /** Whether something in it could not be read: another language, or SQL that is put together when it runs. */
  readonly isWhole: boolean;
}

/** An expression that is a whole statement (PLpgSQL's RAW_PARSE_DEFAULT). */
const STATEMENT = 0;

/** Reads the body of a DO statement. */
export async function contentOfDo({ fields }: Node, text: string): Promise<BlockContent> {
  const options = nodesOf(fields["args"]).map(({ fields: option }) => option);
  const language = options.find(({ defname }) => defname === "language");
  const name = language && nodeOf(language["arg"])?.fields["sval"];
  if (name !== undefined && name !== "plpgsql") return { statements: [], isWhole: false };
  let tree: unknown;
  try {
    const { parsePlPgSQL } = await import("libpg-query");
    tree = await parsePlPgSQL(text);
  } catch {
    return { statements: [], isWhole: false };
  }
  const statements: Node[] = [];
  let isWhole = true;
  const take = async (sql: string) => {
    try {
      statements.push(...(await parseStatements(sql)).map(({ node }) => node));
    } catch {
      isWhole = false;
    }
  };
  for (const { type, fields: found } of everyNode(tree)) {
    if (type === "PLpgSQL_expr" && (found["parseMode"] ?? STATEMENT) === STATEMENT) {
      await take(String(found["query"]));
    }
    if (type !== "PLpgSQL_stmt_dynexecute" && type !== "PLpgSQL_stmt_dynfors") continue;
    const literal = await literalOf(String(nodeOf(found["query"])?.fields["query"] ?? ""));
    if (literal === undefined) isWhole = false;
    else await take(literal);
  }
  return { statements, isWhole };
}

/** The text of an expression that is a constant, or format() of one: its places are filled with a name. */
async function literalOf(expression: string): Promise<string | undefined> {
  const [statement] = await parseStatements(`SELECT ${expression}`).catch(() => []);
  const target = nodesOf(statement?.node.fields["targetList"])[0]?.fields["val"];
  const { type, fields } = nodeOf(target) ?? { type: "", fields: {} };
  const constant = (value: unknown) =>
    nodeOf(value)?.type === "A_Const"
      ? (nodeOf(value)!.fields["sval"] as { sval?: string } | undefined)?.sval
      : undefined;
  if (type === "A_Const") return constant(target);
  const isFormat = type === "FuncCall" && JSON.stringify(fields["funcname"]).includes('"format"');
  const template = isFormat ? constant((fields["args"] as unknown[] | undefined)?.[0]) : undefined;
  return template?.replaceAll(/%(?:\d+\$)?[Is]/g, "unknown_name").replaceAll(/%(?:\d+\$)?L/g, "''")
    .replaceAll("%%", "%");
}

/** Nodes of PL/pgSQL's trees, which are named like SQL's. */
function everyNode(tree: unknown): Iterable<Node> {
  return descendants(tree);
}
