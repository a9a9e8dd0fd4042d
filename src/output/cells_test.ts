import { assertEquals } from "@std/assert";
import { broken, cellsOf, fitted, padded, without, wrapped } from "./cells.ts";

Deno.test("cells: wide characters take two, combining marks none, and what belongs together is not parted", () => {
  assertEquals([cellsOf("abc"), cellsOf("日本語"), cellsOf("e\u0301"), cellsOf("🚀")], [3, 6, 1, 2]);
  assertEquals([fitted("日本語", 5), fitted("abc", 5), fitted("ae\u0301b", 2)], ["日本", "abc", "ae\u0301"]);
  assertEquals(broken("日本語ab", 4), ["日本", "語ab"]);
  assertEquals(broken("日", 1), ["日"]);
  assertEquals([padded("日", 4), padded("abc", 2)], ["日  ", "abc"]);
  assertEquals([without("日本ab", 3), without("ab", 5), without("ab", 0)], [" ab", "", "ab"]);
});

Deno.test("cells: colours take none, and end where the text is cut", () => {
  assertEquals(cellsOf("\x1b[1;31mabc\x1b[0m"), 3);
  assertEquals(fitted("a\x1b[32mbcd\x1b[39mef", 3), "a\x1b[32mbc\x1b[39m");
  assertEquals(fitted("\x1b[32mab\x1b[39m\x1b[31mcd\x1b[39m", 2), "\x1b[32mab\x1b[39m\x1b[31m\x1b[39m");
  assertEquals(padded("\x1b[32mx\x1b[39m", 3), "\x1b[32mx\x1b[39m  ");
});

Deno.test("cells: lines break between words, and a word that fits nowhere stays whole", () => {
  assertEquals(wrapped("one two three", 8), ["one two", "three"]);
  assertEquals(wrapped("  - one two three", 9, "    "), ["  - one", "    two", "    three"]);
  assertEquals(wrapped("see https://example.org/a/long/one now", 10), [
    "see",
    "https://example.org/a/long/one",
    "now",
  ]);
  assertEquals(wrapped("日本 語日 本", 5), ["日本", "語日", "本"]);
  assertEquals(wrapped("a  b", Infinity), ["a  b"]);
  assertEquals(wrapped("say so: -- pipeweave: allow x", 20), ["say so:", "-- pipeweave: allow", "x"]);
  assertEquals(wrapped("a  b c", 4), ["a  b", "c"]);
});
