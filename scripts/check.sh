#!/bin/sh
# Everything that needs no server: format, lint, types, boundaries, documentation.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
./scripts/setup.sh
PATH=$root/.toolchain:$PATH

step() {
  echo "--- $1" >&2
  shift
  "$@"
}

step "format" deno fmt --check --quiet
step "lint" deno lint --quiet
step "types" deno check --quiet main.ts src/mod.ts src scripts tests
step "public documentation" deno doc --lint --quiet src/mod.ts
step "boundaries" deno run --quiet -A scripts/check_boundaries.ts
step "embedded migrations" deno run --quiet -A scripts/generate_embedded.ts --check
step "third-party notices" deno run --quiet -A scripts/release/notices.ts --check
step "docs made from the code" deno run --quiet --config deno.json -A scripts/generate_docs.ts --check
