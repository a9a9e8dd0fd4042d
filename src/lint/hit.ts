/**
 * What a statement breaks.
 *
 * @module
 */

import type { RuleId } from "../migrations/allow.ts";
import type { Blocks } from "./rules.ts";

/** What a statement breaks, and on what. */
export interface Hit {
  readonly rule: RuleId;
  readonly message: string;
  /** Who waits, where it is not who the rule says. */
  readonly blocks?: Blocks;
  /** Where in the text it stands, where that is not the statement's beginning; in bytes, as the parser counts. */
  readonly at?: number | undefined;
}
