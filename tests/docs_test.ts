/** What the documentation shows: shell examples are run as they stand, the rest is held against the program. */

import { fileURLToPath } from "node:url";
import { assert, assertEquals } from "@std/assert";
import { COMMANDS } from "../src/cli/commands.ts";
import { BINARY, folderWith } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Every page for people, README first. */
const PAGES = [
  "README.md",
  ...["docs", "docs/how-to"].flatMap((folder) =>
    [...Deno.readDirSync(root + folder)].map(({ name }) => `${folder}/${name}`).filter((name) =>
      name.endsWith(".md")
    )
  ).sort(),
];
const read = (page: string) => Deno.readTextFileSync(root + page);

/** Fenced blocks of a page, by their language. */
function blocksOf(page: string, language: string): readonly string[] {
  return [...read(page).matchAll(new RegExp(`^ *\`\`\`${language}\\n([\\s\\S]*?)^ *\`\`\``, "gm"))].map((
    [, block],
  ) => block!);
}

const testedBlocks = (page: string) =>
  [...read(page).matchAll(/<!-- tested -->\s*```sh\n([\s\S]*?)```/g)].map(([, block]) => block!);

/** Pages that work on whatever is there: with PipeWeave's own migrations, and with the reader's. */
const ON_BOTH = ["README.md", "docs/examples.md"];

/** Runs the examples of a page, one after the other, in one folder and on one database. */
async function runExamples(page: string, database: TestDatabase, env: Record<string, string>, dir?: string) {
  const blocks = testedBlocks(page);
  assert(blocks.length > 0);
  await using work = await folderWith({});
  for (const [index, block] of blocks.entries()) {
    // Each example finds something to apply.
    if (dir) await Deno.writeTextFile(`${dir}/${900 + index}_example.sql`, "SELECT 1;");
    await Deno.writeTextFile(`${work.path}/example.sh`, block);
    const { code, stdout, stderr } = await new Deno.Command("sh", {
      args: ["-e", "example.sh", "true"],
      cwd: work.path,
      clearEnv: true,
      env: {
        PATH: `${BINARY.replace(/\/[^/]*$/, "")}:/usr/local/bin:/usr/bin:/bin`,
        DATABASE_URL: database.url,
        ...env,
      },
    }).output();
    const decoder = new TextDecoder();
    assertEquals(code, 0, `${block}\n${decoder.decode(stdout)}${decoder.decode(stderr)}`);
  }
}

for (const page of PAGES.filter((page) => testedBlocks(page).length > 0)) {
  if (ON_BOTH.includes(page)) {
    Deno.test(`the shell examples of ${page} work, with migrations of PipeWeave's alone`, async () => {
      await using database = await TestDatabase.empty();
      await runExamples(page, database, {});
    });
    Deno.test(`the shell examples of ${page} work, with migrations of PipeWeave's and one's own`, async () => {
      await using database = await TestDatabase.migrated();
      await using migrations = await folderWith({});
      await runExamples(page, database, { PIPEWEAVE_MIGRATIONS_DIR: migrations.path }, migrations.path);
    });
  } else {
    Deno.test(`the shell examples of ${page} work`, async () => {
      await using database = page === "docs/tutorial.md"
        ? await TestDatabase.empty()
        : await TestDatabase.migrated();
      await runExamples(page, database, {});
    });
  }
}

Deno.test("every command and option that a page names is there", () => {
  let seen = 0;
  for (const page of PAGES) {
    const code = [...read(page).matchAll(/```\w*\n([\s\S]*?)```|`([^`\n]+)`/g)].map(([, block, inline]) =>
      block ?? inline!
    );
    const lines = code.flatMap((block) => block.replaceAll("\\\n", " ").split("\n"));
    // In a shell's words, and as a list of YAML or JSON.
    const words = lines.map((line) => line.replaceAll(/["',[\]]+/g, " "));
    for (const line of words) {
      for (const [, name, rest] of line.matchAll(/\b((?:db|maintenance):[a-z]+)\b([^|;&#>]*)/g)) {
        const spec = COMMANDS.find((command) => command.name === name);
        assert(spec, `${page}: there is no command ${name}`);
        const known = spec.options.flatMap(({ options }) => options).map(({ flag }) => flag);
        for (const [option] of rest!.matchAll(/(?<=\s)--[a-z][a-z-]*/g)) {
          const isKnown = known.includes(option) || known.includes(option.replace(/^--no-/, "--")) ||
            option === "--help";
          assert(isKnown, `${page}: ${name} has no option ${option}`);
          seen++;
        }
      }
    }
  }
  assert(seen > 100, `only ${seen} options were looked at`);
});

Deno.test("the pages' YAML can be read", async () => {
  await new Deno.Command(`${root}scripts/release/install_tools.sh`).output();
  const program = `const { parseDocument } = require("yaml");
    const blocks = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const wrong = blocks.flatMap((text) => parseDocument(text).errors.map(({ message }) => message));
    if (blocks.length === 0 || wrong.length > 0) { console.error(wrong.join("\\n")); process.exit(1); }`;
  const child = new Deno.Command("node", {
    args: ["-e", program],
    ...{ cwd: `${root}scripts/release`, stdin: "piped", stdout: "null", stderr: "piped" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(
    new TextEncoder().encode(JSON.stringify(PAGES.flatMap((page) => blocksOf(page, "yaml")))),
  );
  await writer.close();
  const { success, stderr } = await child.output();
  assert(success, new TextDecoder().decode(stderr));
});

Deno.test("links between pages lead somewhere", () => {
  for (const page of [...PAGES, "CONTRIBUTING.md", "SECURITY.md", "scripts/release/library_readme.md"]) {
    const folder = page.includes("/") ? page.replace(/\/[^/]*$/, "/") : "";
    const prose = read(page).replaceAll(/```[\s\S]*?```/g, "");
    for (const [, target] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target!)) continue;
      const [path, anchor] = target!.split("#") as [string, string?];
      const file = path === "" ? page : new URL(path, `file:///${folder}`).pathname.slice(1);
      const text = Deno.readTextFileSync(root + file);
      if (anchor === undefined || !file.endsWith(".md")) continue;
      const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
        title!.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
      );
      assert(anchors.includes(anchor), `${page}: ${file} has no heading for #${anchor}`);
    }
  }
});

Deno.test("the recorded terminal shows what is printed today", async () => {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--config", "deno.json", "-A", "--no-check", "scripts/record_terminal.ts", "--check"],
    cwd: root,
  }).output();
  assert(success, new TextDecoder().decode(stderr));
});
