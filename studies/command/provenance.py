"""What an execution was run by: the command, the code, the machine. Asked once an execution, in 10 ms."""

import ast
import ctypes.util
import functools
import getpass
import hashlib
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from studies import processor
from studies.masking import masked

ROOT = Path(__file__).parent.parent.parent

BITS = (
    *("TF_ENABLE_ONEDNN_OPTS", "TF_DISABLE_MKL", "TF_SET_ONEDNN_FPMATH_MODE"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"),
    *("TF_XLA_FLAGS", "XLA_FLAGS", "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC", "TF_CUDNN_USE_AUTOTUNE"),
    *("NVIDIA_TF32_OVERRIDE", "TF_CUDNN_USE_FRONTEND", "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32"),
    *("TF_ENABLE_CUDNN_TENSOR_OP_MATH_FP32", "TF_ENABLE_AUTO_MIXED_PRECISION", "TF_ENABLE_MLIR_OPTIMIZATIONS"),
    *("TF_USE_CUBLASLT", "CUBLAS_WORKSPACE_CONFIG"),
)
"""Variables of the environment by which a user can choose other arithmetic, hence other last bits."""

NEUTRAL = ("--tf_xla_persistent_cache", "--xla_dump")
"""How the flags begin that change no number: where XLA keeps, or writes down, what it has compiled."""


def tags(words: list[str], root: Path = ROOT) -> dict[str, str]:
    """MLflow's tags of provenance; what cannot be known here has none.

    Args:
        words: of the command line.
        root: of the checkout.
    """
    found = {
        "mlflow.source.name": shlex.join(["python", "-m", "studies.run", *map(masked, words)]),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
        "machine": _machine(),
        **circumstances(),
        "lock.hash": _lock_hash(root / "requirements.lock"),
        **_git(root),
    }
    return {name: value for name, value in found.items() if value}


def circumstances() -> dict[str, str]:
    """What may change a trial's last bits besides its config, as tags: versions, the processor, the device."""
    versions = {f"version.{name}": _version(name) for name in ("tensorflow", "keras", "numpy", "pillow")}
    model = _gpu_model() if device() == "gpu" else ""
    return versions | {"processor": processor.kind(), "device": f"{device()} ({model})" if model else device()}


def engine(executor: dict | None = None) -> dict:
    """What of the surroundings is of a trial's identity: the kind of device, and arithmetic that the user chose.

    Args:
        executor: the config's; one that asks machines elsewhere for GPUs, or for none, says the device by that.
    """
    chosen = {}
    for name in BITS:
        words = [word for word in os.environ.get(name, "").split() if not word.startswith(NEUTRAL)]
        if words:
            chosen[name] = " ".join(words)
    gpus = (executor or {}).get("gpus")
    return {"device": device() if gpus is None else "gpu" if gpus else "cpu", "environment": chosen}


def device() -> str:
    """`gpu` where TensorFlow may use one, else `cpu`; known without importing it, and checked by who does."""
    if sys.platform == "darwin":
        return "gpu" if _version("tensorflow-metal") else "cpu"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    allowed = first not in ("", "-1", "NoDevFiles")
    return "gpu" if allowed and _has_gpu() else "cpu"


@functools.cache
def _has_gpu() -> bool:
    """Whether there is a GPU, of NVIDIA's, Windows's or AMD's, and what TensorFlow needs to use it."""
    nodes = ("nvidia[0-9]*", "dxg", "kfd")
    return any(any(Path("/dev").glob(node)) for node in nodes) and _has_gpu_libraries()


def _has_gpu_libraries() -> bool:
    """Those that `tensorflow[and-cuda]` brings, or the system's; the lock has none."""
    with suppress(ModuleNotFoundError):
        if importlib.util.find_spec("nvidia.cudnn"):
            return True
    return any(ctypes.util.find_library(name) for name in ("cudnn", "MIOpen"))


def _gpu_model() -> str:
    """The names of the GPUs, of NVIDIA's."""
    names = set()
    for facts in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        names |= {line.partition(":")[2].strip() for line in facts.read_text().splitlines() if line.startswith("Model")}
    return ", ".join(sorted(names))


def source(module: str) -> str:
    """The hash of a top-level module or package: all its Python files, and those beside it that they import.

    Nothing is executed, and it is read once a process. Empty if it is not found, or has no source.
    """
    return _source(module, tuple(sys.path))


def places(modules: Iterable[str]) -> list[str]:
    """The files and folders of top-level modules and packages of the user's own, and of those that they import."""
    files = {name: found for module in modules for name, found in _with_those_beside(module).items()}
    specs = [spec for name in sorted(files) if files[name] and (spec := _spec(name))]
    return [place for spec in specs for place in spec.submodule_search_locations or [spec.origin or ""]]


@functools.cache
def _source(name: str, path: tuple[str, ...]) -> str:
    files = _with_those_beside(name)
    if not files[name]:
        return ""
    digest = hashlib.sha256()
    for module in sorted(files):
        for file, text in files[module]:
            digest.update(f"{module} {file} {len(text)} ".encode() + text)
    return digest.hexdigest()[:16]


def _with_those_beside(name: str) -> dict[str, list[tuple[str, bytes]]]:
    """The Python files of a module or package, and of those beside it that they import, by module."""
    waiting, files = [name], {}
    while waiting:
        module = waiting.pop()
        if module in files:
            continue
        files[module] = _files(_spec(module))
        for _, text in files[module]:
            waiting += [other for other in _imported(text) if _is_beside(_spec(other))]
    return files


def _spec(module: str) -> ModuleSpec | None:
    """Where a top-level module is, which is found without executing it."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # one that is here already and has no spec
        return None


def _files(spec: ModuleSpec | None) -> list[tuple[str, bytes]]:
    """The Python files of a module or package by their places in it."""
    if spec is None or _is_pythons(spec):
        return []
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        return [(file.name, file.read_bytes())] if file.suffix == ".py" and file.is_file() else []
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    found = [(file, folder) for folder in folders for file in folder.rglob("*.py")]
    return sorted((file.relative_to(folder).as_posix(), file.read_bytes()) for file, folder in found)


def _imported(text: bytes) -> set[str]:
    """The top-level modules that a source names in its imports."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return set()
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    names += [node.module for node in froms if node.module]
    return {name.partition(".")[0] for name in names}


def is_own(module: str) -> bool:
    """Whether a top-level module is in a folder of the user's own: neither Python's, nor ours, nor installed, but there
    or nowhere.
    """
    spec = _spec(module)
    return spec is None or (_is_beside(spec) and not any(map(_is_installed, _places(spec))))


def _is_installed(place: str) -> bool:
    """Whether a place is one of packages, whichever Python's: the system's and the user's are on some's path too."""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(place).parts)


