/**
 * The `db:` commands that look at migration files: `db:validate`, `db:lint`, `db:new`.
 *
 * @module
 */

import { dirname } from "node:path";
import { PipeweaveError } from "../errors.ts";
import { findingJson } from "../output/json.ts";
import { formatLint, formatValidation } from "../output/database_text.ts";
import { importCommand } from "./import_command.ts";
import { connectUnlessOffline } from "./connect.ts";
import {
  type CommandSpec,
  CONNECTION_OPTIONS,
  MIGRATION_OPTIONS,
  type OptionSpec,
  OUTPUT_OPTIONS,
} from "./spec.ts";
import { oneOf, text, VERSION, wholeNumber } from "./values.ts";

const LINT_FORMATS = ["text", "json", "github", "gitlab", "junit", "sarif"] as const;

const OFFLINE: OptionSpec = {
  flag: "--offline",
  description: "Look at the files alone; never connect.",
};

/** A session, where a database is named and wanted. */

const validate: CommandSpec = {
  name: "db:validate",
  group: "Files",
  summary: "Check migration files, and compare them with a database.",
  description:
    "Checks file names, order, duplicates, encoding, syntax (by PostgreSQL's own parser), and statements that cannot run the way a migration runs. When a database is named it also compares checksums and looks for missing files.",
  options: [
    {
      title: "Validation",
      options: [
        OFFLINE,
        {
          flag: "--format",
          value: oneOf("format", ...LINT_FORMATS),
          description: `${LINT_FORMATS.join(", ")}.`,
          defaultsTo: `text`,
        },
        { flag: "--lint", description: "Also look for what would hurt a live database, as db:lint does." },
      ],
    },
    MIGRATION_OPTIONS,
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "In CI, without a database", line: "pipeweave db:validate --offline --dir ./migrations" },
    { purpose: "Against a database", line: "pipeweave db:validate --url postgres://app@db1/app" },
  ],
  exitCodes: [
    [4, "the database did not come up in time"],
    [5, "something is wrong with the files, or they do not match the history"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    const { validateMigrations } = await import("../commands/validate.ts");
    await using session = await connectUnlessOffline(input, terminal);
    const result = await validateMigrations(session, {
      ...input.sources(),
      lint: input.has("--lint"),
    });
    const json = () => ({ ...result, findings: result.findings.map(findingJson) });
    const format = input.choice<typeof LINT_FORMATS[number]>("--format") ?? "text";
    if (format === "json") terminal.result(json, () => JSON.stringify(json()));
    else if (format === "text") terminal.result(json, () => formatValidation(result, terminal.page));
    else {
      const { lintReport } = await import("../output/lint_formats.ts");
      const reported = result.findings.map((finding) => ({ blocks: "nobody" as const, why: "", ...finding }));
      terminal.result(json, () => lintReport(format, reported));
    }
    if (!session && !input.has("--offline")) {
      terminal.note(
        "No database is named (--url, DATABASE_URL, DB_*, PG*), so the files were checked alone.",
      );
    }
    if (!result.valid) {
      const errors = result.findings.filter(({ severity }) => severity === "error").length;
      throw new PipeweaveError("integrity", "not_valid", `Validation found ${errors} error(s)`, {
        hint: "Each is listed above with its fix.",
      });
    }
  },
};

/** Which findings end db:lint with exit 5. */
const FAIL_ON = ["any", "blocking", "never"] as const;

