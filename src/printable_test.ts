import { assertEquals } from "@std/assert";
import { printable } from "./printable.ts";

Deno.test("printable: control characters become visible, everything else stays", () => {
  assertEquals(printable("release 42 – größer 🚀"), "release 42 – größer 🚀");
  assertEquals(printable("x\nMode: running\t\r"), "x\\nMode: running\\t\\r");
  assertEquals(printable("\x1b[31mred\x1b]0;title\x07\x9b"), "\\x1b[31mred\\x1b]0;title\\x07\\x9b");
});
