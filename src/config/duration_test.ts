import { assertEquals } from "@std/assert";
import { formatDuration, parseDuration } from "./duration.ts";

Deno.test("parseDuration reads what people type, and nothing else", () => {
  const table: readonly (readonly [string, number | undefined])[] = [
    ["0", 0],
    ["500ms", 500],
    ["30s", 30_000],
    ["1.5s", 1500],
    ["10m", 600_000],
    ["2h", 7_200_000],
    ["", undefined],
    ["10", undefined],
    ["-1s", undefined],
    ["1 s", undefined],
    ["1d", undefined],
    ["1e3s", undefined],
    ["999h", undefined],
  ];
  for (const [text, ms] of table) assertEquals(parseDuration(text), ms, text);
});

Deno.test("formatDuration writes the largest unit that fits", () => {
  const table: readonly (readonly [number, string])[] = [
    [0, "0ms"],
    [999, "999ms"],
    [1000, "1s"],
    [1234, "1.2s"],
    [59_940, "59.9s"],
    [59_960, "1m"],
    [200_000, "3m 20s"],
    [7_500_000, "2h 5m"],
  ];
  for (const [ms, text] of table) assertEquals(formatDuration(ms), text);
});
