#!/usr/bin/env bash
#SBATCH --job-name=srgpt-train
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
# Training on one Slurm node: `sbatch infra/slurm-train.sh`. The stage starts torchrun for train.ranks processes
# itself and resumes from its last checkpoint when the job is requeued; the flow ends all ranks on SIGTERM.
set -euo pipefail
cd "${SRGPT_WORKSPACE:-$SLURM_SUBMIT_DIR}"
export PATH="$PWD/.venv/bin:$PATH"
exec python -m flows.retrain --profile "${SRGPT_PROFILE:-full}" --no-promote
