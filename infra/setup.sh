#!/bin/sh
# Create .venv with the locked packages. Idempotent, needs no root, prints each step.
#   PYTHON=python3.12 infra/setup.sh    choose the interpreter (3.11 to 3.13)
#   VENV=/some/where  infra/setup.sh    choose the folder
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
torch=2.13.0
tensorrt=$(sed -n 's/^gpu = \["\([^"]*\)".*/\1/p' pyproject.toml)
say() { printf '\033[1mset-up:\033[0m %s\n' "$*"; }

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
if [ ! -x "$venv/bin/python" ]; then
    python=
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if supported "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        echo "set-up: no Python 3.11 to 3.13 found; install one, or pass its path: make PYTHON=/path/to/python" >&2
        exit 1
    fi
    say "creating $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check"
say "installing uv"
$pip install -q "uv>=0.9"

# uv does not read pip's configuration; pass on the index and wheel folder that pip would use
links=${PIP_FIND_LINKS:-$($pip config get global.find-links 2>/dev/null || true)}
index=${PIP_INDEX_URL:-$($pip config get global.index-url 2>/dev/null || true)}
[ -n "$links" ] && export UV_FIND_LINKS="${UV_FIND_LINKS:-$(echo "$links" | tr ' ' ',')}"
[ -n "$index" ] && export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
# compiled here once: otherwise every process of a machine that writes no bytecode compiles its imports
install() { "$venv/bin/uv" pip install -q --compile-bytecode --python "$venv/bin/python" -r requirements.lock "$@"; }

if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
    say "installing packages with CUDA torch $torch (GPU found)"
    install "torch==$torch"
    say "installing $tensorrt, the version of the Triton image that serves its plans"
    "$venv/bin/uv" pip install -q --python "$venv/bin/python" "$tensorrt" \
        --index-strategy unsafe-best-match --extra-index-url https://pypi.nvidia.com ||
        say "$tensorrt is not installed, so the tensorrt-* engines are unavailable; to try again: rm $venv/.ready; make setup"
else
    say "installing packages with CPU torch $torch"
    install "torch==$torch+cpu" 2>"$venv/setup.log" ||
        install "torch==$torch+cpu" --index-strategy unsafe-best-match \
            --extra-index-url https://download.pytorch.org/whl/cpu 2>>"$venv/setup.log" ||
        { say "uv failed; trying pip (slower)"
          $pip install -q "torch==$torch+cpu" -r requirements.lock ||
          $pip install -q "torch==$torch+cpu" -r requirements.lock \
              --extra-index-url https://download.pytorch.org/whl/cpu; } ||
        { cat "$venv/setup.log" >&2; exit 1; }
fi
"$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps -e .
"$venv/bin/uv" pip check -q --python "$venv/bin/python"
touch "$venv/.ready"
say "done: $venv/bin/tickline --help"
