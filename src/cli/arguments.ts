/**
 * Other ways to write a command line, brought to the one that the tree knows.
 *
 * @module
 */

/**
 * `db migrate` is `db:migrate`; `help db:migrate` is `db:migrate --help`; `db` alone shows what there is.
 *
 * @param commands names of all commands
 */
export function normalize(args: readonly string[], commands: readonly string[]): readonly string[] {
  const [first, second, ...rest] = args;
  if (first === undefined) return [];
  if (first === "help") return [...normalize(args.slice(1), commands), "--help"];
  const isGroup = commands.some((name) => name.startsWith(`${first}:`));
  if (!isGroup) return args;
  if (second === undefined || second === "--help" || second === "-h") return ["--help"];
  return [`${first}:${second}`, ...rest];
}
