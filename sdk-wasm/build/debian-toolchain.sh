#!/usr/bin/env bash
# debian-toolchain.sh PREFIX: a rustc for wasm32-unknown-unknown from Debian's packages, where rustup cannot get the target.
# Unpacks rustc-web and its sources into PREFIX, without installing anything, and builds the standard library once.
# Prints the path of the compiler as its last line. About 550 MB and a minute; instant when it is there already.
set -euo pipefail

target=wasm32-unknown-unknown
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
root=$prefix/root
rustc=$prefix/bin/rustc
arch=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
host=$(uname -m)-unknown-linux-gnu

say() { echo "debian-toolchain: $*" >&2; }
ready() { compgen -G "$("$rustc" --print target-libdir --target $target 2>/dev/null)/libcore-*.rlib" >/dev/null; }
depends() { apt-cache depends "$1" | awk -v want="$2" '$1 == "Depends:" && index($2, want) == 1 { print $2 }' | head -n 1; }

unpack() {
  local debs=$prefix/debs deb
  rm -rf "$debs" "$root"
  mkdir -p "$debs" "$root" "$prefix/bin"
  if ! apt-cache show rustc-web >/dev/null 2>&1; then apt-get update >&2; fi
  local std llvm lld packages
  std=$(depends libstd-rust-web-dev libstd-rust-web-)
  llvm=$(depends "$std" libllvm)
  lld=lld-${llvm#libllvm}
  # What apt would install as well, so that missing shared libraries come along.
  packages=$({
    apt-get install -s --no-install-recommends rustc-web rust-web-src "$lld" 2>/dev/null | awk '/^Inst/ { print $2 }'
    printf '%s\n' rustc-web "$std" libstd-rust-web-dev rust-web-src "$llvm" "$lld"
  } | sort -u)
  # shellcheck disable=SC2086
  (cd "$debs" && apt-get download $packages >&2)
  for deb in "$debs"/*.deb; do
    case $deb in
      */rust-web-src_*)
        dpkg-deb --fsys-tarfile "$deb" | tar x -C "$root" --wildcards './usr/src/rustc-*/library/*' './usr/lib/rustlib/src/*' ;;
      *) dpkg-deb -x "$deb" "$root" ;;
    esac
  done
  cat >"$rustc.new" <<WRAPPER
#!/bin/sh
export LD_LIBRARY_PATH=$root/usr/lib/$arch\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
exec $root/usr/bin/rustc "\$@"
WRAPPER
  chmod +x "$rustc.new"
  mkdir -p "$root/usr/lib/rustlib/$host/bin"
  ln -sf "$(echo "$root"/usr/lib/llvm-*/bin/lld)" "$root/usr/lib/rustlib/$host/bin/rust-lld"
  mv "$rustc.new" "$rustc"
  rm -rf "$debs"
}

# An external workspace that depends on the library's crates by path, so that no manifest of theirs needs changing. It must start
# empty: two builds' files side by side do not link.
build_std() {
  local library version work
  library=$(echo "$root"/usr/src/rustc-*/library)
  version=$("$rustc" -V | awk '{ print $2 }')
  work=$prefix/std
  rm -rf "$work"
  mkdir -p "$work/src" "$work/.cargo"
  : >"$work/src/lib.rs"
  cat >"$work/Cargo.toml" <<MANIFEST
[workspace]
[package]
name = "wasm-sysroot"
version = "0.0.0"
edition = "2021"
[dependencies]
std = { path = "$library/std", features = ["panic-unwind", "compiler-builtins-mem"] }
proc_macro = { path = "$library/proc_macro" }
test = { path = "$library/test" }
[patch.crates-io]
rustc-std-workspace-core = { path = "$library/rustc-std-workspace-core" }
rustc-std-workspace-alloc = { path = "$library/rustc-std-workspace-alloc" }
rustc-std-workspace-std = { path = "$library/rustc-std-workspace-std" }
[profile.release.package.compiler_builtins]
codegen-units = 10000
MANIFEST
  cat >"$work/.cargo/config.toml" <<CONFIG
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "$library/vendor"
CONFIG
  (
    cd "$work"
    unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
    RUSTC_BOOTSTRAP=1 RUSTC=$rustc CARGO_TARGET_DIR=$work/target \
      RUSTFLAGS="-Zforce-unstable-if-unmarked -Cembed-bitcode=yes --remap-path-prefix=$library=/rustc/$version/library" \
      cargo build --offline --release --target $target >&2
  )
  local lib=$root/usr/lib/rustlib/$target
  rm -rf "$lib" "$lib.new"
  mkdir -p "$lib.new/lib"
  cp "$work/target/$target/release/deps/"*.rlib "$lib.new/lib/"
  rm -f "$lib.new/lib/"libwasm_sysroot*
  mv "$lib.new" "$lib"
  rm -rf "$work"
}

if ! "$rustc" -V >/dev/null 2>&1; then
  say "fetching Debian's Rust"
  unpack
fi
if ! ready; then
  say "building the standard library for $target"
  build_std
fi
echo "$rustc"