const lint: CommandSpec = {
  name: "db:lint",
  group: "Files",
  argument: { ...text("files", { of: "files" }), isList: true },
  summary: "Find what would hurt a live database.",
  description:
    "Reads migrations by PostgreSQL's own parser, and names every statement that would keep others waiting, break running code or lose data: with the rule, the reason, and the safe way to write it. When a database is named, only what is pending there is looked at. A finding is accepted by a comment line before its statement: -- pipeweave: allow <rule> <reason>.",
  options: [
    {
      title: "Linting",
      options: [
        OFFLINE,
        { flag: "--since", value: VERSION, description: "Look only at versions after this one." },
        {
          flag: "--rule",
          isSetting: true,
          value: text("rules", { of: "rules" }),
          description: "Look only for these, separated by commas.",
          defaultsTo: "all",
        },
        {
          flag: "--skip",
          isSetting: true,
          value: text("rules", { of: "rules" }),
          description: "Look for none of these.",
          defaultsTo: "none",
        },
        {
          flag: "--warn",
          isSetting: true,
          value: text("rules", { of: "rules" }),
          description: "Findings of these are warnings: they are told, and do not count for the exit code.",
          defaultsTo: "none",
        },
        {
          flag: "--fail-on",
          isSetting: true,
          value: oneOf("which", ...FAIL_ON),
          description: "End with exit 5 on any finding, on blocking ones, or never.",
          defaultsTo: "any",
        },
        {
          flag: "--format",
          value: oneOf("format", ...LINT_FORMATS),
          description: `${LINT_FORMATS.join(", ")}.`,
          defaultsTo: `text`,
        },
        {
          flag: "--small-table",
          isSetting: true,
          value: wholeNumber("rows", 0, 1_000_000_000),
          description: "With a database: work on tables of up to so many rows keeps nobody waiting.",
          defaultsTo: "0",
        },
        { flag: "--list-rules", description: "Print the rules, and look at nothing." },
        {
          flag: "--explain",
          value: text("rule", { of: "rules" }),
          description: "Print what a rule is about, and look at nothing.",
        },
      ],
    },
    MIGRATION_OPTIONS,
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    {
      purpose: "In CI, as annotations of a pull request",
      line: "pipeweave db:lint --offline --dir ./migrations --format github",
    },
    {
      purpose: "Files alone, as pre-commit hands them over",
      line: "pipeweave db:lint --offline migrations/042_add_email.sql",
    },
    {
      purpose: "What is pending, before a deployment",
      line: "pipeweave db:lint --dir ./migrations --url postgres://app@db1/app",
    },
  ],
  exitCodes: [
    [4, "the database did not come up in time"],
    [5, "something was found, or files are invalid"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    const format = input.choice<typeof LINT_FORMATS[number]>("--format") ?? "text";
    const failOn = input.choice<typeof FAIL_ON[number]>("--fail-on") ?? "any";
    const explained = input.text("--explain");
    if (explained !== undefined || input.has("--list-rules")) {
      const { ruleText } = await import("../commands/lint_rules.ts");
      const text = ruleText(explained);
      return terminal.result(() => ({ rules: text.split("\n") }), () => text);
    }
    const smallTable = input.integer("--small-table");
    const named = (flag: string) => input.text(flag)?.split(",").map((rule) => rule.trim());
    await using session = await connectUnlessOffline(input, terminal);
    const { lintMigrations } = await import("../commands/lint.ts");
    const files = input.args;
    // Files say by themselves which folder is meant.
    const sources = input.sources({ byDefault: files.length === 0 });
    const result = await lintMigrations(session, {
      ...sources,
      ...(files.length > 0 && sources.dirs?.length === 0
        ? { dirs: [...new Set(files.map((file) => dirname(file)))], embedded: false }
        : {}),
      since: input.text("--since"),
      files,
      ...{ rules: named("--rule"), skipped: named("--skip"), warnings: named("--warn") },
      smallTable,
    });
    const json = () => ({ ...result, findings: result.findings.map(findingJson) });
    if (format === "json") terminal.result(json, () => JSON.stringify(json()));
    else if (format === "text") terminal.result(json, () => formatLint(result, terminal.page));
    else {
      const { lintReport } = await import("../output/lint_formats.ts");
      terminal.result(json, () => lintReport(format, result.findings));
    }
    const failures = result.findings.filter(({ blocks, why, severity }) =>
      severity === "error" && (why === "" || failOn === "any" || failOn === "blocking" && blocks !== "nobody")
    );
    if (failures.length === 0) return;
    throw new PipeweaveError("integrity", "lint", `${failures.length} finding(s)`, {
      hint: failures.every(({ why }) => why === "")
        ? "Correct the files: PostgreSQL, or the way in which migrations run, does not take them."
        : "Write it the safe way, or accept it: -- pipeweave: allow <rule> <reason>",
    });
  },
};

const create: CommandSpec = {
  name: "db:new",
  group: "Files",
  summary: "Print the next migration's file name, and a template.",
  description:
    "Prints a template on stdout whose first line is a comment with the name of the file that it belongs in: the next number, or date, of the last folder that --dir names, or of ./migrations. With --write it writes the file instead, and never over one that is there.",
  argument: text("name"),
  options: [
    {
      title: "New",
      options: [
        { flag: "--write", description: "Write it, and a file for the way down, below the working folder." },
        { flag: "--no-down", description: "With --write: no file for the way down." },
      ],
    },
    MIGRATION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "The files", line: "pipeweave db:new 'add email to users' --dir ./migrations --write" },
    { purpose: "The template", line: "pipeweave db:new add_email --dir ./migrations" },
    {
      purpose: "Written to its file",
      line:
        `t=$(pipeweave db:new add_email) && printf '%s\\n' "$t" > "$(printf '%s' "$t" | sed -n '1s/^-- //p')"`,
    },
  ],
  exitCodes: [[5, "the folder's files are invalid"]],
  async run(input, terminal) {
    const { newMigration } = await import("../commands/new.ts");
    const found = newMigration(input.args[0]!, input.sources());
    input.onlyWith("--write", input.has("--write"), ["--no-down"]);
    input.assertUsable();
    if (input.has("--write")) {
      const { writeMigration } = await import("../commands/new.ts");
      const files = writeMigration(found, { down: !input.has("--no-down") });
      return terminal.result(
        () => ({ ...found, written: files }),
        () => files.map((file) => `✓ Written ${file}`).join("\n"),
      );
    }
    terminal.result(() => found, () => found.template.trimEnd());
    terminal.note(`Save it as ${found.file}; db:validate --offline checks it.`);
  },
};

export const FILE_COMMANDS: readonly CommandSpec[] = [validate, lint, create, importCommand];
