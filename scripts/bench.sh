#!/bin/sh
# Measures pipeweave against its rivals and the floor; writes its part of docs/benchmarks.md, and docs/benchmarks.svg.
# Usage: ./scripts/bench.sh [runs [scenario…]]   (5 runs of all unless told, which takes some 20 minutes; of single
# scenarios, such as 100@0, it only prints the medians)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if [ "$(uname -sm)" != "Linux x86_64" ]; then
  echo "bench: the rivals are pinned for Linux on x86-64" >&2
  exit 1
fi
command -v npm >/dev/null || {
  echo "bench: the rivals come from npm, which is not on PATH" >&2
  exit 1
}
./scripts/build.sh
PATH=$root/.toolchain:$PATH
(cd scripts/bench && npm ci --no-audit --no-fund --loglevel=error)

if [ "$(cat .toolchain/way)" = npm ]; then
  DENORT_BIN=$(deno run --no-config -A scripts/vendor_npm.ts denort "$(deno eval --no-config 'console.log(Deno.build.target)')")
  export DENORT_BIN
fi
# Bundled and compiled as pipeweave is, so that both start alike.
mkdir -p dist/bench
deno bundle --quiet --platform deno --external libpg-query --output dist/bench/floor.js scripts/bench/floor.ts
deno compile --quiet --no-check --allow-env --allow-net --allow-read --include migrations \
  --exclude node_modules/node-forge --exclude "$(echo node_modules/.deno/node-forge@*)" \
  --output dist/bench/floor dist/bench/floor.js
deno run -A --no-check scripts/bench/bench.ts "$root/dist/bench/floor" "${@:-5}"
