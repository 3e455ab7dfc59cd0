#!/usr/bin/env bash
#SBATCH --job-name=srgpt-train
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue
#SBATCH --signal=B:TERM@180
# The whole chain on one Slurm node: `sbatch infra/slurm-train.sh`. The stage starts torchrun for train.ranks processes
# itself. On SIGTERM the training writes a checkpoint and stops; when the job is requeued it goes on from there.
set -euo pipefail
cd "${SRGPT_WORKSPACE:-$SLURM_SUBMIT_DIR}"
export PATH="$PWD/.venv/bin:$PATH"
export SRGPT_GRACE=120 # seconds for the checkpoint
exec python -m flows.retrain --profile "${SRGPT_PROFILE:-full}" --no-promote
