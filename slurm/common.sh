# What the run_*.sh of this folder share; sourced by them, after they changed into the repository's root.
# shellcheck shell=bash

die() { echo "${0##*/}: $*" >&2; exit 2; }

[[ -f pyproject.toml && -d slurm ]] || die "this is not the root of the repository: $PWD"
PYTHON=${PYTHON:-.venv/bin/python}
command -v "$PYTHON" >/dev/null || die "no Python at $PYTHON: run 'make' in $PWD once, or set PYTHON"

need_folder() {  # NAME FOLDER: ends with a line that says which variable to set
    [[ -d $2 ]] || die "no folder $2: set $1 to where it is"
}

gpus=${SLURM_GPUS_ON_NODE:-1}

xenomask() {  # xenomask ARGUMENTS: prints the command and runs it; hands Slurm's warning on and requeues after it
    local command=("$PYTHON" -m xenomask.cli "$@") warned='' child code
    if [[ $1 == train && $gpus -gt 1 ]]; then
        command=("$PYTHON" -m torch.distributed.run --standalone "--nproc-per-node=$gpus" -m xenomask.cli "$@")
    fi
    printf '+'; printf ' %q' "${command[@]}"; printf '\n'
    "${command[@]}" &
    child=$!
    # torchrun itself would die of the warning: it goes to the processes that torchrun started
    trap 'warned=1; if [[ ${command[2]} == torch.* ]]; then pkill -USR1 -P "$child"; else kill -USR1 "$child"; fi || true' USR1
    trap 'kill -TERM "$child" 2>/dev/null || true' TERM
    while code=0; wait "$child" || code=$?; kill -0 "$child" 2>/dev/null; do :; done  # a trap ends wait early
    trap - USR1 TERM
    # A job that ends by itself after the warning counts as completed, whatever it left undone. (Once more for one that
    # had just finished costs a look at its files.) After SIGTERM Slurm, or the user who cancelled it, decides.
    if [[ $warned && ${SLURM_JOB_ID:-} ]]; then
        scontrol requeue "$SLURM_JOB_ID"
        exit 75
    fi
    return "$code"
}
