"""Runs are listed with their results, and two are compared in settings and on the episodes that both met."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import main
import retail.train

TINY = ["--episodes", "4", "--num-envs", "2", "--no-plots", "--quiet", "--set", "batch_size=8", "learning_starts=20"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two finished runs in one folder: gamma 0.96 and 0.5, judged on 3 and 4 episodes."""
    out = tmp_path_factory.mktemp("results")
    for flags in (["--eval-episodes", "3"], ["--eval-episodes", "4", "gamma=0.5"]):
        retail.train.main([*flags[:2], *TINY, *flags[2:], "--out", str(out)])
    return sorted(path for path in out.iterdir() if path.is_dir())


@pytest.fixture
def copies(two, tmp_path):
    return [shutil.copytree(path, tmp_path / path.name) for path in two]


def refused(capsys, *flags) -> str:
    assert main.main([str(flag) for flag in flags]) == 2
    return capsys.readouterr().err


def test_runs_are_listed_with_what_they_trained_and_what_came_out(copies, capsys):
    summary = pd.read_csv(copies[0] / "summary.csv").set_index("policy")["total_cost"]
    (copies[1] / "summary.csv").unlink()
    assert main.main(["--runs", str(copies[0].parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if "maddpg" in line]
    assert [row[0] for row in rows] == [path.name for path in copies] and max(map(len, lines)) <= 100
    assert rows[0][1:3] == ["4", "medium"] and rows[0][3] == f"{summary['before training']:.1f}"
    assert rows[0][4] == f"{summary['after training']:.1f}" and "not finished" in " ".join(rows[1])


def test_an_empty_folder_says_how_to_begin(tmp_path, capsys):
    assert main.main(["--runs", str(tmp_path)]) == 0
    assert "python main.py --all" in capsys.readouterr().out


def test_two_runs_are_compared_on_the_episodes_that_both_met(copies, capsys):
    """The difference and its interval are worked out here from the files."""
    assert main.main(["--compare", *map(str, copies)]) == 0
    printed = capsys.readouterr().out
    tables = [pd.read_csv(path / "evaluation.csv").set_index(["policy", "seed"])["total_cost"] for path in copies]
    change = (tables[1]["after training"] - tables[0]["after training"]).dropna()
    half = 4.3027 * change.std(ddof=1) / np.sqrt(3)  # t, 2 degrees
    assert "gamma: 0.96 -> 0.5" in printed and "eval_episodes: 3 -> 4" in printed and "batch_size" not in printed
    row = next(line for line in printed.splitlines() if line.startswith("cost, $"))
    assert f"{change.mean():+.1f} ± {half:.1f}" in row and "3 unseen episodes" in printed
    assert "of one training each" in printed
    assert (copies[1] / "compare.png").read_bytes()[:4] == b"\x89PNG"


def test_trainings_are_compared_over_their_seeds(copies, capsys):
    """Three trainings against three others: Welch's interval of the seeds' means."""
    means = []
    for path, gains in zip(copies, ([0.0, 1.0, 2.0], [30.0, 32.0, 37.0]), strict=True):
        table = pd.read_csv(path / "evaluation.csv")
        team = table[table["policy"] == "after training"]
        more = [team.assign(training_seed=k, total_cost=team["total_cost"] + gain) for k, gain in enumerate(gains)]
        pd.concat([table[table["policy"] != "after training"], *more]).to_csv(path / "evaluation.csv", index=False)
        means.append(team.loc[team["episode"] < 3, "total_cost"].mean() + np.array(gains))
    assert main.main(["--compare", *map(str, copies)]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("cost, $"))
    # variances of the means 1/3 and 13/3: 2.306 degrees of freedom, where t is 3.80
    assert f"{means[1].mean() - means[0].mean():+.1f} ± {3.80 * np.sqrt(14 / 3):.1f}" in row
    assert "over the trainings, 3 and 3" in printed


def test_runs_that_met_other_episodes_are_refused(copies, capsys, tmp_path):
    config = json.loads((copies[1] / "config.json").read_text())
    (copies[1] / "config.json").write_text(json.dumps(config | {"difficulty": "hard"}))
    assert "medium and hard: no unseen episode is the same" in refused(capsys, "--compare", *copies)
    (copies[1] / "config.json").write_text(json.dumps(config | {"problem": "banking"}))
    assert "is a retail run" in refused(capsys, "--compare", *copies)
    (copies[0] / "evaluation.csv").unlink()
    assert "let it finish" in refused(capsys, "--compare", *copies)
    assert "is no run folder" in refused(capsys, "--compare", tmp_path / "none", copies[0])


def test_an_episode_is_played_as_a_gif(copies, capsys, tmp_path):
    image = pytest.importorskip("PIL.Image")
    assert main.main(["--play", str(copies[0]), "--seed", "10007", "--out", str(tmp_path / "films")]) == 0
    path = tmp_path / "films" / "play.gif"
    assert capsys.readouterr().out.strip() == str(path)
    with image.open(path) as film:
        assert film.format == "GIF" and film.n_frames == 30, "a frame a day"
    (copies[0] / "checkpoint.pt").unlink()
    assert "no checkpoint.pt yet" in refused(capsys, "--play", copies[0])
