/**
 * What a shell offers at a place of the command line, and the scripts that ask for it. The scripts hold no list of
 * commands: each asks the binary, by the hidden command `__complete`, so that it knows values, folders and versions.
 *
 * @module
 */

import { discover } from "../migrations/discover.ts";
import { RULES } from "../commands/lint_rules.ts";
import { optionsOf } from "./arguments.ts";
import type { Project } from "./project_file.ts";
import type { CommandSpec, OptionSpec } from "./spec.ts";
import type { Completion } from "./values.ts";

/** The name under which the scripts ask. */
export const COMPLETE = "__complete";

/** What a shell may insert: words, each with what it is for, or names of files that the shell itself finds. */
export type Offer =
  | { readonly of: "words"; readonly words: readonly (readonly [word: string, meaning: string])[] }
  | { readonly of: "folders" | "files"; readonly words: readonly [] };

/** What the program takes where no command stands. */
const PROGRAM_FLAGS: readonly (readonly [string, string])[] = [
  ["--help", "Show help."],
  ["--version", "Show the version."],
  ["--licenses", "Show the licences."],
];

const NOTHING: Offer = { of: "words", words: [] };

/**
 * Returns what may stand at the end of a command line.
 *
 * @param words the words behind the program's name, the one that is being typed at the end
 * @param project reads the project's file, where its names are asked for
 */
export function complete(
  words: readonly string[],
  commands: readonly CommandSpec[],
  project: () => Project,
): Offer {
  const typed = words.at(-1) ?? "";
  const before = words.slice(0, -1);
  const shown = commands.filter(({ isHidden }) => !isHidden);
  const { command, rest } = commandIn(before, commands);
  const offer = (all: readonly (readonly [string, string])[]): Offer => ({
    of: "words",
    words: all.filter(([word]) => word.startsWith(typed)),
  });
  if (!command) {
    const group = before.length === 1 ? before[0] : undefined;
    if (group !== undefined) {
      return offer(
        shown.filter(({ name }) => name.startsWith(`${group}:`)).map(({ name, summary }) =>
          [name.slice(group.length + 1), summary] as const
        ),
      );
    }
    if (before.length > 0) return NOTHING;
    if (typed.startsWith("-")) return offer(PROGRAM_FLAGS);
    return offer(shown.map(({ name, summary }) => [name, summary]));
  }
  const options = optionsOf(command);
  const joined = /^(--[a-z-]+)=(.*)$/s.exec(typed);
  if (joined) {
    const option = options.get(joined[1]!);
    if (!option?.value) return NOTHING;
    const values = valuesOf(option.value.completion, joined[2]!, before, project);
    return values.of === "words"
      ? { of: "words", words: values.words.map(([word, meaning]) => [`${joined[1]}=${word}`, meaning]) }
      : values;
  }
  const last = options.get(rest.at(-1) ?? "");
  if (last?.value && !last.valueIsOptional) return valuesOf(last.value.completion, typed, before, project);
  if (typed.startsWith("-")) return offer(flagsOf(command, rest));
  if (command.argument) return valuesOf(command.argument.completion, typed, before, project);
  return offer(flagsOf(command, rest));
}

function commandIn(words: readonly string[], commands: readonly CommandSpec[]) {
  for (const [index, word] of words.entries()) {
    const command = commands.find(({ name }) => name === word || name === `${words[index - 1]}:${word}`);
    if (command) return { command, rest: words.slice(index + 1) };
  }
  return { command: undefined, rest: words };
}

function flagsOf(command: CommandSpec, given: readonly string[]): readonly (readonly [string, string])[] {
  const isOpen = ({ flag, repeatable }: OptionSpec) => repeatable || !given.includes(flag);
  const own = command.options.flatMap(({ options }) => options).filter(isOpen);
  return [...own.map(({ flag, description }) => [flag, description.split(/(?<=\.) /)[0]!] as const), [
    "--help",
    "Show help.",
  ]];
}

function valuesOf(
  completion: Completion,
  typed: string,
  before: readonly string[],
  project: () => Project,
): Offer {
  switch (completion.of) {
    case "words":
      return {
        of: "words",
        words: completion.words.filter((word) => word.startsWith(typed)).map((word) => [word, ""]),
      };
    case "folders":
    case "files":
      return { of: completion.of, words: [] };
    case "versions":
      return { of: "words", words: versionsFor(before).filter(([word]) => word.startsWith(typed)) };
    case "rules":
      return { of: "words", words: RULES.filter((rule) => rule.startsWith(typed)).map((rule) => [rule, ""]) };
    case "targets":
      return {
        of: "words",
        words: targetsOf(project).filter((name) => name.startsWith(typed)).map((name) => [name, ""]),
      };
    case "nothing":
      return NOTHING;
  }
}

/** Names in the project's file; one that is wrong is told by the command itself. */
function targetsOf(project: () => Project): readonly string[] {
  try {
    return [...project().targets.keys()];
  } catch {
    return [];
  }
}