def _is_beside(spec: ModuleSpec | None) -> bool:
    """Whether a module is neither Python's own, nor ours, nor installed."""
    if spec is None or spec.name in ("studies", "analysis") or _is_pythons(spec):
        return False
    return not _is_below(spec, "purelib", "platlib")


def _is_pythons(spec: ModuleSpec) -> bool:
    """Whether a module is of the standard library, by its place: a user's own may have the name of one."""
    return spec.origin in ("built-in", "frozen") or (
        _is_below(spec, "stdlib", "platstdlib") and not _is_below(spec, "purelib", "platlib")
    )


def _is_below(spec: ModuleSpec, *kinds: str) -> bool:
    return any(place.startswith(tuple(f"{sysconfig.get_path(kind)}/" for kind in kinds)) for place in _places(spec))


def _places(spec: ModuleSpec) -> list[str]:
    return [spec.origin or "", *(spec.submodule_search_locations or ())]


def _git(root: Path) -> dict[str, str]:
    """The commit, and whether files differ from it; nothing if git is not there or has no say."""
    if not (root / ".git").exists():  # else git may speak of a repository around this one
        return {}
    command = ["git", "--no-optional-locks", "-C", str(root), "status", "--porcelain=v2", "--branch"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    heads = {line.split()[1]: line.split()[2] for line in lines if line.startswith("# ")}
    if heads.get("branch.oid", "(initial)") == "(initial)":
        return {}
    dirty = any(not line.startswith("# ") for line in lines)
    return {"mlflow.source.git.commit": heads["branch.oid"], "git.dirty": str(dirty).lower()}


def _lock_hash(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:16] if lock.is_file() else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user that has no name
        return ""


def _machine() -> str:
    """`node x86_64, AMD EPYC 7B13, 2 cores, 8 GB`."""
    facts = [f"{platform.node()} {platform.machine()}", processor.name(), f"{os.cpu_count()} cores", _memory()]
    return ", ".join(fact for fact in facts if fact)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    except (OSError, ValueError):
        return ""
