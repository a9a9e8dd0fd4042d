/**
 * What a statement leaves in the session. Outside a transaction a session may end between two statements of a file, so
 * what one leaves is set again for the next, or the file is refused.
 *
 * @module
 */

import type { Node } from "./statements.ts";
import { descendants, nodesOf } from "./tree.ts";

/** Something that would be gone at the next statement, and the way out. */
export interface SessionProblem {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

/** Whether a statement does nothing but set parameters of the session, and can be said again before a later one. */
export function isSetting({ type, fields }: Node): boolean {
  return type === "VariableSetStmt" || type === "SelectStmt" && isSetConfig(fields);
}

/**
 * Those of several statements that still say what holds behind them: of each parameter the last one. What an earlier one
 * named may be gone by then, such as a role.
 */
export function lastSettings<T extends { readonly node: Node }>(statements: readonly T[]): readonly T[] {
  const seen = new Set<string>();
  const last: T[] = [];
  for (const statement of statements.toReversed()) {
    const names = parametersOf(statement.node);
    if (names.length === 0 || names.every((name) => seen.has(name) || seen.has(ALL) && !IDENTITY.has(name))) {
      continue;
    }
    last.unshift(statement);
    for (const name of names) seen.add(name);
  }
  return last;
}

/** All parameters, but for those that say who is at work. */
const ALL = "RESET ALL";
const IDENTITY: ReadonlySet<string> = new Set(["role", "session_authorization"]);

/** The parameters that a statement sets, where it does nothing else. */
function parametersOf(node: Node): readonly string[] {
  const { type, fields } = node;
  if (!isSetting(node)) return [];
  if (type === "VariableSetStmt") {
    return fields["kind"] === "VAR_RESET_ALL" ? [ALL] : [String(fields["name"]).toLowerCase()];
  }
  return nodesOf(fields["targetList"]).map(({ fields: { val } }) => {
    const [name] = nodesOf(nodesOf([val])[0]!.fields["args"]);
    return String((name!.fields["sval"] as { sval?: string } | undefined)?.sval ?? "").toLowerCase();
  });
}

/** Whether a statement undoes all that those before it have set. */
export function forgetsSettings({ type, fields }: Node): boolean {
  return type === "DiscardStmt" && fields["target"] === "DISCARD_ALL";
}

/** What is wrong with a statement where the session may end behind it; undefined where nothing is. */
export function sessionProblemOf(node: Node): SessionProblem | undefined {
  const { type, fields } = node;
  switch (type) {
    case "VariableSetStmt":
      return problemOfSet(fields);
    case "ConstraintsSetStmt":
      return nothing("SET CONSTRAINTS", "Leave it out, or take the file into a transaction.");
    case "LockStmt":
      return nothing("LOCK TABLE", "Leave it out, or take the file into a transaction.");
    case "PrepareStmt":
      return gone("a prepared statement", "Write the statement out where it is used.");
    case "DeclareCursorStmt":
      return gone("a cursor", "Use a loop in a DO block or a procedure.");
    case "ListenStmt":
      return gone("LISTEN", "Leave it out: nobody waits for a notification here.");
  }
  if (isTemporary(node)) {
    return gone("a temporary object", "Use a plain table, and drop it at the end of the file.");
  }
  if (type === "SelectStmt" && isSetConfig(fields)) return undefined;
  for (const inner of descendants({ [type]: fields })) {
    if (inner.type === "FuncCall" && functionName(inner.fields) === "set_config") {
      return gone("what set_config sets here", "Set it by a statement of its own: SET name = value;");
    }
  }
  return undefined;
}

const gone = (what: string, hint: string): SessionProblem => ({
  code: "session_state",
  message:
    `${what} may be gone at the next statement: outside a transaction each may run in a session of its own`,
  hint,
});

const nothing = (what: string, hint: string): SessionProblem => ({
  code: "session_state",
  message: `${what} has no effect outside a transaction`,
  hint,
});

function problemOfSet({ kind, name, is_local }: Node["fields"]): SessionProblem | undefined {
  if (kind === "VAR_SET_MULTI") {
    return nothing(
      name === "TRANSACTION" ? "SET TRANSACTION" : "SET SESSION CHARACTERISTICS",
      "Leave it out, or take the file into a transaction.",
    );
  }
  return is_local ? nothing("SET LOCAL", "Write SET: it holds until the end of the file.") : undefined;
}

/** Whether a SELECT consists of calls of set_config for the session alone, with constants. */
function isSetConfig(fields: Node["fields"]): boolean {
  const { targetList, ...rest } = fields;
  const targets = nodesOf(targetList);
  if (targets.length === 0 || Object.keys(rest).some((key) => !/^(?:limitOption|op)$/.test(key))) {
    return false;
  }
  return targets.every(({ fields: { val } }) => {
    const [call] = nodesOf([val]);
    if (call?.type !== "FuncCall" || functionName(call.fields) !== "set_config") return false;
    const values = nodesOf(call.fields["args"]);
    return values.length === 3 && values.every(({ type }) => type === "A_Const") && isFalse(values[2]!);
  });
}

/** Whether a constant is false, as PostgreSQL reads a boolean. */
function isFalse({ fields }: Node): boolean {
  const { boolval, sval } = fields as { boolval?: { boolval?: boolean }; sval?: { sval?: string } };
  if (boolval) return boolval.boolval !== true;
  return /^\s*(?:f|fa|fal|fals|false|n|no|of|off|0)\s*$/i.test(sval?.sval ?? "");
}

const functionName = ({ funcname }: Node["fields"]): unknown => nodesOf(funcname).at(-1)?.fields["sval"];

/** What makes something that the end of the session removes. */
function isTemporary({ type, fields }: Node): boolean {
  const made = type === "CreateStmt"
    ? fields["relation"]
    : type === "CreateSeqStmt"
    ? fields["sequence"]
    : type === "ViewStmt"
    ? fields["view"]
    : type === "CreateTableAsStmt"
    ? (fields["into"] as Node["fields"])["rel"]
    : type === "SelectStmt"
    ? (fields["intoClause"] as Node["fields"] | undefined)?.["rel"]
    : undefined;
  const { relpersistence, schemaname } = (made ?? {}) as { relpersistence?: string; schemaname?: string };
  if (relpersistence === "t" || schemaname === "pg_temp") return true;
  return /^(?:Create|Define)/.test(type) &&
    [fields["funcname"], fields["typeName"], fields["defnames"]].some((name) =>
      Array.isArray(name) && name.length === 2 && nodesOf(name)[0]?.fields["sval"] === "pg_temp"
    );
}
