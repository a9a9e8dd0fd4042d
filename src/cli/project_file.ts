/**
 * `pipeweave.json`: settings of a project, in the folder that a command is started in. Its keys are names of options; what
 * is typed, and a variable of the environment, go before it. It takes no password.
 *
 * @module
 */

import type { FoundFile } from "../config/connection.ts";
import { messageOf, PipeweaveError } from "../errors.ts";
import { printable } from "../printable.ts";
import { closest } from "./arguments.ts";
import { type CommandSpec, describeOption, type OptionSpec } from "./spec.ts";
import type { World } from "./world.ts";
import { BadValue } from "./values.ts";

/** Its name. */
export const PROJECT_FILE = "pipeweave.json";

/** What the file says. */
export interface Project {
  /** Settings by the flag that each stands for, as the option's declaration reads them. */
  readonly settings: ReadonlyMap<string, unknown>;
  /** Connection URLs without passwords, by the names that `--target` takes. */
  readonly targets: ReadonlyMap<string, string>;
}

/** Where there is no file. */
export const NO_PROJECT: Project = { settings: new Map(), targets: new Map() };

/** The key of the connections. */
const TARGETS = "targets";

/** `--lock-timeout` as `lockTimeout`. */
export function keyOf(flag: string): string {
  return flag.slice(2).replace(/-[a-z0-9]/g, (letter) => letter[1]!.toUpperCase());
}

/** The options that the file may set, by their keys. */
export function settingsOf(commands: readonly CommandSpec[]): ReadonlyMap<string, OptionSpec> {
  return new Map(
    commands.flatMap(({ options }) => options).flatMap(({ options }) => options)
      .filter(({ isSetting }) => isSetting).map((option) => [keyOf(option.flag), option]),
  );
}

/**
 * Reads the file, where there is one.
 *
 * @throws {PipeweaveError} of kind `usage`, listing all that is wrong with it
 */
export function readProjectFile(
  world: Pick<World, "readFile" | "user">,
  commands: readonly CommandSpec[],
): Project {
  let found: FoundFile | undefined;
  try {
    found = world.readFile(PROJECT_FILE);
  } catch (error) {
    throw new PipeweaveError(
      "usage",
      "bad_project_file",
      `${PROJECT_FILE} cannot be read: ${messageOf(error)}`,
      { hint: "Make it a file that you may read, or remove it.", cause: error },
    );
  }
  if (!found) return NO_PROJECT;
  assertOwn(found, world.user);
  const known = settingsOf(commands);
  const settings = new Map<string, unknown>();
  let targets: Project["targets"] = new Map();
  const problems: string[] = [];
  let parsed: unknown;
  try {
    parsed = JSON.parse(found.text.replace(/^\ufeff/, ""));
  } catch (error) {
    problems.push(`it is not JSON: ${(error as Error).message}`);
  }
  if (parsed !== undefined && (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))) {
    problems.push("it must be an object");
    parsed = undefined;
  }
  for (const [key, given] of Object.entries(parsed ?? {})) {
    if (key === "$schema") continue;
    const option = known.get(key);
    if (!option && key !== TARGETS) {
      problems.push(unknownKey(key, [...known.keys(), TARGETS]));
      continue;
    }
    try {
      if (!option) {
        targets = readTargets(given);
        continue;
      }
      const value = readSetting(option, given);
      // `"embedded": false` is --no-embedded.
      settings.set(
        value === false ? `--no-${option.flag.slice(2)}` : option.flag,
        value === false ? true : value,
      );
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      problems.push(`${key} ${error.message}`);
    }
  }
  if (problems.length === 0) return { settings, targets };
  throw new PipeweaveError("usage", "bad_project_file", `${PROJECT_FILE} is wrong; nothing was tried`, {
    problems,
    hint:
      'A key is a flag without its dashes: lockTimeout is --lock-timeout. See docs/cli.md, "Project file".',
  });
}

