/** scripts/build.sh: the same sources give the same binary, bit by bit, in any folder. */

import { assert, assertEquals } from "@std/assert";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

async function execute(command: string, args: readonly string[], cwd: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args], cwd }).output();
  assert(success, `${command} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

/** Copies the checkout, with what the set-up made, as a clone of its own has it. */
async function copyOfCheckout(folder: string): Promise<void> {
  await Deno.mkdir(`${folder}/.toolchain`, { recursive: true });
  const files = ["-c", "-o", "--exclude-standard", "-z"];
  await execute(
    "sh",
    ["-c", `git ls-files ${files.join(" ")} | xargs -0 cp --parents -t "$0"`, folder],
    ROOT,
  );
  // Copies and not links: what a link leads to has another name.
  await execute("cp", ["-R", "node_modules", "vendor", folder], ROOT);
  for (const { name } of Deno.readDirSync(`${ROOT}.toolchain`)) {
    await Deno.symlink(`${ROOT}.toolchain/${name}`, `${folder}/.toolchain/${name}`);
  }
}

async function sha256Of(path: string): Promise<string> {
  return (await execute("sha256sum", [path], ROOT)).split(" ")[0]!;
}

Deno.test("two builds in two folders are the same binary, and neither knows where it was built", async () => {
  const folder = await Deno.makeTempDir({ prefix: "pipeweave-build-" });
  try {
    // One of another length, and with a space.
    const places = [`${folder}/a`, `${folder}/another place`];
    for (const place of places) {
      await copyOfCheckout(place);
      // The time of a file is when somebody cloned it.
      await execute("touch", ["-t", place === places[0] ? "202311140000" : "202512310000", "main.ts"], place);
      await execute("./scripts/build.sh", ["--output", "dist/built"], place);
    }
    const [first, second] = await Promise.all(places.map((place) => sha256Of(`${place}/dist/built`)));
    assertEquals(first, second);
    const bytes = await Deno.readFile(`${places[0]}/dist/built`);
    const text = new TextDecoder("latin1").decode(bytes);
    assertEquals(text.includes(folder), false, "the path of the build is in the binary");
    await execute("env", ["-i", `${places[1]}/dist/built`, "--version"], folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
