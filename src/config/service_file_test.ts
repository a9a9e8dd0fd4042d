import { assertEquals, assertThrows } from "@std/assert";
import { findService } from "./service_file.ts";

const text =
  "# comment\n[one]\nhost=db1\nport = 5433 \nhost=ignored\n\n[two]\r\nhost=db2\r\n[broken]\nnonsense\n";

Deno.test("findService reads one section", () => {
  assertEquals(findService(text, "one"), { host: "db1", port: "5433" });
  assertEquals(findService(text, "two"), { host: "db2" });
  assertEquals(findService(text, "three"), undefined);
});

Deno.test("findService names the line that it cannot read", () => {
  assertThrows(() => findService(text, "broken"), Error, "line 10");
});
