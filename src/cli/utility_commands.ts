/**
 * Commands about the program itself.
 *
 * @module
 */

import { flowed } from "../output/page.ts";
import { describeConnection } from "./connect.ts";
import { type CommandSpec, CONNECTION_OPTIONS, MIGRATION_OPTIONS, OUTPUT_OPTIONS } from "./spec.ts";
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
  async run(input, terminal) {
    const { COMPLETION_SCRIPTS, SHELLS } = await import("./completion.ts");
    const shell = SHELLS.find((one) => one === input.args[0])!;
    const script = COMPLETION_SCRIPTS[shell];
    terminal.result(() => ({ shell, script }), () => script.trimEnd());
  },
};

const config: CommandSpec = {
  name: "config",
  group: "Others",
  summary: "Show which settings hold, and where each comes from.",
  description:
    "Shows the settings of pipeweave.json in this folder, of the environment, and of the command line, in the order in which they count: a flag goes before a variable, and a variable before the file. It connects to nothing, and shows no password.",
  options: [MIGRATION_OPTIONS, CONNECTION_OPTIONS, OUTPUT_OPTIONS],
  examples: [{ purpose: "What holds here?", line: "pipeweave config" }],
  exitCodes: [],
  async run(input, terminal) {
    const { COMMANDS } = await import("./commands.ts");
    const { PROJECT_FILE, readProjectFile, readSetting, settingsOf } = await import("./project_file.ts");
    const { world } = input;
    const { settings: project } = readProjectFile(world, COMMANDS);
    const settings = [...settingsOf(COMMANDS)].map(([name, option]) => {
      const { flag, variable, repeatable, defaultsTo } = option;
      if (input.sourceOf(flag) === "flag") return { name, value: input.value(flag), source: `flag ${flag}` };
      const inVariable = variable && world.env[variable];
      if (inVariable) {
        return { name, value: readSetting(option, repeatable ? [inVariable] : inVariable), source: variable };
      }
      if (flag === "--dir" && !project.has(flag) && input.sources().dirs!.length > 0) {
        return { name, value: input.sources().dirs, source: "default: it is there" };
      }
      const opposite = project.has(`--no-${flag.slice(2)}`) ? false : undefined;
      const value = project.get(flag) ?? opposite;
      return value !== undefined
        ? { name, value, source: PROJECT_FILE }
        : { name, value: defaultsTo ?? (option.value ? "none" : false), source: "default" };
    });
    const connection = describeConnection(input);
    const shown = (value: unknown) => typeof value === "string" ? value : JSON.stringify(value);
    terminal.result(
      () => ({
        settings,
        connection: connection.target,
        connectionSource: connection.source,
        targets: [...input.targets.keys()],
      }),
      () =>
        flowed(
          [
            `connection = ${connection.target}  (${connection.source})`,
            ...settings.map(({ name, value, source }) => `${name} = ${shown(value)}  (${source})`),
            ...(input.targets.size > 0
              ? [`targets = ${[...input.targets.keys()].join(", ")}  (${PROJECT_FILE})`]
              : []),
          ].join("\n"),
          terminal.page.columns,
        ),
    );
  },
};

export const UTILITY_COMMANDS: readonly CommandSpec[] = [config, completions];
