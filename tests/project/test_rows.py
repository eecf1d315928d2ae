"""Names of rows and models, there and back."""

import pytest

from moonshine.project.rows import Row, model_name, parse_model

ROWS = {
    "fetch/resnet34": Row("fetch", "resnet34"),
    "train/seed0": Row("train", "seed0"),
    "distil/at/resnet34-sep": Row("distil", "resnet34-sep", "at"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_name_is_that_of_its_row(name: str) -> None:
    assert Row.parse(name) == ROWS[name]
    assert Row.parse(name).name == str(Row.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    ["", "train", "train/", "/resnet34", "train/at/net", "distil/net", "distil/at/x/net", "distil//net", "test/a"],
)
def test_what_is_no_name_of_a_row_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a row"):
        Row.parse(name)


@pytest.mark.parametrize("row", ROWS.values(), ids=str)
def test_a_models_name_is_that_of_its_row_and_seed(row: Row) -> None:
    seed = None if row.stage == "fetch" else 12
    assert parse_model(model_name(row, seed)) == (row, seed)


@pytest.mark.parametrize(
    "name", ["train/net", "train/net/seed", "train/net/seed-1", "train/net/seed1_0", "train/net/seed 1"]
)
def test_what_is_no_name_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a model"):
        parse_model(name)


def test_a_command_is_given_the_row_without_its_stage() -> None:
    assert [row.argument for row in ROWS.values()] == ["resnet34", "seed0", "at/resnet34-sep"]
