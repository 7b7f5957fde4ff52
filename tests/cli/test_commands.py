"""The command line as a user has it: a study in a file, run, looked at, steered, gone on with."""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thalweg.cli import main

STUDY = """
[study]
metric = "min loss"
workers = 1
keep_checkpoints = "all"

[budget]
runs = 4

[strategy]
name = "halving"
sampler = "random"

[space]
x = { linear = [-2.0, 2.0] }
kind = { choice = ["a", "b"] }

[trainer]
kind = "function"
file = "walk.py"
function = "walk"
horizon = 18
"""

WALK = """
class Counter:
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

def walk(run):
    state = run.restore(counter=Counter())
    total = state.get("total", 0.0)
    for position in run.positions():
        total += float(run.hyperparameters["x"])
        state["total"] = total
        run.log(position, total=total)
    return abs(total)
"""

Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def thalweg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in a folder with a study file; gives its exit code, stdout and stderr."""
    (tmp_path / "walk.py").write_text(WALK)
    (tmp_path / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["thalweg", *shlex.split(line)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return run


def data(result: tuple[int, str, str]) -> Any:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_a_study_is_run_and_looked_at(thalweg: Command, tmp_path: Path) -> None:
    code, out, err = thalweg("tune study.toml")
    assert (code, err) == (0, "")
    for word in ("Plan of study", "4 runs", "started study-0", "finished study-", "Best: study-", "report.html"):
        assert word in out, word
    assert "<html" in (tmp_path / "report.html").read_text()
    code, out, _ = thalweg("runs")
    assert code == 0
    assert "study-3" in out
    code, out, _ = thalweg("show study-0")
    assert "position" in out
    assert "at 2" in out


def test_json_is_one_object_everywhere(thalweg: Command) -> None:
    tuned = data(thalweg("tune study.toml --json"))
    assert tuned["best"]["run"].startswith("study-")
    assert [run["number"] for run in data(thalweg("runs --json"))["study"]] == [0, 1, 2, 3]
    best = tuned["best"]["run"]
    shown = data(thalweg(f"show {best} --json"))
    assert (shown["id"], shown["status"], shown["lineage"]) == (best, "finished", [best])
    assert {record["position"] for record in shown["checkpoints"]} == {2, 6, 18}
    assert data(thalweg("report study --json"))["best"]["run"] == best
    request = data(thalweg(f"fork {best} --at 6 --set x=0.5 --json"))
    assert request == {"request": 1, "study": "study", "running": False}
    assert data(thalweg("resume study --json"))["best"]["run"]


def test_the_same_command_again_goes_on_and_a_changed_file_is_refused(thalweg: Command, tmp_path: Path) -> None:
    thalweg("tune study.toml --json")
    before = data(thalweg("runs --json"))
    assert data(thalweg("tune study.toml --json"))
    assert data(thalweg("runs --json")) == before
    (tmp_path / "study.toml").write_text(STUDY.replace("-2.0, 2.0", "-2.0, 3.0"))
    code, out, err = thalweg("tune study.toml")
    assert (code, out) == (2, "")
    assert "space.x.linear: was [-2.0, 2.0], is now [-2.0, 3.0]" in err
    assert "seed" not in err


def test_a_study_goes_on_with_a_larger_budget(thalweg: Command) -> None:
    thalweg("tune study.toml --json")
    data(thalweg("resume study --budget '6 runs' --json"))
    assert len(data(thalweg("runs study --json"))["study"]) == 6
    assert data(thalweg("resume study --json"))
    assert len(data(thalweg("runs study --json"))["study"]) == 6


def test_forks_and_stops_made_by_hand_join_the_tree(thalweg: Command) -> None:
    thalweg("tune study.toml --json")
    runs = data(thalweg("runs --json"))["study"]
    best = next(run for run in runs if run["status"] == "finished")["id"]
    paused = next(run for run in runs if run["status"] == "paused")["id"]
    code, out, _ = thalweg(f"fork {best} --at 6 --set x=-1 --set kind=b")
    assert code == 0
    assert "thalweg resume study" in out
    assert thalweg(f"stop {paused}")[0] == 0
    thalweg("resume study --json")
    child = data(thalweg("show study-4 --json"))
    assert (child["parent"], child["fork_position"], child["origin"]) == (best, 6, "hand")
    assert child["hyperparameters"] == {"x": -1, "kind": "b"}
    assert child["lineage"] == [best, "study-4"]
    assert child["position"] == 18
    assert data(thalweg(f"show {paused} --json"))["status"] == "stopped"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("show study-9", "unknown run 'study-9'. Did you mean"),
        ("runs stduy", "unknown study 'stduy'. Did you mean 'study'"),
        ("fork study-0 --at 5", "no checkpoint at position 5: it has them at"),
        ("fork study-0 --set y=1", "unknown name 'y'"),
        ("fork study-0 --set x", "must be NAME=VALUE"),
        ("fork study-0 --at 6 --until 6", "--until 6 must lie beyond the fork point, 6"),
        ("resume study --budget '3 parsecs'", "unknown unit 'parsecs'"),
        ("runs --store other.db", "store 'other.db' does not exist"),
        ("tune other.toml", "other.toml: there is no such file"),
        ("tune walk.py", "walk.py: cannot be read as TOML"),
    ],
)
def test_commands_that_cannot_work_say_why(thalweg: Command, command: str, message: str) -> None:
    thalweg("tune study.toml --json")
    code, out, err = thalweg(command)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_runs_that_keep_failing_end_with_exit_code_one(thalweg: Command, tmp_path: Path) -> None:
    (tmp_path / "walk.py").write_text("def walk(run):\n    raise ValueError('no such column: txet')\n")
    code, _, err = thalweg("tune study.toml")
    assert code == 1
    assert "no such column: txet" in err


def test_ctrl_c_stops_with_checkpoints_and_the_same_command_goes_on(thalweg: Command, tmp_path: Path) -> None:
    slow = WALK.replace("run.log(", "__import__('time').sleep(0.02); run.log(")
    (tmp_path / "walk.py").write_text(slow)
    whole_runs = STUDY.replace('name = "halving"\nsampler = "random"', 'name = "random"')
    study = whole_runs.replace("horizon = 18", "horizon = 180").replace("runs = 4", "runs = 2")
    (tmp_path / "study.toml").write_text(study)
    code = "import sys; sys.argv = ['thalweg', 'tune', 'study.toml']; from thalweg.cli import main; main()"
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=err)
        deadline = time.monotonic() + 60
        while "started" not in (tmp_path / "out").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert process.wait(20) == 130
    assert time.monotonic() - asked < 5
    assert (tmp_path / "err").read_text() == "interrupted; the same command goes on where it stopped\n"
    assert data(thalweg("runs --json"))["study"][0]["status"] == "interrupted"
    assert data(thalweg("tune study.toml --json"))["best"]["position"] == 180


def test_every_command_has_help_with_an_example(thalweg: Command) -> None:
    code, out, _ = thalweg("--help")
    assert code == 0
    commands = [line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.startswith("  ")]
    commands = [command for command in commands if command.isalpha() and command.islower()]
    assert {"tune", "resume", "runs", "show", "report", "stop", "fork"} <= set(commands)
    for command in ("tune", "resume", "runs", "show", "report", "stop", "fork"):
        code, out, _ = thalweg(f"{command} --help")
        assert code == 0
        assert f"Example: thalweg {command}" in out
        assert "--json" in out


def test_the_shell_completes_runs_and_studies(thalweg: Command) -> None:
    thalweg("tune study.toml --json")
    for words, expected in (("show study-", ["study-0", "study-1", "study-2", "study-3"]), ("resume s", ["study"])):
        asked = {"_THALWEG_COMPLETE": "complete_bash", "COMP_WORDS": f"thalweg {words}", "COMP_CWORD": "2"}
        code = "import sys; sys.argv = ['thalweg']; from thalweg.cli import main; main()"
        answer = subprocess.run([sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True)
        assert answer.stdout.split() == expected, answer.stderr


def test_numbers_that_json_does_not_know_are_strings(thalweg: Command, tmp_path: Path) -> None:
    (tmp_path / "walk.py").write_text("def walk(run):\n    return float('nan')\n")
    thalweg("tune study.toml --json")
    _, out, _ = thalweg("runs --json")
    assert "NaN" not in out
    assert json.loads(out)["study"][0]["reports"][0]["metrics"] == {"loss": "nan"}


README = Path(__file__).parents[2] / "README.md"


def test_the_studies_in_the_readme_are_read(tmp_path: Path) -> None:
    """Each TOML block of the README is a whole study file that passes the schema."""
    import tomllib

    from thalweg.cli.study_file import StudyFile

    blocks = README.read_text().split("```toml")[1:]
    assert blocks
    for block in blocks:
        StudyFile.model_validate(tomllib.loads(textwrap.dedent(block.split("```")[0])))
