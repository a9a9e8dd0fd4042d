/**
 * Colours, where they are wanted.
 *
 * @module
 */

import { bold, dim, green, red, yellow } from "@std/fmt/colors";

/** How to paint; every function returns its text unchanged where there are no colours. */
export interface Style {
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
  readonly warn: (text: string) => string;
  readonly faint: (text: string) => string;
  readonly strong: (text: string) => string;
}

const plain = (text: string) => text;

/** The style with or without colours. */
export function styleFor(colors: boolean): Style {
  return colors
    ? { good: green, bad: red, warn: yellow, faint: dim, strong: bold }
    : { good: plain, bad: plain, warn: plain, faint: plain, strong: plain };
}
