#!/usr/bin/env bash
# Fetches the fonts that the base parts and the demo model learn from, as Debian packages, and unpacks them into a folder.
#
#   recipes/base/fonts.sh FOLDER
#
# Nothing is installed, and no root is needed: apt downloads, dpkg unpacks. All are free (OFL, Apache, GPL with the font
# exception, or their own free licences: see usr/share/doc in each). Where there is no apt, put fonts of these families
# (see tower.yaml) into FOLDER by hand.
set -euo pipefail

folder=${1:?fonts.sh FOLDER}
packages=(
    fonts-b612 fonts-cabin fonts-cantarell fonts-comfortaa fonts-comic-neue fonts-courier-prime fonts-crosextra-caladea
    fonts-crosextra-carlito fonts-dejavu-core fonts-dejavu-extra fonts-ebgaramond fonts-firacode fonts-freefont-ttf
    fonts-hack fonts-inconsolata fonts-inter fonts-jetbrains-mono fonts-lato fonts-league-mono fonts-liberation
    fonts-linuxlibertine fonts-mononoki fonts-noto-core fonts-open-sans fonts-paratype fonts-play fonts-quicksand
    fonts-roboto-slab fonts-roboto-unhinted fonts-sil-andika fonts-sil-charis fonts-sil-gentiumplus fonts-texgyre
)

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || {
        echo "$tool is missing: the fonts come as Debian packages. Put these families into $folder by hand." >&2
        exit 2
    }
done
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get download -qq "${packages[@]}")
for package in "$work"/*.deb; do
    name=$(basename "$package")
    dpkg -x "$package" "$folder/${name%%_*}"
done
echo "$(find "$folder" -name '*.[to]tf' | wc -l) font files in $folder"
