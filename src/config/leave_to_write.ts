/**
 * Files that could not be written: the binary has leave to write below the working folder alone.
 *
 * @module
 */

import { existsSync, realpathSync } from "node:fs";
import { dirname, isAbsolute, relative, resolve } from "node:path";
import { messageOf, PipeweaveError } from "../errors.ts";

/** What is to be written lies outside of the working folder. */
class Outside extends Error {}

/**
 * Throws where a folder that is to be written to, or made, lies in the working folder by its name alone: a link leads out of
 * it, which the runtime's own check follows. What is outside by its name is the runtime's to refuse.
 *
 * @throws {Error} that {@linkcode notWritable} tells
 */
export function assertBelow(folder: string): void {
  const named = resolve(folder);
  if (!isWithin(resolve("."), named)) return;
  let above = named;
  while (!existsSync(above) && above !== dirname(above)) above = dirname(above);
  if (!isWithin(realpathSync("."), realpathSync(above))) throw new Outside();
}

function isWithin(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return !isAbsolute(way) && !/^\.\.(?:[/\\]|$)/.test(way);
}

/**
 * The error of a file or folder that could not be written.
 *
 * @param error what writing threw
 * @param folder as it was named
 * @param again the command that would write it, started in a folder above
 */
export function notWritable(error: unknown, folder: string, above: string, again: string): PipeweaveError {
  const isForbidden = error instanceof Outside ||
    error instanceof Error && /NotCapable|Requires write access/.test(`${error.name}${error.message}`);
  return new PipeweaveError(
    "usage",
    "not_writable",
    isForbidden
      ? `${folder} is outside of the working folder, and the binary has no leave to write there`
      : `${folder} cannot be written: ${messageOf(error)}`,
    {
      hint: isForbidden
        ? `Start it from a folder above it: (cd ${above} && pipeweave ${again})`
        : "Nothing was written.",
      cause: error,
    },
  );
}
