/** `docs/benchmarks.md`: each script that measures writes its own part, and leaves the others as they are. */

const DOCUMENT = new URL("../../docs/benchmarks.md", import.meta.url);
const PART = /(?=<!-- What follows is written by )/;

/**
 * Writes a part.
 *
 * @param script the file in `scripts/` that measured it
 * @param markdown starts with a heading of the second level
 */
export async function writePart(
  script: string,
  markdown: string,
): Promise<void> {
  const marker = `<!-- What follows is written by scripts/${script}. -->`;
  const [, ...parts] = (await Deno.readTextFile(DOCUMENT)).split(PART);
  const others = parts.filter((part) => !part.startsWith(marker));
  const all = [...others, `${marker}\n\n${markdown}`].toSorted().map((part) => part.trim());
  await Deno.writeTextFile(DOCUMENT, `# Benchmarks\n\n${all.join("\n\n")}\n`);
}
