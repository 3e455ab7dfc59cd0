#!/usr/bin/env bash
# Writes constraints.txt: the exact version of everything that pyproject.toml may bring in.
set -euo pipefail
cd "$(dirname "$0")/.."
command="uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate --no-header"
{
    echo "# Exact versions of the whole stack, for pip's --constraint. Compiled by \`make constraints\`, which runs"
    echo "#   $command"
    echo "# and adds the one package that is installed without its dependencies."
    # shellcheck disable=SC2086
    $command --quiet --no-emit-index-url --no-emit-find-links
    echo "onnxruntime-genai==0.18.0"
} > constraints.txt.tmp
mv constraints.txt.tmp constraints.txt
