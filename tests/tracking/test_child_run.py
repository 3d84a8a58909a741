"""What MLflow is told of a candidate, before any store is involved."""

from dataclasses import replace

from tracked_search import candidate

from raysearch.tracking.child_run import child_run


def test_a_raced_candidate_cannot_lead_a_table_sorted_by_score() -> None:
    whole = candidate(1)
    assert whole.result is not None
    raced = replace(whole, outcome=replace(whole.result, score=1.0, items_seen=20, excluded="raced"))
    run = child_run(raced)
    assert (run.status, run.tags["raysearch.status"]) == ("FINISHED", "raced")
    assert (run.metrics["partial_score"], run.metrics["images_seen"]) == (1.0, 20)
    assert "score" not in run.metrics
    assert "loss" not in run.metrics
    run = child_run(whole)
    assert run.tags["raysearch.status"] == "scored"
    assert run.metrics["score"] == whole.result.score
    assert "partial_score" not in run.metrics
