/**
 * From what sockets and PostgreSQL report to what people are told.
 *
 * @module
 */

import { excerptOf, printable } from "../printable.ts";
import { type ConnectionSettings, describeHost, type Host } from "../config/connection.ts";
import { type ErrorDetails, messageOf, PipeweaveError } from "../errors.ts";
import { identifier } from "./sql.ts";
import { NOT_TRUSTED, type Use } from "./trust.ts";

/** The fields of PostgreSQL's ErrorResponse that are used here, as the driver names them. */
export interface ServerError extends Error {
  readonly code: string;
  readonly severity?: string;
  /** Translated; poolers send this one alone. */
  readonly severity_local?: string;
  readonly detail?: string;
  readonly hint?: string;
  readonly position?: string;
  readonly internal_position?: string;
  readonly where?: string;
  readonly table_name?: string;
  readonly constraint_name?: string;
}

/** Whether PostgreSQL itself reported this, as opposed to a socket or the driver. */
export function isServerError(error: unknown): error is ServerError {
  return error instanceof Error && error.name === "PostgresError";
}

/** SQLSTATE, DETAIL, HINT and CONTEXT of a server's error. */
export function serverDetails(error: ServerError): ErrorDetails {
  return {
    sqlstate: error.code,
    ...(error.detail ? { detail: excerptOf(error.detail) } : {}),
    ...(error.hint ? { serverHint: excerptOf(error.hint) } : {}),
    ...(error.where ? { context: excerptOf(error.where) } : {}),
    cause: error,
  };
}

const SOCKET_REASONS: Readonly<Record<string, readonly [code: string, reason: string, hint: string]>> = {
  ECONNREFUSED: [
    "refused",
    "the connection was refused",
    "Is PostgreSQL running there, and is the port right?",
  ],
  ENOTFOUND: [
    "unknown_host",
    "the host name is unknown",
    "Check the spelling, and that this machine's DNS knows it.",
  ],
  EAI_AGAIN: ["unknown_host", "the host name could not be looked up", "Check this machine's DNS."],
  EHOSTUNREACH: ["unreachable", "the host cannot be reached", "Check the network and the firewall."],
  ENETUNREACH: ["unreachable", "the network cannot be reached", "Check the network and the firewall."],
  ETIMEDOUT: ["timeout", "nothing answered", "Check the network and the firewall."],
  ENOENT: [
    "no_socket",
    "there is no such socket",
    "Is PostgreSQL running, with this unix_socket_directories and port?",
  ],
  ECONNRESET: ["closed", "the server closed the connection", "See the server's log for the reason."],
  // Deno's word for a write to a TLS connection that was closed.
  UNKNOWN: ["closed", "the server closed the connection", "See the server's log for the reason."],
  EPIPE: ["closed", "the server closed the connection", "See the server's log for the reason."],
};

/** The limit of one attempt ran out. */
export class ConnectTimeout extends Error {
  override readonly name = "ConnectTimeout";
}

/** Why no session with this host came about, before PostgreSQL itself said anything. */
export function hostProblem(error: unknown, settings: ConnectionSettings, host: Host): PipeweaveError {
  if (error instanceof PipeweaveError) return error;
  const at = describeHost(host);
  if (error instanceof ConnectTimeout) {
    return new PipeweaveError("connection", "timeout", `No answer from ${at} within ${error.message}`, {
      hint: "Is it PostgreSQL that listens there, and does it still work? --connect-timeout gives it longer.",
      cause: error,
    });
  }
  const code = String((error as { code?: unknown })?.code ?? "");
  if (host.host.startsWith("/") && code === "UNKNOWN") {
    return new PipeweaveError(
      "connection",
      "socket_not_permitted",
      `This binary may not use sockets in ${host.host}`,
      {
        hint:
          "It was built for sockets in the folders that `pipeweave --version` names; use TCP (--host 127.0.0.1), " +
          "or build it with PIPEWEAVE_SOCKET_DIRS.",
        cause: error,
      },
    );
  }
  const [name, reason, hint] = SOCKET_REASONS[code] ?? ["failed", messageOf(error), ""];
  const target = settings.hosts.length > 1
    ? at
    : `${at}, database "${printable(settings.database)}", user "${printable(settings.user)}"`;
  return new PipeweaveError("connection", name, `Cannot connect to ${target}: ${reason}`, {
    ...(hint ? { hint } : {}),
    cause: error,
  });
}

