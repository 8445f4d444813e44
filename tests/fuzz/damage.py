"""Damages of files: of the bytes of any file, or of the content of a file of a known format."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

Damage = Callable[[random.Random, bytes], bytes]

_NUMBERS = (0, 1, -1, 2, 255, 2**31, 2**63, 2**64, 10**30, 10**400, 0.5, -0.0, 1e-300, 1e308, -1e308, 1e6)
_TEXTS = ("", "nan", "1", "../..", "\ud800", "a\nb", "$(id)")
_VALUES: tuple[Any, ...] = (None, True, False, *_TEXTS, [], {}, [[]], [None])
_TOKENS = ("NaN", "Infinity", "-Infinity", "1e999", "[" * 3000, '{"a":' * 3000, "01", "'x'", "\x00", "")
_CELLS = ("", "nan", "inf", "-inf", "1e999", "-1", "1_0", "x", '"', "ok", "diverged", "9" * 20, "\x00", "é")
_LITERALS = ("|u1", "<i8", "<f2", "False", "shape", "(", ")", ",", "descr")
_OTHER_LITERALS = ("(", "-", "None", "10**9", "|O8", "|V1", ">i8", "__import__('os')", "1e9", "9" * 11, "True", "")
_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "U16", "C64", "X")


# ---- of bytes -----------------------------------------------------------------------------------------------


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    """Flip one bit or a few."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_bits_of_beginning(rng: random.Random, content: bytes) -> bytes:
    """Flip bits of the first bytes, where headers are."""
    length = min(len(content), rng.choice((16, 128, 1024)))
    return flip_bits(rng, content[:length]) + content[length:]


def truncate(rng: random.Random, content: bytes) -> bytes:
    """Cut off the end, as a full disk does."""
    return content[: rng.choice((0, 1, len(content) // 2, len(content) - 1, rng.randrange(len(content))))]


def zero_block(rng: random.Random, content: bytes) -> bytes:
    """Replace a block by zeros, as a file system may do after a power failure."""
    start, length = rng.randrange(len(content)), rng.choice((1, 16, 512, 4096))
    block = content[start : start + length]
    return content[:start] + bytes(len(block)) + content[start + length :]


def move_block(rng: random.Random, content: bytes) -> bytes:
    """Remove, double or move a block."""
    start, length = rng.randrange(len(content)), rng.choice((1, 16, 512))
    block, rest = content[start : start + length], content[:start] + content[start + length :]
    place = rng.randrange(len(rest) + 1)
    return rng.choice((rest, content[:start] + block + content[start:], rest[:place] + block + rest[place:]))


def append(rng: random.Random, content: bytes) -> bytes:
    """Append the content of the file again, or other bytes."""
    return content + rng.choice((content, b"\x00", b"\n", b"\xff" * 100, rng.randbytes(64)))


BYTES: tuple[Damage, ...] = (flip_bits, flip_bits_of_beginning, truncate, zero_block, move_block, append)


# ---- of JSON ------------------------------------------------------------------------------------------------


def edit_json(rng: random.Random, content: bytes) -> bytes:
    """One or a few values, or keys, of a JSON text."""
    record = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 3))):
        record = _edit_value(rng, record)
    text = json.dumps(record, indent=rng.choice((None, 2)))
    if rng.random() < 0.1:  # what the standard forbids, in the place of a number
        digits = [index for index, character in enumerate(text) if character.isdigit()]
        if digits:
            place = rng.choice(digits)
            text = text[:place] + rng.choice(_TOKENS) + text[place + 1 :]
    return text.encode("utf-8", "surrogatepass")


def _edit_value(rng: random.Random, record: Any) -> Any:
    """Change a value or a key of a JSON, or replace it as a whole."""
    places = list(_list_places(record))
    if not places or rng.random() < 0.03:
        return rng.choice((*_VALUES, *_NUMBERS))
    parent, key = rng.choice(places)
    value = parent[key]
    change = rng.randrange(6)
    if change == 0:
        del parent[key]
    elif change == 1 and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif change == 2 and isinstance(value, (int, float)) and not isinstance(value, bool):
        parent[key] = rng.choice((value + 1, -value, value * 10, float(value), str(value), value / 7))
    elif change == 3:
        other, other_key = rng.choice(places)
        parent[key] = json.loads(json.dumps(other[other_key])) if other_key in other or isinstance(other, list) else 0
    else:
        parent[key] = rng.choice((*_VALUES, *_NUMBERS))
    return record


