"""The batch scripts run until the training is done: stopped with 75 they start again, with the same arguments.

sbatch, srun, scontrol, qsub and qstat are stubs here, and train.py is one that stops as it is told to;
tests/slurm.sh runs a real Slurm.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

SCRIPTS = sorted(path for path in (ROOT / "jobs").iterdir() if path.suffix in (".sh", ".sbatch", ".pbs"))

# Each run writes down its arguments, then ends with the next of the codes in `codes`: "wait" waits for a signal and
# stops, "last" is in its last step when it comes.
TRAIN = """
import json, os, signal, sys, time
from pathlib import Path
rank, stopped = os.environ.get("RANK", "0"), []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: stopped.append(1))
runs = Path("runs-" + rank)
done = runs.read_text().splitlines() if runs.exists() else []
runs.write_text("\\n".join([*done, json.dumps(sys.argv[1:])]))
Path("pid-" + rank).write_text(str(os.getpid()))
codes = Path("codes-" + rank)
while codes.exists() and not Path("pid-1").exists():  # one that is to fail waits until the other is there
    time.sleep(0.02)
code = (codes if codes.exists() else Path("codes")).read_text().split()[len(done)]
signalled = {"wait": 75, "last": 0}
while code in signalled and not stopped:
    time.sleep(0.02)
sys.exit(int(signalled.get(code, code)))
"""
STUBS = {
    "python": f'exec {sys.executable} "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    # Of the environment only what SLURM_EXPORT_ENV names (of sbatch --export) comes to the ranks, or all.
    "srun": "export=${SLURM_EXPORT_ENV:-ALL}; while [[ $1 == --* ]]; do "
    "[[ $1 == --export=* ]] && export=${1#*=}; shift; done; "
    'echo $$ >srun.pid; [[ $export == *ALL* ]] || unset ENDED_FILE; exec "$@"',
    # As Slurm does it, a requeued job is told to end at once, and killed where it does not, 30 seconds later.
    "scontrol": 'if [[ $1 == show ]]; then echo "$3"; else echo "$@" >>requeued; kill "$PPID"; fi',
    # The new job's script comes from stdin.
    "qsub": 'printf "%s\\n" "$@" >qsub.words; cat >submitted',
    "qstat": r"printf 'Job Id: 7.server\n    queue = gpuq\n'; cat resources; "
    r"printf '    Resource_List.walltime = 01:00:00\n'",
    # Runs each node's command here: one is enough to see what it is.
    "mpirun": 'printf "%s\\n" "$@" >mpirun.words',
}
# What qstat says of a job that asked for nodes: OpenPBS makes a select and a place of them. Long lines are folded.
NODES = """    Resource_List.nodes = 2:g
\tpu:ppn=2
    Resource_List.place = scatter
    Resource_List.select = 2:gpu=True:ncpus=2:mpiprocs=2
