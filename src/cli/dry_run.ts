/**
 * `db:migrate --dry-run`.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { labelOf } from "../migrations/migration.ts";
import { planJson } from "../output/json.ts";
import { formatPlan } from "../output/text.ts";
import type { Invocation } from "./invocation.ts";
import { applyingOptions } from "./migrate.ts";

/** Prints the plan; the exit code is what `db:migrate` would end with, as far as that is known beforehand. */
export async function runDryRun(invocation: Invocation): Promise<void> {
  const isTried = invocation.choice("--dry-run") === "execute";
  const options = applyingOptions(invocation);
  const session = await invocation.session();
  const { planDryRun } = await import("../commands/dry_run.ts");
  if (isTried) invocation.progress.update("Trying pending migrations");
  const plan = await planDryRun(session, isTried, options);
  invocation.progress.stop();
  invocation.result(() => planJson(plan), () => formatPlan(plan, invocation.reportColumns));
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
  if (!invocation.has("--maintenance")) throw plan.refusal;
  invocation.note(`It would drain first: ${plan.refusal.message.replace(/ Nothing was applied\.$/, "")}`);
}
