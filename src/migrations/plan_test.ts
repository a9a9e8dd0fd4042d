import { assertEquals, assertThrows } from "@std/assert";
import { PipeweaveError } from "../errors.ts";
import { compareVersions, type Migration } from "./migration.ts";
import { assertApplicable, type HistoryRow, planMigrations } from "./plan.ts";

const NODE_000 = "47949e3ddde295a1fb054b563810ad0704db212a18aede25a774641c31e8de58";

const migration = (version: string, source = "dir"): Migration => ({
  version,
  name: "m",
  checksum: `sum${version}`,
  sql: "",
  file: `${version}_m.sql`,
  source,
  directives: { noTransaction: false, requiresMaintenance: false },
});
const row = (version: string, checksum = `sum${version}`): HistoryRow => ({
  version,
  name: "m",
  checksum,
  appliedAt: new Date(0),
  executionTimeMs: 1,
});

interface Expected {
  readonly current: string | null;
  readonly pending?: string[];
  readonly drift?: string[];
  readonly missing?: string[];
  readonly outOfOrder?: string[];
  /** The code of the refusal. */
  readonly refused?: string;
}

Deno.test("planMigrations: what is applied, pending, changed, missing, out of order", () => {
  const table: readonly (readonly [string, Migration[], HistoryRow[], Expected])[] = [
    ["empty database", [migration("000"), migration("001")], [], { current: null, pending: ["000", "001"] }],
    ["half done", [migration("000"), migration("001")], [row("000")], { current: "000", pending: ["001"] }],
    ["up to date", [migration("000")], [row("000")], { current: "000" }],
    ["changed", [migration("000")], [row("000", "other")], {
      current: "000",
      drift: ["000"],
      refused: "changed",
    }],
    ["missing", [migration("001")], [row("000"), row("001")], {
      current: "001",
      missing: ["000"],
      refused: "missing",
    }],
    ["unknown and newer", [migration("000")], [row("000"), row("999")], {
      current: "000",
      missing: ["999"],
      refused: "missing",
    }],
    ["out of order", [migration("001"), migration("002"), migration("003")], [row("001"), row("003")], {
      current: "003",
      pending: ["002"],
      outOfOrder: ["002"],
      refused: "out_of_order",
    }],
    ["written otherwise", [migration("001")], [row("1", "sum001")], { current: "1" }],
    ["the Node tool's checksum", [migration("000", "embedded")], [row("000", NODE_000)], { current: "000" }],
    ["the Node tool's checksum for a user's file", [migration("000")], [row("000", NODE_000)], {
      current: "000",
      drift: ["000"],
      refused: "changed",
    }],
    [
      "a new embedded migration is not out of order behind a user's",
      [migration("000", "embedded"), migration("001", "embedded"), migration("100")],
      [row("000"), row("100")],
      { current: "100", pending: ["001"] },
    ],
  ];
  for (const [name, migrations, history, expected] of table) {
    const status = planMigrations(migrations, history);
    const versions = (rows: readonly { version: string }[]) => rows.map(({ version }) => version);
    assertEquals(
      {
        current: status.current,
        pending: versions(status.pending),
        drift: versions(status.applied.filter(({ drift }) => drift)),
        missing: versions(status.missing),
        outOfOrder: versions(status.outOfOrder),
      },
      {
        current: expected.current,
        pending: expected.pending ?? [],
        drift: expected.drift ?? [],
        missing: expected.missing ?? [],
        outOfOrder: expected.outOfOrder ?? [],
      },
      name,
    );
    if (expected.refused === undefined) assertApplicable(status);
    else {assertEquals(
        assertThrows(() => assertApplicable(status), PipeweaveError).code,
        expected.refused,
        name,
      );}
  }
});

Deno.test("assertApplicable overlooks missing files when told to, and nothing else", () => {
  assertApplicable(planMigrations([migration("001")], [row("000"), row("001")]), { missing: true });
  const changed = planMigrations([migration("001")], [row("000"), row("001", "x")]);
  assertThrows(() => assertApplicable(changed, { missing: true }), PipeweaveError);
});

Deno.test("compareVersions compares as numbers of any length", () => {
  const sorted = ["000", "1", "002", "10", "20240101120000", "99999999999999999999999"];
  assertEquals([...sorted].reverse().sort(compareVersions), sorted);
  assertEquals(compareVersions("001", "1"), 0);
});