"""


@pytest.fixture
def project(tmp_path):
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "resources").write_text(NODES)
    (tmp_path / "nodefile").write_text("here\nhere\n")
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


@pytest.fixture
def start(project):
    """Start a batch script as the batch system would."""

    def run(script, *arguments, **variables):
        environment = {
            **os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}", "RANKS_PER_NODE": "1",
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1",
            "PBS_JOBID": "7.server", "PBS_O_WORKDIR": str(project), "PBS_NODEFILE": str(project / "nodefile"),
            **variables,
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", f"jobs/{script}", *arguments], cwd=project, env=environment, stderr=subprocess.PIPE, text=True
        )

    return run


def runs(project, rank=0):
    return [json.loads(line) for line in (project / f"runs-{rank}").read_text().splitlines()]


def finish(process):
    """`(exit code, stderr)` of a script."""
    stderr = process.communicate(timeout=300)[1]
    return process.returncode, stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_the_script_for_a_real_slurm_can_be_run_as_the_guide_shows_it():
    assert os.access(ROOT / "tests" / "slurm.sh", os.X_OK)


WORDS = ["--dataset_path=글 하나.txt", "--text_template=질문: {Q}\\n'답변': \"{A}\"", "--do_train", ""]


def test_slurm_requeues_the_same_job_until_it_is_done(project, start):
    (project / "codes").write_text("75 75 0")
    for restarts in range(3):
        code, _ = finish(start("slurm.sbatch", *WORDS, SLURM_RESTART_COUNT=str(restarts)))
        assert code == (0 if restarts == 2 else -signal.SIGTERM)
    assert (project / "requeued").read_text() == "requeue 7\n" * 2
    assert runs(project) == [["--resume_from_checkpoint=auto", *WORDS]] * 3
    assert list((project / "logs").iterdir()) == []


def test_a_task_of_an_array_that_stopped_leaves_the_others_running(project, start):
    """One of the tasks has the number of the whole array as its own, and a requeue of that kills the others."""
    (project / "codes").write_text("75")
    finish(start("slurm.sbatch", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="2"))
    assert (project / "requeued").read_text() == "requeue 7_2\n"


def test_slurm_gives_the_ranks_the_environment_of_the_job_whatever_sbatch_exported(project, start):
    (project / "codes").write_text("75")
    finish(start("slurm.sbatch", SLURM_EXPORT_ENV="MAX_RESTARTS"))
    assert (project / "requeued").read_text() == "requeue 7\n"


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_only_a_stopped_training_is_started_again(project, start, code):
    (project / "codes").write_text(f"{code} {code}")
    assert finish(start("slurm.sbatch"))[0] == code
    assert finish(start("devcloud.pbs"))[0] == code
    assert not (project / "requeued").exists() and not (project / "submitted").exists()


def test_the_limit_of_restarts_ends_the_chain(project, start):
    (project / "codes").write_text("75 75 75")
    code, stderr = finish(start("slurm.sbatch", SLURM_RESTART_COUNT="3", MAX_RESTARTS="3"))
    assert code == 75 and "MAX_RESTARTS=3" in stderr
    code, stderr = finish(start("devcloud.pbs", RESTART_COUNT="3", MAX_RESTARTS="3"))
    assert code == 75 and "MAX_RESTARTS=3" in stderr
    assert not (project / "requeued").exists() and not (project / "submitted").exists()


@pytest.mark.parametrize("script", ["slurm.sbatch", "devcloud.pbs"])
def test_a_job_that_was_not_submitted_in_the_projects_folder_says_so_and_has_failed(project, start, script):
    os.remove(project / "jobs" / "environment.sh")  # which the folder is known by
    code, stderr = finish(start(script))
    assert code == 1 and f"저장소 폴더에서 제출하세요. 지금 폴더: {project}" in stderr


@pytest.mark.parametrize("script", ["slurm.sbatch", "devcloud.pbs"])
def test_lines_for_the_cluster_in_environment_sh_may_read_variables_that_are_not_set(project, start, script):
    """As those of conda and of environment modules do."""
    environment = project / "jobs" / "environment.sh"
    environment.write_text(f'export MODULES="$SET_BY_NOBODY:mine"\n{environment.read_text("utf-8")}', "utf-8")
    (project / "codes").write_text("0")
    assert finish(start(script)) == (0, "")
    assert len(runs(project)) == 1


@pytest.mark.parametrize("script", ["slurm.sbatch", "devcloud.pbs"])
def test_a_job_without_a_python_says_where_to_name_it_and_has_failed(project, start, script):
    for name in ("env", "bash"):
        os.symlink(shutil.which(name), project / "jobs" / name)
    code, stderr = finish(start(script, PATH=str(project / "jobs")))
    assert code == 1 and "jobs/environment.sh" in stderr and stderr.count("\n") == 1


def test_a_python_without_torch_is_left_to_train_py_to_tell(project, start):
    """Which says in words what is missing, as a traceback does not."""
    (project / "codes").write_text("1")
    (project / "bin" / "python").write_text(
        f'#!/bin/bash\n[[ $1 != -c ]] && exec {sys.executable} "$@"\necho Traceback >&2\nexit 1\n'
    )
    assert finish(start("slurm.sbatch", RANKS_PER_NODE="")) == (1, "")
    assert len(runs(project)) == 1


@pytest.mark.parametrize("script", ["slurm.sbatch", "devcloud.pbs"])
def test_a_cancelled_job_stays_cancelled(project, start, script):
    """scancel and qdel signal every process of a job, the script's shell too."""
    (project / "codes").write_text("wait")
    process = start(script)
    for pid in (process.pid, *wait_for(project, ranks=1)):
        os.kill(pid, signal.SIGTERM)
    code, stderr = finish(process)
    assert code == 75 and "다시 제출하면" in stderr
    assert not (project / "requeued").exists() and not (project / "submitted").exists()


def wait_for(project, ranks):
    """The pids of the ranks, once each has set itself up for signals."""
    deadline = time.monotonic() + 300
    files = [project / f"pid-{rank}" for rank in range(ranks)]
    while not all(file.exists() and file.read_text() for file in files):
        assert time.monotonic() < deadline, "a rank did not start"
        time.sleep(0.02)
    return [int(file.read_text()) for file in files]


def test_pbs_submits_itself_again_with_the_same_arguments_resources_and_variables(project, start):
    (project / "codes").write_text("75 75 0")
    written = """--dataset_path="글 하나.txt" --text_template='질문: {Q}, "$A"\\n' --do_train"""
    assert finish(start("devcloud.pbs", TRAIN_ARGS=written, MAX_RESTARTS="2"))[0] == 0
    for _ in range(2):
        words = (project / "qsub.words").read_text().splitlines()
        assert words == ["-l", "walltime=01:00:00", "-l", "nodes=2:gpu:ppn=2", "-q", "gpuq"]
        (project / "jobs" / "again.pbs").write_bytes((project / "submitted").read_bytes())
        (project / "submitted").unlink()
        assert finish(start("again.pbs"))[0] == 0  # with its own variables: PBS gives it no others
    assert not (project / "submitted").exists()
    script = (project / "jobs" / "again.pbs").read_text().splitlines()
    assert script[0].startswith("#!") and "#PBS -j oe" in script
    assert 'declare -x RESTART_COUNT="2"' in script and 'declare -x MAX_RESTARTS="2"' in script
    given = ["--dataset_path=글 하나.txt", '--text_template=질문: {Q}, "$A"\\n', "--do_train"]
    assert [[first, *rest] for first, _, *rest in runs(project)] == [["--resume_from_checkpoint=auto", *given]] * 3


