#!/usr/bin/env bash
# Finds out what the queries of checkpoints do: specialised ones on ordinary scenes, outlier ones on labelled anomalies.
#   sbatch --partition=GPU_PARTITION --gres=gpu:1 slurm/run_analysis.sh CHECKPOINT_FOLDER...
# Environment:
#   INLIER_ROOT     ordinary scenes (data/cityscapes), a data set of the kind INLIER_DATASET (cityscapes)
#   ROOT            labelled anomalies (data/smiyc), a data set of the kind DATASET (anomaly-track)
#   DETECTOR        a folder to join the checkpoints in, equally weighted, read by SCORE (maskomaly); default: none is made
#   PYTHON          default .venv/bin/python
# Paths are taken from the repository's root, wherever the script is submitted.
#SBATCH --job-name=analysis
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
#SBATCH --signal=B:USR1@60
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# sbatch runs a copy of this file: Slurm knows where it came from
[[ -f $here/common.sh ]] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n "s|^ *Command=\(.*\)/run_[^/]*\.sh.*|\1|p")
cd "$here/.."
# shellcheck source=slurm/common.sh
source slurm/common.sh

INLIER_ROOT=${INLIER_ROOT:-data/cityscapes} ROOT=${ROOT:-data/smiyc}
[[ $# -gt 0 ]] || die "usage: run_analysis.sh CHECKPOINT_FOLDER..."
need_folder INLIER_ROOT "$INLIER_ROOT"
need_folder ROOT "$ROOT"
members=()
for checkpoint in "$@"; do
    xenomask queries inlier --checkpoint "$checkpoint" --dataset "${INLIER_DATASET:-cityscapes}" --root "$INLIER_ROOT"
    xenomask queries outlier --checkpoint "$checkpoint" --dataset "${DATASET:-anomaly-track}" --root "$ROOT"
    members+=(--member "$(basename "$(dirname "$checkpoint")")=$checkpoint")
done
if [[ ${DETECTOR:-} ]]; then
    xenomask assemble --out "$DETECTOR" "${members[@]}" --score "${SCORE:-maskomaly}"
fi
