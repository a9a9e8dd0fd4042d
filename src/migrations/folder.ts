/**
 * What stands in a folder of migrations besides them: files and folders that somebody may take for migrations.
 *
 * @module
 */

import { type Dirent, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { Finding } from "./finding.ts";

/** Why an entry of a folder is no migration, although somebody may take it for one; undefined where nobody would. */
export function reasonToPassOver(
  folder: string,
  entry: Dirent,
): Partial<Finding> & Pick<Finding, "message" | "hint"> | undefined {
  const { name } = entry;
  if (/^\._|^\.#|^#.*#$|~$|\.sw[a-p]$|\.(?:bak|orig|rej|tmp|old)$/i.test(name)) {
    return /\.sql|^\d/i.test(name)
      ? { message: "is passed over: it is what an editor or a copy has left", hint: "Remove it." }
      : undefined;
  }
  if (isFolder(folder, entry)) {
    if (!holdsSql(join(folder, name))) return undefined;
    const layout = /^\d/.test(name) ? toolOfFolder(join(folder, name)) : undefined;
    if (layout) {
      return {
        severity: "error",
        code: "foreign_dialect",
        message: `is a migration of ${layout}, which keeps each in a folder of its own`,
        hint: "Bring the folder over: pipeweave db:import <folder> --output <new folder>.",
      };
    }
    return {
      message: "is passed over: files are read from the folder itself, not from those in it",
      hint: "Name each folder with a --dir of its own, or move the files.",
    };
  }
  if (name.endsWith(".sql")) return undefined;
  const isAlmost = /\.sql$/i.test(name) || /\.sql\.[a-z0-9]+$/i.test(name) || /^\d+_.*sql/i.test(name);
  if (isAlmost) {
    return {
      message: "is passed over: its name does not end in .sql",
      hint: "Name it NNN_snake_case_name.sql.",
    };
  }
  const tool = /\.fizz$/.test(name)
    ? "pop"
    : /^\d+.*\.(?:js|ts|mjs|cjs|go|py|rb|exs|xml|ya?ml)$/.test(name)
    ? "another tool"
    : undefined;
  return tool && {
    message: `is passed over: it is a migration of ${tool}, and no SQL`,
    hint: "Write what it does as NNN_snake_case_name.sql.",
  };
}

function isFolder(folder: string, entry: Dirent): boolean {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  try {
    return statSync(join(folder, entry.name)).isDirectory();
  } catch {
    return false;
  }
}

function holdsSql(folder: string): boolean {
  try {
    return readdirSync(folder).some((name) => /\.sql$/i.test(name));
  } catch {
    return false;
  }
}

/** The tool that keeps a migration in a folder of its own. */
function toolOfFolder(folder: string): string | undefined {
  const names = readdirSync(folder);
  return names.includes("migration.sql") ? "Prisma" : names.includes("up.sql") ? "Diesel" : undefined;
}

/** Whose way of naming files this is. */
export function toolOfName(name: string): string | undefined {
  if (/^[VR]\d*[\d._]*__/.test(name)) return "Flyway";
  if (/^U[\d._]+__/.test(name)) return "Flyway, which undoes something";
  if (/\.(?:up|down)\.sql$/.test(name)) return "golang-migrate";
  return /-(?:up|down)\.sql$/.test(name) ? "db-migrate" : undefined;
}
