/**
 * Writes the files of an import: all of them, or none.
 *
 * @module
 */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { assertBelow, notWritable } from "../config/leave_to_write.ts";
import { messageOf, PipeweaveError } from "../errors.ts";

/** What a folder is to an import: to be written, or one that holds its files already. */
export type Written = "written" | "there already" | "edited since";

/**
 * Looks at the folder that an import goes to.
 *
 * @param files texts by their names
 * @param needingHands names of files that are to be edited
 * @returns `written` where its files are to be written, `there already` where the folder has these very files, `edited since`
 *   where some of them have another text, or others were added
 * @throws {PipeweaveError} of kind `usage` when the folder holds something else
 */
export function lookAtOutput(
  folder: string,
  files: ReadonlyMap<string, string>,
  needingHands: ReadonlySet<string>,
): Written {
  const target = resolve(folder);
  let present: readonly string[];
  try {
    present = existsSync(target) ? readdirSync(target) : [];
  } catch (error) {
    throw new PipeweaveError(
      "usage",
      "not_a_folder",
      `${folder} is no folder that can be read: ${messageOf(error)}`,
      {
        hint: "Nothing was written. Name a folder that is not there yet: --output <folder>.",
        cause: error,
      },
    );
  }
  if (present.length === 0) return "written";
  const same = [...files].filter(([name, text]) =>
    present.includes(name) && hasText(join(target, name), text)
  );
  const isThere = [...files.keys()].every((name) => present.includes(name));
  // Files of these names alone may be anybody's.
  const isOurs = same.length > 0 || [...files.keys()].every((name) => needingHands.has(name));
  if (!isThere || !isOurs) {
    throw new PipeweaveError(
      "usage",
      "folder_not_empty",
      `The folder ${folder} is not empty; nothing was written`,
      {
        hint:
          "Name a folder that is not there yet: --output <folder>. One that an import with other options wrote can be removed.",
      },
    );
  }
  return same.length === files.size && present.length === files.size ? "there already" : "edited since";
}

/** Whether there is a file of that text; a pipe would be waited for. */
function hasText(path: string, text: string): boolean {
  try {
    return statSync(path).isFile() && readFileSync(path, "utf8") === text;
  } catch {
    return false;
  }
}

/**
 * Writes files into a folder that is new or empty: into a draft beside it first, which then gets its name. Of two at once one
 * is refused.
 *
 * @throws {PipeweaveError} of kind `usage` when it must not be written to
 */
export function writeFolder(folder: string, files: ReadonlyMap<string, string>): void {
  const target = resolve(folder);
  const draft = join(dirname(target), `.${basename(target)}.importing`);
  const again = "db:import …";
  try {
    assertBelow(target);
    mkdirSync(dirname(target), { recursive: true });
    mkdirSync(draft);
  } catch (error) {
    if ((error as { code?: string }).code === "EEXIST") {
      throw new PipeweaveError(
        "usage",
        "import_at_work",
        `There is ${draft}: another import is at work, or was cut off`,
        {
          hint: "Nothing was written. When no import is at work, remove that folder, and run it again.",
          cause: error,
        },
      );
    }
    throw notWritable(error, folder, dirname(target), again);
  }
  try {
    for (const [name, text] of files) writeFileSync(join(draft, name), text, { flag: "wx" });
    // Refused where somebody has put something there meanwhile.
    if (existsSync(target)) rmdirSync(target);
    renameSync(draft, target);
  } catch (error) {
    try {
      rmSync(draft, { recursive: true, force: true });
    } catch {
      // It is the first failure that tells.
    }
    const failure = notWritable(error, folder, dirname(target), again);
    if (existsSync(draft)) failure.hint(`${draft} is left, with a part of the files: remove it.`);
    throw failure;
  }
}
