#!/usr/bin/env bash
# A real Slurm on this machine runs jobs/slurm.sbatch: submitted, stopped by its time limit, requeued, finished, with
# the model that a training without a stop gives. `tests/slurm.sh NODES RANKS`: on so many nodes (1 or 2) with so
# many ranks on each, 1 and 1 where it is not said.
# Needs root, the packages slurmctld, slurmd, slurm-client and munge, and a Python with requirements.txt on PATH;
# takes about 4 minutes.
set -euo pipefail

nodes=${1:-1}
ranks=${2:-1}
project=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
chmod 755 "$work"
pids=()
stop_cluster() {
    kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap stop_cluster EXIT

# The cluster: this machine twice, under the two names that it surely answers to, with settings of its own that
# leave an installed Slurm alone. A cluster that tracks processes by control groups signals fewer of them, which
# test_jobs.py imitates.
mkdir -p "$work"/{state,munge}
head -c 1024 /dev/urandom >"$work/munge/key"
chmod 700 "$work/munge"
chmod 400 "$work/munge/key"
first=$(hostname -s)
cat >"$work/slurm.conf" <<CONFIG
ClusterName=test
SlurmctldHost=$first(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# A requeued job waits until the old credentials are void, 2 minutes by default.
AuthInfo=socket=$work/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=36817
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=5
SlurmdParameters=config_overrides
NodeName=$first NodeHostname=$first NodeAddr=127.0.0.1 Port=36818 CPUs=$(nproc) State=UNKNOWN
NodeName=localhost NodeHostname=$first NodeAddr=127.0.0.1 Port=36819 CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$first,localhost Default=YES MaxTime=INFINITE State=UP
CONFIG
export SLURM_CONF=$work/slurm.conf
munged --foreground --force --key-file="$work/munge/key" --socket="$work/munge/socket" --pid-file="$work/munge/pid" \
    --seed-file="$work/munge/seed" &>"$work/munged.log" &
pids+=($!)
sleep 1
slurmctld -D -i &>"$work/slurmctld.out" &
pids+=($!)
for node in "$first" localhost; do
    slurmd -D -N "$node" &>"$work/slurmd-$node.out" &
    pids+=($!)
done
for ((seconds = 0; ; seconds++)); do
    [[ $(sinfo -h -o %T,%D 2>/dev/null) == idle,2 ]] && break
    if ((seconds > 60)); then
        cat "$work"/*.log
        exit 1
    fi
    sleep 1
done

# The job, in a copy of the project, is longer than the minute it gets.
mkdir "$work/project"
cp -r "$project"/{train.py,gpt2_korean,data,jobs} "$work/project"
mkdir "$work/project/logs"
cd "$work/project"
export OMP_NUM_THREADS=1
words=(--dataset_path=data/korean_texts.txt --model_type=scratch-mini --do_train --block_size=64
    --per_device_train_batch_size=1 --max_steps=1000 --save_steps=500 --device=cpu --disable_tqdm --report_to=none)
job=$(RANKS_PER_NODE=$ranks sbatch --parsable --nodes="$nodes" --time=1 --signal=USR1@15 --gpus-per-node=0 \
    --cpus-per-task="$(nproc)" jobs/slurm.sbatch "${words[@]}" --output_dir=stopped)
while squeue -h -j "$job" -o '%T (%r) since %S' 2>/dev/null | grep .; do sleep 10; done
cat "logs/gpt2-korean-$job.txt"
restarts=$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*')
state=$(scontrol show job "$job" | grep -o 'JobState=[A-Z]*')
echo "== $state $restarts"
[[ $state == JobState=COMPLETED && $restarts != Restarts=0 ]]
world=(python)
((nodes * ranks == 1)) || world=(torchrun --standalone --nproc_per_node=$((nodes * ranks)))
"${world[@]}" train.py "${words[@]}" --output_dir=unbroken 2>/dev/null
cmp stopped/model.safetensors unbroken/model.safetensors
echo "== the same weights as without a stop"
