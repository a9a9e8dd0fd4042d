import { assertEquals } from "@std/assert";
import { readDirectives } from "./directives.ts";

const none = { noTransaction: false, requiresMaintenance: false };

Deno.test("readDirectives reads the comment lines before the first statement", () => {
  const table: readonly (readonly [string, Record<string, unknown>])[] = [
    ["SELECT 1;", {}],
    ["-- pipeweave: no-transaction\nSELECT 1;", { noTransaction: true }],
    ["-- about\n\n--pipeweave:requires maintenance\nSELECT 1;", { requiresMaintenance: true }],
    ["-- pipeweave: lock-timeout 10s\n-- pipeweave: statement-timeout 0\nSELECT 1;", {
      lockTimeoutMs: 10_000,
      statementTimeoutMs: 0,
    }],
    ["SELECT 1;\n-- pipeweave: no-transaction", {}],
    ["/* licence /* nested */\n ; */\n-- pipeweave: requires maintenance\nSELECT 1;", {
      requiresMaintenance: true,
    }],
    ["/* a */ SELECT 1;\n-- pipeweave: no-transaction", {}],
    ["-- we like pipeweave: it is good\nSELECT 1;", {}],
  ];
  for (const [text, expected] of table) {
    assertEquals(readDirectives(text), { directives: { ...none, ...expected }, problems: [] }, text);
  }
});

Deno.test("readDirectives refuses what it does not know", () => {
  const lines = [
    "-- pipeweave: no-transactions",
    "-- pipeweave: requires",
    "-- pipeweave: lock-timeout",
    "-- pipeweave: lock-timeout 0",
    "-- pipeweave: statement-timeout soon",
    "-- pipeweave:",
  ];
  const { problems } = readDirectives(lines.join("\n"));
  assertEquals(problems.map(({ line }) => line), [1, 2, 3, 4, 5, 6]);
});
