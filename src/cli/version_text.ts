/**
 * The texts of `--version` and `--licenses`.
 *
 * @module
 */

import { VERSION } from "../config/version.ts";

/** What scripts/build.sh notes about a build. */
interface Build {
  readonly commit: string;
  readonly base: string;
  readonly socketDirs: string;
}

/** What the binary is. */
export interface VersionFacts {
  /** The release. */
  readonly version: string;
  /** That it was built from; null where it runs from source. */
  readonly commit: string | null;
  readonly deno: string;
  /** The platform. */
  readonly target: string;
  /** Where the runtime came from; null where it runs from source. */
  readonly base: string | null;
  /** Folders in which Unix sockets are looked for. */
  readonly socketDirs: readonly string[];
}

/** Returns release, commit, Deno, and what the binary was made from. */
export function version(): VersionFacts {
  const build: Build | undefined = Deno.build.standalone
    ? JSON.parse(Deno.readTextFileSync(new URL("build.json", import.meta.url)))
    : undefined;
  return {
    version: VERSION,
    commit: build?.commit ?? null,
    deno: Deno.version.deno,
    target: Deno.build.target,
    base: build?.base ?? null,
    socketDirs: build?.socketDirs.split(",") ?? [],
  };
}

/** {@linkcode version} in lines. */
export function versionText(): string {
  const { version: release, commit, deno, target, base, socketDirs } = version();
  return [
    `pipeweave ${release}`,
    `commit ${commit ?? "unknown (run from source)"}`,
    `deno ${deno} (${target}${base ? `, ${base}` : ""})`,
    ...(base ? [`unix sockets in ${socketDirs.join(",")}`] : []),
  ].join("\n");
}

/** Returns the licence of this program, and the notices of what it contains. */
export function licencesText(): string {
  const folder = Deno.build.standalone ? "./" : "../../";
  const read = (name: string) => Deno.readTextFileSync(new URL(folder + name, import.meta.url)).trimEnd();
  return `${read("LICENSE")}\n\n${read("THIRD_PARTY_NOTICES")}`;
}