def test_pbs_leaves_a_tenth_of_a_short_job_to_save_of_which_its_setting_up_takes_nothing(project, start):
    environment = project / "jobs" / "environment.sh"
    environment.write_text(f"SECONDS=1800  # half of the hour\n{environment.read_text('utf-8')}", "utf-8")
    (project / "codes").write_text("0")
    assert finish(start("devcloud.pbs")) == (0, "")
    assert 0.3 < float(runs(project)[0][1].removeprefix("--max_hours=")) <= 0.4


def test_pbs_submits_itself_again_with_the_select_and_place_of_a_job_that_asked_for_them(project, start):
    (project / "codes").write_text("75")
    (project / "resources").write_text(NODES[NODES.index("    Resource_List.place") :])
    assert finish(start("devcloud.pbs", TRAIN_ARGS="--do_train"))[0] == 0
    assert (project / "qsub.words").read_text().splitlines() == [
        "-l", "walltime=01:00:00", "-l", "select=2:gpu=True:ncpus=2:mpiprocs=2", "-l", "place=scatter", "-q", "gpuq"
    ]  # fmt: skip


def test_pbs_splits_the_words_of_train_args_as_a_shell_does(project, start):
    (project / "codes").write_text("0")
    written = """--a="그는 \\"네\\"라고 말했다"  --b='첫 줄\n둘째 줄'\n--c=빈\\ 칸 --d='' --e=글(1).txt --f='\\n'"""
    assert finish(start("devcloud.pbs", TRAIN_ARGS=written)) == (0, "")
    words = ['--a=그는 "네"라고 말했다', "--b=첫 줄\n둘째 줄", "--c=빈 칸", "--d=", "--e=글(1).txt", "--f=\\n"]
    assert runs(project)[0][2:] == words


def test_pbs_refuses_train_args_whose_quotes_have_no_end(project, start):
    code, stderr = finish(start("devcloud.pbs", TRAIN_ARGS="--dataset_path=it's.txt --do_train"))
    assert code == 2 and stderr == "TRAIN_ARGS의 따옴표가 짝이 맞지 않습니다: --dataset_path=it's.txt --do_train\n"


def test_pbs_starts_torchrun_on_each_of_several_nodes(project, start):
    (project / "nodefile").write_text("first\nfirst\nsecond\nsecond\n")
    variables = {"TRAIN_ARGS": "--do_train", "RANKS_PER_NODE": "4", "PBS_JOBID": "7[2].server"}
    assert finish(start("devcloud.pbs", **variables))[0] == 0
    words = (project / "mpirun.words").read_text().split()
    assert words[:4] == ["-n", "2", "-ppn", "1"]
    for word in ("--nnodes=2", "--nproc_per_node=4", "--rdzv_id=7[2]", "--rdzv_endpoint=first:20072", "--do_train"):
        assert word in words


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_to_what_srun_began_stops_every_rank_and_requeues(project, start, ranks):
    """Where Slurm tracks processes by control groups it signals no other: one rank, or torchrun. The latter is real
    here: it is told by Slurm, tells its ranks, waits for them, and ends with 1."""
    (project / "codes").write_text("wait")
    process = start("slurm.sbatch", RANKS_PER_NODE=str(ranks))
    wait_for(project, ranks)
    os.kill(int((project / "srun.pid").read_text()), signal.SIGUSR1)
    code, stderr = finish(process)
    assert code == -signal.SIGTERM, stderr
    assert (project / "requeued").read_text() == "requeue 7\n"


def test_a_training_that_is_over_as_the_signal_comes_is_done(project, start):
    """torchrun ends with 1 where it was signalled, and the jobs that wait for this one would never start."""
    (project / "codes").write_text("last")
    process = start("slurm.sbatch", RANKS_PER_NODE="2")
    wait_for(project, ranks=2)
    os.kill(int((project / "srun.pid").read_text()), signal.SIGUSR1)
    assert finish(process)[0] == 0
    assert not (project / "requeued").exists() and list((project / "logs").iterdir()) == []


def test_a_run_of_which_one_rank_failed_is_not_started_again_though_the_others_stopped(project, start):
    """As where the first one cannot get the model: torchrun then signals those that wait for it."""
    (project / "codes").write_text("wait")
    (project / "codes-0").write_text("2")
    code, stderr = finish(start("slurm.sbatch", RANKS_PER_NODE="2"))
    assert code == 2 and runs(project, rank=1), stderr
    assert not (project / "requeued").exists() and list((project / "logs").iterdir()) == []
