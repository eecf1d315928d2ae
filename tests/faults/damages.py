"""Kinds of damage to a file."""

import random
from collections.abc import Callable
from pathlib import Path


def truncate(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def truncate_at_a_block(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: 512 * chance.randrange(1 + path.stat().st_size // 512)])


def flip_a_bit(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def zero_a_page(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    first = 4096 * chance.randrange(1 + len(content) // 4096)
    path.write_bytes(content[:first] + bytes(len(content[first : first + 4096])) + content[first + 4096 :])


def empty(path: Path, chance: random.Random) -> None:
    path.write_bytes(b"")


def delete(path: Path, chance: random.Random) -> None:
    path.unlink()


def make_a_folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def dangle(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    flip_a_bit,
    truncate,
    truncate_at_a_block,
    zero_a_page,
    empty,
    delete,
    make_a_folder,
    dangle,
)
