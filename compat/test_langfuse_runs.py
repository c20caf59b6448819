"""Langfuse's unmodified client running experiments over our datasets, and scoring traces."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone

import pytest
from langfuse import Evaluation, Langfuse
from langfuse.api.core import ApiError

from polling import eventually


@pytest.fixture(scope="module")
def langfuse(server):
    key = server.make_key("--role", "editor")
    client = Langfuse(public_key=key["key"]["prefix"], secret_key=key["secret"], base_url=server.url, flush_interval=0.2)
    eventually(client.auth_check)
    yield client
    client.shutdown()


@pytest.fixture
def dataset(langfuse):
    name = f"langfuse/{uuid.uuid4().hex[:8]}/首都"
    langfuse.create_dataset(name=name)
    for country, city in (("Italy", "Rome"), ("日本", "東京"), ("France", "Paris")):
        langfuse.create_dataset_item(dataset_name=name, input={"country": country}, expected_output=city, metadata={"country": country})
    return langfuse.get_dataset(name)


def since() -> datetime:
    return datetime.now(timezone.utc) - timedelta(hours=1)


def answer(*, item, **_):
    if item.input["country"] == "France":
        raise RuntimeError("no idea")
    return {"Italy": "Rome", "日本": "京都"}[item.input["country"]]


def right(*, output, expected_output, **_):
    return Evaluation(name="right", value=float(output == expected_output), comment="compared", metadata={"by": "test"})


def tone(**_):
    return [Evaluation(name="tone", value="平叙", data_type="CATEGORICAL"), Evaluation(name="short", value=True, data_type="BOOLEAN")]


def share(*, item_results, **_):
    return Evaluation(name="share", value=len(item_results) / 3, comment="of three")


def test_an_experiment_is_kept(langfuse, dataset, server):
    done = dataset.run_experiment(
        name="capitals", run_name="第一回", description="to begin with", task=answer, evaluators=[right, tone], run_evaluators=[share], metadata={"model": "none"},
    )
    assert len(done.item_results) == 2
    runs = eventually(lambda: [run for run in langfuse.api.experiments.list(from_start_time=since(), fields="core,metadata,scores", dataset_id=dataset.name).data if run.item_count == 3 and run.scores])
    [run] = runs
    assert (run.id, run.name, run.description, run.dataset_id) == (done.experiment_id, "第一回", "to begin with", dataset.name)
    assert run.metadata == {"model": "none"}
    assert [(score.name, score.subject.kind) for score in run.scores] == [("share", "experiment")]
    fields = "core,dataset,io,metadata,itemMetadata,experimentMetadata,scores"
    items = eventually(lambda: _scored(langfuse, run.id, fields))
    assert len(items) == 3
    by_country = {item.input["country"]: item for item in items}
    rome = by_country["Italy"]
    assert (rome.output, rome.expected_output, rome.level) == ("Rome", "Rome", "DEFAULT")
    assert (rome.experiment_dataset_id, rome.experiment_item_metadata, rome.environment) == (dataset.name, {"country": "Italy"}, "sdk-experiment")
    assert {(score.name, score.value) for score in rome.scores} == {("right", 1.0), ("tone", "平叙"), ("short", True)}
    assert {score.value for score in by_country["日本"].scores if score.name == "right"} == {0.0}
    assert by_country["France"].level == "ERROR" and by_country["France"].output == "Error: no idea"
    # The items of the run are the dataset's, and their traces are traces.
    assert {item.experiment_item_id for item in items} == {item.id for item in dataset.items}
    trace = server.trace(rome.trace_id)
    assert {span["name"] for span in trace["spans"]} >= {"experiment-item-run", "experiment-item-task", "experiment-item-evaluation"}
    assert {score["name"] for score in trace["scores"]} == {"right", "tone", "short"}


def _scored(langfuse, run: str, fields: str):
    items = langfuse.api.experiments.list_items(from_start_time=since(), experiment_id=run, fields=fields).data
    return items if sum(len(item.scores) for item in items) == 6 else None


def test_the_same_run_name_is_the_same_run(langfuse, dataset):
    first = dataset.run_experiment(name="again", run_name="again", task=lambda **_: "x")
    second = dataset.run_experiment(name="again", run_name="again", task=lambda **_: "y")
    assert first.experiment_id == second.experiment_id
    items = eventually(lambda: _count(langfuse, first.experiment_id, 6))
    assert sorted(item.output for item in items) == ["x"] * 3 + ["y"] * 3
    # Page by page, every item once.
    seen, cursor = [], None
    while True:
        page = langfuse.api.experiments.list_items(from_start_time=since(), experiment_id=first.experiment_id, limit=4, cursor=cursor)
        seen += [item.id for item in page.data]
        cursor = page.meta.cursor
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 6


def _count(langfuse, run: str, count: int):
    items = langfuse.api.experiments.list_items(from_start_time=since(), experiment_id=run, fields="core,io").data
    return items if len(items) == count else None


def test_data_that_is_in_no_dataset(langfuse):
    done = langfuse.run_experiment(name="local", data=[{"input": "1+1", "expected_output": "2"}], task=lambda **_: "2")
    [item] = eventually(lambda: _count(langfuse, done.experiment_id, 1))
    assert (item.input, item.output, item.experiment_dataset_id) == ("1+1", "2", None)


def test_scores_of_traces(langfuse, server):
    with langfuse.start_as_current_observation(name="質問", as_type="generation", model="acme/one", input=[{"role": "user", "content": "hello"}]) as span:
        span.update(output="hi", usage_details={"input": 3, "output": 2}, cost_details={"total": 0.25})
        trace, observation = span.trace_id, span.id
        span.score(name="helpful", value=0.5, comment="so-so")
    langfuse.create_score(trace_id=trace, name="overall", value="good", data_type="CATEGORICAL", score_id=f"mine-{trace}")
    langfuse.flush()
    shown = server.trace(trace)
    [row] = shown["spans"]
    assert (row["name"], row["kind"], row["status"]) == ("質問", "llm", "ok")
    scores = eventually(lambda: _all(langfuse, trace, 2))
    assert {(score.name, score.value, score.subject.kind) for score in scores} == {("helpful", 0.5, "observation"), ("overall", "good", "trace")}
    assert {score.subject.id for score in scores if score.name == "helpful"} == {observation}
    # The same id again replaces what was said.
    langfuse.create_score(trace_id=trace, name="overall", value="bad", data_type="CATEGORICAL", score_id=f"mine-{trace}")
    langfuse.flush()
    eventually(lambda: [score.value for score in _all(langfuse, trace, 2) if score.name == "overall"] == ["bad"])
    [overall] = [score for score in server.trace(trace)["scores"] if score["name"] == "overall"]
    assert overall["value"] == "bad"
    assert langfuse.api.scores.get_many(trace_id=trace, data_type="NUMERIC").data[0].name == "helpful"
    with pytest.raises(ApiError):
        langfuse.api.scores.get_many(limit=1000)


def _all(langfuse, trace: str, count: int):
    scores = langfuse.api.scores.get_many(trace_id=trace, fields="details,subject").data
    return scores if len(scores) == count else None
