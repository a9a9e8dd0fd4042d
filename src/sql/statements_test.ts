import { assertEquals, assertRejects } from "@std/assert";
import { parseStatements, SqlSyntaxError } from "./statements.ts";

async function split(text: string): Promise<string[]> {
  return (await parseStatements(text)).map(({ start, end }) => text.slice(start, end));
}

Deno.test("parseStatements splits where PostgreSQL does", async () => {
  const table: readonly (readonly [string, readonly string[]])[] = [
    ["SELECT 1", ["SELECT 1"]],
    ["SELECT 1; SELECT 2;\n", ["SELECT 1", "SELECT 2"]],
    [";;SELECT 1;;", ["SELECT 1"]],
    ["-- only a comment", []],
    ["", []],
    ["-- a;b\nSELECT ';' /* ; /* ; */ ; */;SELECT 2", ["SELECT ';' /* ; /* ; */ ; */", "SELECT 2"]],
    ["/* nested /* comment */ */ SELECT 1; /* é */ SELECT 'é😀;'; SELECT 2", [
      "SELECT 1",
      "SELECT 'é😀;'",
      "SELECT 2",
    ]],
    ["DO $a$ BEGIN PERFORM $b$;$b$; END $a$; SELECT $$;$$", [
      "DO $a$ BEGIN PERFORM $b$;$b$; END $a$",
      "SELECT $$;$$",
    ]],
    [String.raw`SELECT E'a\';b'; SELECT U&'d\0061;t\+000061'; SELECT "a;b" FROM t`, [
      String.raw`SELECT E'a\';b'`,
      String.raw`SELECT U&'d\0061;t\+000061'`,
      `SELECT "a;b" FROM t`,
    ]],
    // standard_conforming_strings is on, as every message sets it: a backslash is a letter.
    [String.raw`SELECT 'a\'; SELECT 2 AS a$b$c; SELECT $a$ $b$ ; $$ $b$ $a$; SELECT b'1', x'a;'`, [
      String.raw`SELECT 'a\'`,
      "SELECT 2 AS a$b$c",
      "SELECT $a$ $b$ ; $$ $b$ $a$",
      "SELECT b'1', x'a;'",
    ]],
    ["SELECT 'a'\n  ';b'; SELECT $é$;$é$; SELECT U&\"d!003b;\" UESCAPE '!'", [
      "SELECT 'a'\n  ';b'",
      "SELECT $é$;$é$",
      "SELECT U&\"d!003b;\" UESCAPE '!'",
    ]],
    [
      `CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC
  INSERT INTO t VALUES (CASE WHEN true THEN 1 END); /* ; */ -- ;
  DELETE FROM t;
END; SELECT 1`,
      [
        `CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC
  INSERT INTO t VALUES (CASE WHEN true THEN 1 END); /* ; */ -- ;
  DELETE FROM t;
END`,
        "SELECT 1",
      ],
    ],
    ["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3", [
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
      "SELECT 3",
    ]],
    [
      "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)); SELECT 1",
      [
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2))",
        "SELECT 1",
      ],
    ],
  ];
  for (const [text, statements] of table) assertEquals(await split(text), [...statements], text);
});

Deno.test("parseStatements says where PostgreSQL gives up, counting in UTF-16 units", async () => {
  for (const text of ["SELECT 1;\nSELEKT 2;", "SELECT 'é😀';\nSELEKT 2;"]) {
    const error = await assertRejects(
      () => parseStatements(text),
      SqlSyntaxError,
      'syntax error at or near "SELEKT"',
    );
    assertEquals(error.offset, text.indexOf("SELEKT"));
  }
});
