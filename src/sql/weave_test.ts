import { assertEquals } from "@std/assert";
import { parseStatements } from "./statements.ts";
import { unwoven, weave } from "./weave.ts";

Deno.test("weave: every place of the file is found again", async () => {
  const text = "-- head;\nSELECT 1; /* ; */ SELECT ';',\n  'x';\n-- tail";
  const statements = await parseStatements(text);
  const woven = weave(text, statements, (k) => `SET LOCAL a.b = ${k}; `);
  assertEquals(
    woven.text,
    "-- head;\nSET LOCAL a.b = 1; SELECT 1; /* ; */ SET LOCAL a.b = 2; SELECT ';',\n  'x';\n-- tail",
  );
  for (let offset = 0; offset < text.length; offset++) {
    const [first, second] = [statements[0]!, statements[1]!];
    const inserted = "SET LOCAL a.b = 1; ".length;
    const shift = (offset >= first.start ? inserted : 0) + (offset >= second.start ? inserted : 0);
    assertEquals(woven.toFile(offset + shift), offset, `at ${offset}`);
  }
  assertEquals(unwoven(text).toFile(5), 5);
});
