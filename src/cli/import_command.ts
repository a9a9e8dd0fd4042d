/**
 * `db:import`.
 *
 * @module
 */

import { PipeweaveError } from "../errors.ts";
import { type Book, TOOLS } from "../import/foreign.ts";
import type { ImportResult, Rename } from "../commands/import.ts";
import { formatDone, formatSeen, type ImportText } from "../output/import_text.ts";
import { confirmed } from "./confirm.ts";
import { connectUnlessOffline } from "./connect.ts";
import type { Input } from "./input.ts";
import type { Terminal } from "./terminal.ts";
import { type CommandSpec, CONNECTION_OPTIONS, OUTPUT_OPTIONS } from "./spec.ts";
import { shellQuoted } from "../shell.ts";
import { FOLDER, oneOf, placeholder, text } from "./values.ts";

export const importCommand: CommandSpec = {
  name: "db:import",
  group: "Files",
  argument: FOLDER,
  summary: "Move in: another tool's folder and history as ours.",
  description: `Reads the folder of another migration tool (${
    TOOLS.join(", ")
  }) and writes files of ours into a new one: up and down apart, no-transaction marks carried over, BEGIN and COMMIT and lines for psql left out, versions as numbers in the order in which the old tool applies them. With a database it records what the old tool has applied there, with its times where the old tool keeps them, in one transaction. The old table stays as it is; where it is called schema_migrations, as ours, it is renamed after a question, or give ours another place with --schema. The report names each decision, and what needs a hand.\nThis command and db:new --write alone may write files, and below the working folder alone.`,
  options: [
    {
      title: "Import",
      options: [
        {
          flag: "--from",
          value: oneOf("tool", ...TOOLS),
          description: "Whose folder it is.",
          defaultsTo: "found out by its files",
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
        {
          flag: "--history-table",
          value: text("table"),
          description:
            "Where the old tool keeps what it has applied, as schema.table, if it is not its usual name.",
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
    [1, "the database refused; it says whether the files are written"],
    [3, "the question was answered with no, or nobody could be asked: nothing was written or changed"],
    [4, "the database did not come up in time"],
    [
      5,
      "files need a hand, the old tool has left something half done, or its history is not found where something was applied",
    ],
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
    const how = (): ImportText => ({
      output,
      target: session?.target,
      schema: session?.settings.schema ?? "public",
      connection: input.text("--target") !== undefined
        ? ` --target ${shellQuoted(input.text("--target")!)}`
        : input.given(["--url", "--host", "--database"]).length > 0
        ? " (on the same database)"
        : "",
      verbose: terminal.verbose,
      page: terminal.page,
    });
    // Whoever is asked sees first what it is about.
    let isSeen = false;
    const confirm = async (rename: Rename, seen: ImportResult) => {
      if (input.has("--yes")) return;
      terminal.step(formatSeen(seen, how()));
      isSeen = true;
      await confirmRename(input, terminal, rename, seen);
    };
    const result = await importFolder(session, {
      folder: input.args[0]!,
      from: input.choice("--from"),
      output: isLook ? undefined : output,
      book: bookOf(input.text("--history-table")),
      placeholders: Object.fromEntries(input.list<readonly [string, string]>("--placeholder")),
      actor: input.actor,
      confirm,
    });
    terminal.result(
      () => result,
      () => [...(isSeen ? [] : [formatSeen(result, how())]), formatDone(result, how())].join("\n"),
    );
    if (result.problems.length === 0) return;
    throw new PipeweaveError("integrity", "needs_a_hand", `${result.problems.length} thing(s) need a hand`, {
      hint: isLook
        ? "Each is listed above."
        : "Mend each file that is listed above in the new folder, or bring the old history in order; then run the same command again: the files stay, and the history is taken over.",
    });
  },
};

/** `schema.table`, or `table`; names may be quoted. */
function bookOf(table: string | undefined): Book | undefined {
  if (table === undefined) return undefined;
  const parts = [...table.matchAll(/(?:^|\.)(?:"((?:[^"]|"")*)"|([^".]+))/g)].map(([, quoted, plain]) =>
    quoted?.replaceAll('""', '"') ?? plain!
  );
  const name = parts.pop();
  return { table: name, ...(parts.length > 0 ? { schema: parts.pop() } : {}) };
}

async function confirmRename(
  input: Input,
  terminal: Terminal,
  { table, to }: Rename,
  { tool }: ImportResult,
): Promise<void> {
  const refusal = (message: string) =>
    new PipeweaveError("condition", "not_confirmed", message, {
      hint:
        "Nothing was written or changed. With --yes it is renamed; with --schema pipeweave it stays, and " +
        "PipeWeave's tables go to another schema.",
    });
  const about = `${table} has the name of PipeWeave's own history`;
  if (!terminal.ask) throw refusal(`${about}, and nobody could be asked whether to rename it`);
  const question =
    `${about}. Rename it to ${to}? Stop ${tool} first: it would take the new table for its own.`;
  if (!await confirmed(input, terminal, question)) throw refusal(`${table} was not renamed`);
}
