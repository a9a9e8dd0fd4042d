/**
 * How the library's functions are told which database is meant.
 *
 * @module
 */

import { decideConnection } from "../config/connection.ts";
import { Session, type SessionOptions } from "../database/session.ts";
import { PipeweaveError } from "../errors.ts";
import { VERSION } from "../config/version.ts";

/** A database: a URL, or a URL with what else matters. */
export type DatabaseTarget = string | DatabaseOptions;

/** Which database, and how to connect. */
export interface DatabaseOptions {
  /** Connection URL, as libpq reads it. Nothing is read from the environment. */
  readonly databaseUrl: string;
  /** Schema that PipeWeave's tables live in. Default: `public` */
  readonly schema?: string;
  /** Ends what runs: the server rolls it back, and the function throws. */
  readonly signal?: AbortSignal;
}

/**
 * Opens a session. It connects when it is first used.
 *
 * @throws {PipeweaveError} of kind `usage` when the URL cannot be read
 */
export function openSession(target: DatabaseTarget, session: SessionOptions = {}): Session {
  const { databaseUrl, schema, signal }: DatabaseOptions = typeof target === "string"
    ? { databaseUrl: target }
    : target;
  const decision = decideConnection({ url: databaseUrl, schema }, {
    env: {},
    readFile: (path) => {
      try {
        return { text: Deno.readTextFileSync(path) };
      } catch (error) {
        if (error instanceof Deno.errors.NotFound) return undefined;
        throw error;
      }
    },
    osUser: undefined,
    applicationName: `pipeweave/${VERSION}`,
  });
  if (!decision.ok) {
    throw new PipeweaveError("usage", "bad_database_url", "The database is not named right", {
      problems: decision.problems.map((problem) =>
        problem.replace("--url", "databaseUrl").replace("--schema", "schema")
      ),
    });
  }
  return new Session(decision.settings, { signal, ...session });
}

/** Opens a session, works with it, and closes it whatever happens. */
export async function withSession<T>(
  target: DatabaseTarget,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const session = openSession(target);
  try {
    return await work(session);
  } finally {
    await session.close();
  }
}
