"""One run at a time in an output folder."""

from conftest import start_python


def test_two_runs_in_one_output_dir_are_told_apart_and_a_dead_one_holds_nothing(resumable_words, tmp_path, run_main):
    holder = start_python(
        "import os, time\nos.environ['PBS_JOBID'] = '4711.pbs-host.example'\n"
        "from gpt2_korean.checkpoints.lock import own_output_dir\n"
        f"with own_output_dir({str(tmp_path / 'out')!r}):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    code, _, err = run_main(*resumable_words)
    assert code == 1 and "--output_dir" in err and "작업 4711" in err and f"프로세스 {holder.pid}" in err
    assert "pbs-host" not in err and "pbs-host" not in (tmp_path / "out" / "_lock").read_text()
    holder.kill()
    holder.wait()
    assert run_main(*resumable_words)[0] == 0
    assert not list((tmp_path / "out").glob("_*"))
