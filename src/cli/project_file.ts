/**
 * `pipeweave.json`: settings of a project, in the folder that a command is started in. Its keys are names of options; what
 * is typed, and a variable of the environment, go before it. It takes no URL and no password.
 *
 * @module
 */

import type { FoundFile } from "../config/connection.ts";
import { messageOf, PipeweaveError } from "../errors.ts";
import type { CommandSpec, OptionSpec } from "./spec.ts";
import type { World } from "./world.ts";
import { BadValue } from "./values.ts";

/** Its name. */
export const PROJECT_FILE = "pipeweave.json";

/** Settings by the flag that each stands for, as the option's declaration reads them. */
export type ProjectSettings = ReadonlyMap<string, unknown>;

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
): ProjectSettings {
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
  if (!found) return new Map();
  assertOwn(found, world.user);
  const known = settingsOf(commands);
  const values = new Map<string, unknown>();
  const problems: string[] = [];
  let parsed: unknown;
  try {
    parsed = JSON.parse(found.text.replace(/^\ufeff/, ""));
  } catch (error) {
    problems.push(`it is no JSON: ${(error as Error).message}`);
  }
  if (parsed !== undefined && (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))) {
    problems.push("it must be an object");
    parsed = undefined;
  }
  for (const [key, given] of Object.entries(parsed ?? {})) {
    if (key === "$schema") continue;
    const option = known.get(key);
    if (!option) {
      problems.push(
        /url|pass|user|secret|token/i.test(key)
          ? `${key} does not belong in it: it is in the repository. Use DATABASE_URL, or PG* variables`
          : `${key} is no setting; settings are: ${[...known.keys()].join(", ")}`,
      );
      continue;
    }
    try {
      const value = read(option, given);
      // `"embedded": false` is --no-embedded.
      values.set(
        value === false ? `--no-${option.flag.slice(2)}` : option.flag,
        value === false ? true : value,
      );
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      problems.push(`${key} ${error.message}`);
    }
  }
  if (problems.length === 0) return values;
  throw new PipeweaveError("usage", "bad_project_file", `${PROJECT_FILE} is wrong; nothing was tried`, {
    problems,
    hint: 'docs/schema/pipeweave.schema.json says what may stand in it; editors check it by its "$schema".',
  });
}

/** A file that others can write to would choose which SQL is run: in a folder such as /tmp anybody can put one. */
function assertOwn({ mode, owner }: FoundFile, user: number | undefined): void {
  if (user === undefined || owner === undefined) return;
  const isOthers = owner !== user && owner !== 0;
  if (!isOthers && ((mode ?? 0) & 0o002) === 0) return;
  throw new PipeweaveError(
    "usage",
    "project_file_of_others",
    `${PROJECT_FILE} in this folder ${
      isOthers ? `belongs to user ${owner}, and not to you or root` : "can be written by everybody"
    }; nothing was tried`,
    { hint: "It decides which SQL is run: make it your own (chown, chmod o-w), or start in another folder." },
  );
}

function read({ value, repeatable }: OptionSpec, given: unknown): unknown {
  if (!value) {
    if (typeof given !== "boolean") throw new BadValue("must be true or false");
    return given;
  }
  const one = (text: unknown) => {
    if (typeof text !== "string" && typeof text !== "number") {
      throw new BadValue("must be a text or a number");
    }
    return value.parse(String(text));
  };
  return repeatable ? (Array.isArray(given) ? given : [given]).map(one) : one(given);
}

/** The file's JSON Schema (draft 2020-12). */
export function projectFileSchema(commands: readonly CommandSpec[]): object {
  const properties = [...settingsOf(commands)].map(([key, { value, description, repeatable }]) => {
    const words = value?.completion.of === "words" ? { enum: value.completion.words } : {};
    const one = !value ? { type: "boolean" } : { type: ["string", "integer"], ...words };
    const type = "enum" in one ? { enum: one.enum } : one;
    return [key, {
      description,
      ...(repeatable ? { oneOf: [type, { type: "array", items: type }] } : type),
    }];
  });
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: PROJECT_FILE,
    type: "object",
    additionalProperties: false,
    properties: { $schema: { type: "string" }, ...Object.fromEntries(properties) },
  };
}
