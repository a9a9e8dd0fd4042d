/**
 * `db:selftest`: the whole cycle on a real server, in a scratch schema that is removed whatever happens.
 *
 * @module
 */

import { cleanup } from "../cleanup/cleanup.ts";
import type { ConnectionSettings } from "../config/connection.ts";
import type { Session } from "../database/session.ts";
import { identifier, sql } from "../database/sql.ts";
import { assertTrusted } from "../database/trust.ts";
import { messageOf, PipeweaveError } from "../errors.ts";
import { historyTable } from "../engine/history.ts";
import type { OrchestratorMode } from "../maintenance/transitions.ts";
import {
  enterMaintenance,
  exitMaintenance,
  getMaintenanceStatus,
  requestMaintenance,
} from "./maintenance.ts";
import { type Feature, FEATURES } from "./features.ts";
import { migrate } from "./migrate.ts";

/** One check, done. */
export interface Check {
  readonly name: string;
  readonly ok: boolean;
  /** Milliseconds. */
  readonly ms: number;
  readonly error?: unknown;
}

/** All checks, and the failure that ended them. */
export interface SelfTestResult {
  readonly document: {
    readonly ok: boolean;
    readonly schema: string;
    readonly checks: readonly { name: string; ok: boolean; durationMs: number; error?: string }[];
  };
  readonly failure: PipeweaveError | undefined;
}

/** Opens a session; one that is not interruptible goes on after a signal. */
export type OpenSession = (
  settings: ConnectionSettings,
  options: { interruptible: boolean },
) => Promise<Session>;

/** A failed check. */
function expect(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise);
}

/** Runs the checks in order, up to the first that fails, and removes the scratch schema. */
export async function selfTest(
  session: Session,
  open: OpenSession,
  onCheck: (check: Check) => void = () => {},
): Promise<SelfTestResult> {
  const schema = `pipeweave_selftest_${crypto.randomUUID().slice(0, 8)}`;
  const settings = { ...session.settings, schema };
  const checks: Check[] = [];
  const check = async (name: string, body: () => Promise<void>): Promise<boolean> => {
    const start = performance.now();
    const outcome = await body().then(() => ({ ok: true }), (error: unknown) => ({ ok: false, error }));
    checks.push({ name, ms: performance.now() - start, ...outcome });
    onCheck(checks.at(-1)!);
    return outcome.ok;
  };

  // The first check connects; when that fails there is nothing to remove, and the error is the command's.
  await session.transaction(sql`SELECT 1 AS one;`);
  const scratch = await open(settings, { interruptible: true });
  try {
    const isMade = await check("create a scratch schema", () => createScratch(session, schema));
    // All that is missing is named, and not the first of it alone.
    if (isMade) { for (const { name, probe } of FEATURES) await check(name, () => probe(scratch)); }
    if (checks.every(({ ok }) => ok)) {
      for (const [name, body] of cycle(scratch)) if (!await check(name, body)) break;
    }
  } finally {
    await scratch.close();
    const remover = await open(settings, { interruptible: false });
    await check(`remove schema ${schema}`, async () => {
      await remover.transaction(
        sql`SET LOCAL client_min_messages = warning; DROP SCHEMA IF EXISTS ${identifier(schema)} CASCADE;`,
      );
    });
    await remover.close();
  }
  const failed = checks.find(({ ok }) => !ok);
  const missing = FEATURES.filter(({ name }) => checks.some((one) => one.name === name && !one.ok));
  return {
    document: {
      ok: failed === undefined,
      schema,
      checks: checks.map(({ name, ok, ms, error }) => ({
        name,
        ok,
        durationMs: Math.round(ms),
        ...(error === undefined ? {} : { error: messageOf(error) }),
      })),
    },
    failure: failed && asFailure(failed, missing),
  };
}

