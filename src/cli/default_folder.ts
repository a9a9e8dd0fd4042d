/**
 * `./migrations`, where nobody names a folder.
 *
 * @module
 */

import { lstatSync, readdirSync, statSync } from "node:fs";
import { PipeweaveError } from "../errors.ts";
import { EMBEDDED_FILES } from "../migrations/embedded_files.ts";

/** Its name. */
export const DEFAULT_FOLDER = "migrations";

/**
 * The folder, where it holds files that are named like migrations, and not PipeWeave's own alone: those are in the binary.
 *
 * @param user number of the user that runs this; undefined where the system has none
 * @throws {PipeweaveError} of kind `usage` when somebody else could have put it there: it decides which SQL is run
 */
export function defaultFolder(user: number | undefined): string | undefined {
  let names: readonly string[];
  try {
    names = readdirSync(DEFAULT_FOLDER).filter((name) => /^\d+.*\.sql$/.test(name));
  } catch {
    // There is none, or it is no folder.
    return undefined;
  }
  if (names.every((name) => name in EMBEDDED_FILES)) return undefined;
  const [folder, working] = [statSync(DEFAULT_FOLDER), statSync(".")];
  const owners = [folder.uid, lstatSync(DEFAULT_FOLDER).uid, working.uid];
  const other = user === undefined ? undefined : owners.find((owner) => owner !== user && owner !== 0);
  const isOpen = (folder.mode & 0o002) !== 0 || (working.mode & 0o1002) === 0o002;
  if (other === undefined && (user === undefined || !isOpen)) return DEFAULT_FOLDER;
  throw new PipeweaveError(
    "usage",
    "folder_of_others",
    `The folder ./${DEFAULT_FOLDER} ${
      other === undefined
        ? "can be changed by everybody"
        : `belongs to user ${other}, or lies in a folder of theirs`
    }; nothing was tried`,
    {
      hint: `Say that it is meant: --dir ${DEFAULT_FOLDER}; PipeWeave's own migrations alone are --embedded.`,
    },
  );
}
