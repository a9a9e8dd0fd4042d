/** Writes docs/cli.md from the command tree; with --check it only tells whether that would change it. */

import { COMMANDS } from "../src/cli/commands.ts";
import { EXIT_CODE_MEANINGS, flagsText, usageText } from "../src/cli/help.ts";
import { ENVIRONMENT } from "../src/config/environment.ts";

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
const table = (head: readonly string[], rows: readonly (readonly string[])[]) =>
  [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`);

const lines = [
  "# Commands",
  "",
  "<!-- Made by scripts/generate_cli_docs.ts from the command tree; CI fails when it is out of date. -->",
  "",
  "Every command is written `pipeweave <group>:<command>`; `pipeweave <group> <command>` is the same.",
  "`pipeweave <command> --help` shows what stands here.",
  "",
  ...table(
    ["command", "does"],
    COMMANDS.map(({ name, summary }) => [`[\`${name}\`](#${name.replace(":", "")})`, summary]),
  ),
  "",
  "## Exit codes",
  "",
  ...table(["code", "meaning"], EXIT_CODE_MEANINGS.map(([code, meaning]) => [code, meaning])),
  "",
  "## Environment",
  "",
  "These variables are read, and no others; the binary has no leave to read more:",
  "",
  ENVIRONMENT.map((name) => `\`${name}\``).join(", ") + ".",
];

for (const spec of COMMANDS) {
  const { name, description, options, examples, exitCodes } = spec;
  lines.push("", `## ${name}`, "", `\`${usageText(spec)}\``, "", description);
  for (const group of options) {
    lines.push("", `**${group.title}**`, "");
    lines.push(
      ...table(
        ["option", "meaning"],
        group.options.map(({ flags, description }) => [`\`${flagsText(flags)}\``, cell(description)]),
      ),
    );
  }
  lines.push(
    "",
    `Exit codes besides 0 and 2: ${exitCodes.map(([code, meaning]) => `**${code}** ${meaning}`).join("; ")}.`,
  );
  lines.push("", "```sh");
  for (const { purpose, line } of examples) lines.push(`# ${purpose}`, line);
  lines.push("```");
}

const path = new URL("../docs/cli.md", import.meta.url);
const text = lines.join("\n") + "\n";
if (!Deno.args.includes("--check")) await Deno.writeTextFile(path, text);
else if (await Deno.readTextFile(path).catch(() => "") !== text) {
  console.error("docs/cli.md is out of date; run: deno run -A scripts/generate_cli_docs.ts");
  Deno.exit(1);
}
