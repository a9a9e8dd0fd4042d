/**
 * Failures in the log.
 *
 * @module
 */

import { type Actor, UNKNOWN_ACTOR } from "../config/actor.ts";
import type { Session } from "../database/session.ts";
import { sql } from "../database/sql.ts";
import type { PipeweaveError } from "../errors.ts";
import { lockEngineTables } from "./history.ts";
import { writeLog } from "./log.ts";

/** Keeps that something failed, or was interrupted. Where it cannot be kept, the failure itself is the news. */
export async function logFailure(
  session: Session,
  what: { readonly action: "apply" | "rollback"; readonly version: string; readonly name: string },
  error: PipeweaveError,
  actor: Actor = UNKNOWN_ACTOR,
): Promise<void> {
  const { schema } = session.settings;
  // The run's own session may have been interrupted.
  await using beside = session.beside({});
  const one = error.kind === "interrupted" ? beside : session;
  await one.transaction(
    sql`SELECT ${lockEngineTables(schema)}; ${
      writeLog(schema, {
        ...{ ...what, outcome: "failed", actor },
        details: { error: error.message, sqlstate: error.details.sqlstate },
      })
    };`,
  ).catch(() => {});
}
