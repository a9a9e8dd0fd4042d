/** A migration of a text, as a file of it would be. */

import { readDirectives } from "../../src/migrations/directives.ts";
import type { Migration } from "../../src/migrations/migration.ts";

export function migrationOf(sql: string, file = "m/001_a.sql"): Migration {
  const { directives } = readDirectives(sql);
  return { version: "001", name: "a", checksum: "", size: sql.length, sql, file, source: "m", directives };
}