/** A file that others can write to would choose which SQL is run: in a folder such as /tmp anybody can put one. */
function assertOwn({ mode, folderMode, owners = [] }: FoundFile, user: number | undefined): void {
  if (user === undefined) return;
  const other = owners.find((owner) => owner !== user && owner !== 0);
  // In a folder such as /tmp nobody can put another one in its place.
  const isReplaceable = ((folderMode ?? 0) & 0o1002) === 0o002;
  if (other === undefined && ((mode ?? 0) & 0o002) === 0 && !isReplaceable) return;
  throw new PipeweaveError(
    "usage",
    "project_file_of_others",
    `${PROJECT_FILE} in this folder ${
      other === undefined
        ? isReplaceable ? "can be replaced by everybody" : "can be written by everybody"
        : `belongs to user ${other}, or lies in a folder of theirs, and not to you or root`
    }; nothing was tried`,
    { hint: "It decides which SQL is run: make it your own (chown, chmod o-w), or start in another folder." },
  );
}

function unknownKey(key: string, known: readonly string[]): string {
  if (/url|pass|user|secret|token/i.test(key)) {
    return `${
      printable(key)
    } does not belong in it: it is in the repository. Use DATABASE_URL, PG* variables, or targets`;
  }
  const near = closest(key, known) ?? closest(keyOf(`--${key.replaceAll("_", "-")}`), known);
  return `${printable(key)} is not a setting: ${
    near ? `did you mean ${near}?` : `there are ${known.join(", ")}`
  }`;
}

/** A setting as the file has it; throws {@linkcode BadValue}. */
export function readSetting({ value, repeatable }: OptionSpec, given: unknown): unknown {
  if (!value) {
    if (typeof given !== "boolean") throw new BadValue("must be true or false");
    return given;
  }
  const one = (text: unknown) => {
    if (value.isNumber ? typeof text !== "number" : typeof text !== "string") {
      throw new BadValue(value.isNumber ? "must be a number" : "must be a text");
    }
    return value.parse(String(text));
  };
  return repeatable ? (Array.isArray(given) ? given : [given]).map(one) : one(given);
}

/** Whether a URL has a password, in whatever spelling. */
function hasPassword(url: string): boolean {
  let plain = url;
  try {
    plain = decodeURIComponent(url);
  } catch {
    // It is told when it is used.
  }
  return /^[^/]*\/\/[^/@]*:[^/]*@/.test(url) || /[?&](?:ssl)?password=/i.test(plain);
}

function readTargets(given: unknown): Project["targets"] {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new BadValue("must be an object: a name and a URL each");
  }
  const targets = Object.entries(given);
  for (const [name, url] of targets) {
    if (typeof url !== "string" || !/^postgres(?:ql)?:\/\//.test(url)) {
      throw new BadValue(`must have URLs that begin with postgres://; ${name} is none`);
    }
    if (hasPassword(url)) {
      throw new BadValue(
        `must have no password, and ${name} has one: it is in the repository. Use PGPASSWORD or ~/.pgpass`,
      );
    }
  }
  return new Map(targets as [string, string][]);
}

/** The file's JSON Schema (draft 2020-12). */
export function projectFileSchema(commands: readonly CommandSpec[]): object {
  const properties = [...settingsOf(commands)].map(([key, option]) => {
    const { value, repeatable } = option;
    const words = value?.completion.of === "words" ? { enum: value.completion.words } : {};
    const one = !value ? { type: "boolean" } : { type: value.isNumber ? "integer" : "string", ...words };
    const type = "enum" in one ? { enum: one.enum } : one;
    return [key, {
      description: describeOption(option),
      ...(repeatable ? { oneOf: [type, { type: "array", items: type }] } : type),
    }];
  });
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: PROJECT_FILE,
    type: "object",
    additionalProperties: false,
    properties: {
      $schema: { type: "string" },
      ...Object.fromEntries(properties),
      [TARGETS]: {
        description: "Connection URLs without passwords, by the names that --target takes.",
        type: "object",
        additionalProperties: { type: "string", pattern: "^postgres(ql)?://" },
      },
    },
  };
}
