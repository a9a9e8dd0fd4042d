import { assertEquals, assertThrows } from "@std/assert";
import { PipeweaveError } from "../errors.ts";
import { compareVersions, labelOf, type Migration } from "./migration.ts";
import { assertApplicable, type HistoryRow, planMigrations } from "./plan.ts";

const NODE_000 = "47949e3ddde295a1fb054b563810ad0704db212a18aede25a774641c31e8de58";

const migration = (version: string, source = "dir"): Migration => ({
  version,
  name: "m",
  checksum: `sum${version}`,
  sql: "",
  size: 0,
  file: `${version}_m.sql`,
  source,
  directives: { noTransaction: false, requiresMaintenance: false },
});
const row = (
  version: string,
  checksum = `sum${version}`,
  set: HistoryRow["set"] = "user",
): HistoryRow => ({
  version,
  name: "m",
  checksum,
  appliedAt: new Date(0),
  executionTimeMs: 1,
  set,
});
const facts = (rows: readonly HistoryRow[]) => ({ rows, partial: [] });

interface Expected {
  readonly current: string | null;
  readonly pending?: string[];
  readonly drift?: string[];
  readonly missing?: string[];
  readonly outOfOrder?: string[];
  readonly others?: string[];
  readonly taken?: string[];
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
    ["another file under its number", [{ ...migration("001"), name: "beta", checksum: "b" }], [row("001")], {
      current: null,
      taken: ["001_beta by 001_m"],
      refused: "number_taken",
    }],
    ["the same text under another name", [{ ...migration("001"), name: "beta" }], [row("001")], {
      current: null,
      taken: ["001_beta by 001_m"],
      refused: "number_taken",
    }],
    ["a user's file under a number of PipeWeave's own", [migration("001")], [
      row("001", "sum001", "pipeweave"),
    ], {
      current: null,
      taken: ["001_m by 001_m"],
      refused: "number_taken",
    }],
    [
      "a row of another tool under the number of PipeWeave's own",
      [
        migration("001", "embedded"),
      ],
      [{ ...row("001", "x", null), name: "theirs" }],
      {
        current: null,
        taken: ["001_m by 001_theirs"],
        refused: "number_taken",
      },
    ],
    ["a row of another tool, and no file for it", [migration("001")], [row("001"), row("100", "x", null)], {
      current: "001",
      others: ["100"],
    }],
    ["a row of another tool that a file is for", [migration("001")], [row("001", "sum001", null)], {
      current: "001",
    }],
    ["written otherwise", [migration("001")], [row("1", "sum001")], { current: "1" }],
    ["the Node tool's checksum", [migration("000", "embedded")], [row("000", NODE_000, null)], {
      current: "000",
    }],
    ["the Node tool's checksum for a user's file", [migration("000")], [row("000", NODE_000)], {
      current: "000",
      drift: ["000"],
      refused: "changed",
    }],
    [
      "a new embedded migration is not out of order behind a user's",
      [migration("000", "embedded"), migration("001", "embedded"), migration("100")],
      [row("000", "sum000", "pipeweave"), row("100")],
      { current: "100", pending: ["001"] },
    ],
  ];
  for (const [name, migrations, history, expected] of table) {
    const status = planMigrations(migrations, facts(history));
    const versions = (rows: readonly { version: string }[]) => rows.map(({ version }) => version);
    assertEquals(
      {
        current: status.current,
        pending: versions(status.pending),
        drift: versions(status.applied.filter(({ drift }) => drift)),
        missing: versions(status.missing),
        outOfOrder: versions(status.outOfOrder),
        others: versions(status.others),
        taken: status.taken.map(({ migration, by }) => `${labelOf(migration)} by ${labelOf(by)}`),
      },
      {
        current: expected.current,
        pending: expected.pending ?? [],
        drift: expected.drift ?? [],
        missing: expected.missing ?? [],
        outOfOrder: expected.outOfOrder ?? [],
        others: expected.others ?? [],
        taken: expected.taken ?? [],
      },
      name,
    );
    if (expected.refused === undefined) assertApplicable(migrations, status);
    else {assertEquals(
        assertThrows(() => assertApplicable(migrations, status), PipeweaveError).code,
        expected.refused,
        name,
      );}
  }
});

Deno.test("assertApplicable overlooks missing files when told to, and nothing else", () => {
  const files = [migration("001")];
  assertApplicable(files, planMigrations(files, facts([row("000"), row("001")])), { missing: true });
  const changed = planMigrations(files, facts([row("000"), row("001", "x")]));
  assertThrows(() => assertApplicable(files, changed, { missing: true }), PipeweaveError);
});

Deno.test("compareVersions compares as numbers of any length", () => {
  const sorted = ["000", "1", "002", "10", "20240101120000", "99999999999999999999999"];
  assertEquals([...sorted].reverse().sort(compareVersions), sorted);
  assertEquals(compareVersions("001", "1"), 0);
});
