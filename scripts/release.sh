#!/bin/sh
# Makes a release, whole, on one machine: dist/release/ with an archive for each target, sums, bill of materials, install
# script, Homebrew formula, Scoop manifest, image, and npm packages.
#
#   scripts/release.sh [target…]     (default: all five; scripts/build.sh names them)
#
# The same commit gives the same binaries and archives, in any folder, on any day. On a machine that reaches npm alone
# everything is made too, for trying it out; the file NOT_FOR_PUBLISHING says why it is not to be published.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
./scripts/setup.sh
PATH=$root/.toolchain:$PATH
release=$root/dist/release
work=$root/dist/release-work
all="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-apple-darwin aarch64-apple-darwin x86_64-pc-windows-msvc"
targets=${*:-$all}
version=$(deno eval --no-config 'console.log(JSON.parse(Deno.readTextFileSync("deno.json")).version)')
host=$(deno eval --no-config 'console.log(Deno.build.target)')

# What is packed has the time of the commit.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1577836800)}
export SOURCE_DATE_EPOCH="$epoch" TZ=UTC LC_ALL=C
zip=$(./scripts/debian.sh zip zip)

# Packs a folder of $work, the same from the same files.
pack() {
  find "$work/$1" -exec touch -h -d "@$epoch" {} +
  case $1 in
    *windows*) (cd "$work" && find "$1" | sort | "$zip" -q -X -9 "$release/$1.zip" -@) ;;
    *)
      tar -C "$work" --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mode=go-w,+rX -cf - "$1" |
        gzip -9 -n >"$release/$1.tar.gz"
      ;;
  esac
}

rm -rf "$release" "$work"
mkdir -p "$release" "$work/completions"

# This machine's binary makes what is the same for all.
./scripts/build.sh --output "$work/host"
"$work/host" completions bash >"$work/completions/pipeweave.bash"
"$work/host" completions zsh >"$work/completions/_pipeweave"
"$work/host" completions fish >"$work/completions/pipeweave.fish"

for target in $targets; do
  name=pipeweave-$version-$target
  folder=$work/$name
  mkdir -p "$folder"
  case $target in
    *windows*) program=pipeweave.exe ;;
    *) program=pipeweave ;;
  esac
  ./scripts/build.sh --target "$target" --output "$folder/$program"
  cp LICENSE THIRD_PARTY_NOTICES "$folder"
  cp -R "$work/completions" "$folder"
  pack "$name"
  echo "release: $name" >&2
done

for target in $targets; do
  case $target in
    *-linux-gnu)
      deno run -A scripts/release/image.ts --binary "$work/pipeweave-$version-$target/pipeweave" --target "$target" \
        --output "$release/pipeweave-$version-image-${target%%-*}.tar"
      echo "release: image for $target" >&2
      ;;
  esac
done
deno run -A scripts/release/npm_packages.ts "$work" "$release" >&2
deno run -A scripts/release/library.ts "$release" >&2
deno run -A scripts/release/sbom.ts "$work/host" "$release/pipeweave-$version.cdx.json"
cp scripts/release/install.sh "$release"
if [ "$(cat .toolchain/way)" = npm ]; then
  echo "Made on a machine that reaches npm alone: the base of these binaries and Cliffy come from npm packages of others." \
    >"$release/NOT_FOR_PUBLISHING"
fi
(cd "$release" && sha256sum pipeweave-* install.sh >SHA256SUMS)
deno run -A scripts/release/package_managers.ts "$release"
rm -rf "$work"
(cd "$release" && wc -c -- * | sort -k 2) >&2
