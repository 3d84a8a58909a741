"""Splits: disjoint, complete, stratified and repeatable, for any class counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysearch.tasks.images.splits import cut

COUNTS = st.lists(st.integers(3, 60), min_size=2, max_size=8)


def labels_of(counts: list[int], shuffle: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return np.random.default_rng(shuffle).permutation(labels)


@given(counts=COUNTS, fractions=st.tuples(st.floats(0.01, 0.4), st.floats(0.01, 0.4)), seed=st.integers(0, 5))
def test_parts_are_disjoint_complete_and_hold_every_class(counts: list[int], fractions: tuple[float, float], seed: int) -> None:
    labels = labels_of(counts)
    held_out = dict(zip(("test", "search"), fractions, strict=True))
    parts = cut(labels, [f"c{i}" for i in range(len(counts))], seed=seed, held_out=held_out)
    together = np.concatenate(list(parts.values()))
    assert sorted(together.tolist()) == list(range(len(labels)))
    for indices in parts.values():
        assert set(labels[indices].tolist()) == set(range(len(counts)))


@given(per_class=st.integers(20, 60), classes=st.integers(2, 8), total=st.integers(16, 60))
def test_held_out_images_are_shared_out_evenly(per_class: int, classes: int, total: int) -> None:
    labels = labels_of([per_class] * classes)
    held_out = {"search": min(total, classes * per_class // 2)}
    parts = cut(labels, [str(i) for i in range(classes)], seed=0, held_out=held_out)
    counts = np.bincount(labels[parts["search"]], minlength=classes)
    assert counts.sum() == held_out["search"]
    assert counts.max() - counts.min() <= 1


def test_large_classes_give_more_images() -> None:
    labels = labels_of([100, 300, 600])
    parts = cut(labels, ["a", "b", "c"], seed=0, held_out={"test": 0.2, "search": 100})
    assert np.bincount(labels[parts["test"]]).tolist() == [20, 60, 120]
    assert np.bincount(labels[parts["search"]]).tolist() == [10, 30, 60]


def test_the_seed_alone_decides() -> None:
    labels = labels_of([30, 30])
    first, again, other = (cut(labels, ["a", "b"], seed=s, held_out={"search": 10})["search"].tolist() for s in (1, 1, 2))
    assert first == again
    assert sorted(first) != sorted(other)


def test_one_class_does_not_move_another() -> None:
    few, many = labels_of([20, 20]), np.concatenate([labels_of([20, 20]), np.full(20, 2)])
    before = cut(few, ["a", "b"], seed=0, held_out={"search": 0.5})["search"]
    after = cut(many, ["a", "b", "c"], seed=0, held_out={"search": 0.5})["search"]
    assert set(before.tolist()) == {i for i in after.tolist() if many[i] < 2}


def test_leading_search_images_mix_the_classes() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int64), 50)
    search = cut(labels, list("abcd"), seed=0, held_out={"search": 100})["search"]
    assert set(labels[search[:20]].tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize(("amount", "words"), [(3, "at least one per class"), (37, "ask for fewer")])
def test_impossible_amounts_are_refused(amount: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cut(labels_of([10, 10, 10, 10]), list("abcd"), seed=0, held_out={"search": amount})
