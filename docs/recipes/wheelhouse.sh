#!/usr/bin/env bash
# SegMate on a machine without a network, such as one in a hospital.
#
#   docs/recipes/wheelhouse.sh make FOLDER [EXTRAS] [OPTIONS of pip download]    where there is a network
#   FOLDER/wheelhouse.sh install FOLDER VENV [EXTRAS]                            where there is none
#
# EXTRAS: as in brackets behind the package's name, such as "torch,dicom". For another system or Python than
# that of the first machine: --python-version 3.12 --platform manylinux_2_28_x86_64
# FOLDER is carried over; SHA256SUMS in it is checked before anything is installed. Models are files: take
# those of `segmate models` with you and point SEGMATE_MODELS to their folder.
set -euo pipefail

usage() {
    sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

make() {
    local folder=$1 extras=${2:-} project
    shift $(($# < 2 ? $# : 2))
    project=$(cd "$(dirname "$0")/../.." && pwd)
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    python3 -m pip wheel --quiet --no-deps --wheel-dir "$folder" "$project"
    local wheel=("$folder"/segmate_core-*.whl)
    [ ${#wheel[@]} = 1 ] || { echo "$folder holds several versions: use a new folder" >&2; exit 2; }
    python3 -m pip download --quiet --only-binary :all: --dest "$folder" "$@" \
        "segmate-core${extras:+[$extras]} @ file://${wheel[0]}"
    cp "$0" "$folder/wheelhouse.sh"
    (cd "$folder" && sha256sum -- *.whl > SHA256SUMS)
    echo "$(find "$folder" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f1), in $folder"
}

install() {
    local folder=$1 venv=$2 extras=${3:-}
    (cd "$folder" && sha256sum --check --quiet SHA256SUMS)
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --no-index --find-links "$folder" \
        "segmate-core${extras:+[$extras]}"
    "$venv/bin/segmate" doctor
}

case "${1:-}:$#" in
    make:[2-9] | make:1[0-9]) make "${@:2}" ;;
    install:3 | install:4) install "${@:2}" ;;
    *) usage ;;
esac
