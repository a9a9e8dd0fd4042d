/**
 * What this program is.
 *
 * @module
 */

import config from "../../deno.json" with { type: "json" };

/** The release, as deno.json has it. */
export const VERSION: string = config.version;

/** `application_name` of a command's sessions, so that a DBA sees who is there. */
export function applicationName(command: string): string {
  return `pipeweave/${VERSION} ${command}`;
}

/** What scripts/build.sh notes about a build. */
interface Build {
  readonly commit: string;
  readonly base: string;
  readonly socketDirs: string;
}

/** The text of `--version`: release, commit, Deno, and what the binary was made from. */
export function versionText(): string {
  const build: Build | undefined = Deno.build.standalone
    ? JSON.parse(Deno.readTextFileSync(new URL("../../dist/build.json", import.meta.url)))
    : undefined;
  return [
    `pipeweave ${VERSION}`,
    `commit ${build?.commit ?? "unknown (run from source)"}`,
    `deno ${Deno.version.deno} (${Deno.build.target}${build ? `, ${build.base}` : ""})`,
    ...(build ? [`unix sockets in ${build.socketDirs}`] : []),
  ].join("\n");
}
