/**
 * Version and name of this program.
 *
 * @module
 */

/** The release. A test compares it with deno.json, which Node cannot import. */
export const VERSION = "2.0.0";

/** `application_name` of a command's sessions, so that a DBA sees who is there. */
export function applicationName(command: string): string {
  return `pipeweave/${VERSION} ${command}`;
}
