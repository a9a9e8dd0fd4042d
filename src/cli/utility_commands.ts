/**
 * Commands about the program itself.
 *
 * @module
 */

import { type CommandSpec, OUTPUT_OPTIONS } from "./spec.ts";
import { oneOf } from "./values.ts";

const completions: CommandSpec = {
  name: "completions",
  group: "Others",
  argument: oneOf("shell", "bash", "zsh", "fish", "powershell"),
  summary: "Print the completion script of a shell.",
  description:
    "Prints a script that completes commands, options, their values, folders, and the versions in the folder of migrations. It asks the binary at every press of the key, so it needs no renewal, and it changes no setting of the shell.",
  options: [OUTPUT_OPTIONS],
  examples: [
    { purpose: "bash, in ~/.bashrc", line: "source <(pipeweave completions bash)" },
    { purpose: "zsh", line: 'pipeweave completions zsh > "${fpath[1]}/_pipeweave"' },
    { purpose: "fish, in ~/.config/fish/config.fish", line: "pipeweave completions fish | source" },
    {
      purpose: "PowerShell, in $PROFILE",
      line: "pipeweave completions powershell | Out-String | Invoke-Expression",
    },
  ],
  exitCodes: [],
  async run(invocation) {
    const { COMPLETION_SCRIPTS, SHELLS } = await import("./completion.ts");
    const shell = SHELLS.find((one) => one === invocation.args[0])!;
    const script = COMPLETION_SCRIPTS[shell];
    invocation.result(() => ({ shell, script }), () => script.trimEnd());
  },
};

export const UTILITY_COMMANDS: readonly CommandSpec[] = [completions];
