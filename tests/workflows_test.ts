/** GitHub's workflows: they are YAML, and what they run is there. */

import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const FOLDER = `${ROOT}.github/workflows`;

interface Workflow {
  readonly on: unknown;
  readonly jobs: Readonly<
    Record<string, {
      readonly needs?: string;
      readonly "timeout-minutes"?: number;
      readonly steps: readonly { readonly run?: string; readonly uses?: string }[];
    }>
  >;
}

/** Reads YAML by the library that GitHub's own tools use the grammar of. */
async function parsed(path: string): Promise<Workflow> {
  await new Deno.Command(`${ROOT}scripts/release/install_tools.sh`).output();
  const program = `const text = require("node:fs").readFileSync(process.argv[1], "utf8");
    console.log(JSON.stringify(require("yaml").parse(text)));`;
  const { success, stdout, stderr } = await new Deno.Command("node", {
    args: ["-e", program, path],
    cwd: `${ROOT}scripts/release`,
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

for (const name of ["check.yml", "release.yml"]) {
  Deno.test(`${name}: jobs that end, actions of a fixed version, scripts that are there`, async () => {
    const { on, jobs } = await parsed(`${FOLDER}/${name}`);
    assert(on);
    for (const [job, { needs, steps, "timeout-minutes": limit }] of Object.entries(jobs)) {
      assert(limit && limit <= 60, `${job} has no limit`);
      assert(needs === undefined || needs in jobs, `${job} needs ${needs}`);
      for (const { run, uses } of steps) {
        assert(
          (run === undefined) !== (uses === undefined),
          `${job}: a step runs something or uses something`,
        );
        if (uses) assert(/^[\w-]+\/[\w-]+@v\d+$/.test(uses), uses);
        for (const [script] of run?.matchAll(/(?:\.\/)?(?:scripts|\.ci)\/[\w./]+/g) ?? []) {
          assert((await Deno.stat(ROOT + script)).mode! & 0o100, `${script} cannot be run`);
        }
      }
    }
  });
}

Deno.test("what is tested is built by the Deno that releases are made with", async () => {
  const versions = await Promise.all(
    ["check.yml", "release.yml"].map(async (name) =>
      [...(await Deno.readTextFile(`${FOLDER}/${name}`)).matchAll(/deno-version: (\S+)/g)].map((
        [, version],
      ) => version)
    ),
  );
  assertEquals(new Set(versions.flat()).size, 1);
});
