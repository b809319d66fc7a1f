#!/usr/bin/env bash
# A 64-bit Arm Python with what a device carries (onnxruntime, numpy, tokenizers, Pillow, jinja2, …), run by qemu-user:
#
#     recipes/arm64.sh build/arm64
#     build/arm64/python recipes/device_tokens.py recipes/demo PICTURE... --out tokens.npz   # as on a phone, slowly
#
# Nothing is installed on this machine: Debian's packages and the wheels for aarch64, of the versions in
# constraints.txt, are unpacked under the folder (0.5 GB). Needs Debian or Ubuntu (apt-get, dpkg), Python 3.11 with pip
# and a way to their archives. Run again, it does nothing.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: recipes/arm64.sh FOLDER" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
root=$(cd "$1" && pwd)
[ -e "$root/done" ] && { echo "$root is up to date"; exit 0; }
python=${BLUELM_PYTHON:-python3}
for tool in apt-get dpkg dpkg-deb "$python"; do
  command -v "$tool" >/dev/null || { echo "arm64.sh needs $tool" >&2; exit 2; }
done

# apt with lists, cache and an (empty) state of its own; the sources are this machine's.
native=$(dpkg --print-architecture)
mkdir -p "$root"/apt/lists/partial "$root"/apt/archives/partial "$root/system"
touch "$root/apt/status"
fetch() {
  apt-get -qq -o "Dir::State::lists=$root/apt/lists" -o "Dir::State::status=$root/apt/status" \
    -o "Dir::Cache=$root/apt" -o "Dir::Cache::archives=$root/apt/archives" -o APT::Architecture=arm64 \
    -o "APT::Architectures::=arm64" -o "APT::Architectures::=$native" -o APT::Install-Recommends=false \
    -o APT::Sandbox::User=root -o Debug::NoLocking=true "$@"
}
fetch update
fetch install --yes --download-only python3 libstdc++6 libgomp1
(cd "$root/apt/archives" && fetch download "qemu-user-static:$native")
for package in "$root"/apt/archives/*_arm64.deb; do
  dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root/system"
done
dpkg-deb -x "$root"/apt/archives/qemu-user-static_*.deb "$root/emulator"
# Where packages still use /lib and newer ones /usr/lib, the loader must find both.
[ -e "$root/system/lib/ld-linux-aarch64.so.1" ] || ln -sfn usr/lib "$root/system/lib"

# onnxruntime reads what cores there are, and falls over an x86's /proc/cpuinfo: these are Cortex-A76.
mkdir -p "$root/system/proc"
for core in $(seq 0 $(($(getconf _NPROCESSORS_CONF) - 1))); do
  printf '%s\n' "processor : $core" "BogoMIPS : 50.00" \
    "Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp" \
    "CPU implementer : 0x41" "CPU architecture: 8" "CPU variant : 0x3" "CPU part : 0xd0c" "CPU revision : 1" ""
done >"$root/system/proc/cpuinfo"

version=$(basename "$(readlink -f "$root/system/usr/bin/python3")" | sed 's/python//')
glibc=$(basename "$(ls "$root"/apt/archives/libc6_*_arm64.deb)" | sed 's/libc6_2\.\([0-9]*\)-.*/\1/')
platforms=()
for minor in $(seq "$glibc" -1 17); do platforms+=(--platform "manylinux_2_${minor}_aarch64"); done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "$version" "${platforms[@]}" \
  --platform manylinux2014_aarch64 -c "$here/constraints.txt" -d "$root/wheels" \
  onnxruntime numpy tokenizers pillow jinja2 markupsafe pydantic pydantic_core typing_extensions annotated_types \
  typing_inspection pyyaml flatbuffers protobuf packaging psutil
mkdir -p "$root/site"
for wheel in "$root"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$root/site"; done

cat >"$root/python" <<SCRIPT
#!/bin/sh
# The Arm Python; its modules are the wheels and this checkout.
export PYTHONHOME="$root/system/usr" PYTHONPATH="$root/site:$here" PYTHONDONTWRITEBYTECODE=1
exec "$root/emulator/usr/bin/qemu-aarch64-static" -L "$root/system" "$root/system/usr/bin/python3" "\$@"
SCRIPT
chmod +x "$root/python"
"$root/python" -c 'import platform, onnxruntime; print(platform.machine(), onnxruntime.__version__)'
touch "$root/done"
