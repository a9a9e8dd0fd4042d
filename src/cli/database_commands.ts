/**
 * The `db:` commands.
 *
 * @module
 */

import { messageOf } from "../errors.ts";
import { formatDuration } from "../config/duration.ts";
import { statusJson } from "../output/json.ts";
import { statusMetrics } from "../output/openmetrics.ts";
import { formatCleanup, formatStatus, SHOWN } from "../output/database_text.ts";
import { connect, openSession } from "./connect.ts";
import { REQUEST_OPTIONS } from "./drain.ts";
import { migratedSession, runMigrate } from "./migrate.ts";
import {
  type CommandSpec,
  CONNECTION_OPTIONS,
  METRICS,
  MIGRATION_OPTIONS,
  type OptionGroup,
  type OptionSpec,
  OUTPUT_OPTIONS,
} from "./spec.ts";
import { duration, oneOf, VERSION, wholeNumber } from "./values.ts";

const LIMIT_OPTIONS: readonly OptionSpec[] = [
  {
    flag: "--lock-timeout",
    isSetting: true,
    value: duration({
      atLeastMs: 1,
      rule: "must be greater than 0: without a limit a migration would queue others' queries behind it",
    }),
    description: "Limit for each lock that a migration waits for.",
    defaultsTo: "5s",
  },
  {
    flag: "--lock-retries",
    isSetting: true,
    value: wholeNumber("n", 0, 10_000),
    description: "How often a migration is tried again when a lock was not free in time.",
    defaultsTo: "20",
  },
  {
    flag: "--statement-timeout",
    isSetting: true,
    value: duration(),
    description: "Limit for each statement of a migration, 0 for none.",
    defaultsTo: "the role's",
  },
  {
    flag: "--lock-wait",
    isSetting: true,
    value: duration(),
    description: "How long to wait for another migrator.",
    defaultsTo: "60s",
  },
];

/** How a change that needs maintenance is made all the same. */
export const ALLOW_ONLINE: OptionSpec = {
  flag: "--allow-online",
  description: "Go on although it needs maintenance and tasks are active; the log keeps that.",
};

/** Options of every command that runs migration files. */
export const RUN_OPTIONS: OptionGroup = { title: "Running", options: LIMIT_OPTIONS };

const DEPLOY_OPTIONS: OptionGroup = {
  title: "Maintenance",
  options: [
    {
      flag: "--maintenance",
      value: oneOf("when", "auto", "always"),
      valueIsOptional: true,
      description:
        "Drain first, and go back to running after it: auto where a pending migration needs it, always where any is pending.",
      defaultsTo: "auto",
    },
    {
      flag: "--drain-timeout",
      isSetting: true,
      value: duration(),
      description: "How long to wait for the drain; then it is called off.",
      defaultsTo: "15m",
    },
    {
      flag: "--on-failure",
      isSetting: true,
      value: oneOf("what", "stay", "exit"),
      description: "stay: the mode stays maintenance when a migration fails. exit: it goes back to running.",
      defaultsTo: "stay",
    },
    ...REQUEST_OPTIONS,
  ],
};

const APPLY_OPTIONS: OptionGroup = {
  title: "Applying",
  options: [
    { flag: "--to", value: VERSION, description: "The last version to apply.", defaultsTo: "all" },
    {
      flag: "--dry-run",
      value: oneOf("mode", "execute"),
      valueIsOptional: true,
      description: "Show the plan and apply nothing; with =execute also run it, and roll it back.",
    },
    ALLOW_ONLINE,
    ...LIMIT_OPTIONS,
    {
      flag: "--timeout",
      value: duration({
        atLeastMs: 1,
        rule: "must be greater than 0: no time would be left; without it there is no limit",
      }),
      description: "Limit for all of it: what runs then is cancelled, and no attempt starts after that.",
      defaultsTo: "none",
    },
    {
      flag: "--lease",
      isSetting: true,
      value: duration({ atLeastMs: 1000, rule: "must be 1s or longer: it has to outlast a heartbeat" }),
      description: "How long a run of a no-transaction migration keeps its turn without a sign of life.",
      defaultsTo: "30s",
    },
    {
      flag: "--out-of-order",
      description: "Apply also what is pending behind an applied migration of its set.",
    },
    {
      flag: "--allow-missing",
      description: "Go on although the history holds migrations that no file is for.",
    },
  ],
};

