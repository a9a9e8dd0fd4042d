#!/bin/sh
# Measures flags of V8 for the binary beside each other: wall time, CPU time and peak memory of what people run most, as
# medians of interleaved runs. Usage: ./scripts/bench_flags.sh [runs]   (11 unless told; some five minutes)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
./scripts/setup.sh
PATH=$root/.toolchain:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for flags in none --liftoff-only --liftoff-only,--no-opt --single-threaded --max-lazy; do
  PIPEWEAVE_V8_FLAGS=$flags ./scripts/build.sh --output "$work/$flags"
done
deno run -A --no-check --config deno.json scripts/bench/flags.ts "$work" "${1:-11}"
./scripts/build.sh
