"""What the pages read: projects, runs, the page itself."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from thalweg.track.records import NewRun
from thalweg.track.store import Store


def test_projects_are_listed_with_what_became_of_their_runs(client: httpx.Client) -> None:
    answer = client.get("/api/projects").json()
    vision, imdb = answer["projects"]
    assert (vision["name"], vision["kind"], vision["metric"], vision["num_runs"]) == ("vision", "project", None, 3)
    assert (imdb["name"], imdb["kind"], imdb["metric"]) == ("imdb", "study", {"name": "accuracy", "goal": "max"})
    assert imdb["statuses"] == {"paused": 3, "finished": 1}
    assert imdb["best"] == {"run": "imdb-3", "value": 0.8}
    assert (imdb["running"], imdb["paused"], imdb["num_live"]) == (False, False, 0)
    assert answer["read_only"] is False


def test_a_study_says_what_it_is_and_what_it_has_spent(client: httpx.Client) -> None:
    imdb = client.get("/api/projects/imdb").json()
    assert imdb["budget"]["limits"] == {"runs": 10, "device_seconds": 100.0}
    # Four runs of 4 device seconds each.
    assert imdb["budget"]["spent"] == {"runs": 4, "device_seconds": 16.0}
    assert imdb["budget"]["left"] == {"runs": 6, "device_seconds": 84.0}
    assert imdb["ledger"]["kinds"]["train"]["samples"] == 200
    assert imdb["ledger"]["kinds"]["evaluate"]["samples"] == 0
    assert imdb["ledger"]["total"]["device_seconds"] == 16.0
    assert imdb["hyperparameters"] == ["lr", "batch_size", "dropout"]
    assert "validation/accuracy" in imdb["metrics"]
    assert (imdb["session"], imdb["unit"], imdb["decimals"]) == (None, "samples", 0)


def test_runs_come_with_steps_and_not_positions(client: httpx.Client, web: Any) -> None:
    root, fork, orphan = client.get("/api/projects/vision/runs").json()["runs"]
    assert (root["id"], root["step"], root["latest"]["loss"]) == ("vision-0", 10, [10, "nan"])
    assert root["latest"]["acc/top 1"] == [9, 0.9]
    assert (fork["parent"], fork["fork_step"], fork["latest"]) == ("vision-0", 5, {"loss": [5.5, 0.25]})
    assert (orphan["parent"], orphan["waiting_parent"], orphan["fork_step"]) == (None, "not here", 1)
    assert (root["num_notes"], root["cost_seconds"], root["score"]) == (1, None, None)


def test_a_studys_runs_have_a_score_and_a_cost(client: httpx.Client) -> None:
    runs = client.get("/api/projects/imdb/runs").json()["runs"]
    assert [run["score"] for run in runs] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert {run["cost_seconds"] for run in runs} == {4.0}


def test_some_runs_can_be_asked_for(client: httpx.Client) -> None:
    assert [run["id"] for run in client.get("/api/projects/imdb/runs?ids=imdb-2,imdb-0").json()["runs"]] == [
        "imdb-2",
        "imdb-0",
    ]
    many = ",".join(f"imdb-{i}" for i in range(30))
    assert len(client.get(f"/api/projects/imdb/runs?ids={many}").json()["runs"]) == 4
    # One that somebody has deleted since is left out.
    assert [run["id"] for run in client.get("/api/projects/imdb/runs?ids=gone,imdb-1").json()["runs"]] == ["imdb-1"]
    # A run of another project is not among them.
    assert client.get("/api/projects/imdb/runs?ids=vision-0").json()["runs"] == []


def test_one_run_in_full(client: httpx.Client) -> None:
    run = client.get("/api/runs/vision-1").json()
    assert run["project"] == "vision"
    assert run["lineage"] == [{"run": "vision-0", "from_step": 0}, {"run": "vision-1", "from_step": 5}]
    assert run["metrics"] == ["acc/top 1", "loss"]
    root = client.get("/api/runs/vision-0").json()
    assert root["children"] == [{"id": "vision-1", "fork_step": 5, "name": None, "status": "finished"}]
    assert root["facts"] == {"git": "abc"}
    assert [(note["text"], note["author"]) for note in root["notes"]] == [("first", "ada")]
    study_run = client.get("/api/runs/imdb-0").json()
    assert [(point["step"], point["num_bytes"]) for point in study_run["checkpoints"]] == [(50, 1000)]
    assert study_run["cost"]["train"]["samples"] == 50


def test_a_script_in_a_name_is_data(client: httpx.Client, web: Any) -> None:
    answer = client.get("/api/runs/vision-0")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    run = answer.json()
    assert run["name"] == web.script
    assert run["tags"] == [web.script, "a/b"]
    assert run["hyperparameters"][web.script] == web.script
    assert web.script not in client.get("/").text


def test_the_snippet_is_python_whatever_the_names(client: httpx.Client, store: Store) -> None:
    odd = '"""\'); import os #\\\n'
    run, _ = store.track_run("vision", NewRun(uid="odd", hyperparameters={odd: odd, "x": [1.5, None]}))
    snippet = client.get(f"/api/runs/{run}").json()["snippet"]
    compile(snippet, "snippet", "exec")
    assert f"fork_of='{run}'" in snippet
    compile(client.get("/api/runs/imdb-1").json()["snippet"], "snippet", "exec")
    store.delete_run(run)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -0.0, 5e-324])
def test_odd_numbers_arrive(client: httpx.Client, store: Store, value: float) -> None:
    run, _ = store.track_run("vision", NewRun(uid=f"n{value}", hyperparameters={"x": value}, status="finished"))
    raw = client.get("/api/projects/vision/runs").content
    got = json.loads(raw, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["runs"][-1]
    given = got["hyperparameters"]["x"]
    assert given == str(value) if not math.isfinite(value) else (given == value)
    store.delete_run(run)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/api/projects/imbd", "imdb"),
        ("/api/projects/imbd/runs", "imdb"),
        ("/api/runs/vision-99", "vision"),
        ("/api/runs/vision-99/curve?metric=loss", "vision"),
        ("/api/projects/imdb/plots/histori", "history"),
        ("/api/events?project=imbd", "imdb"),
        ("/api/nothing", "openapi"),
        ("/api/runs/vision-0/files/x", "no file"),
    ],
)
def test_what_is_not_there_is_404_with_what_is(client: httpx.Client, path: str, named: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert named in answer.json()["error"]


def test_the_page_is_at_each_of_its_addresses(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/p/vision", "/p/gpt-2.5", "/r/vision-0", "/compare?runs=a,b", "/nothing"):
        assert client.get(path).content == page.content
    assert client.get("/nothing.js").status_code == 404


def test_plots_come_as_plotly_json_or_say_what_they_need(client: httpx.Client, store: Store) -> None:
    figure = client.get("/api/projects/imdb/plots/history").json()["figure"]
    assert figure["data"]
    store.create_study("empty", {**store.study("imdb").config})
    answer = client.get("/api/projects/empty/plots/history")
    assert answer.status_code == 422
    assert answer.json()["error"]
    assert client.get("/api/projects/vision/plots/history").status_code == 422


def test_an_answer_has_another_method_than_it_allows(client: httpx.Client, server: Any) -> None:
    answer = client.request("DELETE", "/api/projects", headers={"x-thalweg-token": server.access.token})
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert client.head("/api/projects").status_code == 200
