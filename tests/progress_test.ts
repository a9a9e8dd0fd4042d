/** What a migration that takes long shows: as a line now and then, as a bar on a terminal, as events. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { folderWith, pipeweave, Terminal } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

/** Builds an index for some seconds: 120 blocks of five rows, 10 ms a row. */
const SLOW_INDEX = `CREATE FUNCTION slowly(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_sleep(0.01); RETURN n; END $$;
CREATE TABLE wide AS SELECT n, repeat('x', 1500) AS text FROM generate_series(1, 600) n;
CREATE INDEX wide_slowly
  ON wide (slowly(n));`;

Deno.test("long work, not on a terminal: a line every 5 s: statement k of n, its first line, the time, the percentage", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_slow.sql": SLOW_INDEX });
  const { code, stderr } = await pipeweave(["db:migrate", "--no-embedded", "--dir", folder.path], {
    env: { DATABASE_URL: database.url },
  });
  assertEquals(code, 0, stderr);
  assertMatch(
    stderr,
    /^Applying 001_slow, statement 3 of 3, building index: scanning table █+░+ \d+% \(5(\.\d+)?s\): CREATE INDEX wide_slowly\n$/,
  );
});

Deno.test("long work, on a terminal: a bar that moves in its line, no wider than the terminal, and goes", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_slow.sql": SLOW_INDEX });
  const columns = 60;
  const command = `db:migrate --no-embedded --dir ${folder.path}`;
  await using terminal = new Terminal(command, database.url, columns);
  await terminal.ends();
  const { drawn } = terminal;
  const frames = drawn.split("\r\x1b[J").slice(1).map((frame) => frame.split(/\r?\n/)[0]!);
  assert(frames.length > 20, drawn);
  for (const frame of frames) assert([...frame].length < columns, frame);
  assertMatch(frames.at(-2)!, /^. \d+(\.\d+)?s █+░* \d+% Applying 001_slow, statement/);
  const bars = new Set(frames.map((frame) => frame.match(/\d+%/)?.[0]).filter(Boolean));
  assert(bars.size >= 3, [...bars].join());
  // What stays are the steps: the line was erased before the next of them.
  const step = frames.at(-1)!;
  assert(step.startsWith("[migrations]") && step.includes("✓"), step);
});

Deno.test("long work, --json=stream: events with the statement, the phase and what is done of it", async () => {
  await using database = await TestDatabase.empty();
  await using folder = await folderWith({ "001_slow.sql": SLOW_INDEX });
  const { code, stdout, stderr } = await pipeweave(
    ["db:migrate", "--no-embedded", "--dir", folder.path, "--json=stream"],
    { env: { DATABASE_URL: database.url } },
  );
  assertEquals(code, 0, stderr);
  const events = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  const seen = events.filter(({ event, phase }) => event === "progress" && phase?.includes("scanning"));
  assert(seen.length >= 3, stdout);
  for (const { version, statement } of seen) {
    assertEquals([version, statement], ["001", {
      number: 3,
      of: 3,
      firstLine: "CREATE INDEX wide_slowly",
    }]);
  }
  const fractions = seen.map(({ fraction }) => fraction);
  assertEquals(fractions, fractions.toSorted((a, b) => a - b));
  assert(fractions.at(-1) > fractions[0] && fractions.at(-1) <= 1, fractions.join());
});
