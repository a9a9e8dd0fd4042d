import { assertEquals, assertThrows } from "@std/assert";
import { identifier, sql } from "./sql.ts";

Deno.test("sql quotes values so that they stay values", () => {
  const table: readonly (readonly [string | number | boolean | null | Date, string])[] = [
    ["plain", "'plain'"],
    ["it's", "'it''s'"],
    ["back\\slash'", " E'back\\\\slash'''"],
    ["'; DROP TABLE x; --", "'''; DROP TABLE x; --'"],
    [42, "42"],
    [true, "true"],
    [null, "NULL"],
    [new Date(0), "'1970-01-01T00:00:00.000Z'"],
  ];
  for (const [value, text] of table) assertEquals(sql`${value}`.text, text);
  assertThrows(() => sql`${"zero\0byte"}`, RangeError);
  assertThrows(() => sql`${Number.NaN}`, RangeError);
});

Deno.test("identifier quotes names, and sql takes SQL as it is", () => {
  assertEquals(identifier('a"b').text, '"a""b"');
  assertEquals(sql`SELECT ${sql`now()`} FROM ${identifier("My Table")}`.text, 'SELECT now() FROM "My Table"');
});