def _list_places(record: Any) -> Any:
    """Yield the parent and the key of every value in a JSON."""
    if isinstance(record, dict):
        for key in list(record):
            yield record, key
            yield from _list_places(record[key])
    elif isinstance(record, list):
        for index in range(len(record)):
            yield record, index
            yield from _list_places(record[index])


# ---- of safetensors -----------------------------------------------------------------------------------------


def edit_header(rng: random.Random, content: bytes) -> bytes:
    """Edit the JSON that this project stores in the header of a safetensors file."""
    metadata = _read_declaration(content)["__metadata__"]
    text = edit_json(rng, metadata["nfpi"].encode())
    return save(load(content), {"nfpi": text.decode("utf-8", "replace")})


def edit_tensors(rng: random.Random, content: bytes) -> bytes:
    """Change numbers, shapes, types or names of tensors, and write a valid file."""
    tensors, metadata = load(content), _read_declaration(content).get("__metadata__")
    names = sorted(tensors)
    if not names:
        return content[:-1]
    name = rng.choice(names)
    tensors[name] = _edit_tensor(rng, tensors[name])
    change = rng.randrange(8)
    if change == 0:
        del tensors[name]
    elif change == 1:
        tensors[name + ".more"] = tensors.pop(name)
    elif change == 2:
        other = rng.choice(names)
        if other in tensors:
            tensors[name], tensors[other] = tensors[other], tensors[name]
    elif change == 3:
        tensors["more"] = torch.ones(2)
    return save({key: value.clone().contiguous() for key, value in tensors.items()}, metadata)


