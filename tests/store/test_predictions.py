"""What a network said of the test images, as a file: names of any form, and one line for a damaged one."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from raysearch.store.predictions import Predictions, read_predictions, write_predictions

LABELS, PREDICTED = np.array([0, 1, 2, 1]), np.array([0, 2, 1, 0])
SAID = Predictions(LABELS, PREDICTED, np.array([0.9, 0.4, 0.8, 0.8], np.float32), pictures={2: b"\x89PNG"})


def test_names_and_numbers_are_read_back(tmp_path: Path) -> None:
    latin = os.fsdecode(b"caf\xe9")
    said = replace(SAID, classes=("<b>", latin, "\N{SNOWMAN}"), names=[f"{latin}/1.jpg", "b/2.jpg", "b/3.jpg", "b/4.jpg"])
    write_predictions(tmp_path / "said.parquet", said)
    found = read_predictions(tmp_path / "said.parquet")
    assert found.classes == said.classes
    assert found.names == ["caf\N{REPLACEMENT CHARACTER}/1.jpg", "b/2.jpg", "b/3.jpg", "b/4.jpg"]
    assert found.pictures == {2: b"\x89PNG"}
    for name in ("labels", "predicted", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(said, name))
    assert pq.read_table(tmp_path / "said.parquet").column_names == [
        "item", "name", "label", "predicted", "confidence", "picture"
    ]  # fmt: skip


def test_mistakes_come_the_most_confident_first_and_ties_in_the_order_of_the_split(tmp_path: Path) -> None:
    assert SAID.confident_mistakes(10) == [2, 3, 1]
    assert SAID.confident_mistakes(1) == [2]
    write_predictions(tmp_path / "said.parquet", SAID)
    found = read_predictions(tmp_path / "said.parquet")
    assert (found.names, found.class_name(2)) == (None, "2")


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"said\.parquet is missing"):
        read_predictions(tmp_path / "said.parquet")
    (tmp_path / "said.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"said\.parquet is damaged or no table of predictions"):
        read_predictions(tmp_path / "said.parquet")
