/** What the binary prints under --json, held against the schemas in docs/schema. */

import { assertEquals } from "@std/assert";
import { documents } from "./support/documents.ts";
import { type Schema, violations } from "./support/json_schema.ts";

const FOLDER = new URL("../docs/schema/", import.meta.url);

Deno.test("every JSON document is as its schema says, and every schema has a document", async () => {
  const seen = new Set<string>();
  for (const [name, document] of await documents()) {
    const schema: Schema = JSON.parse(await Deno.readTextFile(new URL(`${name}.schema.json`, FOLDER)));
    assertEquals(violations(document, schema), [], `${name}: ${JSON.stringify(document).slice(0, 400)}`);
    seen.add(`${name}.schema.json`);
  }
  const all = [...Deno.readDirSync(FOLDER)].map(({ name }) => name).filter((name) =>
    name !== "pipeweave.schema.json"
  );
  assertEquals([...seen].sort(), all.sort());
});

Deno.test("the check of schemas can fail", () => {
  const schema: Schema = {
    type: "object",
    properties: { a: { type: "integer" } },
    required: ["a"],
    additionalProperties: false,
  };
  assertEquals(violations({ a: 1 }, schema), []);
  assertEquals(violations({}, schema), ["$.a is missing"]);
  assertEquals(violations({ a: "x", b: 1 }, schema), [
    "$.a is string, and not integer",
    "$.b is not in the schema",
  ]);
});
