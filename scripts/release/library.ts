/**
 * Makes the npm package of the library from src/mod.ts: modules that Node 20 runs, their types, and what npm has to know.
 *
 * `deno run -A scripts/release/library.ts [folder]` writes `pipeweave-orchestrator-<version>.tgz` to the folder
 * (dist/release) and prints its path.
 */

import { fileURLToPath } from "node:url";
import config from "../../deno.json" with { type: "json" };

const root = fileURLToPath(new URL("../..", import.meta.url));
const here = `${root}scripts/release`;
const library = `${root}dist/library`;

/** Runs a program and returns what it printed; throws with all its output when it fails. */
async function run(command: string, args: readonly string[], cwd: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], cwd }).output();
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
  if (!success) throw new Error(`${command} ${args.join(" ")} failed:\n${out}${err}`);
  return out;
}

/** The version that deno.json pins an npm package to. */
function pinned(name: keyof typeof config.imports): string {
  return config.imports[name].replace(`npm:${name}@`, "");
}

const manifest = {
  name: config.name,
  version: config.version,
  description: "Migrations for a live PostgreSQL, and maintenance of PipeWeave's task queue, as a library",
  license: config.license,
  repository: { type: "git", url: "git+https://github.com/pipeweave/pipeweave.git" },
  type: "module",
  exports: { ".": { types: "./mod.d.ts", default: "./mod.js" } },
  types: "./mod.d.ts",
  sideEffects: false,
  engines: { node: ">=20.10" },
  dependencies: { "libpg-query": pinned("libpg-query"), postgres: pinned("postgres") },
  publishConfig: { access: "public", provenance: true },
};

const folder = Deno.args[0] ?? `${root}dist/release`;
await run(`${here}/install_tools.sh`, [], root);
await Deno.remove(library, { recursive: true }).catch(() => {});
await run("node", [`${here}/node_modules/typescript/bin/tsc`, "-p", `${here}/tsconfig.library.json`], root);
await Deno.writeTextFile(`${library}/package.json`, `${JSON.stringify(manifest, null, 2)}\n`);
await Deno.copyFile(`${here}/library_readme.md`, `${library}/README.md`);
await Deno.copyFile(`${root}LICENSE`, `${library}/LICENSE`);
await Deno.mkdir(folder, { recursive: true });
const [packed] = JSON.parse(await run("npm", ["pack", "--json", "--pack-destination", folder], library));
console.log(`${folder}/${packed.filename}`);