function asFailure({ name, error }: Check, missing: readonly Feature[]): PipeweaveError {
  if (error instanceof PipeweaveError && error.kind === "interrupted") return error;
  if (missing.length > 0) {
    return new PipeweaveError(
      "database",
      "selftest_failed",
      `This server lacks ${missing.length} of the ${FEATURES.length} features that PipeWeave needs`,
      {
        problems: missing.map(({ name, without }) => `${name}. What does not work without it: ${without}`),
        hint: "Is it PostgreSQL? What others are known to lack: docs/database.md, Engines.",
        cause: error,
      },
    );
  }
  const details = error instanceof PipeweaveError ? error.details : { cause: error };
  return new PipeweaveError("database", "selftest_failed", `Check "${name}" failed: ${messageOf(error)}`, {
    ...details,
    hint: details.hint ??
      "Run it again with --verbose for the details.",
  });
}

async function createScratch(session: Session, schema: string): Promise<void> {
  // What is in the way of migrating the schema itself, however much may be done in another one.
  await session.transaction(assertTrusted(session.settings.schema, [], "own"));
  await session.transaction(sql`CREATE SCHEMA ${identifier(schema)};`);
}

function cycle(scratch: Session): readonly (readonly [string, () => Promise<void>])[] {
  const { schema } = scratch.settings;
  const table = (name: string) => sql`${identifier(schema)}.${identifier(name)}`;
  const expectMode = async (mode: OrchestratorMode) => {
    const status = await getMaintenanceStatus(scratch);
    expect(status.mode === mode, `the mode is ${status.mode}, not ${mode}`);
  };
  const setStatus = (status: string) =>
    scratch.transaction(sql`UPDATE ${table("task_runs")} SET status = ${status};`);
  return [
    ["migrate", async () => {
      const { applied, failed } = await migrate(scratch);
      if (failed) throw failed.error;
      expect(applied.length > 0, "nothing was applied to an empty schema");
    }],
    ["re-run: nothing to do", async () => {
      const { applied } = await migrate(scratch);
      expect(applied.length === 0, `${applied.length} migrations were applied twice`);
    }],
    ["notice a changed migration", async () => {
      const history = historyTable(schema);
      await scratch.transaction(sql`UPDATE ${history} SET checksum = 'x' || checksum WHERE version = '001';`);
      const refusal = await migrate(scratch).then(() => undefined, (error: unknown) => error);
      await scratch.transaction(
        sql`UPDATE ${history} SET checksum = pg_catalog.substr(checksum, 2) WHERE version = '001';`,
      );
      expect(refusal instanceof PipeweaveError && refusal.kind === "integrity", "the change went unnoticed");
    }],
    ["queue tasks", async () => {
      await scratch.transaction(sql`
        INSERT INTO ${table("services")} (id, version, base_url) VALUES ('selftest', '1', 'http://localhost');
        INSERT INTO ${table("tasks")} (id, service_id, code_hash) VALUES ('selftest', 'selftest', 'x');
        INSERT INTO ${table("task_runs")} (id, task_id, code_version, code_hash, max_retries, status)
        VALUES ('1', 'selftest', 1, 'x', 3, 'pending'), ('2', 'selftest', 1, 'x', 3, 'running');`);
      const { pendingTasks, runningTasks } = await getMaintenanceStatus(scratch);
      expect(
        pendingTasks === 1 && runningTasks === 1,
        `counted ${pendingTasks} pending and ${runningTasks} running`,
      );
    }],
    ["request maintenance and drain", async () => {
      const { mode } = await requestMaintenance(scratch);
      expect(mode === "waiting_for_maintenance", `the mode is ${mode}`);
      const refusal = await enterMaintenance(scratch).then(() => undefined, (error: unknown) => error);
      expect(refusal instanceof PipeweaveError && refusal.kind === "condition", "entered with tasks active");
      await setStatus("completed");
    }],
    ["enter maintenance", () => expectMode("maintenance")],
    ["exit maintenance", async () => {
      await exitMaintenance(scratch);
      await expectMode("running");
    }],
    ["clean up", async () => {
      await scratch.transaction(sql`
        INSERT INTO ${
        table("idempotency_cache")
      } (idempotency_key, task_id, task_run_id, code_version, output_path, expires_at)
        VALUES ('old', 'selftest', '1', 1, '/', pg_catalog.now() - interval '1 hour'), ('new', 'selftest', '1', 1, '/', pg_catalog.now() + interval '1 hour');`);
      const { idempotencyCache } = await cleanup(scratch);
      expect(idempotencyCache === 1, `removed ${idempotencyCache} entries instead of 1`);
    }],
  ];
}
