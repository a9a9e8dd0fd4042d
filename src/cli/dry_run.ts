/**
 * `db:migrate --dry-run`.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { labelOf } from "../migrations/migration.ts";
import { planJson } from "../output/json.ts";
import { formatPlan } from "../output/database_text.ts";
import { connect } from "./connect.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { applyingOptions } from "./migrate.ts";

/** Prints the plan; the exit code is what `db:migrate` would end with, as far as that is known beforehand. */
export async function runDryRun(input: Input, terminal: Terminal): Promise<void> {
  const isTried = input.choice("--dry-run") === "execute";
  const options = applyingOptions(input, terminal);
  await using session = await connect(input, terminal);
  const { planDryRun } = await import("../commands/dry_run.ts");
  if (isTried) terminal.progress.update("Trying pending migrations");
  const plan = await planDryRun(session, isTried, options);
  terminal.progress.stop();
  terminal.result(() => planJson(plan), () => formatPlan(plan, terminal.page));
  if (plan.failed) {
    const { migration, error } = plan.failed;
    throw new PipeweaveError(
      error.kind,
      error.code,
      `${labelOf(migration)} would fail: ${error.message}`,
      {
        ...error.details,
        problems: [
          ...(error.details.problems ?? []),
          ...(plan.tried === 0 ? [] : [`It was tried in one transaction with the ${plan.tried} before it`]),
        ],
        hint: error.details.hint ?? "Correct the file; nothing was applied.",
      },
    );
  }
  if (!plan.refusal) return;
  // With --maintenance what would refuse is what it drains for.
  if (!input.has("--maintenance")) throw plan.refusal;
  terminal.note(`It would drain first: ${plan.refusal.message.replace(/ Nothing was applied\.$/, "")}`);
}
