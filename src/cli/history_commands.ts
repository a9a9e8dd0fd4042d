/**
 * The `db:` commands that are about the history: `db:history`, `db:rollback`, `db:repair`, `db:baseline`.
 *
 * @module
 */

import { formatDuration } from "../config/duration.ts";
import { PipeweaveError } from "../errors.ts";
import { labelOf } from "../migrations/migration.ts";
import type { Settlement } from "../commands/history.ts";
import type { RollbackStep } from "../engine/rollback.ts";
import { rollbackJson } from "../output/json.ts";
import { formatHistory } from "../output/log_text.ts";
import { ALLOW_ONLINE, RUN_OPTIONS } from "./database_commands.ts";
import { confirmed } from "./confirm.ts";
import { connect } from "./connect.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { runningOptions, stepOf } from "./migrate.ts";
import {
  type CommandSpec,
  CONNECTION_OPTIONS,
  MIGRATION_OPTIONS,
  type OptionSpec,
  OUTPUT_OPTIONS,
} from "./spec.ts";
import { oneOf, text, VERSION, wholeNumber } from "./values.ts";

const REASON: OptionSpec = { flag: "--reason", value: text("text"), description: "Why; the log keeps it." };
const HISTORY_LINES = 20;

const history: CommandSpec = {
  name: "db:history",
  group: "Migrations",
  summary: "Show who did what to the migrations, and when.",
  description:
    "Shows the log, newest first: every migration that was applied, that failed or was rolled back, repaired or adopted, with the database user, the operating system's user and host, the tool's version, the time it took, and the reason where one was given. The log is append-only: the database refuses to change it.",
  options: [
    {
      title: "History",
      options: [
        {
          flag: "--limit",
          value: wholeNumber("n", 1, 1_000_000),
          description: `Entries at most.`,
          defaultsTo: `${HISTORY_LINES}`,
        },
        { flag: "--version", value: VERSION, description: "Only what was done to this migration." },
        {
          flag: "--action",
          value: oneOf("action", "apply", "rollback", "repair", "baseline"),
          description: "Only this: apply, rollback, repair or baseline.",
        },
        { flag: "--failed", description: "Only what failed." },
      ],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [{ purpose: "What happened last night?", line: "pipeweave db:history --limit 50" }],
  exitCodes: [[4, "the database did not come up in time"], [6, "no connection"]],
  async run(input, terminal) {
    const limit = input.integer("--limit") ?? HISTORY_LINES;
    const filters = ["--version", "--action", "--failed"];
    const { showHistory } = await import("../commands/history.ts");
    await using session = await connect(input, terminal);
    const found = await showHistory(session, {
      // One more tells whether there are more.
      limit: limit + 1,
      version: input.text("--version"),
      action: input.choice("--action"),
      outcome: input.has("--failed") ? "failed" : undefined,
    });
    const rows = found.slice(0, limit);
    terminal.result(
      () => ({ history: rows }),
      () =>
        rows.length === 0 && filters.some((flag) => input.has(flag))
          ? "Nothing like that is logged."
          : formatHistory(rows, terminal.page),
    );
    if (found.length > limit) terminal.note(`There are older entries: --limit <n> shows more.`);
  },
};

const rollback: CommandSpec = {
  name: "db:rollback",
  group: "Migrations",
  summary: "Undo the last migrations by their down files.",
  description:
    "Runs the down files (NNN_name.down.sql) of the last applied migrations, the newest first, each in one transaction in which the migration leaves the history. It shows the plan and asks first; scripts say --yes. What has no down file, or was changed since, cannot be rolled back, and then nothing is. A down file undoes the schema; data that a migration removed stays lost.",
  options: [
    {
      title: "Rolling back",
      options: [
        {
          flag: "--steps",
          value: wholeNumber("n", 1, 1_000_000),
          description: "How many migrations.",
          defaultsTo: "1",
        },
        { flag: "--to", value: VERSION, description: "The version to go back to; it stays applied." },
        { flag: "--yes", short: "-y", description: "Do not ask." },
        ALLOW_ONLINE,
      ],
    },
    RUN_OPTIONS,
    MIGRATION_OPTIONS,
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "The last migration", line: "pipeweave db:rollback --dir ./migrations" },
    {
      purpose: "From a script, back to a version",
      line: "pipeweave db:rollback --dir ./migrations --to 007 --yes",
    },
  ],
  exitCodes: [
    [1, "a down file failed: that migration stays applied"],
    [
      3,
      "it needs maintenance and tasks are active, or another migrator changed the history; nothing was changed",
    ],
    [4, "a lock was not free, or the database did not come up, in time"],
    [5, "a down file is missing, or files are invalid or changed; nothing was changed"],
    [6, "no connection"],
  ],
  run: runRollback,
};

async function runRollback(input: Input, terminal: Terminal): Promise<void> {
  const { progress, style: { good, bad } } = terminal;
  const steps = input.integer("--steps");
  const to = input.text("--to");
  if (steps !== undefined && to !== undefined) input.problem("--steps and --to exclude each other");
  const yes = input.has("--yes");
  if (!yes && !terminal.ask) {
    input.problem("--yes is needed where nobody can be asked: stdin is no terminal");
  }
  const running = runningOptions(input);
  await using session = await connect(input, terminal);
  const { rollback } = await import("../commands/rollback.ts");
  const result = await rollback(session, {
    ...input.sources(),
    ...running,
    ...{ steps, to, actor: input.actor, signal: input.signal },
    allowOnline: input.has("--allow-online"),
    confirm: yes ? undefined : (plan) => confirmPlan(input, terminal, session.target, plan),
    onRollingBack: (migration) => {
      terminal.event("rolling_back", { version: migration.version, name: migration.name });
      progress.update(`Rolling back ${labelOf(migration)}`);
    },
    onRolledBack: (migration, executionTimeMs) => {
      terminal.event("rolled_back", { version: migration.version, name: migration.name, executionTimeMs });
      progress.stop();
      const time = executionTimeMs === null ? "" : ` (${formatDuration(executionTimeMs)})`;
      terminal.step(`${good("✓")} Rolled back ${labelOf(migration)}${time}`);
    },
    onActivity: (migration, activity) => {
      progress.update(stepOf(`Rolling back ${labelOf(migration)}`, activity));
    },
    onRetry: (migration, reason) => terminal.note(`${labelOf(migration)}: ${reason}`),
    onLockWait: (holder) => progress.update(`Another migrator is at work (${holder})`),
  });
  progress.stop();
  if (terminal.json) terminal.document = rollbackJson(result);
  if (!result.failed) {
    return result.rolledBack.length === 0 ? terminal.step("Nothing to roll back") : undefined;
  }
  const { migration, error } = result.failed;
  const label = labelOf(migration);
  terminal.step(`${bad("✗")} Failed ${label}`);
  const done = result.rolledBack.map((one) => labelOf(one.migration));
  throw new PipeweaveError(error.kind, error.code, `Rolling back ${label} failed: ${error.message}`, {
    ...error.details,
    problems: [
      `${label} stays applied: nothing of its down file stays`,
      done.length === 0 ? "this run rolled back nothing" : `rolled back by this run: ${done.join(", ")}`,
    ],
    hint: error.details.hint ?? "Correct the down file, and run db:rollback again.",
    cause: error,
  });
}

/** Shows the plan and asks. Throws when the answer is not yes. */
async function confirmPlan(
  input: Input,
  terminal: Terminal,
  target: string,
  plan: readonly RollbackStep[],
): Promise<void> {
  const list = plan.map(({ migration }) => `  ${labelOf(migration)}\n`).join("");
  if (await confirmed(input, terminal, `To be rolled back on ${target}, in this order:\n${list}Go on?`)) {
    return;
  }
  throw new PipeweaveError("condition", "declined", "Not confirmed: nothing was changed");
}

const repair: CommandSpec = {
  name: "db:repair",
  group: "Migrations",
  summary: "Accept a migration file that was edited after it was applied.",
  description:
    "Writes the checksum that the file has now into the history, so that db:migrate goes on; for a migration outside a transaction that is under way, the statements that have run are taken to be the file's. The database's schema stays as it is: whoever edited the file has to know that it fits. Both checksums, who did it and why are logged.",
  options: [
    {
      title: "Repair",
      options: [
        { flag: "--version", value: VERSION, description: "The migration." },
        { ...REASON, description: "Why; required, and the log keeps it." },
        {
          flag: "--partial",
          value: oneOf("what", "done", "again", "forget"),
          description:
            "Of a half-done migration outside a transaction, the statement whose end is not known: done, or to be run again; forget: all of it was undone by hand",
        },
        {
          flag: "--renumber",
          value: text("number"),
          description: "Give a row of the history another number, where PipeWeave's own migration has its",
        },
      ],
    },
    MIGRATION_OPTIONS,
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [{
    purpose: "After a comment was corrected in an applied file",
    line: 'pipeweave db:repair --version 007 --reason "only a comment" --dir ./migrations',
  }],
  exitCodes: [
    [2, "there is no file of that version"],
    [3, "the migration is not applied"],
    [4, "another migrator was at work for too long, or the database did not come up in time"],
    [5, "files are invalid"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    const version = input.text("--version");
    const reason = input.text("--reason")?.trim();
    if (!version) input.problem("--version is required: the migration to repair");
    if (!reason) input.problem("--reason is required: the log keeps it");
    const settlement = input.choice<Settlement>("--partial");
    const number = input.text("--renumber");
    if (number !== undefined && !/^\d+$/.test(number)) input.problem("--renumber takes digits");
    if (settlement !== undefined && number !== undefined) {
      input.problem("--partial and --renumber exclude each other");
    }
    await using session = await connect(input, terminal);
    const { renumber, repairMigration, settlePartial } = await import("../commands/history.ts");
    const byHand = { ...input.sources(), actor: input.actor, reason };
    if (settlement !== undefined) {
      const what = settlement;
      const partial = await settlePartial(session, version!, what, byHand);
      const told = {
        done: `statement ${partial.begun} is taken to be done; db:migrate goes on behind it`,
        again: `db:migrate runs statement ${partial.begun} again`,
        forget: "db:migrate begins it from its first statement",
      };
      return terminal.result(
        () => ({ version: partial.version, name: partial.name, partial: what }),
        () => `✓ Repaired ${labelOf(partial)}: ${told[what]}`,
      );
    }
    if (number !== undefined) {
      const moved = await renumber(session, version!, number, byHand);
      return terminal.result(
        () => moved,
        () => `✓ Repaired ${moved.from}_${moved.name}: it is ${moved.to}_${moved.name} in the history now`,
      );
    }
    const result = await repairMigration(session, version!, byHand);
    terminal.result(() => result, () => {
      const label = labelOf(result);
      if (!result.repaired) return `${label} needs no repair: the file is as it was applied`;
      return result.statements.length > 0
        ? `✓ Repaired ${label}: statement(s) ${result.statements.join(", ")} are taken to be the file's`
        : `✓ Repaired ${label}: ${result.oldChecksum?.slice(0, 12)}… is ${result.checksum.slice(0, 12)}… now`;
    });
  },
};

const baseline: CommandSpec = {
  name: "db:baseline",
  group: "Migrations",
  summary: "Adopt an existing schema: record migrations as applied without running them.",
  description:
    "For a database that has what the first migrations of a set would make, since it was made by other means: records all of that set's migrations up to the version as applied, without running them. It refuses where one of the set was applied already.",
  argument: VERSION,
  options: [{ title: "Baseline", options: [REASON] }, MIGRATION_OPTIONS, CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [{
    purpose: "The schema is that of 012; what follows is to be applied",
    line: "pipeweave db:baseline 012 --dir ./migrations",
  }],
  exitCodes: [
    [2, "there is no such version"],
    [4, "another migrator was at work for too long, or the database did not come up in time"],
    [
      5,
      "a migration of the set was applied by running it, or files are invalid; 0 where all of it is recorded already",
    ],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    await using session = await connect(input, terminal);
    const { baseline } = await import("../commands/history.ts");
    const result = await baseline(session, input.args[0]!, {
      ...input.sources(),
      actor: input.actor,
      reason: input.text("--reason"),
    });
    terminal.result(
      () => result,
      () =>
        result.adopted.length === 0
          ? `${result.version} is applied already`
          : result.adopted.map((migration) => `✓ Adopted ${labelOf(migration)}, without running it`).join(
            "\n",
          ),
    );
  },
};

export const HISTORY_COMMANDS: readonly CommandSpec[] = [history, rollback, repair, baseline];
