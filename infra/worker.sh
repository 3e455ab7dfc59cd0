#!/usr/bin/env bash
# A worker of the process pools: makes them where they are missing, deploys the flows, then works.
set -euo pipefail
cd "${SRGPT_WORKSPACE:?set SRGPT_WORKSPACE to the checkout that runs work in}"
for pool in cpu gpu serve; do
    prefect work-pool inspect "$pool" >/dev/null 2>&1 || prefect work-pool create --type process "$pool"
done
prefect --no-prompt deploy --prefect-file flows/prefect.yaml --all
workers=()
trap 'kill "${workers[@]}" 2>/dev/null || true' EXIT
for pool in ${SRGPT_POOLS:-cpu gpu serve}; do
    prefect worker start --pool "$pool" --limit 1 &
    workers+=($!)
done
wait -n
