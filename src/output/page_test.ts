import { assertEquals } from "@std/assert";
import { cellsOf } from "./cells.ts";
import { ageText, flowed, PLAIN, timeText } from "./page.ts";

Deno.test("ages: the largest unit that still says something", () => {
  const ms = [0, 119_999, 120_000, 7_199_000, 7_200_000, 172_799_000, 172_800_000, 2 * 365.25 * 86_400_000];
  assertEquals(ms.map(ageText), [
    ...["0s ago", "119s ago", "2m ago", "119m ago", "2h ago", "47h ago", "2d ago", "2y ago"],
  ]);
});

Deno.test("times: UTC, with the age where somebody looks, and never one of a time to come", () => {
  const time = new Date("2026-01-01T00:00:00Z");
  const at = (now: string) => timeText(time, { ...PLAIN, now: new Date(now) });
  assertEquals(timeText(time, PLAIN), "2026-01-01T00:00:00.000Z");
  assertEquals(at("2026-01-01T00:05:00Z"), "2026-01-01T00:00:00.000Z (5m ago)");
  assertEquals(at("2025-12-31T23:59:59Z"), "2026-01-01T00:00:00.000Z");
});

Deno.test("prose breaks between words, below its beginning", () => {
  assertEquals(
    flowed("error: 002_b failed: division by zero\n  - 002_b was rolled back", 20),
    "error: 002_b failed:\n  division by zero\n  - 002_b was rolled\n    back",
  );
  assertEquals(flowed("a  b\n", Infinity), "a  b\n");
});

Deno.test("an excerpt is cut around its caret, also where characters are wide", () => {
  const line = `  7 | SELECT ${"x, ".repeat(20)}oops FROM t;`;
  const caret = `    | ${" ".repeat(67)}^`;
  const shown = flowed(`  6 | -- before\n${line}\n${caret}`, 40).split("\n");
  assertEquals(shown[0], "  6 | -- before");
  assertEquals(shown[1]!.length <= 40, true);
  assertEquals(shown[1]!.slice(shown[2]!.indexOf("^")).startsWith("oops"), true, shown.join("\n"));
  const wide = flowed(`  1 | SELECT '${"日".repeat(20)}' x;\n    | ${" ".repeat(30)}^`, 30).split("\n");
  assertEquals(wide[0]!.endsWith("日' x;"), true, wide.join("\n"));
  assertEquals(cellsOf(wide[1]!), cellsOf(wide[0]!.slice(0, wide[0]!.indexOf("x"))) + 1);
  assertEquals(flowed("  1 | '日' x\n    | " + "    ^", Infinity), "  1 | '日' x\n    |      ^");
});
