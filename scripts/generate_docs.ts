/** Writes docs/cli.md from the command tree and docs/lint.md from the rules; with --check it only tells whether that would change them. */

import { COMMANDS } from "../src/cli/commands.ts";
import { EXIT_CODE_MEANINGS, flagsText, usageText } from "../src/cli/help.ts";
import { projectFileSchema, settingsOf } from "../src/cli/project_file.ts";
import { describeOption } from "../src/cli/spec.ts";
import { ENVIRONMENT } from "../src/config/environment.ts";
import { EXIT_CODES } from "../src/errors.ts";
import { LINT_RULES } from "../src/lint/rules.ts";

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`);

const commands = [
  "# Commands",
  "",
  "<!-- Made by scripts/generate_docs.ts from the command tree; CI fails when it is out of date. -->",
  "",
  "Every command is written `pipeweave <group>:<command>`; `pipeweave <group> <command>` is the same.",
  "`pipeweave <command> --help` shows what stands here.",
  "",
  ...table(
    ["command", "does"],
    COMMANDS.map((
      { name, summary },
    ) => [`[\`${name}\`](#${name.replace(":", "")})`, summary]),
  ),
  "",
  "## Exit codes",
  "",
  ...table(
    ["code", "meaning"],
    EXIT_CODE_MEANINGS.map(([code, meaning]) => [code, meaning]),
  ),
  "",
  "## Environment",
  "",
  "These variables are read, and no others; the binary has no leave to read more:",
  "",
  ENVIRONMENT.map((name) => `\`${name}\``).join(", ") + ".",
  "",
  "`NO_COLOR` and `FORCE_COLOR=0` take the colours away, any other `FORCE_COLOR` gives them to a pipe, too; with `TERM=dumb`",
  "or `CI` progress is lines, and nothing moves. `AUTO_MIGRATE=true` lets every command of `maintenance:` apply what is pending",
  "first, and says so.",
  "",
  "## Project file",
  "",
  "`pipeweave.json` in the folder that a command is started in sets what the flag of the same name sets; a flag goes before a",
  "variable, and a variable before the file. `pipeweave config` shows what holds, and where it comes from. It has to belong to",
  "you or to root, and must not be writable by everybody: it decides which SQL is run. Editors check it by",
  "[its JSON Schema](schema/pipeweave.schema.json).",
  "",
  "```json",
  JSON.stringify(
    {
      dir: ["migrations"],
      schema: "pipeweave",
      lockTimeout: "2s",
      targets: { staging: "postgres://app@db1/app?sslmode=verify-full" },
    },
    undefined,
    2,
  ),
  "```",
  "",
  ...table(
    ["key", "flag", "meaning"],
    [
      ...[...settingsOf(COMMANDS)].map(([key, option]) => [
        `\`${key}\``,
        `\`${option.flag}\``,
        cell(describeOption(option)),
      ]),
      ["`targets`", "`--target`", "Connection URLs without passwords, by the names that --target takes."],
    ],
  ),
];

/** Groups of options that many commands have are shown once. */
const SHARED_BY = 8;
const groups = COMMANDS.flatMap(({ options }) => options);
const isShared = (title: string) => groups.filter((group) => group.title === title).length >= SHARED_BY;
const sharedTitles = [...new Set(groups.map(({ title }) => title).filter(isShared))];
const optionsOf = (titles: (title: string) => boolean, among: typeof groups) =>
  new Map(
    among.filter(({ title }) => titles(title)).flatMap(({ options }) => options).map((
      option,
    ) => [flagsText(option), describeOption(option)]),
  );
/** Options of a shared group that all of its commands have; a command with another one of that group shows it itself. */
const common = new Map(sharedTitles.map((title) => {
  const all = groups.filter((group) => group.title === title);
  const counts = all.flatMap(({ options }) => options).map(flagsText);
  const isCommon = (flags: string) => counts.filter((one) => one === flags).length > all.length / 2;
  return [title, new Map([...optionsOf((one) => one === title, all)].filter(([flags]) => isCommon(flags)))];
}));

commands.push("", "## Options that commands share");
for (const [title, options] of common) {
  commands.push(
    "",
    `### ${title} options`,
    "",
    ...table(["option", "meaning"], [...options].map(([flags, text]) => [`\`${flags}\``, cell(text)])),
  );
}

