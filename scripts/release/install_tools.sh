#!/bin/sh
# Installs what a release and its tests need besides the toolchain (scripts/release/package.json). Idempotent, and
# silent when there is nothing to do.
set -eu
cd "$(dirname "$0")"
wanted=$(cksum <package-lock.json)
[ "$(cat node_modules/.installed 2>/dev/null)" = "$wanted" ] && exit 0
npm ci --no-audit --no-fund --loglevel=error >&2 || {
  echo "release: npm could not install scripts/release/package-lock.json (is its registry reachable?)" >&2
  exit 1
}
echo "$wanted" >node_modules/.installed
