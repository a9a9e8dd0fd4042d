/**
 * Lint findings for machines that read code reviews: GitHub's annotations, and SARIF.
 *
 * @module
 */

import { VERSION } from "../config/version.ts";
import type { LintFinding } from "../lint/lint.ts";
import { LINT_RULES } from "../lint/rules.ts";

/** One workflow command a finding (GitHub's documentation, "Workflow commands": `::error file=…::message`). */
export function githubAnnotations(findings: readonly LintFinding[]): string {
  return findings.map(({ file, location, code, message, why, hint }) => {
    const properties = [
      ["file", file],
      ["line", location?.line],
      ["col", location?.column],
      ["title", code],
    ].filter(([, value]) => value !== undefined);
    const text = [`${message}. ${why}`, ...(hint ? [`Safe: ${hint}`] : [])].join("\n");
    return `::error ${
      properties.map(([name, value]) => `${name}=${escapeProperty(String(value))}`).join(",")
    }::${escapeData(text)}`;
  }).join("\n");
}

function escapeData(text: string): string {
  return text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
}

function escapeProperty(text: string): string {
  return escapeData(text).replaceAll(":", "%3A").replaceAll(",", "%2C");
}

/** A log as the OASIS standard SARIF 2.1.0 has it. */
export function sarifLog(findings: readonly LintFinding[]): object {
  const used = [...new Set(findings.map(({ code }) => code))];
  return {
    $schema: "https://json.schemastore.org/sarif-2.1.0.json",
    version: "2.1.0",
    runs: [{
      tool: {
        driver: {
          name: "pipeweave",
          version: VERSION,
          rules: used.map((id) => ({
            id,
            shortDescription: { text: LINT_RULES[id].why },
            help: { text: LINT_RULES[id].safe },
          })),
        },
      },
      results: findings.map(({ code, message, why, file, location }) => ({
        ruleId: code,
        ruleIndex: used.indexOf(code),
        level: "error",
        message: { text: `${message}. ${why}` },
        locations: [{
          physicalLocation: {
            artifactLocation: { uri: encodeURI(file) },
            ...(location ? { region: { startLine: location.line, startColumn: location.column } } : {}),
          },
        }],
      })),
    }],
  };
}