const migrate: CommandSpec = {
  name: "db:migrate",
  group: "Migrations",
  summary: "Apply pending migrations.",
  description:
    "Applies what is pending, in order, each migration in one transaction together with its row in schema_migrations, and stops at the first that fails: of that one nothing stays, what was applied before stays applied. Any number of these may run at once; each migration is applied exactly once.",
  options: [MIGRATION_OPTIONS, APPLY_OPTIONS, DEPLOY_OPTIONS, CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [
    {
      purpose: "Bring a database up to date",
      line: "DATABASE_URL=postgres://app@db1/app pipeweave db:migrate",
    },
    {
      purpose: "In a container's entrypoint, while the database may still be starting",
      line: "pipeweave db:migrate --wait-for-db 60s && exec node server.js",
    },
    {
      purpose: "With migrations of your own after PipeWeave's",
      line: "pipeweave db:migrate --dir ./migrations",
    },
    {
      purpose: "A deployment: drain where a migration needs it, migrate, go back to running",
      line: "pipeweave db:migrate --dir ./migrations --maintenance --drain-timeout 10m",
    },
    {
      purpose: "What would it do, how long would it take, and which locks?",
      line: "pipeweave db:migrate --dir ./migrations --dry-run=execute",
    },
  ],
  exitCodes: [
    [1, "a migration failed, or the database refused"],
    [3, "a migration needs maintenance, and tasks are active; nothing was applied"],
    [4, "the database did not come up, or a lock was not free, in time"],
    [5, "files are invalid, changed, missing or out of order; nothing was applied"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    if (!input.has("--dry-run")) return await runMigrate(input, terminal);
    const { runDryRun } = await import("./dry_run.ts");
    await runDryRun(input, terminal);
  },
};

const init: CommandSpec = {
  ...migrate,
  name: "db:init",
  isHidden: true,
  summary: "Deprecated name of db:migrate.",
  description: "The deprecated name of db:migrate. It says so on stderr, and then does the same.",
  examples: [{ purpose: "What to run instead", line: "pipeweave db:migrate" }],
  async run(input, terminal) {
    terminal.warn("db:init is deprecated: use db:migrate");
    await migrate.run(input, terminal);
  },
};

const status: CommandSpec = {
  name: "db:status",
  group: "Migrations",
  summary: "Show which migrations are applied and which are pending.",
  description:
    "Shows the current version, what is applied (when, and how long it took) and what is pending. It changes nothing, and takes one round trip.",
  options: [
    {
      title: "Status",
      options: [
        {
          flag: "--check",
          description: "Exit 3 if any migration is pending, 5 if files and history contradict each other.",
        },
        {
          flag: "--pending",
          description: "Show what is pending, and what is wrong, and not what is applied.",
        },
        {
          flag: "--limit",
          value: wholeNumber("n", 1, 1_000_000),
          description: "Show so many of the applied migrations, and of the pending ones.",
          defaultsTo: "the last 50 and the next 50",
        },
        { flag: "--all", description: "Show all of them." },
        METRICS,
      ],
    },
    MIGRATION_OPTIONS,
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "Look", line: "pipeweave db:status" },
    {
      purpose: "In a script: is anything left to do?",
      line: "pipeweave db:status --check --quiet || pipeweave db:migrate",
    },
    {
      purpose: "For node_exporter's textfile collector",
      line: "pipeweave db:status --format prometheus > /var/lib/node_exporter/pipeweave.prom",
    },
    {
      purpose: "Names of pending migrations, by jq",
      line: "pipeweave db:status --json | jq -r '.pending[].name'",
    },
  ],
  exitCodes: [
    [3, "with --check: migrations are pending"],
    [4, "the database did not come up in time"],
    [5, "files are invalid; with --check also: changed or missing ones"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    const { migrationStatus, checkStatus } = await import("../commands/status.ts");
    await using session = await connect(input, terminal);
    const found = await migrationStatus(session, input.sources());
    const check = input.has("--check");
    const limit = input.integer("--limit");
    if (!(check && terminal.quiet)) {
      terminal.result(
        () => statusJson(found),
        () =>
          input.has("--format") ? statusMetrics(found) : formatStatus(found, terminal.page, {
            applied: input.has("--pending") ? 0 : limit ?? (input.has("--all") ? Infinity : SHOWN),
            pending: limit ?? (input.has("--all") || input.has("--pending") ? Infinity : SHOWN),
          }),
      );
    }
    if (check) checkStatus(found);
  },
};

const cleanup: CommandSpec = {
  name: "db:cleanup",
  group: "Migrations",
  summary: "Remove expired cache entries, old dead letters and upload records.",
  description:
    "Removes expired entries of idempotency_cache, entries of dlq older than the retention, and records of uploads that were deleted more than 30 days ago, in batches that each commit. Rows that are locked are left to the next run, batches shrink so that none holds its locks for 200 ms, and several cleanups take turns. Uploads that have expired are counted; their files are the orchestrator's to delete.",
  options: [
    {
      title: "Cleanup",
      options: [
        {
          flag: "--dlq-retention-days",
          isSetting: true,
          value: wholeNumber("days", 0, 36_500),
          description: "Keep dead letters for this many days.",
          defaultsTo: "PIPEWEAVE_DLQ_RETENTION_DAYS, or 30",
        },
        {
          flag: "--batch-size",
          isSetting: true,
          value: wholeNumber("rows", 1, 1_000_000),
          description: "Rows per transaction at most; fewer where they take long.",
          defaultsTo: "10000",
        },
        { flag: "--dry-run", description: "Count, and remove nothing." },
      ],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "What would go?", line: "pipeweave db:cleanup --dry-run" },
    { purpose: "Every night, from cron", line: "pipeweave db:cleanup --dlq-retention-days 90 --quiet" },
  ],
  exitCodes: [
    [1, "the database refused; what was removed stays removed"],
    [4, "another cleanup is at work, a lock was not free, or the database did not come up, in time"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    const dlqRetentionDays = input.integer("--dlq-retention-days") ??
      input.environmentInteger("PIPEWEAVE_DLQ_RETENTION_DAYS", 0, 36_500);
    const batchSize = input.integer("--batch-size");
    const { cleanup } = await import("../cleanup/cleanup.ts");
    await using session = await migratedSession(input, terminal);
    const result = await cleanup(session, {
      dlqRetentionDays,
      batchSize,
      dryRun: input.has("--dry-run"),
      signal: input.signal,
      onBatch: ({ table, removed, fraction, leftMs }) => {
        terminal.event("batch", { table, removed, fraction });
        terminal.progress.update({
          label: `Removed ${removed} rows of ${table}`,
          fraction,
          more: `${formatDuration(Math.ceil(leftMs / 1000) * 1000)} left`,
        });
      },
    });
    terminal.progress.stop();
    terminal.result(() => result, () => formatCleanup(result, terminal.page));
  },
};

const WAIT_MS = 60_000;

const wait: CommandSpec = {
  name: "db:wait",
  group: "Migrations",
  summary: "Wait until the database answers, or until it is migrated.",
  description:
    "Waits until the database takes connections; with --migrated until no migration is pending, for services that start beside the one that migrates. A wrong password ends the wait at once, and so do files that the history contradicts.",
  options: [
    {
      title: "Waiting",
      options: [
        {
          flag: "--timeout",
          value: duration(),
          description: "When to give up; 0 looks once.",
          defaultsTo: "60s",
        },
        { flag: "--migrated", description: "Wait until every migration is applied." },
      ],
    },
    MIGRATION_OPTIONS,
    // It has a limit of its own for that.
    {
      ...CONNECTION_OPTIONS,
      options: CONNECTION_OPTIONS.options.filter(({ flag }) => flag !== "--wait-for-db"),
    },
    OUTPUT_OPTIONS,
  ],
  examples: [
    {
      purpose: "In an entrypoint, where another container migrates",
      line: "pipeweave db:wait --migrated --timeout 5m && exec node worker.js",
    },
  ],
  exitCodes: [
    [4, "the time ran out"],
    [5, "files are invalid, or were changed after they were applied"],
    [6, "no connection, for a reason that waiting does not mend"],
  ],
  async run(input, terminal) {
    const timeoutMs = input.duration("--timeout") ?? WAIT_MS;
    const migrated = input.has("--migrated");
    const since = Date.now();
    await using session = await connect(input, terminal, { waitForDbMs: timeoutMs });
    const { wait } = await import("../commands/wait.ts");
    const status = await wait(session, {
      ...input.sources(),
      migrated,
      deadline: since + timeoutMs,
      intervalMs: input.checkIntervalMs(),
      signal: input.signal,
      onWait: (reason) => terminal.progress.update(`Waiting: ${reason}`),
    });
    terminal.progress.stop();
    const current = status?.current ?? null;
    terminal.result(
      () => ({ ready: true, migrated: status !== undefined, current, waitedMs: Date.now() - since }),
      () =>
        `${session.target} ${
          status ? `is migrated; current version: ${current ?? "none"}` : "takes connections"
        }`,
    );
  },
};

const selftest: CommandSpec = {
  name: "db:selftest",
  group: "Migrations",
  summary: "Run the whole cycle in a scratch schema, and remove it.",
  description:
    "Tries on the given server, in a scratch schema that it removes whatever happens, all that PipeWeave needs: privileges, each feature of PostgreSQL, migrating, re-running, noticing a changed file, the task queue, draining, entering and leaving maintenance, and cleanup. One line for each check.",
  options: [CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [{
    purpose: "Before the first deployment",
    line: "pipeweave db:selftest --url postgres://app@db1/app",
  }],
  exitCodes: [
    [1, "a check failed; it says what to grant or set"],
    [4, "the database did not come up in time"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    const { selfTest } = await import("../commands/selftest.ts");
    const { good, bad } = terminal.style;
    const onCheck = ({ name, ok, ms, error }: { name: string; ok: boolean; ms: number; error?: unknown }) => {
      if (terminal.json || (terminal.quiet && ok)) return;
      terminal.report(
        `${ok ? good("✓") : bad("✗")} ${name} (${formatDuration(ms)})${ok ? "" : `: ${messageOf(error)}`}`,
      );
    };
    await using session = await connect(input, terminal);
    const result = await selfTest(
      session,
      (settings, { interruptible }) =>
        openSession(terminal, settings, { signal: interruptible ? input.signal : undefined }),
      onCheck,
    );
    if (terminal.json) terminal.document = result.document;
    if (result.failure) throw result.failure;
    if (!terminal.json) {
      terminal.report(
        `\n${
          good("✓")
        } ${result.document.checks.length} checks passed; schema ${result.document.schema} is removed again`,
      );
    }
  },
};

export const DATABASE_COMMANDS: readonly CommandSpec[] = [migrate, status, wait, cleanup, selftest];

/** Names that go on working. */
export const DEPRECATED_COMMANDS: readonly CommandSpec[] = [init];
