#!/usr/bin/env bash
# What slurm.sbatch and devcloud.pbs share: sourced from the repository's folder. Fit the first part to your cluster.

# The Python that requirements.txt was installed into; here also belong `module load` lines.
if [[ -f .venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source .venv/bin/activate
fi
command -v python >/dev/null || {
    echo "python을 찾을 수 없습니다. jobs/environment.sh의 첫 부분을 이 클러스터에 맞게 고치세요." >&2
    exit 1
}

# How many times a job goes on by itself before a person should look at it.
export MAX_RESTARTS=${MAX_RESTARTS:-100}
# Ranks on each node: one for each XPU or GPU, one where there is neither. Of a Python without PyTorch train.py tells.
count='import torch; print(max(1, torch.accelerator.device_count()))'
export RANKS_PER_NODE=${RANKS_PER_NODE:-$(python -c "$count" 2>/dev/null || echo 1)}

# From a signal on, torchrun waits this many seconds for the ranks to save; its own default is 30.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-3600}

# set_rank_command NODES FIRST_NODE JOB [train.py's flags]: the words that each node is to run, in the
# array rank_command, and the file that tells how the first of several ranks to end did, in ENDED_FILE.
set_rank_command() {
    local nodes=$1 first_node=$2 job=$3
    shift 3
    # torchrun ends with 1 whatever a rank ended with, and with 1 too when it is signalled itself: rank.sh
    # therefore notes the code in a file, which all nodes see. That of the first to end alone: where it failed,
    # torchrun signals the others, which then stop with 75, and a run that fails must not start again and again.
    export ENDED_FILE=$PWD/logs/ended-$job
    mkdir -p logs
    rm -f "$ENDED_FILE"
    # What the user gives comes later, and so wins.
    rank_command=(python train.py --resume_from_checkpoint=auto "$@")
    # A rank alone has nothing above it: where Slurm tracks processes by control groups, it signals those alone that
    # srun itself began, and not their children.
    if ((nodes * RANKS_PER_NODE > 1)); then
        local torchrun=(torchrun --no-python --nnodes="$nodes" --nproc_per_node="$RANKS_PER_NODE")
        # torchrun tells the ranks, and by itself would die of SIGUSR1.
        torchrun+=(--signals-to-handle="SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1")
        if ((nodes > 1)); then
            # A port of each job's own, for jobs that share a node; a task of a PBS array is 7[2].
            local port=$((20000 + ${job//[!0-9]/} % 10000))
            torchrun+=(--rdzv_backend=c10d --rdzv_id="$job" --rdzv_endpoint="$first_node:$port")
        else
            torchrun+=(--standalone)
        fi
        rank_command=("${torchrun[@]}" bash jobs/rank.sh "${rank_command[@]}")
    fi
}

# ended_code CODE: the exit code of the first rank to end, CODE where none has told it; forgets it again.
ended_code() {
    local code
    code=$(cat "$ENDED_FILE" 2>/dev/null)
    rm -f "$ENDED_FILE"
    echo "${code:-$1}"
}
