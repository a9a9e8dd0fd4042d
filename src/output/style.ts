/**
 * Colours, where they are wanted. They say nothing that the words do not say.
 *
 * @module
 */

import { bold, dim, green, red, yellow } from "@std/fmt/colors";

/** How to paint; every function returns its text unchanged where there are no colours. */
export interface Style {
  /** Done, or as it should be. */
  readonly good: (text: string) => string;
  /** Failed, or against what is known. */
  readonly bad: (text: string) => string;
  /** Not done yet, or to be looked at. */
  readonly warn: (text: string) => string;
  /** Of less weight. */
  readonly faint: (text: string) => string;
  /** What a line is about. */
  readonly strong: (text: string) => string;
}

const plain = (text: string) => text;

/** The style with or without colours. */
export function styleFor(colors: boolean): Style {
  return colors
    ? { good: green, bad: red, warn: yellow, faint: dim, strong: bold }
    : { good: plain, bad: plain, warn: plain, faint: plain, strong: plain };
}

/** A mode: tasks start, or they do not. */
export function paintedMode(mode: string, { good, warn }: Style): string {
  return mode === "running" ? good(mode) : warn(mode);
}