def _edit_tensor(rng: random.Random, tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    flat = tensor.view(-1)
    change = rng.randrange(7)
    if change < 4 and flat.numel():
        number = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 1e30, -1e30, 1.0))
        if not tensor.is_floating_point():
            number = rng.choice((0, 1, 100))
        flat[rng.randrange(flat.numel())] = number
        return tensor
    if change == 4:
        return tensor[None]
    if change == 5:
        return tensor.to(rng.choice((torch.float16, torch.float32, torch.float64, torch.int32, torch.complex64)))
    return flat[: flat.numel() // 2]


def edit_declaration(rng: random.Random, content: bytes) -> bytes:
    """Change the types, shapes or offsets that the header of a safetensors file declares."""
    declared = _read_declaration(content)
    names = [name for name in declared if name != "__metadata__"]
    start = 8 + struct.unpack("<Q", content[:8])[0]
    if names and rng.random() < 0.5:
        entry = declared[rng.choice(names)]
        if rng.random() < 0.5:
            entry["dtype"] = rng.choice(_TYPES)
        else:
            entry["shape"] = rng.choice((entry["shape"][::-1], [], [0], [-1], [2**62, 4], [*entry["shape"], 1]))
    else:
        declared = _edit_value(rng, declared)
    text = json.dumps(declared).encode("utf-8", "surrogatepass")
    length = len(text) if rng.random() < 0.9 else rng.choice((0, 2**63, len(text) - 1, len(content)))
    return struct.pack("<Q", length) + text + content[start:]


def _read_declaration(content: bytes) -> dict[str, Any]:
    length = struct.unpack("<Q", content[:8])[0]
    declared: dict[str, Any] = json.loads(content[8 : 8 + length])
    return declared


# ---- of tables ----------------------------------------------------------------------------------------------


def edit_csv(rng: random.Random, content: bytes) -> bytes:
    """Change cells, rows or columns of a table."""
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    change = rng.randrange(7)
    row = rng.randrange(len(rows))
    if change == 0:
        del rows[row]
    elif change == 1:
        rows.insert(rng.randrange(len(rows) + 1), list(rows[row]))
    elif change == 2 and rows[row]:
        del rows[row][rng.randrange(len(rows[row]))]
    elif change == 3:
        rows[row].insert(rng.randrange(len(rows[row]) + 1), rng.choice(_CELLS))
    elif change == 4 and rows[0]:
        column = rng.randrange(len(rows[0]))
        rows = [[cell for index, cell in enumerate(cells) if index != column] for cells in rows]
    elif rows[row]:
        column = rng.randrange(len(rows[row]))
        digits = rows[row][column]
        rows[row][column] = rng.choice((*_CELLS, digits[1:], digits + "0", "-" + digits))
    text = io.StringIO()
    csv.writer(text, lineterminator=rng.choice(("\n", "\n", "\r\n"))).writerows(rows)
    return text.getvalue().encode()


# ---- of NumPy's files ---------------------------------------------------------------------------------------


def edit_array(rng: random.Random, content: bytes) -> bytes:
    """Change the array of an npy file, or write an archive in its place."""
    array = np.load(io.BytesIO(content))
    file = io.BytesIO()
    if rng.random() < 0.1:
        np.savez(file, array)
    else:
        np.save(file, _edit_array(rng, array), allow_pickle=True)
    return file.getvalue()


def edit_array_header(rng: random.Random, content: bytes) -> bytes:
    """Change the Python literal in the header of an npy file, but not the length of the header."""
    length = 10 + struct.unpack("<H", content[8:10])[0]
    header = content[10:length].decode("latin1")
    old = rng.choice([part for part in _LITERALS if part in header])
    header = header.replace(old, rng.choice(_OTHER_LITERALS), 1).rstrip() + " "
    return content[:10] + header.encode("latin1")[: length - 10].ljust(length - 11) + b"\n" + content[length:]


def _edit_array(rng: random.Random, array: np.ndarray) -> np.ndarray:
    array = array.copy()
    change = rng.randrange(6)
    if change == 0 and array.size:
        number = rng.choice((np.nan, np.inf)) if array.dtype.kind == "f" else rng.choice((0, 1, 100))
        array.reshape(-1)[rng.randrange(array.size)] = number
        return array
    changes = (array[:-1], array[None], array.astype(rng.choice(("f4", "i4", "u1", "O", "M8[s]"))), array.T, array[()])
    return changes[change - 1]


def edit_archive(rng: random.Random, content: bytes) -> bytes:
    """Change arrays of an npz file, and write it with valid checksums."""
    arrays = dict(np.load(io.BytesIO(content)))
    if not arrays:
        return content[:-1]
    name = rng.choice(sorted(arrays))
    change = rng.randrange(4)
    if change == 0:
        del arrays[name]
    elif change == 1:
        arrays[name + "x"] = arrays.pop(name)
    else:
        arrays[name] = _edit_array(rng, arrays[name])
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def edit_member(rng: random.Random, content: bytes) -> bytes:
    """Change bytes of a member of a zip archive, and write it with valid checksums."""
    source, file = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    names = source.namelist()
    if not names:
        return content[:-1]
    chosen = rng.choice(names)
    with zipfile.ZipFile(file, "w") as target:
        for name in names:
            data = source.read(name)
            if name == chosen and data:
                data = rng.choice(BYTES)(rng, data)
            target.writestr(name, data)
    return file.getvalue()


# ---- of checkpoints of torch --------------------------------------------------------------------------------


def edit_checkpoint(rng: random.Random, content: bytes) -> bytes:
    """Change the tensors of a checkpoint of torch, and write a valid file."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    tensors = state["state_dict"]
    for _ in range(rng.choice((1, 1, 4))):
        name = rng.choice(list(tensors))
        change = rng.randrange(7)
        if change == 0:
            del tensors[name]
        elif change == 1:
            tensors[rng.choice((3, None, name + ".0", name.replace("0", "9"), name.upper()))] = tensors.pop(name)
        elif change == 2:
            tensors[name] = rng.choice(_VALUES)
        elif isinstance(tensors[name], torch.Tensor):
            tensors[name] = _edit_tensor(rng, tensors[name])
        if not tensors:
            break
    if rng.random() < 0.1:
        state["state_dict"] = rng.choice(_VALUES)
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


OF_FORMAT: dict[str, tuple[Damage, ...]] = {
    ".json": (edit_json,),
    ".safetensors": (edit_header, edit_tensors, edit_declaration),
    ".csv": (edit_csv,),
    ".npy": (edit_array, edit_array_header),
    ".npz": (edit_archive, edit_member),
    ".ckpt": (edit_checkpoint, edit_member),
}
"""Damages of the content, by the suffix of a file; most leave the format valid."""


def damage(rng: random.Random, suffix: str, content: bytes, others: list[bytes]) -> tuple[str, bytes]:
    """Damage the content of a file.

    Args:
        rng: source of all choices.
        suffix: of the file.
        content: of the file.
        others: contents of other files, one of which may take its place.

    Returns:
        the kind of damage, and the damaged content, which differs from `content`.
    """
    while True:
        if rng.random() < 0.04:
            name, changed = "swap", rng.choice(others)
        else:
            chosen = rng.choice(OF_FORMAT[suffix] if rng.random() < 0.6 else BYTES)
            name, changed = chosen.__name__, chosen(rng, content)
        if changed != content:
            return name, changed
