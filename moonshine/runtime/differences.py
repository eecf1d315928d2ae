"""What differs between two versions of nested values, in words."""

from typing import Any

FILES_NAMED = 4
"""Changed code files that are listed by name; if there are more, only their number is given."""


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys whose values differ, as `recipe.lr: 0.1 -> 0.05`."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            is_hash = key in ("data", "teacher", "latencies") or prefix == "code."
            found.append(f"{prefix}{key}: {'changed' if is_hash else f'{before} -> {after}'}")
    return found


def in_words(changes: list[str]) -> str:
    """The changes in one line; if many code files changed, only their number."""
    code = [change for change in changes if change.startswith("code.")]
    others = [change for change in changes if change not in code]
    return "; ".join([*others, *(code if len(code) <= FILES_NAMED else [f"code: {len(code)} files changed"])])
