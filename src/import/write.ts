/**
 * Writes the files of an import: all of them, or none.
 *
 * @module
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { messageOf, PipeweaveError } from "../errors.ts";

/** What a folder is to an import: to be written, or one that holds its files already. */
export type Written = "written" | "there already" | "edited since";

/**
 * Looks at the folder that an import goes to.
 *
 * @returns `written` where its files are to be written, `there already` where the folder has these very files, `edited since`
 *   where some of them have another text, or others were added
 * @throws {PipeweaveError} of kind `usage` when the folder holds something else
 */
export function lookAtOutput(folder: string, files: ReadonlyMap<string, string>): Written {
  const target = resolve(folder);
  const present = existsSync(target) ? readdirSync(target) : [];
  if (present.length === 0) return "written";
  if ([...files.keys()].some((name) => !present.includes(name))) {
    throw new PipeweaveError(
      "usage",
      "folder_not_empty",
      `The folder ${folder} is not empty; nothing was written`,
      { hint: "Name a folder that is not there yet: --output <folder>." },
    );
  }
  const isSame = present.length === files.size &&
    [...files].every(([name, text]) => readFileSync(join(target, name), "utf8") === text);
  return isSame ? "there already" : "edited since";
}

/**
 * Writes files into a folder that is new or empty: into another one beside it first, which then gets its name.
 *
 * @throws {PipeweaveError} of kind `usage` when it must not be written to
 */
export function writeFolder(folder: string, files: ReadonlyMap<string, string>): void {
  const target = resolve(folder);
  const draft = join(
    dirname(target),
    `.${target.slice(dirname(target).length + 1)}.${crypto.randomUUID().slice(0, 8)}`,
  );
  try {
    mkdirSync(draft, { recursive: true });
    for (const [name, text] of files) writeFileSync(join(draft, name), text, { flag: "wx" });
    if (existsSync(target)) rmSync(target, { recursive: true });
    renameSync(draft, target);
  } catch (error) {
    try {
      rmSync(draft, { recursive: true, force: true });
    } catch {
      // It is the first failure that tells.
    }
    const isForbidden = error instanceof Error &&
      /NotCapable|Requires write access/.test(`${error.name}${error.message}`);
    throw new PipeweaveError(
      "usage",
      "not_writable",
      isForbidden
        ? `${folder} is outside of the working folder, and the binary has no leave to write there`
        : `The folder ${folder} cannot be written: ${messageOf(error)}`,
      {
        hint: isForbidden
          ? `Start it from a folder above it: (cd ${dirname(target)} && pipeweave db:import …)`
          : "Nothing was written. Name another folder with --output.",
        cause: error,
      },
    );
  }
}
