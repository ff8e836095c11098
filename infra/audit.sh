#!/bin/sh
# Known vulnerabilities of the locked packages; whatever cannot be looked up fails too.
# Accepted ones: infra/audit-exceptions.txt. Needs PyPI's advisories to be reachable.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
ignored=$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\) .*/--ignore-vuln \1/p' infra/audit-exceptions.txt)
# shellcheck disable=SC2086  # one word an option
exec "$venv/bin/uv" tool run pip-audit --strict --no-deps --disable-pip --progress-spinner off \
    -r requirements.lock $ignored
