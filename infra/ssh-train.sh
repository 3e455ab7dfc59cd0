#!/usr/bin/env bash
# Training on several machines over ssh: `infra/ssh-train.sh HOSTFILE [ARGUMENTS of srgpt train]`. The hostfile has one
# machine a line, the first is node 0; `slots=8` after a name, as DeepSpeed writes it, is read over: train.ranks says
# how many processes each starts. The checkout lies on a file system that all share, at the same path. Ctrl-C and
# SIGTERM make the training write a checkpoint and stop.
set -euo pipefail
hostfile="${1:?give a hostfile: one machine a line}"
shift
mapfile -t hosts < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$hostfile" | awk '{print $1}')
[ "${#hosts[@]}" -gt 0 ] || { echo "$hostfile: names no machine" >&2; exit 2; }
workspace="${SRGPT_WORKSPACE:-$PWD}"
arguments="$(printf '%q ' train --set "train.nodes=${#hosts[@]}" "$@")"
pids=()
# setsid: Ctrl-C must reach this script only, which passes it on
trap 'trap "" INT TERM; for k in "${!hosts[@]}"; do
    ${SRGPT_SSH:-ssh} "${hosts[k]}" "kill -TERM \$(cat $(printf %q "$workspace/.srgpt/node-$k.pid"))" || true
done; wait; exit 1' INT TERM
for k in "${!hosts[@]}"; do
    setsid ${SRGPT_SSH:-ssh} "${hosts[k]}" "cd $(printf %q "$workspace") && mkdir -p .srgpt && echo \$\$ > .srgpt/node-$k.pid &&
        export PATH=\"\$PWD/.venv/bin:\$PATH\" MASTER_ADDR=$(printf %q "${hosts[0]}") MASTER_PORT=${MASTER_PORT:-29500} &&
        exec srgpt ${arguments}--node-rank $k" &
    pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
exit "$failed"
