/**
 * Writes src/migrations/embedded_files.ts from the files in migrations/: a module that every runtime can import, from a
 * folder, from the binary and over http. With --check it only tells whether that would change it.
 */

const folder = new URL("../migrations/", import.meta.url);
const target = new URL("../src/migrations/embedded_files.ts", import.meta.url);

/** A text as a template literal, so that a change of a migration can be read in a change of the module. */
const literal = (text: string) =>
  `\`${text.replaceAll("\\", "\\\\").replaceAll("`", "\\`").replaceAll("${", "\\${")}\``;

const names = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
const entries = names.map((name) =>
  `  ${JSON.stringify(name)}: ${literal(Deno.readTextFileSync(new URL(name, folder)))},\n`
);
const module = `/**
 * PipeWeave's own migrations, by the names of their files. Made by scripts/generate_embedded.ts from migrations/; CI
 * fails when it is out of date.
 *
 * @module
 */

/** The texts of the files in migrations/. */
export const EMBEDDED_FILES: Readonly<Record<string, string>> = {
${entries.join("")}};
`;

if (!Deno.args.includes("--check")) {
  Deno.writeTextFileSync(target, module);
} else if (Deno.readTextFileSync(target) !== module) {
  console.error(
    "src/migrations/embedded_files.ts is out of date: deno run -A scripts/generate_embedded.ts",
  );
  Deno.exit(1);
}
