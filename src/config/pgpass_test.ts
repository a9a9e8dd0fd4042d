import { assertEquals } from "@std/assert";
import { findPassword } from "./pgpass.ts";

const key = { host: "db1", port: 5432, database: "app", user: "me" };

Deno.test("findPassword takes the first line that matches", () => {
  const table: readonly (readonly [string, string | undefined])[] = [
    ["db1:5432:app:me:one", "one"],
    ["# db1:5432:app:me:no\n\nother:*:*:*:no\n*:*:*:me:yes\n*:*:*:*:later", "yes"],
    ["db1:5433:app:me:no", undefined],
    ["*:*:*:*:with:colons\\:and\\\\slash", "with:colons:and\\slash"],
    ["db\\1:5432:app:me:escaped", "escaped"],
    ["\\*:5432:app:me:literal asterisk", undefined],
    ["db1:5432:app:me", undefined],
    ["db1:5432:app:me:crlf\r\n", "crlf"],
    ["", undefined],
  ];
  for (const [text, password] of table) assertEquals(findPassword(text, key), password, text);
});

Deno.test("findPassword undoes escapes in fields", () => {
  assertEquals(findPassword("::1:*:*:*:no", { ...key, host: "::1" }), undefined);
  assertEquals(findPassword("\\:\\:1:*:*:*:yes", { ...key, host: "::1" }), "yes");
});
