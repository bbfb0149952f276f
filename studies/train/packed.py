"""Numbers, arrays, texts, lists and dictionaries as bytes, and back: data that no code can hide in, unlike a pickle's.

A line that names the format, a SHA-256 of the rest, a length, JSON of that length, and the arrays' entries end to end.
"""

import hashlib
import json
import math
from typing import Any

import numpy as np

MARK = b"weight-studies packed 1\n"
ARRAY = "array"
KINDS = "fiub"
"""Floats, integers, booleans: an array of anything else is refused."""


def pack(value: Any) -> bytes:
    """The bytes of a value.

    Raises:
        TypeError: there is something else in it, or a dictionary whose keys are no texts.
    """
    arrays: list[np.ndarray] = []

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value, order="C")
            if array.dtype.kind not in KINDS:
                raise TypeError(f"an array of {array.dtype}")
            arrays.append(array)
            return {ARRAY: [array.dtype.str, *array.shape]}
        if isinstance(value, dict):
            if ARRAY in value or not all(isinstance(name, str) for name in value):
                raise TypeError(f"a dictionary with the keys {list(value)}")
            return {name: plain(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        if value is None or isinstance(value, str | int | float):
            return value
        raise TypeError(f"a {type(value).__name__}")

    head = json.dumps(plain(value)).encode()
    entries = [array.reshape(-1).view(np.uint8).data for array in arrays]
    parts: list[bytes | memoryview] = [len(head).to_bytes(8, "little"), head, *entries]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([MARK, digest.digest(), *parts])


def unpack(content: bytes) -> Any:
    """The value that was packed, its tuples as lists, its arrays as copies; one without dimensions is a scalar.

    Raises:
        ValueError: it is cut short, damaged, or nothing that was packed.
    """
    start = len(MARK) + hashlib.sha256().digest_size
    if content[:start] != MARK + hashlib.sha256(memoryview(content)[start:]).digest():
        raise ValueError("it is damaged, or cut short")
    place = start + 8 + int.from_bytes(content[start : start + 8], "little")

    def whole(value: Any) -> Any:
        nonlocal place
        if isinstance(value, list):
            return [whole(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if ARRAY not in value:
            return {name: whole(inner) for name, inner in value.items()}
        kind, *shape = value[ARRAY]
        dtype = np.dtype(str(kind))
        if dtype.kind not in KINDS or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"it has an array of {kind}")
        count = math.prod(shape)
        array = np.frombuffer(content, dtype, count, place).reshape(shape).copy() if count else np.empty(shape, dtype)
        place += count * dtype.itemsize
        return array if shape else array[()]

    try:
        return whole(json.loads(content[start + 8 : place]))
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"it is nothing that was packed: {error}") from error
