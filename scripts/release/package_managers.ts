/**
 * Writes the Homebrew formula and the Scoop manifest of a release, with the sums of its archives.
 *
 * `deno run -A scripts/release/package_managers.ts <folder>`; the folder holds SHA256SUMS.
 */

import config from "../../deno.json" with { type: "json" };

const [folder] = Deno.args;
if (!folder) {
  console.error("usage: package_managers.ts <folder of the release>");
  Deno.exit(2);
}
const { version } = config;
const base = `https://github.com/pipeweave/pipeweave/releases/download/v${version}`;
const description = "Migrations for a live PostgreSQL, and maintenance of a task queue";
const sums = new Map(
  (await Deno.readTextFile(`${folder}/SHA256SUMS`)).trim().split("\n").map((line) =>
    line.split("  ").reverse() as [string, string]
  ),
);

const archive = (target: string, extension: string) => `pipeweave-${version}-${target}.${extension}`;

/** Address and sum of an archive, as the formula writes them; undefined where the release has none for the target. */
function source(target: string): string | undefined {
  const name = archive(target, "tar.gz");
  const sum = sums.get(name);
  return sum && `      url "${base}/${name}"\n      sha256 "${sum}"`;
}

/** A system's part of the formula. */
function system(name: "macos" | "linux", arm: string, intel: string): string {
  const cpus = [["arm", source(arm)], ["intel", source(intel)]].filter(([, text]) => text)
    .map(([cpu, text]) => `    on_${cpu} do\n${text}\n    end`);
  return cpus.length === 0 ? "" : `  on_${name} do\n${cpus.join("\n")}\n  end\n\n`;
}

const formula = `class Pipeweave < Formula
  desc "${description}"
  homepage "https://github.com/pipeweave/pipeweave"
  version "${version}"
  license "${config.license}"

${system("macos", "aarch64-apple-darwin", "x86_64-apple-darwin")}${
  system("linux", "aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu")
}  def install
    bin.install "pipeweave"
    bash_completion.install "completions/pipeweave.bash" => "pipeweave"
    zsh_completion.install "completions/_pipeweave"
    fish_completion.install "completions/pipeweave.fish"
  end

  test do
    assert_match "pipeweave #{version}", shell_output("#{bin}/pipeweave --version")
  end
end
`;
await Deno.writeTextFile(`${folder}/pipeweave.rb`, formula);

const zip = archive("x86_64-pc-windows-msvc", "zip");
const zipSum = sums.get(zip);
if (zipSum) {
  const manifest = {
    version,
    description,
    homepage: "https://github.com/pipeweave/pipeweave",
    license: config.license,
    architecture: {
      "64bit": { url: `${base}/${zip}`, hash: zipSum, extract_dir: zip.replace(/\.zip$/, "") },
    },
    bin: "pipeweave.exe",
    checkver: "github",
    autoupdate: {
      architecture: {
        "64bit": { url: `${base.replace(version, "$version")}/${zip.replace(version, "$version")}` },
      },
    },
  };
  await Deno.writeTextFile(`${folder}/pipeweave.json`, `${JSON.stringify(manifest, null, 2)}\n`);
}
