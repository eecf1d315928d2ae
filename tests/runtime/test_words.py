"""Numbers in sentences."""

import pytest

from moonshine.runtime.words import counted


@pytest.mark.parametrize(("count", "text"), [(0, "0 tables"), (1, "1 table"), (2, "2 tables")])
def test_only_one_is_singular(count: int, text: str) -> None:
    assert counted(count, "table") == text
