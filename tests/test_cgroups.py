"""What a container or a batch job may take of the machine is read of its control groups, of both versions."""

import pytest

from gpt2_korean.cgroups import core_limit

V1 = "8:pids:/\n4:cpu,cpuacct:/docker/a:b"


@pytest.mark.parametrize(
    "line, files, cores",
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),  # docker run --cpus=1.5
        ("0::/", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/", {}, None),  # of the whole machine
        ("0::/a/b", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4),
        ("0::/a/b", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (V1, {f"cpu/docker/a:b/cpu.cfs_{name}_us": f"{time}\n" for name, time in (("quota", 90), ("period", 30))}, 3),
        (None, {}, None),
    ],
)
def test_the_cores_of_a_container_are_those_of_its_share(line, files, cores, tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    if line:
        (tmp_path / "proc/self/cgroup").write_text(f"{line}\n")
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert core_limit(tmp_path) == cores
