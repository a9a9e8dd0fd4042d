/**
 * Checksums that PipeWeave's own Node tool recorded. Its files for these versions make the same schema as ours, so a
 * history that it wrote counts as equal.
 *
 * @module
 */

import { versionKey } from "./migration.ts";

const NODE_TOOL_CHECKSUMS: Readonly<Record<string, string>> = {
  "0": "47949e3ddde295a1fb054b563810ad0704db212a18aede25a774641c31e8de58",
  "1": "e6d6c11d0cfa1cd052976cc1857b94912cb6a9663359755a570820450aef44aa",
  "2": "c4985514d2aca505d722b23b0085f3e3bab10cf41cc4b8d24152609e37fa0480",
};

/** Whether this is what the Node tool recorded for the version. */
export function isNodeToolChecksum(version: string, checksum: string): boolean {
  return NODE_TOOL_CHECKSUMS[versionKey(version)] === checksum;
}
