/**
 * All commands, in the order in which they are listed.
 *
 * @module
 */

import { DATABASE_COMMANDS, DEPRECATED_COMMANDS } from "./database_commands.ts";
import { FILE_COMMANDS } from "./file_commands.ts";
import { HISTORY_COMMANDS } from "./history_commands.ts";
import { MAINTENANCE_COMMANDS } from "./maintenance_commands.ts";
import type { CommandSpec } from "./spec.ts";
import { UTILITY_COMMANDS } from "./utility_commands.ts";

export const COMMANDS: readonly CommandSpec[] = [
  ...DATABASE_COMMANDS,
  ...FILE_COMMANDS,
  ...HISTORY_COMMANDS,
  ...MAINTENANCE_COMMANDS,
  ...UTILITY_COMMANDS,
  ...DEPRECATED_COMMANDS,
];
