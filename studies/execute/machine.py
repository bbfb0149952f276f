"""What this process may use of the machine, as affinity, control groups and schedulers leave it."""

import os
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

WORKER_MEMORY_MB = 1300
WORKERS_PER_GPU = 2
ROOT = Path("/")


def default_workers(threads: int, root: Path = ROOT) -> int:
    """One worker for every `threads` cores this process may use, as far as memory and GPUs allow."""
    limits = [cores(root) // threads]
    if (memory := memory_mb(root)) is not None:
        limits.append(int(memory) // WORKER_MEMORY_MB)
    if devices := gpus(root):
        limits.append(len(devices) * WORKERS_PER_GPU)
    return max(1, min(limits))


def cores(root: Path = ROOT) -> int:
    """How many cores this process may use; a control group's share of one is rounded up."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for folder in _groups(root, "cpu"):
        quota, period = _cpu_quota(folder)
        if quota > 0 and period > 0:
            limits.append(-(-quota // period))
    if (slurm := os.environ.get("SLURM_CPUS_ON_NODE", "")).isdecimal():
        limits.append(int(slurm))
    return max(1, min(limits))


def memory_mb(root: Path = ROOT) -> float | None:
    """How much memory this process may still take, in MB; None where that is not known."""
    limits = []
    if (meminfo := root / "proc/meminfo").exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) / 1024)
    limits += [(limit - used) / 2**20 for folder in _groups(root, "memory") for limit, used in _memory_limit(folder)]
    return max(0.0, min(limits)) if limits else None


def gpus(root: Path = ROOT) -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; that is the user's, if it is set."""
    there = sorted(path.name.removeprefix("nvidia") for path in (root / "dev").glob("nvidia[0-9]*"))
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or not there:
        return there
    return list(takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in wanted.split(","))))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those around it, version 1 or 2.

    In a container the path may be the host's, which is not there: then what is mounted is the container's own.
    """
    base, file = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    lines = file.read_text().splitlines() if file.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = base / (controllers and controller)
        own = top / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top) and folder.is_dir())


def _cpu_quota(folder: Path) -> tuple[int, int]:
    """Microseconds of CPU that a control group has in each period, and the period; 0 without a limit."""
    quota, period = [*_words(folder / "cpu.max"), "", ""][:2]
    if not quota:
        quota, period = ("".join(_words(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return (int(quota), int(period)) if quota.isdecimal() and period.isdecimal() else (0, 0)


def _memory_limit(folder: Path) -> Iterator[tuple[int, int]]:
    """A control group's limit and what of it is used, in bytes; the page cache, which makes room, is not counted."""
    names = (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    for limit, used, cached in names:
        limit, used = "".join(_words(folder / limit)), "".join(_words(folder / used))
        if limit.isdecimal() and used.isdecimal():
            statistics = _words(folder / "memory.stat")
            stat = dict(zip(statistics[::2], statistics[1::2], strict=False))
            yield int(limit), int(used) - int(stat.get(cached, 0))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
