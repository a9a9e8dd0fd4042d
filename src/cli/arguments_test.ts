import { assertEquals } from "@std/assert";
import { normalize } from "./arguments.ts";

Deno.test("normalize brings every spelling to the tree's", () => {
  const table: readonly (readonly [string, string])[] = [
    ["db:migrate --json", "db:migrate --json"],
    ["db migrate --json", "db:migrate --json"],
    ["db", "--help"],
    ["db --help", "--help"],
    ["help", ""],
    ["help db:migrate", "db:migrate --help"],
    ["help db migrate", "db:migrate --help"],
    ["db nonsense", "db:nonsense"],
    ["completions bash", "completions bash"],
    ["--help", "--help"],
    ["", ""],
  ];
  for (const [given, expected] of table) {
    const args = given === "" ? [] : given.split(" ");
    const wanted = given === "help" ? ["--help"] : expected === "" ? [] : expected.split(" ");
    assertEquals([...normalize(args, ["db:migrate", "db:status", "maintenance:exit"])], wanted, given);
  }
});
