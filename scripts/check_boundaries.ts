/**
 * Checks that calls go one way (docs/architecture.md), that only main.ts ends the process, and that nobody prints
 * but through what is injected.
 */

import { fileURLToPath } from "node:url";

/** What each folder of src may import, besides itself and errors.ts. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  config: [],
  database: ["config"],
  sql: [],
  migrations: ["sql", "config"],
  lint: ["migrations", "sql"],
  engine: ["migrations", "sql", "database", "config"],
  maintenance: ["database", "config"],
  cleanup: ["database", "config", "maintenance"],
  import: ["migrations", "sql", "database", "config"],
  commands: [
    "import",
    "engine",
    "lint",
    "migrations",
    "sql",
    "maintenance",
    "cleanup",
    "database",
    "config",
  ],
  output: [
    "commands",
    "import",
    "engine",
    "lint",
    "migrations",
    "maintenance",
    "cleanup",
    "config",
  ],
  orchestrator: [
    "commands",
    "cleanup",
    "engine",
    "migrations",
    "maintenance",
    "database",
    "config",
  ],
  cli: [
    "commands",
    "import",
    "engine",
    "migrations",
    "maintenance",
    "cleanup",
    "database",
    "config",
    "output",
  ],
};
/** What may not be said outside the named files. */
const RESERVED: readonly (readonly [
  pattern: RegExp,
  what: string,
  allowed: readonly string[],
])[] = [
  [/\bDeno\.exit\b|\bprocess\.exit\b/, "ends the process", []],
  [/\bconsole\.\w+\(/, "prints by itself", []],
  [/\bDeno\.env\b/, "reads the environment", ["config/environment.ts"]],
  [/from "@cliffy/, "uses Cliffy", ["cli/tree.ts"]],
  [/from "postgres"/, "uses the driver", ["database/link.ts"]],
];

const root = fileURLToPath(new URL("../src", import.meta.url));
const problems: string[] = [];

async function* sources(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) yield* sources(`${folder}/${name}`);
    else if (name.endsWith(".ts") && !name.endsWith("_test.ts")) {
      yield `${folder}/${name}`;
    }
  }
}

for await (const file of sources(root)) {
  const path = file.slice(root.length + 1);
  const text = await Deno.readTextFile(file);
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(
    /^\s*\/\/.*$/gm,
    "",
  );
  const [folder] = path.split("/") as [string];
  for (
    const [, specifier] of code.matchAll(/(?:from|import)\s*\(?"(\.[^"]+)"/g)
  ) {
    const target = new URL(specifier!, `file:///${path}`).pathname.slice(1)
      .split("/");
    if (target.length === 1 || path === "mod.ts" || target[0] === folder) {
      continue;
    }
    if (!MAY_IMPORT[folder]?.includes(target[0]!)) {
      problems.push(`${path} imports ${target.join("/")}`);
    }
  }
  for (const [pattern, what, allowed] of RESERVED) {
    if (pattern.test(code) && !allowed.includes(path)) {
      problems.push(`${path} ${what}`);
    }
  }
}

for (const problem of problems) console.error(`boundary: src/${problem}`);
if (problems.length > 0) Deno.exit(1);
