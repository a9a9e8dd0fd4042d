import { assert } from "@std/assert";
import { BLOCKS, GATE_FITS, IS_ACTIVE, RUNS, SETTLES_IN_MS } from "./definitions.ts";

Deno.test("the words of the drain mean the same to commands and to the database", async () => {
  const migration = await Deno.readTextFile(
    new URL("../../migrations/90004_maintenance_gate.sql", import.meta.url),
  );
  for (const text of [RUNS, IS_ACTIVE, BLOCKS, SETTLES_IN_MS, GATE_FITS]) {
    assert(migration.includes(`\n${text}`), `90004 has not, or not at the start of a line: ${text}`);
  }
});
