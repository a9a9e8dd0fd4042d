import { assert, assertStringIncludes } from "@std/assert";
import { styleFor } from "../output/style.ts";
import { COMMANDS } from "./commands.ts";
import { commandHelp, programHelp } from "./help.ts";

Deno.test("help fits the terminal, and every command has examples that name it", () => {
  for (const columns of [60, 80, 200]) {
    const texts = [
      programHelp(COMMANDS, columns, styleFor(false)),
      ...COMMANDS.map((spec) => commandHelp(spec, columns, styleFor(false))),
    ];
    for (const text of texts) {
      const prose = text.slice(0, text.indexOf("Examples:"));
      for (const line of prose.split("\n")) {
        assert(line.length <= columns, `${line.length} > ${columns}: ${line}`);
      }
    }
  }
  for (const spec of COMMANDS) {
    assert(spec.examples.length > 0, spec.name);
    const own = spec.name === "db:init" ? "db:migrate" : spec.name;
    assertStringIncludes(spec.examples.map(({ line }) => line).join("\n"), own);
  }
});
