#!/bin/sh
# Check the locked packages for known vulnerabilities. A package that cannot be looked up fails too.
# Accepted vulnerabilities: infra/audit-exceptions.txt. Needs access to PyPI's advisories.
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
ignored=$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\) .*/--ignore-vuln \1/p' infra/audit-exceptions.txt)
# shellcheck disable=SC2086  # one word per option
exec "$venv/bin/uv" tool run pip-audit --strict --no-deps --disable-pip --progress-spinner off \
    -r requirements.lock $ignored
