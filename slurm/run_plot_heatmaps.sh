#!/usr/bin/env bash
# Draws photo, map, contours and void of every frame, and a contact sheet, from the maps of run_eval.sh: OUT/heatmaps.
#   sbatch --partition=CPU_PARTITION slurm/run_plot_heatmaps.sh [options of xenomask heatmaps]
# Environment:
#   ROOT            the data (data/smiyc), a data set of the kind DATASET (anomaly-track)
#   OUT             the folder that run_eval.sh wrote (eval/DATASET)
#   PYTHON          default .venv/bin/python
# Paths are taken from the repository's root, wherever the script is submitted.
#SBATCH --job-name=heatmaps
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=1:00:00
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

DATASET=${DATASET:-anomaly-track} ROOT=${ROOT:-data/smiyc}
OUT=${OUT:-eval/$DATASET}
need_folder ROOT "$ROOT"
need_folder OUT "$OUT/maps"
xenomask heatmaps --maps "$OUT/maps" --dataset "$DATASET" --root "$ROOT" --out "$OUT/heatmaps" "$@"
