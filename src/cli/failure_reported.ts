import { PipeweaveError } from "../errors.ts";
import type { ApplyResult } from "../engine/apply_types.ts";
import { labelOf, listOf } from "../migrations/migration.ts";

/** A failed migration, with the state that things are in now. */
export class FailureReported extends PipeweaveError {
  constructor({ applied, failed, status }: ApplyResult) {
    const { migration, error, left } = failed!;
    const behind = status.pending.filter((other) => other !== migration);
    const interrupted = error.kind === "interrupted";
    const what = interrupted ? "was interrupted" : `failed: ${error.message}`;
    const again = "run db:migrate again: it goes on where it stopped.";
    super(error.kind, error.code, `${labelOf(migration)} ${what}`, {
      ...error.details,
      problems: [
        left,
        applied.length === 0
          ? "this run applied nothing"
          : `applied by this run: ${listOf(applied.map(({ migration }) => migration))}`,
        ...(behind.length === 0 ? [] : [`not tried: ${listOf(behind)}`]),
        ...(error.details.problems ?? []),
      ],
      hint: error.details.hint ??
        (interrupted ? again.replace("run", "Run") : `Correct the file, and ${again}`),
      cause: error,
    });
  }
}
