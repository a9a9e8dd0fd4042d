/** The tools that are measured, each with the same migrations in the form that it reads. */

import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const modules = fileURLToPath(new URL("./node_modules", import.meta.url));

/** A migration of the benchmark. */
export interface BenchMigration {
  readonly name: string;
  readonly sql: string;
  /** Whether it is to run outside a transaction. Default: false */
  readonly outside?: boolean;
}

/** How one tool is run. */
export interface Tool {
  readonly name: string;
  /** Writes the migrations to a folder of its own. */
  prepare(folder: string, migrations: readonly BenchMigration[]): Promise<void>;
  /** The command that applies them. */
  command(folder: string): readonly string[];
}

const version = (index: number) => String(20_200_101_000_001 + index);

/** One file a migration, named by version and name. */
async function plainFiles(
  folder: string,
  migrations: readonly BenchMigration[],
  wrap: (migration: BenchMigration) => string = ({ sql }) => sql,
): Promise<void> {
  for (const [index, migration] of migrations.entries()) {
    await Deno.writeTextFile(
      `${folder}/${version(index)}_${migration.name}.sql`,
      wrap(migration),
    );
  }
}

/** graphile-migrate chains its files by hashes (its src/hash.ts tells how). */
async function chainedFiles(
  folder: string,
  migrations: readonly BenchMigration[],
): Promise<void> {
  await Deno.writeTextFile(`${folder}/.gmrc`, "{}");
  await Deno.mkdir(`${folder}/migrations/committed`, { recursive: true });
  let previous = "";
  for (const [index, { name, sql }] of migrations.entries()) {
    const text = `${previous}\n${sql.trim()}`.trim() + "\n";
    const digest = await crypto.subtle.digest(
      "SHA-1",
      new TextEncoder().encode(text),
    );
    const hash = `sha1:${
      [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("")
    }`;
    await Deno.writeTextFile(
      `${folder}/migrations/committed/${String(index + 1).padStart(6, "0")}-${name.replaceAll("_", "-")}.sql`,
      `--! Previous: ${previous || "-"}\n--! Hash: ${hash}\n\n${sql.trim()}\n`,
    );
    previous = hash;
  }
}

/** @param floor the compiled floor.ts */
export function tools(floor: string): readonly Tool[] {
  return [
    {
      name: "pipeweave",
      prepare: (folder, migrations) =>
        plainFiles(
          folder,
          migrations,
          ({ sql, outside }) => outside ? `-- pipeweave: no-transaction\n${sql}` : sql,
        ),
      command: (
        folder,
      ) => [
        `${root}dist/pipeweave`,
        "db:migrate",
        "--no-embedded",
        "--dir",
        folder,
      ],
    },
    {
      name: "floor",
      prepare: plainFiles,
      command: (folder) => [floor, "bare", folder],
    },
    {
      name: "floor, same statements",
      prepare: plainFiles,
      command: (folder) => [floor, "same", folder],
    },
    {
      name: "dbmate",
      prepare: (folder, migrations) =>
        plainFiles(
          folder,
          migrations,
          ({ sql, outside }) =>
            `-- migrate:up${outside ? " transaction:false" : ""}\n${sql}\n-- migrate:down\n`,
        ),
      command: (folder) => [
        `${modules}/@dbmate/linux-x64/bin/dbmate`,
        ...["--migrations-dir", folder, "--no-dump-schema", "migrate"],
      ],
    },
    {
      name: "graphile-migrate",
      prepare: chainedFiles,
      command: () => ["node", `${modules}/graphile-migrate/dist/cli.js`, "migrate"],
    },
    {
      name: "node-pg-migrate",
      prepare: (folder, migrations) =>
        plainFiles(folder, migrations, ({ sql }) => `-- Up Migration\n${sql}\n`),
      command: (folder) => [
        ...["node", `${modules}/node-pg-migrate/bin/node-pg-migrate.js`],
        ...["up", "--verbose", "false", "--migrations-dir", folder],
      ],
    },
  ];
}

/** One statement each, of the kinds that most migrations are. */
export function smallMigrations(count: number): readonly BenchMigration[] {
  return Array.from({ length: count }, (_, index) => {
    const table = `bench_${Math.floor(index / 5)}`;
    const kinds = [
      [
        "create",
        `CREATE TABLE ${table} (id bigint PRIMARY KEY, name text NOT NULL);`,
      ],
      [
        "column",
        `ALTER TABLE ${table} ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();`,
      ],
      ["index", `CREATE INDEX ${table}_name ON ${table} (name);`],
      [
        "comment",
        `COMMENT ON TABLE ${table} IS 'One of many; nothing is in it but a row.';`,
      ],
      ["row", `INSERT INTO ${table} (id, name) VALUES (1, 'first');`],
    ] as const;
    const [name, sql] = kinds[index % kinds.length]!;
    return { name: `${name}_${Math.floor(index / 5)}`, sql };
  });
}

/** A table, and then an index on it in each file, built as on a table that is in use. */
export function indexesConcurrently(count: number): readonly BenchMigration[] {
  const columns = Array.from({ length: count }, (_, index) => `c${index} integer`).join(", ");
  return [
    { name: "table", sql: `CREATE TABLE bench_wide (${columns});` },
    ...Array.from({ length: count }, (_, index) => ({
      name: `index_${index}`,
      sql: `CREATE INDEX CONCURRENTLY bench_wide_c${index} ON bench_wide (c${index});`,
      outside: true,
    })),
  ];
}

/** PipeWeave's own schema: tables, constraints, indexes, functions and triggers in one file. */
export async function realisticSchema(): Promise<readonly BenchMigration[]> {
  return [{
    name: "schema",
    sql: await Deno.readTextFile(`${root}migrations/001_initial_schema.sql`),
  }];
}
