import { assertEquals } from "@std/assert";
import { broken, cellsOf, fitted } from "./cells.ts";

Deno.test("cells: wide characters take two, combining marks none, and what belongs together is not parted", () => {
  assertEquals([cellsOf("abc"), cellsOf("日本語"), cellsOf("e\u0301"), cellsOf("🚀")], [3, 6, 1, 2]);
  assertEquals([fitted("日本語", 5), fitted("abc", 5), fitted("ae\u0301b", 2)], ["日本", "abc", "ae\u0301"]);
  assertEquals(broken("日本語ab", 4), ["日本", "語ab"]);
  assertEquals(broken("日", 1), ["日"]);
});
