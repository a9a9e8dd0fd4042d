/** The shell examples of the documentation, run as they stand. */

import { fileURLToPath } from "node:url";
import { assert, assertEquals } from "@std/assert";
import { BINARY, folderWith } from "./support/binary.ts";
import { TestDatabase } from "./support/database.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

for (
  const [file, whose] of [
    ["README.md", "PipeWeave's alone"],
    ["README.md", "PipeWeave's and one's own"],
    ["docs/examples.md", "PipeWeave's alone"],
    ["docs/examples.md", "PipeWeave's and one's own"],
  ] as const
) {
  Deno.test(`the shell examples of ${file} work, with migrations of ${whose}`, async () => {
    const text = await Deno.readTextFile(root + file);
    const blocks = [...text.matchAll(/<!-- tested -->\s*```sh\n([\s\S]*?)```/g)].map(([, block]) => block!);
    assert(blocks.length > 0);
    const hasOwn = whose !== "PipeWeave's alone";
    await using database = hasOwn ? await TestDatabase.migrated() : await TestDatabase.empty();
    await using migrations = await folderWith({});
    await using work = await folderWith({});
    for (const [index, block] of blocks.entries()) {
      // Each example finds something to apply.
      await Deno.writeTextFile(`${migrations.path}/${900 + index}_example.sql`, "SELECT 1;");
      await Deno.writeTextFile(`${work.path}/example.sh`, block);
      const { code, stdout, stderr } = await new Deno.Command("sh", {
        args: ["example.sh", "true"],
        cwd: work.path,
        clearEnv: true,
        env: {
          PATH: `${BINARY.replace(/\/[^/]*$/, "")}:/usr/local/bin:/usr/bin:/bin`,
          DATABASE_URL: database.url,
          ...(hasOwn ? { PIPEWEAVE_MIGRATIONS_DIR: migrations.path } : {}),
        },
      }).output();
      const decoder = new TextDecoder();
      assertEquals(code, 0, `${block}\n${decoder.decode(stdout)}${decoder.decode(stderr)}`);
    }
  });
}
