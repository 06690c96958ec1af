#!/usr/bin/env bash
# Looks at a labelled data set with a detector and prints its numbers: OUT/maps and OUT/evaluation.json.
#   sbatch --partition=GPU_PARTITION --gres=gpu:1 slurm/run_eval.sh [options of xenomask score, such as --leave-one-out]
# Environment:
#   DETECTOR        detector folder or the name of a shipped one (nano)
#   ROOT            the data (data/smiyc), a data set of the kind DATASET (anomaly-track)
#   OUT             folder to write (eval/DATASET)
#   PYTHON          default .venv/bin/python
# Paths are taken from the repository's root, wherever the script is submitted.
#SBATCH --job-name=eval
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

DATASET=${DATASET:-anomaly-track} ROOT=${ROOT:-data/smiyc}
OUT=${OUT:-eval/$DATASET}
need_folder ROOT "$ROOT"
xenomask score --detector "${DETECTOR:-nano}" --dataset "$DATASET" --root "$ROOT" --out "$OUT/maps" "$@"
xenomask evaluate --maps "$OUT/maps" --dataset "$DATASET" --root "$ROOT" --json "$OUT/evaluation.json"
