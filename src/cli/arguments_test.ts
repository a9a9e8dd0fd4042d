import { assert, assertEquals, assertThrows } from "@std/assert";
import { PipeweaveError } from "../errors.ts";
import { readCommandLine } from "./arguments.ts";
import { COMMANDS } from "./commands.ts";

const words = (line: string) => line.split(" ").filter((word) => word !== "");

Deno.test("a command line is read in every spelling", () => {
  const table:
    readonly (readonly [line: string, command: string | undefined, args: string, asks?: string])[] = [
      ["db:migrate --json", "db:migrate", "--json"],
      ["db migrate --json", "db:migrate", "--json"],
      ["DB:Migrate", "db:migrate", ""],
      ["db:up", "db:migrate", ""],
      ["db down --yes", "db:rollback", "--yes"],
      ["--url postgres://u@h/d db:status", "db:status", "--url postgres://u@h/d"],
      ["-u postgres://u@h/d --quiet db status -v", "db:status", "-u postgres://u@h/d --quiet -v"],
      ["--json db:status", "db:status", "--json"],
      ["--dir a db:status --dir b", "db:status", "--dir a --dir b"],
      ["db:repair --version 007 --reason x", "db:repair", "--version 007 --reason x"],
      ["completions bash", "completions", "bash"],
      ["", undefined, "", "help"],
      ["db", undefined, "", "help"],
      ["help", undefined, "", "help"],
      ["help db", undefined, "", "help"],
      ["db --help", undefined, "", "help"],
      ["help db:migrate", "db:migrate", "", "help"],
      ["help db migrate", "db:migrate", "", "help"],
      ["db:migrate --dir x --help", "db:migrate", "", "help"],
      ["--help db:migrate --wrong", "db:migrate", "", "help"],
      ["db:migrate -h", "db:migrate", "", "help"],
      ["db:migrate --version", "db:migrate", "--version", "version"],
      ["--version --json", undefined, "--version --json", "version"],
    ];
  for (const [line, command, args, asks] of table) {
    const read = readCommandLine(words(line), COMMANDS);
    assertEquals([read.command?.name, read.args, read.asks], [command, words(args), asks], line);
  }
});

Deno.test("what is not understood is named, with what was meant where that is near", () => {
  const table: readonly (readonly [line: string, message: string, hint: string])[] = [
    ["up", 'no command "up"', "Did you mean db:migrate?"],
    ["down", 'no command "down"', "Did you mean db:rollback?"],
    ["create", 'no command "create"', "Did you mean db:new?"],
    ["version", 'no command "version"', "Did you mean --version?"],
    ["rollback", 'no command "rollback"', "Did you mean db:rollback?"],
    ["migrat", 'no command "migrat"', "Did you mean db:migrate?"],
    ["db:migrat", 'no command "db:migrat"', "Did you mean db:migrate?"],
    ["db stats", 'no command "db:stats"', "Did you mean db:status?"],
    ["maintenance:request2", "There is no command", "See: pipeweave --help"],
    ["zzz", 'no command "zzz"', "See: pipeweave --help"],
    ["help migrat", 'no command "migrat"', "Did you mean db:migrate?"],
    ["db:validat --help", 'no command "db:validat"', "Did you mean db:validate?"],
    ["--verison", "no command on this line", "Did you mean --version?"],
    ["postgres://u:secret@h/d", "no command of that name", "See: pipeweave --help"],
    ["db:status --chek", 'no option "--chek"', "Did you mean --check?"],
    ["db:status --wholly-other", 'no option "--wholly-other"', "See: pipeweave db:status --help"],
    ["db:status --passwrd=secret", 'no option "--passwrd"', "Did you mean --password?"],
    ["db:status -qv", 'no option "-qv"', "Write one-letter options apart"],
    ["db:status -- x", 'Nothing may stand behind "--"', "Leave it out"],
    ["db:migrate --maintenance always", '"always" stands apart', "--maintenance=always"],
    ["db:migrate --dry-run execute", '"execute" stands apart', "--dry-run=execute"],
    ["db:migrate --json stream", '"stream" stands apart', "--json=stream"],
    ["--json", "no command on this line", "See: pipeweave --help"],
  ];
  for (const [line, message, hint] of table) {
    const error = assertThrows(() => readCommandLine(words(line), COMMANDS), PipeweaveError);
    assert(error.message.includes(message), `${line}: ${error.message}`);
    assert(error.details.hint?.includes(hint), `${line}: ${error.details.hint}`);
    assert(!`${error.message}${error.details.hint}`.includes("secret"), line);
  }
  assertThrows(() => readCommandLine([""], COMMANDS), PipeweaveError, "no command");
});
