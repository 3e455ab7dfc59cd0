#!/usr/bin/env bash
#SBATCH --job-name=srgpt-train-nodes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue
#SBATCH --signal=TERM@180
# Training on several Slurm nodes: `sbatch --nodes=4 infra/slurm-train-nodes.sh`. The checkout lies on a file system that
# all nodes share. Slurm signals every process three minutes before the time is up: the training writes a checkpoint and
# stops, and goes on from there when it is submitted again.
set -euo pipefail
cd "${SRGPT_WORKSPACE:-$SLURM_SUBMIT_DIR}"
export PATH="$PWD/.venv/bin:$PATH"
read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR MASTER_PORT="${MASTER_PORT:-29500}"
export SRGPT_GRACE=120 # seconds for the checkpoint
# shellcheck disable=SC2016 # each node has its own number
exec srun --kill-on-bad-exit=0 bash -c 'exec srgpt train --node-rank "$SLURM_NODEID" "$@"' train \
    --profile "${SRGPT_PROFILE:-full}" --set "train.nodes=$SLURM_JOB_NUM_NODES" --set "train.ranks=${SRGPT_RANKS:-8}" "$@"
