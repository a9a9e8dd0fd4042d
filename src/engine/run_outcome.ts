/**
 * What became of a run that ended before its time, in words.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { labelOf, listOf, type Migration } from "../migrations/migration.ts";
import type { AppliedNow } from "./apply_types.ts";

/** The state that a migration in a transaction is in when it failed. */
export function rolledBack(migration: Migration): string {
  return `${labelOf(migration)} was rolled back: nothing of it stays`;
}

/** What happened before an error that is not about one migration. */
export function withOutcome(
  error: PipeweaveError,
  applied: readonly AppliedNow[],
  unanswered: Set<Migration>,
): PipeweaveError {
  if (applied.length === 0 && unanswered.size === 0) return error;
  const names = applied.map(({ migration }) => labelOf(migration));
  const unknown = [...unanswered].map(labelOf);
  return new PipeweaveError(error.kind, error.code, error.message, {
    ...error.details,
    problems: [
      ...(error.details.problems ?? []),
      names.length === 0
        ? "this run applied nothing that it knows of"
        : `applied by this run: ${listOf(applied.map(({ migration }) => migration))}`,
      ...(unknown.length === 0
        ? []
        : [`sent, and not known to be applied or not: ${listOf([...unanswered])}; db:status tells`]),
    ],
    data: { ...error.details.data, applied: names, unanswered: unknown },
    cause: error,
  });
}

/** The error of a run whose time is over. @param state what the migration did then */
export function outOfTime(
  migration: Migration,
  heldBy: string | undefined,
  state: "ran" | "waited for a lock",
): PipeweaveError {
  return new PipeweaveError(
    "timeout",
    "timeout",
    `The time for applying ran out while ${labelOf(migration)} ${state}${
      migration.directives.noTransaction ? "" : ": nothing of it was applied"
    }`,
    {
      hint: `${
        heldBy ? `The lock was held by ${heldBy}. ` : ""
      }Run db:migrate again, with a longer --timeout.`,
    },
  );
}
