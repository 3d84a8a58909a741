"""What a search says of the candidates that have no score."""

from __future__ import annotations

from raysearch.jobs.watching import Failures
from raysearch.search import Failure, Result


def test_candidates_without_a_score_are_told_after_their_generation_and_only_then() -> None:
    said: list[str] = []
    failures = Failures(said.append)
    for outcome in (Failure("outputs are not finite"), Result(0.5, 1, 1, 1), Failure("outputs are not finite")):
        failures.take(outcome)
    failures.take(Failure("3 evaluators were lost while scoring it"))
    failures.end_generation(1)
    failures.take(Result(0.5, 1, 1, 1))
    failures.end_generation(2)
    reasons = "outputs are not finite: 2; 3 evaluators were lost while scoring it: 1"
    assert said == [f"3 of 4 candidates of generation 1 have no score ({reasons})"]