/** What answers there does not speak PostgreSQL's protocol. @param what continues "… is not PostgreSQL:" */
export function notPostgres(host: Host, what: string): PipeweaveError {
  return new PipeweaveError(
    "connection",
    "not_postgresql",
    `What answers at ${describeHost(host)} is not PostgreSQL: ${printable(what)}`,
    { hint: "Check host and port, and what stands in between." },
  );
}

/** The server asks for a password, and there is none. */
export function passwordProblem({ user }: ConnectionSettings, host: Host): PipeweaveError {
  return new PipeweaveError(
    "connection",
    "authentication_failed",
    `${describeHost(host)} asks for the password of user "${printable(user)}", and none was given`,
    { hint: NO_PASSWORD },
  );
}

const NO_PASSWORD = "Set PGPASSWORD, a line in ~/.pgpass, or a password in the URL.";

/** Why PostgreSQL itself turned the session down. */
export function startupProblem(error: ServerError, settings: ConnectionSettings, host: Host): PipeweaveError {
  const at = describeHost(host);
  const details = serverDetails(error);
  switch (codeOf(error)) {
    case "28P01":
    case "28000":
      return new PipeweaveError(
        "connection",
        "authentication_failed",
        `${at} refused user "${printable(settings.user)}": ${printable(excerptOf(error.message))}`,
        {
          ...details,
          // 28P01: the proof was wrong. 28000: this role may not come in, or not this way, whatever its proof.
          hint: codeOf(error) === "28P01"
            ? "Check the password, and that it is this server and user that it is for."
            : "Check the user (does it exist, may it log in?), the server's pg_hba.conf for this user, address and database, and " +
              "whether it asks for TLS or a client certificate.",
        },
      );
    case "3D000":
      return new PipeweaveError(
        "connection",
        "no_such_database",
        `${at} has no database "${printable(settings.database)}"`,
        {
          ...details,
          hint: `Create it (createdb ${printable(settings.database)}), or check the name.`,
        },
      );
    case "57P01":
    case "57P02":
    case "57P03":
      return new PipeweaveError(
        "connection",
        "starting",
        `${at} does not take connections now: ${printable(excerptOf(error.message))}`,
        {
          ...details,
          hint: "Try again in a moment, or wait for it with --wait-for-db 60s.",
        },
      );
    case "53300":
      return new PipeweaveError(
        "connection",
        "too_many_connections",
        `${at} has no connection left: ${printable(excerptOf(error.message))}`,
        {
          ...details,
          hint: "Close some, raise max_connections, or wait for one with --wait-for-db 60s.",
        },
      );
    default: {
      // A pooler that has no server, for a while or for good.
      const hasNoServer = codeOf(error).startsWith("08");
      return new PipeweaveError(
        "connection",
        hasNoServer ? "no_server" : "rejected",
        `${at} rejected the connection: ${printable(excerptOf(error.message))}`,
        {
          ...details,
          ...(hasNoServer
            ? { hint: "See to the server behind the pooler, or wait for it with --wait-for-db 60s." }
            : {}),
        },
      );
    }
  }
}

/** The SQLSTATE; of poolers that say the same one to everything (PgBouncer, Pgpool-II), what their words stand for. */
function codeOf({ code, message }: ServerError): string {
  if (code === "XX000") return /backend|node/.test(message) ? NO_SERVER : code;
  if (code !== "08P01") return code;
  if (/^no such database|^database ".*" does not exist/.test(message)) return "3D000";
  if (/^no such user|authentication failed|^role ".*" does not exist/.test(message)) return "28P01";
  return code;
}

/** connection_exception: a pooler that has no server. */
const NO_SERVER = "08000";

/** Whether waiting may help: nobody answered, or the server said that it is starting or full. */
export function mayComeUp(error: PipeweaveError): boolean {
  return [
    "refused",
    "unknown_host",
    "unreachable",
    "timeout",
    "no_socket",
    "closed",
    "starting",
    "too_many_connections",
    "no_server",
    "no_process",
    // Something in between that has not found its server yet; a standby that is not promoted yet.
    "not_postgresql",
    "tls_broken",
    "wrong_role",
    "connection_lost",
  ]
    .includes(error.code);
}

/** What to do about a session that may not write. */
export const READ_ONLY =
  "A standby is read-only: connect to the primary (PGTARGETSESSIONATTRS=read-write finds it). On a primary it is " +
  "default_transaction_read_only of the server, the database or the role: turn it off there.";

