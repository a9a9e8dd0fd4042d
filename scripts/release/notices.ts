/**
 * Writes THIRD_PARTY_NOTICES, which the binary carries too (`pipeweave --licenses`); with --check it only tells whether
 * that would change it.
 */

import { components, licenceText } from "./components.ts";

const target = new URL("../../THIRD_PARTY_NOTICES", import.meta.url);
const RULE = "-".repeat(80);

const all = components();
const texts = [...new Set(all.map(({ text }) => text))];
const sections = texts.map((text) => {
  const names = all.filter((one) => one.text === text).map(({ name, version }) =>
    version === undefined ? name : `${name} ${version}`
  );
  return `${RULE}\n${names.join(", ")}\n${RULE}\n\n${licenceText(text)}\n`;
});
const notices = `The binary of pipeweave contains other people's work. This is what, and under which terms.

${
  all.map(({ name, version, licence, purpose }) =>
    `${version ? `${name} ${version}` : name}: ${licence} (${purpose})`
  ).join("\n")
}

Deno is itself made of several hundred Rust crates under MIT, Apache-2.0, BSD, ISC, Zlib, MPL-2.0 and Unicode-3.0 terms;
\`pipeweave --version\` names its version, and Cargo.lock in https://github.com/denoland/deno at that version lists them.
A binary that says "denort from npm" was made on a machine that reaches npm alone: it carries Cliffy 1.0.0-rc.5 and @std as
the npm package windmill-cli has them, under the same licences. Releases are never made so.

${sections.join("\n")}`;

if (!Deno.args.includes("--check")) {
  Deno.writeTextFileSync(target, notices);
} else if (await Deno.readTextFile(target).catch(() => "") !== notices) {
  console.error("THIRD_PARTY_NOTICES is out of date: deno run -A scripts/release/notices.ts");
  Deno.exit(1);
}
