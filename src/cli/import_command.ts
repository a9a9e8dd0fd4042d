/**
 * `db:import`.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { TOOLS } from "../import/foreign.ts";
import { formatImport } from "../output/import_text.ts";
import { connectUnlessOffline } from "./connect.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { type CommandSpec, CONNECTION_OPTIONS, OUTPUT_OPTIONS } from "./spec.ts";
import { FOLDER, oneOf, placeholder } from "./values.ts";

export const importCommand: CommandSpec = {
  name: "db:import",
  group: "Files",
  argument: FOLDER,
  summary: "Move in: another tool's folder and history as ours.",
  description: `Reads the folder of another migration tool (${
    TOOLS.join(", ")
  }) and writes files of ours into a new one: up and down apart, no-transaction marks carried over, BEGIN and COMMIT and lines for psql left out, versions as numbers in the order in which the old tool applies them. With a database it records what the old tool has applied there, with its times, in one transaction. The old table stays as it is; where it is called schema_migrations, as ours, it is renamed after a question, or give ours another place with --schema. The report names each decision, and what needs a hand.\nThis command and db:new --write alone may write files, and below the working folder alone.`,
  options: [
    {
      title: "Import",
      options: [
        {
          flag: "--from",
          value: oneOf("tool", ...TOOLS),
          description: "Whose folder it is. Default: found out by its files",
        },
        {
          flag: "--output",
          value: FOLDER,
          description: "Where the files go: a folder that is new or empty.",
        },
        {
          flag: "--placeholder",
          value: placeholder,
          repeatable: true,
          description: "name=value for ${name}, {{.name}} or :name in the files; may be repeated.",
        },
        { flag: "--dry-run", description: "Print the report; write nothing and change nothing." },
        { flag: "--offline", description: "Take the files alone; never connect." },
        { flag: "--yes", short: "-y", description: "Rename the old table without a question." },
      ],
    },
    CONNECTION_OPTIONS,
    OUTPUT_OPTIONS,
  ],
  examples: [
    { purpose: "See what would become of it", line: "pipeweave db:import db/migrations --dry-run" },
    {
      purpose: "Move in, with the database's history",
      line: "pipeweave db:import db/migrations --output migrations --url postgres://app@db1/app",
    },
  ],
  exitCodes: [
    [1, "the database refused; the files are written"],
    [3, "the question was answered with no, or nobody could be asked; the files are written"],
    [4, "the database did not come up in time"],
    [5, "files need a hand, or the old tool has left something half done"],
    [6, "no connection"],
  ],
  async run(input, terminal) {
    const isLook = input.has("--dry-run");
    const output = input.text("--output");
    if (!isLook && output === undefined) {
      input.problem("--output is required: the folder that the files go to; --dry-run writes none");
    }
    await using session = await connectUnlessOffline(input, terminal);
    const { importFolder } = await import("../commands/import.ts");
    const result = await importFolder(session, {
      folder: input.args[0]!,
      from: input.choice("--from"),
      output: isLook ? undefined : output,
      placeholders: Object.fromEntries(input.list<readonly [string, string]>("--placeholder")),
      actor: input.actor,
      confirm: (old, now) => confirmRename(input, terminal, old, now),
    });
    terminal.result(() => result, () => formatImport(result, output, terminal.verbose));
    if (result.problems.length === 0) return;
    throw new PipeweaveError("integrity", "needs_a_hand", `${result.problems.length} thing(s) need a hand`, {
      hint: isLook
        ? "Each is listed above."
        : "Mend each file that is listed above in the new folder, and run the same command again: the files stay, the history is taken over.",
    });
  },
};

async function confirmRename(input: Input, terminal: Terminal, old: string, now: string): Promise<void> {
  if (input.has("--yes")) return;
  const refused = (message: string) =>
    new PipeweaveError("condition", "not_confirmed", message, {
      hint:
        `Run it again with --yes to rename it, or with --schema pipeweave to leave it: ours goes to another schema.`,
    });
  const { ask } = terminal;
  if (!ask) {
    throw refused(`${old} has the name of our history, and nobody could be asked whether to rename it`);
  }
  terminal.progress.stop();
  const answer = await ask(
    `${old} has the name of our history. Rename it to ${now}? The old tool will not find it. [y/N] `,
  );
  if (!/^y(?:es)?$/i.test(answer)) throw refused(`${old} was not renamed`);
}
