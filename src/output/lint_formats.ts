/**
 * Lint findings for machines that read code reviews: GitHub's annotations, and SARIF.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { VERSION } from "../config/version.ts";
import type { Reported } from "../commands/lint.ts";
import type { Finding } from "../migrations/finding.ts";
import { LINT_RULES } from "../lint/rules.ts";

/** Formats of a report for machines. */
export type MachineFormat = "github" | "gitlab" | "junit" | "sarif";

/** A report of findings, whole also where there are none. */
export function lintReport(format: MachineFormat, findings: readonly Reported[]): string {
  switch (format) {
    case "github":
      return githubAnnotations(findings);
    case "gitlab":
      return JSON.stringify(gitlabReport(findings));
    case "junit":
      return junitReport(findings);
    case "sarif":
      return JSON.stringify(sarifLog(findings));
  }
}

const textOf = ({ message, why }: Reported): string => why === "" ? message : `${message}. ${why}`;

/** What GitHub Actions shows beside the line at which a migration failed. @param message of the error */
export function githubFailure(
  migration: { readonly file: string },
  message: string,
  location: Finding["location"],
): string {
  const finding: Reported = {
    ...{ severity: "error", code: "db:migrate", message, file: migration.file, blocks: "nobody", why: "" },
    ...(location ? { location } : {}),
  };
  return githubAnnotations([finding]);
}

/** One workflow command a finding (GitHub's documentation, "Workflow commands": `::error file=…::message`, `::warning …`). */
export function githubAnnotations(findings: readonly Reported[]): string {
  return findings.map((finding) => {
    const { file, location, code, hint, severity } = finding;
    const properties = [
      ["file", file],
      ["line", location?.line],
      ["col", location?.column],
      ["title", code],
    ].filter(([, value]) => value !== undefined);
    const text = [textOf(finding), ...(hint ? [`Safe: ${hint}`] : [])].join("\n");
    return `::${severity} ${
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
export function sarifLog(findings: readonly Reported[]): object {
  const used = [...new Set(findings.map(({ code }) => code))];
  return {
    $schema: "https://json.schemastore.org/sarif-2.1.0.json",
    version: "2.1.0",
    runs: [{
      tool: {
        driver: {
          name: "pipeweave",
          version: VERSION,
          informationUri: "https://github.com/pipeweave/pipeweave",
          rules: used.map((id) => {
            const rule = LINT_RULES[id as keyof typeof LINT_RULES];
            return rule
              ? { id, shortDescription: { text: rule.why }, help: { text: rule.safe } }
              : { id, shortDescription: { text: "The file cannot be run as it is." } };
          }),
        },
      },
      results: findings.map(({ code, file, location, ...finding }) => ({
        ruleId: code,
        ruleIndex: used.indexOf(code),
        level: finding.severity,
        message: { text: textOf({ code, file, ...finding }) },
        locations: [{
          physicalLocation: {
            artifactLocation: { uri: uriOf(file) },
            ...(location ? { region: { startLine: location.line, startColumn: location.column } } : {}),
          },
        }],
      })),
    }],
  };
}

/** A path as a URI reference: what has a meaning in a URI is escaped too. */
function uriOf(path: string): string {
  return path.split(/[\\/]/).map(encodeURIComponent).join("/");
}

/** A report of code quality as GitLab has it (its documentation, "Code Quality report format"). */
export function gitlabReport(findings: readonly Reported[]): readonly object[] {
  return findings.map((finding, index) => ({
    description: textOf(finding),
    check_name: finding.code,
    // The same finding keeps its name while lines above it come and go.
    fingerprint: createHash("sha256")
      .update([
        finding.file,
        finding.code,
        finding.message,
        String(
          findings.slice(0, index).filter((one) =>
            one.file === finding.file && one.message === finding.message
          ).length,
        ),
      ].join("\0")).digest("hex"),
    severity: finding.severity === "warning" ? "minor" : finding.blocks === "nobody" ? "major" : "critical",
    location: { path: finding.file, lines: { begin: finding.location?.line ?? 1 } },
  }));
}

/** A report of tests as JUnit has it: a suite a file, a case a finding; one that is a warning has not failed. */
export function junitReport(findings: readonly Reported[]): string {
  const files = [...new Set(findings.map(({ file }) => file))];
  const suites = files.map((file) => {
    const own = findings.filter((finding) => finding.file === file);
    const cases = own.map((finding) =>
      `<testcase classname="${xml(finding.code)}" name="${xml(`${file}:${finding.location?.line ?? 1}`)}">${
        caseText(finding)
      }</testcase>`
    );
    return `<testsuite name="${xml(file)}" tests="${own.length}" failures="${failures(own)}">${
      cases.join("")
    }</testsuite>`;
  });
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="pipeweave db:lint" tests="${findings.length}" failures="${
    failures(findings)
  }">${suites.join("")}</testsuites>`;
}

function caseText(finding: Reported): string {
  const text = xml([textOf(finding), ...(finding.hint ? [`Safe: ${finding.hint}`] : [])].join("\n"));
  return finding.severity === "warning"
    ? `<system-out>${text}</system-out>`
    : `<failure message="${xml(finding.message)}">${text}</failure>`;
}

function failures(findings: readonly Reported[]): number {
  return findings.filter(({ severity }) => severity === "error").length;
}

function xml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)
    // deno-lint-ignore no-control-regex -- XML 1.0 has no word for them
    .replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, "\ufffd");
}
