#!/bin/sh
# Puts the closures of this folder into the host's store, as root: ./install [PREFIX]
# PREFIX/NAME becomes a link to each package (PREFIX: /opt/compute-endpoint/nix). Where Nix is, it learns of the paths, and the links
# keep them from being collected; without Nix the paths are just there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=${1:-/opt/compute-endpoint/nix}
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
read -r _ first < "$here/roots"
store=${first%/*}

mkdir -p "$store"
for path in "$here"/store/*; do
    name=${path##*/}
    [ ! -e "$store/$name" ] || continue
    # In place at once, or not at all.
    rm -rf "$store/.$name.new"
    cp -a "$path" "$store/.$name.new"
    mv "$store/.$name.new" "$store/$name"
done
if command -v nix-store >/dev/null 2>&1; then
    nix-store --load-db < "$here/registration"
fi
while read -r name path; do
    ln -sfn "$path" "$prefix/$name"
    if command -v nix-store >/dev/null 2>&1; then
        nix-store --realise "$path" --add-root "$prefix/$name" >/dev/null
    fi
    echo "$prefix/$name -> $path"
done < "$here/roots"
