import os
import subprocess
import sys

import pytest

from studies.execute import machine
from studies.execute.machine import cores, default_workers, gpus, memory_mb

ROOMY_MB = 10**6
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path):
    """A function from files and their contents to a root folder with them and much memory."""

    def made(**files):
        files = {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {ROOMY_MB * 1024} kB\n"} | files.pop("files", {})
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return made


def version_2(path="/", **files):
    """The files of a control group of version 2."""
    group = "sys/fs/cgroup" + path.rstrip("/")
    return {"proc/self/cgroup": f"0::{path}\n"} | {f"{group}/{n.replace('_', '.')}": t for n, t in files.items()}


def test_without_limits_there_is_a_worker_for_so_many_cores(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert [default_workers(threads, root()) for threads in (1, 3, 64, 65)] == [64, 21, 1, 1]


def test_memory_limits_workers(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    some = root(files={"proc/meminfo": f"MemAvailable: {int(3.5 * 1300) * 1024} kB\n"})
    assert default_workers(1, some) == 3
    none = root(files={"proc/meminfo": "MemAvailable: 1024 kB\n"})
    assert default_workers(1, none) == 1


def test_gpus_limit_workers_to_those_the_user_lists(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    there = root(files={f"dev/nvidia{name}": "" for name in ("0", "1", "2", "ctl", "-uvm")})
    assert default_workers(1, there) == 6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 0")
    assert gpus(there) == ["2", "0"] and default_workers(1, there) == 4
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert gpus(there) == [] and default_workers(1, there) == 64
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937,-1,1")
    assert gpus(there) == ["GPU-8932f937"]


def test_without_a_gpu_there_is_none_whatever_is_listed(root, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpus(root()) == []


@pytest.mark.parametrize(
    "files, expected",
    [
        (version_2(cpu_max="max 100000"), 64),
        (version_2(cpu_max="400000 100000"), 4),
        (version_2(cpu_max="150000 100000"), 2),
        (version_2(cpu_max="1000 100000"), 1),
        (version_2("/a/b", cpu_max="max 100000") | {"sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        (version_2("/of/the/host") | {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (
            {
                "proc/self/cgroup": "5:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "500000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
    ],
    ids=["none", "4 cores", "1.5 cores", "a hundredth", "parent's", "container", "version 1"],
)
def test_a_control_group_limits_cores(root, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    there = root(files=files)
    assert cores(there) == default_workers(1, there) == expected


def test_slurm_limits_cores(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert default_workers(1, root()) == 6


@pytest.mark.parametrize(
    "files, expected",
    [
        (version_2(memory_max="max", memory_current="5"), ROOMY_MB),
        (version_2(memory_max=str(2**30), memory_current=str(2**28)), 768),
        (
            version_2(memory_max=str(2**30), memory_current=str(2**30), memory_stat=f"file 9\ninactive_file {2**29}"),
            512,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": str(2**31),
                "sys/fs/cgroup/memory/x/memory.usage_in_bytes": str(2**30),
                "sys/fs/cgroup/memory/x/memory.stat": f"inactive_file 7\ntotal_inactive_file {2**29}",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1",
            },
            1536,
        ),
    ],
    ids=["none", "limit", "page cache", "version 1"],
)
def test_a_control_group_limits_memory(root, files, expected):
    assert memory_mb(root(files=files)) == expected


def test_where_memory_is_not_known_cores_alone_limit(tmp_path):
    assert memory_mb(tmp_path) is None
    assert default_workers(1, tmp_path) == CORES


def test_this_machine():
    assert 1 <= default_workers(threads=1) <= os.cpu_count()
    assert 10 < memory_mb() < 10**8
    code = (
        "import os; os.sched_setaffinity(0, {0})\n"
        "from studies.execute import machine; print(machine.default_workers(1))"
    )
    pinned = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert pinned.stdout == "1\n"
    assert machine.ROOT.is_dir()
