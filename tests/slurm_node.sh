#!/usr/bin/env bash
# A Slurm of one node on this machine, for tests and for trying things out: munged, slurmctld, slurmd, all in one folder.
#   tests/slurm_node.sh start DIR     starts them and prints the environment to use: eval "$(tests/slurm_node.sh start DIR)"
#   tests/slurm_node.sh stop DIR      cancels what runs and stops them
# Needs Debian's slurm-wlm and munge (or the same programs from elsewhere) and, for other users than root, luck: slurmd
# wants to be root. No systemd and no cgroups are needed. Partitions: `low` (default) and `high`, which preempts `low`.
# Nothing outside DIR is touched. It is no set-up for real work: everything runs as one user, nothing is limited.
set -euo pipefail

die() { echo "slurm_node.sh: $*" >&2; exit 2; }
[[ $# == 2 && ($1 == start || $1 == stop) ]] || die "usage: slurm_node.sh start|stop DIR"
for program in munged slurmctld slurmd sbatch scontrol; do
    command -v $program >/dev/null || die "no $program on PATH: apt-get install slurm-wlm munge"
done
mkdir -p "$2"
dir=$(cd "$2" && pwd)
export SLURM_CONF=$dir/slurm.conf

end() {  # NAME: ends the daemon of that pid file and waits until it is gone
    local pid
    [[ -s $dir/$1.pid ]] || return 0
    pid=$(<"$dir/$1.pid")
    kill "$pid" 2>/dev/null || true
    for _ in {1..100}; do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$dir/$1.pid"
}

if [[ $1 == stop ]]; then
    if [[ -s $dir/slurmctld.pid ]]; then
        timeout 10 scancel --full --signal=KILL --user="$(id -un)" 2>/dev/null || true
        timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
        sleep 0.5
    fi
    for daemon in slurmd slurmctld munged; do end $daemon; done
    exit 0
fi

[[ ! -s $dir/slurmctld.pid ]] || die "a node runs in $dir already: stop it first"
started=''
trap '[[ $started ]] || "$0" stop "$dir"' EXIT  # no daemon stays behind where another did not start
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
chmod 755 "$dir"
mkdir -p "$dir/state" "$dir/spool"
# cred_expire: a requeued job waits so long before it may start again (120 s by default)
cat >"$SLURM_CONF" <<CONF
ClusterName=try-out
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
KillWait=30
InactiveLimit=0
MinJobAge=3600
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs=${SLURM_NODE_CPUS:-2} RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=high Nodes=localhost PriorityTier=10 MaxTime=INFINITE State=UP
CONF
head -c 128 /dev/urandom >"$dir/munge.key"
chmod 400 "$dir/munge.key"
munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" >"$dir/munged.out" 2>&1 ||
    die "munged does not start: $(tail -n 1 "$dir/munged.out")"
for daemon in "slurmctld -c" "slurmd -N localhost"; do
    # without a file as stdout they would hold the caller's pipe open
    $daemon >"$dir/start.out" 2>&1 || die "${daemon%% *} does not start: $(tail -n 1 "$dir/start.out")"
done
for _ in {1..100}; do
    if [[ $(timeout 5 sinfo --noheader --partition=low --format=%T 2>/dev/null) == idle ]]; then
        started=1
        echo "export SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.2
done
die "the node did not become idle; see the logs in $dir"