for (const spec of COMMANDS) {
  const { name, description, options, examples, exitCodes } = spec;
  commands.push(
    "",
    `## ${name}`,
    "",
    `\`${usageText(spec)}\``,
    "",
    description,
  );
  for (const group of options) {
    const known = common.get(group.title);
    const own = group.options.filter((option) => known?.get(flagsText(option)) !== describeOption(option));
    if (own.length === 0) continue;
    commands.push("", `**${group.title}**`, "");
    commands.push(
      ...table(
        ["option", "meaning"],
        own.map((option) => [`\`${flagsText(option)}\``, cell(describeOption(option))]),
      ),
    );
  }
  // All options of a shared group that this command has, or which of them where it has not all.
  const shared = options.flatMap(({ title, options: own }) => {
    const known = common.get(title);
    if (!known) return [];
    const has = new Set(own.map(flagsText));
    const missing = [...known.keys()].filter((flags) => !has.has(flags));
    const link = `[${title.toLowerCase()}](#${title.toLowerCase()}-options)`;
    if (missing.length === 0) return [link];
    return missing.length === known.size
      ? []
      : [`${link} but for ${missing.map((flags) => `\`${flags}\``).join(", ")}`];
  });
  if (shared.length > 0) commands.push("", `Also: options of ${shared.join("; ")}.`);
  commands.push(
    "",
    exitCodes.length === 0
      ? "Exit codes: 0 and 2."
      : `Exit codes besides 0 and 2 as everywhere: ${
        exitCodes.map(([code, meaning]) => `**${code}** ${meaning}`).join("; ")
      }.`,
  );
  commands.push("", "```sh");
  for (const { purpose, line } of examples) commands.push(`# ${purpose}`, line);
  commands.push("```");
}

const rules = [
  "# Lint rules",
  "",
  "<!-- Made by scripts/generate_docs.ts from the rules; CI fails when it is out of date. -->",
  "",
  "What `db:lint`, `db:validate --lint` and `db:migrate --dry-run` report. A rule that blocks somebody while it works",
  "also keeps `db:migrate` from applying the migration beside active tasks (exit 3), unless `--allow-online` is given.",
  "What a file changes on tables that it made itself is not reported. A finding that is right as it stands is",
  "accepted in the lines above its statement, or by `allow-file` for the whole file:",
  "`-- pipeweave: allow <rule> <reason>`. One that accepts nothing is a finding itself.",
  "For a whole project, `--skip <rules>` leaves rules out and `--warn <rules>` makes their findings warnings, which do not",
  'count for the exit code; in `pipeweave.json`: `"skip": "json-column", "warn": "drop-column"`.',
  "",
  "Which locks a statement takes is a table from PostgreSQL's documentation and source (src/lint/locks.ts). Where a",
  "database is named, it is asked: an ALTER TABLE is run on an empty temporary copy of its table, which takes ACCESS",
  "SHARE on the original, and what became of the copy's files tells whether the table would be rewritten, read through",
  "or its indexes built anew. So `varchar(10)` to `text` is no finding there, and a function's volatility, a domain's",
  "constraints and a CHECK that proves NOT NULL count. Without leave for temporary tables, or without a database, the",
  "statement's text decides, and a function that is not PostgreSQL's own counts as volatile, which the finding says.",
  "DO blocks are read; what one puts together when it runs is `unseen-code`. Of a `.down.sql` only what keeps others",
  "waiting is reported.",
  "",
  ...table(
    ["rule", "blocks", "why", "the safe way"],
    Object.entries(LINT_RULES).map((
      [id, { blocks, why, safe }],
    ) => [`\`${id}\``, blocks, why, cell(safe)]),
  ),
];

/** Every error that the source throws, by its code, with the message as it is written there. */
async function errorCodes(): Promise<readonly (readonly [code: string, exit: string, message: string])[]> {
  const found = new Map<string, readonly [code: string, exit: string, message: string]>();
  const walk = async (folder: URL): Promise<void> => {
    const entries = (await Array.fromAsync(Deno.readDir(folder))).sort((a, b) => a.name < b.name ? -1 : 1);
    for (const { name, isDirectory } of entries) {
      if (isDirectory) await walk(new URL(`${name}/`, folder));
      else if (name.endsWith(".ts") && !name.endsWith("_test.ts")) {
        const text = await Deno.readTextFile(new URL(name, folder));
        const thrown =
          /(?:new PipeweaveError|super)\(\s*"(\w+)",\s*"(\w+)",\s*(?:(["`])((?:(?!\3)[\s\S])*?)\3)?/g;
        for (const [, kind, code, , message = "…"] of text.matchAll(thrown)) {
          const exit = String(EXIT_CODES[kind as keyof typeof EXIT_CODES]);
          const said = message!.replace(/\$\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}/g, "…").replace(/\s+/g, " ");
          if (!found.has(code!)) found.set(code!, [code!, exit, said]);
        }
      }
    }
  };
  await walk(new URL("../src/", import.meta.url));
  return [...found.values()].sort(([a], [b]) => a < b ? -1 : 1);
}

const errors = [
  "# Error codes",
  "",
  "<!-- Made by scripts/generate_docs.ts from the source; CI fails when it is out of date. -->",
  "",
  'With `--json` a failure is `{"error": {"code", "message", …}}`. The codes are stable: scripts may tell failures apart by',
  "them, and by nothing in the message, which is shown here as the source has it.",
  "",
  ...table(
    ["code", "exit", "message"],
    (await errorCodes()).map(([code, exit, message]) => [`\`${code}\``, exit, cell(message)]),
  ),
];

const check = Deno.args.includes("--check");
for (
  const [name, lines] of Object.entries({
    "cli.md": commands,
    "lint.md": rules,
    "error-codes.md": errors,
    "schema/pipeweave.schema.json": [JSON.stringify(projectFileSchema(COMMANDS), undefined, 2)],
  })
) {
  const path = new URL(`../docs/${name}`, import.meta.url);
  const text = lines.join("\n") + "\n";
  if (!check) await Deno.writeTextFile(path, text);
  else if (await Deno.readTextFile(path).catch(() => "") !== text) {
    console.error(
      `docs/${name} is out of date; run: deno run --config deno.json -A scripts/generate_docs.ts`,
    );
    Deno.exitCode = 1;
  }
}
