import { assertEquals } from "@std/assert";
import { pieceEnds } from "./split.ts";
import { parseStatements, SqlSyntaxError } from "./statements.ts";

const TRICKY = [
  "SELECT ';';",
  "SELECT 'it''s; '\n';';",
  "SELECT E'\\';', e'a\\\\';",
  'SELECT 1 AS "a;b""c;";',
  "SELECT U&'d\\0061t;', U&\"x;\";",
  "SELECT $$;$$, $tag$ $$; $tag$, $größe$;$größe$;",
  "SELECT a$b FROM t; SELECT $1;",
  "/* ; /* ; */ ; */ SELECT 1; -- ; ' \" $$\nSELECT 2;",
  "SELECT 1 -- it's\r; SELECT 2;",
  "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b);",
  "INSERT INTO t VALUES ('größer; 🚀');",
  "SELECT B'101', X'1F', N'x;';",
  "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $fn$ BEGIN PERFORM ';'; END; $fn$;",
  "COMMENT ON TABLE t IS 'a -- b; /* c';",
];

Deno.test("pieceEnds cuts where statements end, and nowhere else", async () => {
  for (const text of [...TRICKY, TRICKY.join("\n"), TRICKY.toReversed().join("")]) {
    const ends = pieceEnds(text, 1).filter((end) => end < text.length);
    const statements = (await parseStatements(text)).map(({ end }) => end + 1);
    assertEquals(ends.filter((end) => !statements.includes(end)), [], text);
    assertEquals(ends.length >= statements.length - 1, true, text);
  }
});

/** Statements of more than a piece's size, with what a cut might hit in between. */
function long(middle: string): string {
  const row = `INSERT INTO t VALUES (1, 'größe; ${"x".repeat(200)}');\n`;
  return row.repeat(3000) + middle + row.repeat(3000);
}

Deno.test("a long text is read in pieces, with the result of reading it at once", async () => {
  for (
    const middle of [
      TRICKY.join("\n"),
      "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;\n",
      `SELECT '${";\n".repeat(700_000)}';\n`,
    ]
  ) {
    const text = long(middle);
    const statements = await parseStatements(text);
    const inMiddle = (await parseStatements(middle)).length;
    assertEquals(statements.length, 6000 + inMiddle);
    for (const { start, end, node } of statements) {
      if (node.type === "InsertStmt" && end - start < 1000) {
        assertEquals(text.slice(start, start + 11), "INSERT INTO");
        assertEquals(text[end], ";");
      }
    }
  }
});

Deno.test("where a long text is wrong is told in units of the whole", async () => {
  const text = long("SELEKT 1;\n");
  const error = await parseStatements(text).then(() => undefined, (thrown) => thrown);
  assertEquals(error instanceof SqlSyntaxError && text.slice(error.offset, error.offset + 6), "SELEKT");
});
