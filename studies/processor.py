"""What kind of processor this is, wherever a trial runs: other kinds round otherwise."""

import functools
import platform
from pathlib import Path

INSTRUCTIONS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimddp", "bf16", "i8mm", "sve", "sve2"),
)
"""The instruction sets by which TensorFlow's libraries choose their code, as Linux calls them."""


def name() -> str:
    """Its model, as Linux calls it; empty where nothing does."""
    return _cpuinfo().get("model name", "")


def kind() -> str:
    """`AMD EPYC 7B13 (avx2 fma)`: the model, and its instruction sets that matter."""
    facts = _cpuinfo()
    flags = facts.get("flags", facts.get("Features", "")).split()
    sets = " ".join(each for each in INSTRUCTIONS if each in flags)
    model = name() or platform.processor() or platform.machine()
    return f"{model} ({sets})" if sets else model


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
