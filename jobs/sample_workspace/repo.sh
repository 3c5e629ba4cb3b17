#!/usr/bin/env bash
# The one entry point of this workspace: ./repo.sh template|build|launch …; each has --help.
# Needs bash and any Python 3.11 or newer, nothing else; PYTHON=… chooses one.
set -euo pipefail

root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"

for python in "${PYTHON:-python3}" python3 python3.14 python3.13 python3.12 python3.11 python; do
  # tomllib came with 3.11, so this is the version check, too.
  if command -v "$python" > /dev/null && "$python" -c 'import tomllib' 2> /dev/null; then
    # UTF-8 whatever the locale says, and no __pycache__ among the sources.
    exec "$python" -X utf8 -B "$root/tools/repo.py" "$@"
  fi
done

echo "repo.sh: needs Python 3.11 or newer; set PYTHON to one" >&2
exit 1
