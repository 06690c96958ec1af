#!/usr/bin/env bash
# Trains Mask2Former with Swin-L on Cityscapes; after preemption or at its time limit it saves, requeues and goes on.
#   sbatch --partition=GPU_PARTITION --gres=gpu:1 slurm/run_train_mask2former_swin-l.sh [options of xenomask train]
# Several GPUs on one node (--gres=gpu:8) train by torchrun; the recipe's batch is that of all of them together.
# Environment: CONFIG (another recipe), PYTHON (default .venv/bin/python). The data folder is named in the recipe.
# Paths are taken from the repository's root, wherever the script is submitted.
#SBATCH --job-name=train-swin-l
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=2-00:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
#SBATCH --signal=B:USR1@300
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# sbatch runs a copy of this file: Slurm knows where it came from
[[ -f $here/common.sh ]] || here=$(scontrol show job "$SLURM_JOB_ID" | sed -n "s|^ *Command=\(.*\)/run_[^/]*\.sh.*|\1|p")
cd "$here/.."
# shellcheck source=slurm/common.sh
source slurm/common.sh

CONFIG=${CONFIG:-configs/mask2former_swin-l-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024.toml}
[[ -f $CONFIG ]] || die "no recipe $CONFIG: set CONFIG"
data=$(sed -n 's/^train *= *"\(.*\)".*/\1/p' "$CONFIG")
[[ -d $data ]] || die "no data folder '$data': put Cityscapes there or change 'train' in $CONFIG"
xenomask train "$CONFIG" "$@"
