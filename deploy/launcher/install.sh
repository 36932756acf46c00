#!/bin/bash
# Installs the package on this host, with the versions of its lock, into ~/pes/venv.
#
#   install.sh cpu|cuda [PACKAGE...]
#
# Packages: what the host needs besides, e.g. a cloud's client on the head.
set -euo pipefail

cd "$(dirname "$0")/../.."
case "${1:-}" in
  cpu) lock=requirements.lock ;;
  cuda) lock=deploy/requirements-cuda.lock ;;
  *) echo "install.sh: name cpu or cuda" >&2; exit 2 ;;
esac
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "install.sh: $(python3 --version) here; Python 3.11 or later is needed" >&2
  exit 1
}
venv=$HOME/pes/venv
[ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement "$lock" "${@:2}"
"$venv/bin/pip" install --quiet --no-deps .

# `ray down` and `ray exec` look for ray where a login shell does.
line="export PATH=$venv/bin:\$PATH"
grep --quiet --line-regexp --fixed-strings "$line" ~/.bashrc 2>/dev/null || echo "$line" >> ~/.bashrc
