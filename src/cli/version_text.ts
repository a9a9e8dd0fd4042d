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

/** Returns release, commit, Deno, and what the binary was made from. */
export function versionText(): string {
  const build: Build | undefined = Deno.build.standalone
    ? JSON.parse(Deno.readTextFileSync(new URL("build.json", import.meta.url)))
    : undefined;
  return [
    `pipeweave ${VERSION}`,
    `commit ${build?.commit ?? "unknown (run from source)"}`,
    `deno ${Deno.version.deno} (${Deno.build.target}${build ? `, ${build.base}` : ""})`,
    ...(build ? [`unix sockets in ${build.socketDirs}`] : []),
  ].join("\n");
}

/** Returns the licence of this program, and the notices of what it contains. */
export function licencesText(): string {
  const folder = Deno.build.standalone ? "./" : "../../";
  const read = (name: string) => Deno.readTextFileSync(new URL(folder + name, import.meta.url)).trimEnd();
  return `${read("LICENSE")}\n\n${read("THIRD_PARTY_NOTICES")}`;
}
