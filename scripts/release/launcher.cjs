#!/usr/bin/env node
// Runs the program of the platform's package, and ends as it does.
"use strict";
const process = require("node:process");
const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const name = `@pipeweave/cli-${process.platform}-${process.arch}`;
const program = process.platform === "win32" ? "pipeweave.exe" : "pipeweave";

function fail(message) {
  process.stderr.write(`pipeweave: ${message}\n`);
  process.exit(1);
}

const isMusl = process.platform === "linux" && !process.report?.getReport().header.glibcVersionRuntime;
if (isMusl) {
  fail("this system has musl (Alpine?), and the binary needs glibc: use a Debian, Ubuntu or distroless base");
}

let path;
try {
  path = require.resolve(`${name}/bin/${program}`);
} catch {
  fail(
    `the package ${name} is not installed. Install with optional dependencies (npm install --include=optional), ` +
      "or take the binary from https://github.com/pipeweave/pipeweave/releases",
  );
}

const child = spawn(path, process.argv.slice(2), { stdio: "inherit" });
child.on("error", (error) => fail(`${path} cannot be run: ${error.message}`));
// The child decides what a signal means. Those of the terminal reach it by themselves, as one of the same group; what is
// sent to this process alone (docker stop, kill) is passed on.
const passOn = (signal) => {
  if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
};
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, passOn);
child.on("exit", (code, signal) => {
  process.exitCode = signal ? 128 + constants.signals[signal] : code;
});
