/**
 * The connection service file, as libpq reads it (PostgreSQL documentation, 32.17).
 *
 * @module
 */

import type { ConnectionParameters } from "./connection_url.ts";

/**
 * The parameters of one `[service]` section.
 *
 * @returns undefined when the file has no such section
 * @throws {Error} on a line that is neither a comment, a section nor `keyword=value`
 */
export function findService(text: string, service: string): ConnectionParameters | undefined {
  let found: ConnectionParameters | undefined;
  let inside = false;
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    if (line.startsWith("[")) {
      if (found && inside) break;
      inside = line === `[${service}]`;
      if (inside) found = {};
    } else if (inside) {
      const equals = line.indexOf("=");
      if (equals < 1) throw new Error(`line ${index + 1} is not keyword=value`);
      found![line.slice(0, equals).trim()] ??= line.slice(equals + 1).trim();
    }
  }
  return found;
}