/** Versions in the folders that the line names, or in `./migrations`. */
function versionsFor(words: readonly string[]): readonly (readonly [string, string])[] {
  const dirs = words.flatMap((word, index) =>
    word.startsWith("--dir=") ? [word.slice("--dir=".length)] : words[index - 1] === "--dir" ? [word] : []
  );
  try {
    return discover({ dirs: dirs.length > 0 ? dirs : ["migrations"], embedded: false }).migrations
      .map(({ version, name }) => [version, name]);
  } catch {
    // A folder that cannot be read offers nothing.
    return [];
  }
}

/** What `__complete` prints: `:folders` or `:files`, or a word and its meaning a line. */
export function offerText(offer: Offer): string {
  if (offer.of !== "words") return `:${offer.of}\n`;
  return offer.words.map(([word, meaning]) => meaning ? `${word}\t${meaning}\n` : `${word}\n`).join("");
}

/** Shells that there is a script for. */
export const SHELLS = ["bash", "zsh", "fish", "powershell"] as const;

/** The script of a shell. It changes no setting of the shell's. */
export const COMPLETION_SCRIPTS: Readonly<Record<typeof SHELLS[number], string>> = {
  bash: `# bash completion of pipeweave: source <(pipeweave completions bash)
_pipeweave() {
  local line=\${COMP_LINE:0:COMP_POINT} current prefix= first word
  local -a words offered
  # Words as they were typed: COMP_WORDS is broken at colons, which every command has.
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=\${words[\${#words[@]} - 1]}
  mapfile -t offered < <("\${words[0]}" ${COMPLETE} "\${words[@]:1}" 2>/dev/null)
  first=\${offered[0]-}
  # What bash takes for the word begins behind the last of its word breaks.
  if [[ $current == *=* && $COMP_WORDBREAKS == *=* ]]; then prefix=\${current%"\${current##*=}"}; fi
  if [[ \${current#"$prefix"} == *:* && $COMP_WORDBREAKS == *:* ]]; then prefix=\${current%"\${current##*:}"}; fi
  COMPREPLY=()
  case $first in
    :folders) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "\${current##*=}") ;;
    :files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "\${current##*=}") ;;
    *) for word in "\${offered[@]}"; do word=\${word%%$'\\t'*}; COMPREPLY+=("\${word#"$prefix"}"); done ;;
  esac
}
complete -F _pipeweave pipeweave
`,
  zsh: `#compdef pipeweave
# zsh completion of pipeweave: in a file _pipeweave of a folder of $fpath, or source <(pipeweave completions zsh)
_pipeweave() {
  local -a offered described
  local line
  offered=("\${(@f)$("\${words[1]}" ${COMPLETE} "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  case "\${offered[1]}" in
    :folders) compset -P '*='; _files -/ ;;
    :files) compset -P '*='; _files ;;
    *)
      for line in "\${offered[@]}"; do
        [[ -z $line ]] && continue
        if [[ $line == *$'\\t'* ]]; then described+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
        else described+=("\${line//:/\\\\:}"); fi
      done
      (( \${#described} )) && _describe -t pipeweave pipeweave described
      ;;
  esac
}
if [[ $funcstack[1] == _pipeweave ]]; then _pipeweave "$@"; else compdef _pipeweave pipeweave; fi
`,
  fish: `# fish completion of pipeweave: pipeweave completions fish | source
function __pipeweave_complete
  set -l words (commandline -opc)
  set -l current (commandline -ct)
  set -l offered ($words[1] ${COMPLETE} $words[2..-1] "$current" 2>/dev/null)
  switch "$offered[1]"
    case :folders :files
      set -l prefix (string match -r '^--[a-z-]+=' -- $current)
      set -l found
      test "$offered[1]" = :folders
        and set found (__fish_complete_directories (string replace -r '^--[a-z-]+=' '' -- $current))
        or set found (__fish_complete_path (string replace -r '^--[a-z-]+=' '' -- $current))
      printf "$prefix%s\\n" $found
    case '*'
      printf '%s\\n' $offered
  end
end
complete -c pipeweave -f -a '(__pipeweave_complete)'
`,
  powershell:
    `# PowerShell completion of pipeweave: pipeweave completions powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName pipeweave -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $words = @($commandAst.CommandElements | Where-Object { $_.Extent.EndOffset -le $cursorPosition } | ForEach-Object { "$_" })
  $program = $words[0]
  $rest = @($words | Select-Object -Skip 1)
  if ($wordToComplete -eq '') { $rest += '""' }
  $offered = @(& $program ${COMPLETE} @rest 2>$null)
  if ($offered.Count -gt 0 -and $offered[0] -in ':folders', ':files') {
    return [System.Management.Automation.CompletionCompleters]::CompleteFilename($wordToComplete)
  }
  $offered | ForEach-Object {
    $word, $meaning = $_ -split "\`t", 2
    if (-not $meaning) { $meaning = $word }
    [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $meaning)
  }
}
`,
};
