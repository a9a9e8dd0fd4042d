/**
 * Writes the bill of materials of a release, as CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/).
 *
 * `deno run -A scripts/release/sbom.ts <binary> <file>`; the binary tells the versions of Deno and its commit.
 */

import config from "../../deno.json" with { type: "json" };
import { type Component, components } from "./components.ts";

const [binary, target] = Deno.args;
if (!binary || !target) {
  console.error("usage: sbom.ts <binary> <file>");
  Deno.exit(2);
}

const { stdout } = await new Deno.Command(binary, { args: ["--version"] }).output();
const told = new TextDecoder().decode(stdout);
const [, commit] = /^commit ([0-9a-f]+)/m.exec(told) ?? [];
const [, deno] = /^deno ([0-9.]+)/m.exec(told) ?? [];
if (!deno) throw new Error(`${binary} --version does not name its Deno:\n${told}`);
// The V8 of the Deno that built it, which is the same version.
const v8 = deno === Deno.version.deno ? Deno.version.v8 : undefined;

const purl = `pkg:github/pipeweave/pipeweave@v${config.version}`;
const refOf = ({ name, version }: Component) => version === undefined ? name : `${name}@${version}`;
const all = components(deno, v8);
const inside = (one: Component) => one.purpose.startsWith("in libpg-query");

const document = {
  bomFormat: "CycloneDX",
  specVersion: "1.6",
  version: 1,
  metadata: {
    component: {
      type: "application",
      "bom-ref": purl,
      name: "pipeweave",
      version: config.version,
      licenses: [{ license: { id: config.license } }],
      purl,
      ...(commit ? { properties: [{ name: "pipeweave:commit", value: commit }] } : {}),
    },
  },
  components: all.map((one) => ({
    type: one.name === "deno" ? "platform" : "library",
    "bom-ref": refOf(one),
    name: one.name,
    ...(one.version === undefined ? {} : { version: one.version }),
    description: one.purpose,
    licenses: [{ license: { id: one.licence } }],
    purl: one.purl,
    ...(one.hash ? { hashes: [{ alg: one.hash.algorithm, content: one.hash.hex }] } : {}),
  })),
  dependencies: [
    { ref: purl, dependsOn: all.filter((one) => !inside(one)).map(refOf) },
    ...all.filter(({ name }) => name === "libpg-query").map((one) => ({
      ref: refOf(one),
      dependsOn: all.filter(inside).map(refOf),
    })),
  ],
};
await Deno.writeTextFile(target, `${JSON.stringify(document, null, 2)}\n`);