/** What to grant or set, where a SQLSTATE tells it. */
export function adviceFor(
  { code, message }: Pick<ServerError, "code" | "message">,
  settings: ConnectionSettings,
): string | undefined {
  const { user } = settings;
  switch (code) {
    case "42501":
      if (message.includes("row-level security")) {
        return "Row level security would hide rows from this role, and a count of the others would not be true. Use a role " +
          `that sees them all: the table's owner (unless it is forced), or one with BYPASSRLS: ALTER ROLE "${user}" BYPASSRLS;`;
      }
      if (message.startsWith("must be owner")) {
        return `Only the owner may do that, and grants do not help: connect as the owner, or make "${user}" a member of it, ` +
          "or hand the object over with ALTER … OWNER TO. Tables of PipeWeave, partitions of task_runs included, belong to " +
          "the role that migrates.";
      }
      return missingRight(message, settings);
    case "58P01":
      return "Install the extension on the server: most are in PostgreSQL's contrib package.";
    case "0A000":
      return /extension .* is not available/.test(message)
        ? "Install the extension on the server: most are in PostgreSQL's contrib package."
        : undefined;
    case "53100":
      return "The server's disk is full: make room there, and run it again.";
    case "53200":
    case "53300":
    case "53400":
      return "The server is at a limit of its own: see its log, and run it again when it has room.";
    case "57014":
      return /statement timeout/.test(message)
        ? "A limit of the role or the database ended it (statement_timeout): raise it there."
        : "Somebody cancelled it: find out why, and run it again.";
    case "25006":
      return READ_ONLY;
    default:
      return undefined;
  }
}

/** What to grant, by what the server says is missing, and on what. */
function missingRight(message: string, { user, database, schema }: ConnectionSettings): string {
  const me = identifier(user).text;
  const [, kind, name] = /^permission denied for (\w+) (.+)$/.exec(message) ?? [];
  switch (kind) {
    case "database":
      return `Grant it, as the database's owner: GRANT CREATE ON DATABASE ${
        identifier(database).text
      } TO ${me};`;
    case "schema":
      return `Grant it, as the schema's owner: GRANT USAGE, CREATE ON SCHEMA ${
        identifier(name!).text
      } TO ${me};`;
    case "table":
    case "view":
    case "relation":
    case "sequence": {
      const rights = kind === "sequence"
        ? "USAGE, SELECT ON SEQUENCE"
        : "SELECT, INSERT, UPDATE, DELETE ON TABLE";
      return `Grant it, as its owner; to look, SELECT alone is enough: GRANT ${rights} ${
        identifier(schema).text
      }.${identifier(name!).text} TO ${me};`;
    }
    default:
      return "Connect as a role that may do that, or have the right granted by who owns the object.";
  }
}

/** What {@linkcode "./trust.ts".assertTrusted} found: whose objects they are, and the statements that hand them over. */
export function notTrusted(
  report: string,
  { schema }: ConnectionSettings,
): { readonly message: string; readonly details: ErrorDetails } {
  const { use, role, problems: objects } = JSON.parse(report) as {
    use: Use;
    role: string;
    problems: readonly { object: string; owner: string; alter: string | null }[];
  };
  const me = identifier(role).text;
  const owners = [...new Set(objects.map(({ owner }) => owner))];
  const belongs = ({ object, owner }: { object: string; owner: string }) =>
    `${object} ${object.startsWith("trigger ") ? "runs a function of" : "belongs to"} ${owner}`;
  const isMine = use === "own"
    ? `${role} is neither that role nor a member of it`
    : `${role} does not run what that role may have put there`;
  const wayOut = use === "own"
    ? `connect as ${owners.join(" or ")}, or hand over what is listed, as its owner or a superuser`
    : `connect as ${owners.join(" or ")}, or make ${role} a member: ${
      owners.map((owner) => `GRANT ${identifier(owner).text} TO ${me};`).join(" ")
    } A role that was granted CREATE on schema "${schema}" by name is trusted by all but superusers`;
  return {
    message: `The ${belongs(objects[0]!)}, and ${isMine}. Nothing was done`,
    details: {
      sqlstate: NOT_TRUSTED,
      problems: objects.map((found) =>
        `${belongs(found)}${
          use === "own" && found.alter ? `; to hand it over: ALTER ${found.alter} OWNER TO ${me};` : ""
        }`
      ),
      hint:
        `If that is right, ${wayOut}. If nobody knows why, look at it before anything uses it, and rename or drop it.`,
      data: { objects: objects.map(({ object, owner }) => ({ object, owner })) },
    },
  };
}
