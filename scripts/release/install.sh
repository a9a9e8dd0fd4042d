#!/bin/sh
# Installs pipeweave:
#
#   curl -fsSL https://github.com/pipeweave/pipeweave/releases/latest/download/install.sh | sh
#
# Environment: VERSION (default: the latest release), PREFIX (default: /usr/local for root, else ~/.local; the program goes to
# $PREFIX/bin), PIPEWEAVE_BASE_URL (a mirror: the folder that holds the files of one release).
# Needs curl or wget, tar, and sha256sum or shasum. Nothing is put in place before its sum was found right.
set -eu

say() { echo "install: $1" >&2; }
fail() {
  say "$1"
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

fetch() {
  if have curl; then
    curl -fsSL --proto '=https,http' -o "$2" "$1"
  elif have wget; then
    wget -q -O "$2" "$1"
  else
    fail "needs curl or wget, and found neither"
  fi || fail "could not fetch $1"
}

sum_of() {
  if have sha256sum; then
    sha256sum "$1"
  elif have shasum; then
    shasum -a 256 "$1"
  else
    fail "needs sha256sum or shasum, and found neither"
  fi | cut -d ' ' -f 1
}

# musl's ldd is its loader, which says so; it prints that as an error.
is_musl() { ldd --version 2>&1 | grep -qi musl; }

target() {
  system=$(uname -s)
  machine=$(uname -m)
  case $machine in
    x86_64 | amd64) machine=x86_64 ;;
    aarch64 | arm64) machine=aarch64 ;;
    *) fail "there is no binary for $system on $machine; the targets are Linux and macOS on x86-64 and arm64" ;;
  esac
  case $system in
    Linux)
      if is_musl; then
        fail "this system has musl (Alpine?), and the binary needs glibc: use the image, or a Debian, Ubuntu or distroless base"
      fi
      echo "$machine-unknown-linux-gnu"
      ;;
    Darwin) echo "$machine-apple-darwin" ;;
    *) fail "there is no binary for $system; on Windows use Scoop or the zip of the release" ;;
  esac
}

# All in a function, so that half a script that was cut off on its way does nothing.
main() {
  target=$(target)
  if [ -z "${PREFIX:-}" ]; then
    if [ "$(id -u)" = 0 ]; then PREFIX=/usr/local; else PREFIX=${HOME:?}/.local; fi
  fi
  releases=https://github.com/pipeweave/pipeweave/releases
  if [ -n "${PIPEWEAVE_BASE_URL:-}" ]; then
    base=${PIPEWEAVE_BASE_URL%/}
  elif [ -n "${VERSION:-}" ]; then
    base=$releases/download/v${VERSION#v}
  else
    base=$releases/latest/download
  fi

  work=$(mktemp -d)
  placed=
  trap 'rm -rf "$work"; [ -z "$placed" ] || rm -f "$placed"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  fetch "$base/SHA256SUMS" "$work/SHA256SUMS"
  if [ -n "${VERSION:-}" ]; then
    archive=pipeweave-${VERSION#v}-$target.tar.gz
    grep -q "  $archive\$" "$work/SHA256SUMS" || fail "$base has no $archive"
  else
    archive=$(sed -n "s/^[0-9a-f]*  \(pipeweave-[0-9][^ ]*-$target\.tar\.gz\)\$/\1/p" "$work/SHA256SUMS")
    [ -n "$archive" ] || fail "$base has no archive for $target"
  fi
  fetch "$base/$archive" "$work/$archive"

  wanted=$(sed -n "s/^\([0-9a-f]*\)  $archive\$/\1/p" "$work/SHA256SUMS")
  found=$(sum_of "$work/$archive")
  [ "$wanted" = "$found" ] ||
    fail "$archive is not what SHA256SUMS says: expected $wanted, got $found; nothing was installed"

  tar -xzf "$work/$archive" -C "$work"
  mkdir -p "$PREFIX/bin" || fail "cannot make $PREFIX/bin; choose another place: PREFIX=<folder>"
  [ ! -d "$PREFIX/bin/pipeweave" ] || fail "$PREFIX/bin/pipeweave is a folder; nothing was installed"
  # Beside its place first, and then renamed: whoever runs it meanwhile gets the old one or the new one.
  placed=$PREFIX/bin/.pipeweave.$$
  cp "$work/${archive%.tar.gz}/pipeweave" "$placed" || fail "cannot write to $PREFIX/bin; choose another place: PREFIX=<folder>"
  chmod 755 "$placed"
  mv -f "$placed" "$PREFIX/bin/pipeweave"
  placed=
  say "installed $("$PREFIX/bin/pipeweave" --version | head -n 1) as $PREFIX/bin/pipeweave"
  case ":$PATH:" in
    *":$PREFIX/bin:"*) ;;
    *) say "$PREFIX/bin is not on PATH: add it, or call $PREFIX/bin/pipeweave" ;;
  esac
}

main
