/**
 * Makes the npm packages that bring the binary: `pipeweave`, and one for each platform, which it depends on optionally.
 *
 * `deno run -A scripts/release/npm_packages.ts <work> <folder>`: `<work>` holds a folder
 * `pipeweave-<version>-<target>` with the binary of each target; the packages go to `<folder>`.
 */

import { fileURLToPath } from "node:url";
import config from "../../deno.json" with { type: "json" };

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const [from, to] = Deno.args;
if (!from || !to) {
  console.error("usage: npm_packages.ts <work> <folder>");
  Deno.exit(2);
}

/** npm's names of a target: https://docs.npmjs.com/cli/configuring-npm/package-json#os */
const PLATFORMS: Readonly<Record<string, { os: string; cpu: string; libc?: string }>> = {
  "x86_64-unknown-linux-gnu": { os: "linux", cpu: "x64", libc: "glibc" },
  "aarch64-unknown-linux-gnu": { os: "linux", cpu: "arm64", libc: "glibc" },
  "x86_64-apple-darwin": { os: "darwin", cpu: "x64" },
  "aarch64-apple-darwin": { os: "darwin", cpu: "arm64" },
  "x86_64-pc-windows-msvc": { os: "win32", cpu: "x64" },
};
const nameOf = ({ os, cpu }: { os: string; cpu: string }) => `@pipeweave/cli-${os}-${cpu}`;

const common = {
  version: config.version,
  license: config.license,
  homepage: "https://github.com/pipeweave/pipeweave",
  repository: { type: "git", url: "git+https://github.com/pipeweave/pipeweave.git" },
  publishConfig: { access: "public", provenance: true },
};

/** Packs a package: its description, LICENSE, and the given files by their places in it. */
async function pack(manifest: object, files: Readonly<Record<string, string>>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "pipeweave-npm-" });
  try {
    await Deno.writeTextFile(`${folder}/package.json`, `${JSON.stringify(manifest, null, 2)}\n`);
    await Deno.copyFile(`${ROOT}LICENSE`, `${folder}/LICENSE`);
    await Deno.mkdir(`${folder}/bin`);
    for (const [place, source] of Object.entries(files)) {
      await Deno.copyFile(source, `${folder}/${place}`);
      if (place.startsWith("bin/")) await Deno.chmod(`${folder}/${place}`, 0o755);
    }
    const { success, stdout, stderr } = await new Deno.Command("npm", {
      args: ["pack", "--loglevel=error", "--pack-destination", await Deno.realPath(to!)],
      cwd: folder,
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    console.log(new TextDecoder().decode(stdout).trim());
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const here = `${ROOT}scripts/release`;
for (const [target, platform] of Object.entries(PLATFORMS)) {
  const program = platform.os === "win32" ? "pipeweave.exe" : "pipeweave";
  const binary = `${from}/pipeweave-${config.version}-${target}/${program}`;
  if (!await Deno.stat(binary).then(() => true, () => false)) continue;
  const { os, cpu, libc } = platform;
  await pack({
    name: nameOf(platform),
    description: `The binary of pipeweave for ${os} on ${cpu}`,
    ...common,
    os: [os],
    cpu: [cpu],
    ...(libc ? { libc: [libc] } : {}),
    files: ["bin", "THIRD_PARTY_NOTICES"],
  }, { [`bin/${program}`]: binary, THIRD_PARTY_NOTICES: `${ROOT}THIRD_PARTY_NOTICES` });
}
await pack({
  name: "pipeweave",
  description: "Migrations for a live PostgreSQL, and maintenance of a task queue",
  ...common,
  bin: { pipeweave: "bin/pipeweave.cjs" },
  files: ["bin"],
  engines: { node: ">=18" },
  optionalDependencies: Object.fromEntries(
    Object.values(PLATFORMS).map((platform) => [nameOf(platform), config.version]),
  ),
}, { "bin/pipeweave.cjs": `${here}/launcher.cjs`, "README.md": `${here}/npm_readme.md` });
