import { assertEquals } from "@std/assert";
import { unitsBefore, unitsByBytes } from "./offsets.ts";

Deno.test("characters, bytes and units agree on every place of a text", () => {
  const text = "aé€🚀z\u00a0ö";
  const units = unitsByBytes(text);
  let characters = 0;
  for (let at = 0; at <= text.length;) {
    const head = text.slice(0, at);
    assertEquals(unitsBefore(text, characters), at);
    assertEquals(units(new TextEncoder().encode(head).length), at);
    characters++;
    at += (text.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
  }
  // Backwards too, at the cost of another pass.
  assertEquals(units(1), 1);
});
