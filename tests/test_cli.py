"""The scripts, run as people run them: flags, exit codes, signals, resuming, bad input, and what a run leaves."""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import banking.settings
import banking.train
import main as main_script
import retail.settings
import retail.train
from banking.environment import TransactionRoutingEnv
from core.experiment.runs.folders import RunFolder
from core.experiment.runs.resume import stored_world
from core.experiment.tuning import half_width
from retail.environment import MultiWarehouseEnv

ROOT = Path(__file__).resolve().parents[1]
PROBLEMS = {"retail": retail, "banking": banking}
RETAIL, BANKING = "retail", "banking"
TINY = ["--episodes", "4", "--num-envs", "2", "--eval-episodes", "3", "--no-plots"]
LEARN = ["--set", "batch_size=8", "learning_starts=20"]  # learn within a tiny budget
TRAIN_FLAGS = (
    "--algo --episodes --seed --seeds --num-envs --difficulty --curriculum --device --threads --config --set --resume "
    "--out --eval-every --eval-episodes --validation --save-every --quiet --plots --data"
).split()


def script(path: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / path), *flags]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


def train(name: str, out: Path, *flags: str) -> int:
    """The same as the script, within this process."""
    return PROBLEMS[name].train.main([*flags, "--out", str(out)])


@pytest.fixture
def short_episodes(monkeypatch):
    """A tenth of an episode of banking, where its length does not matter."""
    make_env = banking.settings.make_env
    monkeypatch.setattr(banking.train, "make_env", lambda *n, **options: make_env(*n, episode_steps=60, **options))


def newest(out: Path) -> Path:
    return out / (out / "latest").read_text().strip()


def without_clock(path: Path) -> pd.DataFrame:
    return pd.read_csv(path).drop(columns="seconds", errors="ignore")


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("demo", [False, True])
def test_help_explains_every_flag_and_its_default(name, demo, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"{name}.{'demo' if demo else 'train'}").main(["--help"])
    printed = capsys.readouterr().out
    flags = re.findall(r"^  (--[a-z-]+)", printed, re.MULTILINE)
    assert stopped.value.code == 0 and set(flags) >= ({"--fast", "--episodes"} if demo else set(TRAIN_FLAGS))
    assert " ".join(printed.split()).count("(default: ") == len(flags)
    assert "130" in printed and "143" in printed


def test_the_rules_of_both_problems_take_the_same_flags(capsys):
    flags = []
    for name in PROBLEMS:
        with pytest.raises(SystemExit):
            importlib.import_module(f"{name}.baselines").main(["--help"])
        flags.append(set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE)))
    assert flags[0] - flags[1] == {"--bound-episodes"} and flags[1] - flags[0] == {"--scenario"}


def test_the_scripts_start_from_any_folder(tmp_path):
    done = script("banking/demo.py", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--fast" in done.stdout and done.stderr == ""


# --- what a run leaves behind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "steps", "columns"),
    [
        ("retail", "periods", ["day", "warehouse", "demand", "orders", "on_hand"]),
        ("banking", "decisions", ["time_ms", "router", "channel", "amount", "latency_ms"]),
    ],
)
def test_a_demo_shows_before_and_after_and_fills_its_folder(tmp_path, name, steps, columns):
    flags = ["--episodes", "2", "--eval-episodes", "2", "--out", "results"]
    done = script(f"{name}/demo.py", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "> before training" in done.stdout and "> after training" in done.stdout and "than before" in done.stdout
    assert re.search(r"^  2 of 2 episodes, \d+ s: .* on 2 unseen episodes$", done.stdout, re.MULTILINE), "no silence"
    words = done.stdout[done.stdout.index("Gap closed") :]  # the table of two episodes has odd numbers
    assert max(len(line) for line in words.splitlines() if str(tmp_path) not in line) <= 100
    assert f"python main.py --play {newest(tmp_path / 'results')}" in done.stdout and "rehearsal" not in done.stdout
    assert "it/s" not in done.stderr and "episode/s" not in done.stderr, "no progress bar but on a terminal"
    run = newest(tmp_path / "results")
    assert str(run) in done.stdout
    expected = [
        "checkpoint.pt",
        "config.json",
        "evaluation.csv",
        "progress.csv",
        "summary.csv",
        f"{steps}.csv",
        "report.html",
        "rules.json",
    ]
    expected += ["before_after.png", "episode.png", "learning_curve.png"]
    assert sorted(path.name for path in run.iterdir() if "previous" not in path.name) == sorted(
        [*expected, ".lock", "known"]
    )

    evaluation = pd.read_csv(run / "evaluation.csv")
    assert list(evaluation)[:5] == ["policy", "training_seed", "episode", "seed", "team_return"]
    assert {"before training", "after training"} < set(evaluation["policy"]) and len(set(evaluation["policy"])) > 6
    assert all(list(rows["seed"]) == [10_000, 10_001] for _, rows in evaluation.groupby("policy")), "one for all"
    assert list(pd.read_csv(run / "progress.csv")["episode"]) == [0, 1]
    summary = pd.read_csv(run / "summary.csv")
    assert list(summary)[:3] == ["policy", "training_seeds", "episodes"]
    assert set(summary["policy"]) == set(evaluation["policy"])
    assert set(columns) <= set(pd.read_csv(run / f"{steps}.csv"))


def test_a_rehearsal_says_that_it_was_one(tmp_path, capsys):
    flags = ["--fast", "--episodes", "2", "--eval-episodes", "2", "--no-plots", "--out", str(tmp_path)]
    assert importlib.import_module("retail.demo").main(flags) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith("Leave --fast out for the figures of the README.") and "rehearsal" in printed


def test_the_config_says_all_that_repeats_a_run(tmp_path):
    assert train(RETAIL, tmp_path / "a", *TINY, *LEARN, "--seed", "3", "--difficulty", "hard") == 0
    config = json.loads((newest(tmp_path / "a") / "config.json").read_text())
    assert config["algo"] == "maddpg" and config["seed"] == 3 and config["hyperparameters"]["batch_size"] == 8
    assert {"command", "commit", "versions", "platform", "env_options", "num_envs"} <= set(config)
    flags = ["--config", str(newest(tmp_path / "a") / "config.json"), "--seed", "3", "--difficulty", "hard"]
    assert train(RETAIL, tmp_path / "b", *TINY, *flags) == 0
    for name in ("progress.csv", "evaluation.csv"):
        pd.testing.assert_frame_equal(*(without_clock(newest(tmp_path / folder) / name) for folder in "ab"))


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("algo", ["maddpg", "mappo", "qmix"])
def test_every_algorithm_runs_on_every_problem(tmp_path, name, algo, short_episodes):
    flags = [
        "--episodes",
        "2",
        "--num-envs",
        "2",
        "--eval-episodes",
        "2",
        "--no-plots",
        "--algo",
        algo,
        "--eval-every",
        "0",
    ]
    assert train(name, tmp_path, *flags) == 0
    assert newest(tmp_path).name.endswith(f"-{algo}-seed0")


def test_several_seeds_are_trained_in_turn_and_summarized(tmp_path):
    assert train(RETAIL, tmp_path, *TINY, "--seeds", "0", "2") == 0
    run = newest(tmp_path)
    assert run.name.endswith("-maddpg-seeds0-2")
    assert (run / "seed0" / "checkpoint.pt").is_file() and (run / "seed2" / "progress.csv").is_file()
    evaluation, summary = (pd.read_csv(run / f"{name}.csv") for name in ("evaluation", "summary"))
    after = evaluation[evaluation["policy"] == "after training"]
    assert list(after["training_seed"].unique()) == [0, 2] and len(after) == 6
    row = summary.set_index("policy").loc["after training"]
    means = after.groupby("training_seed")["total_cost"].mean()
    assert row["training_seeds"] == 2 and row["total_cost"] == pytest.approx(means.mean())
    luck = after.groupby("episode")["total_cost"].mean().to_numpy(), means.to_numpy()  # of episodes, of trainings
    assert row["total_cost_ci95"] == pytest.approx(half_width(*luck), rel=1e-3)

    shutil.rmtree(run / "seed2")  # as if it had been stopped between the two
    assert train(RETAIL, tmp_path, "--resume", "--no-plots") == 0
    assert newest(tmp_path) == run and (run / "seed2" / "checkpoint.pt").is_file()
    pd.testing.assert_frame_equal(pd.read_csv(run / "evaluation.csv"), evaluation, check_exact=True)


def test_the_curriculum_goes_from_easy_to_hard(tmp_path, monkeypatch):
    seen = []

    def make_env(*arguments, **options):
        env = retail.settings.make_env(*arguments, **options)
        change = env.set_difficulty
        env.set_difficulty = lambda name: (seen.append(name), change(name))
        return env

    flags = ["--episodes", "10", "--num-envs", "1", "--eval-episodes", "2", "--no-plots", "--curriculum"]
    flags += ["--set", "pair_weight=0"]  # which compares copies of the environment, and here is one
    monkeypatch.setattr(retail.train, "make_env", make_env)
    assert train(RETAIL, tmp_path, *flags) == 0
    assert seen == ["easy"] + 4 * ["medium"] + 6 * ["hard"]  # before each of 10 rounds, and after the last


def test_settings_are_chosen_on_episodes_of_their_own(tmp_path, capsys):
    assert train(RETAIL, tmp_path, *TINY, "--validation") == 0
    run = newest(tmp_path)
    assert pd.read_csv(run / "evaluation.csv")["seed"].min() == 800_000_000
    assert "3 unseen episodes (medium, validation)" in capsys.readouterr().out
    assert train(RETAIL, tmp_path, "--resume", "--episodes", "6", "--no-plots") == 0
    assert pd.read_csv(run / "evaluation.csv")["seed"].min() == 800_000_000, "a resumed run goes on as it began"


def test_quiet_prints_the_folder_alone(tmp_path, capsys):
    assert train(RETAIL, tmp_path, *TINY, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out == f"{newest(tmp_path)}\n" and captured.err == ""


# --- recorded data ----------------------------------------------------------------------------------------------------


EXAMPLES = {"retail": ROOT / "retail/example_sales.csv", "banking": ROOT / "banking/example_transactions.csv"}


@pytest.fixture
def untuned(monkeypatch, short_episodes):
    """A rule that needs no tuning on recorded data, which takes a minute."""
    for module, shape in ((retail.train, (1,)), (banking.train, ())):
        rule = lambda seen, shape=shape: np.zeros(seen.shape[:-1] + shape, int)  # noqa: E731
        found = {"nothing": rule, module.BESIDE: rule}
        monkeypatch.setattr(module, "rules", lambda env, found=found: found)


@pytest.mark.parametrize("name", ["retail", "banking"])
def test_the_users_own_data_is_reported_learnt_from_and_judged_on_its_test_part(tmp_path, capsys, name, untuned):
    data = tmp_path / "mine.csv"
    data.write_bytes(EXAMPLES[name].read_bytes())
    assert train(name, tmp_path / "out", *TINY, "--data", str(data)) == 0
    output, folder = capsys.readouterr().out, newest(tmp_path / "out")
    report = (folder / "data_report.txt").read_text()
    assert report in output and output.index("Data report") < output.index("trains 4 episodes")
    assert "On your own data begin with a rule" in output
    assert "3 unseen episodes (of the test part of your data, 2024-" in output
    assert json.loads((folder / "config.json").read_text())["data"] == str(data)
    table, (when, who), names = {
        "retail": ("periods", ("date", "warehouse"), {"hamburg", "berlin", "munich", "leipzig", "rostock"}),
        "banking": ("decisions", ("timestamp", "router"), {"north", "centre", "south"}),
    }[name]
    rows, since = (
        pd.read_csv(folder / f"{table}.csv"),
        json.loads((folder / "config.json").read_text())["world"]["since"],
    )
    assert set(rows[who]) <= names and since[1] <= rows[when].min() <= rows[when].max() <= since[2]
    flags = ["--resume", "--episodes", "6"]
    assert train(name, tmp_path / "out", *flags) == 0
    constants = tmp_path / "mine.constants.json"
    constants.write_text("{}")  # it was not there when the run began
    assert train(name, tmp_path / "out", *flags) == 2
    assert "mine.constants.json has changed since the run began" in capsys.readouterr().err
    constants.unlink()
    data.write_text(data.read_text() + "\n")
    assert train(name, tmp_path / "out", *flags) == 2
    assert "has changed since the run began" in capsys.readouterr().err


@pytest.mark.parametrize("own_data", [True, False])
@pytest.mark.parametrize(
    ("name", "environment", "agents", "limit"),
    [
        ("retail", MultiWarehouseEnv, ["hamburg", "berlin", "munich", "leipzig", "rostock"], "order_limit"),
        ("banking", TransactionRoutingEnv, ["centre", "north", "south"], "risk_limit"),
    ],
)
def test_the_world_of_a_run_is_in_its_folder_and_another_one_is_refused(
    tmp_path, capsys, monkeypatch, untuned, name, environment, agents, limit, own_data
):
    """What scales observations and limits actions is known without the user's file."""
    assert train(name, tmp_path, *TINY, *(["--data", str(EXAMPLES[name])] if own_data else [])) == 0
    folder, config = RunFolder(newest(tmp_path)), json.loads((newest(tmp_path) / "config.json").read_text())
    world = stored_world(folder, config)
    assert environment(**world["constants"]).world()["constants"] == world["constants"]
    assert not own_data or (world["agents"], len(world["since"])) == (agents, 3)
    module = PROBLEMS[name].train
    changed = functools.partial(module.make_env, **{limit: 3.5})
    with monkeypatch.context() as patch:
        patch.setattr(module, "make_env", changed)
        assert train(name, tmp_path, "--resume") == 2
        assert f"the run began with {limit}" in capsys.readouterr().err
    folder.write_config(config | {"world": world | {"agents": agents[1:]}})
    assert train(name, tmp_path, "--resume") == 1
    assert "world in config.json is missing or edited" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["retail", "banking"])
def test_data_that_cannot_be_used_is_refused_before_training(tmp_path, capsys, name):
    lines = EXAMPLES[name].read_text().splitlines()
    (tmp_path / "data.csv").write_text("\n".join([*lines[:41], lines[41] + ",x", *lines[42:]]))
    assert train(name, tmp_path / "out", *TINY, "--data", str(tmp_path / "data.csv")) == 2
    message = capsys.readouterr().err
    assert "data.csv" in message and "line 42:" in message and not (tmp_path / "out").exists()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "code", "found", "remedy"),
    [
        (["--algo", "madpg"], 2, "'madpg'", "maddpg"),
        (["--difficulty", "extreme"], 2, "'extreme'", "hard"),
        (["--episods", "5"], 2, "'--episods'", "did you mean --episodes?"),
        (["--eval", "5"], 2, "'--eval'", "did you mean --eval-every?"),
        (["--episodes", "-5"], 2, "'-5'", "from 1 to"),
        (["--episodes", "0"], 2, "'0'", "from 1 to"),
        (["--episodes", "many"], 2, "'many'", "whole number"),
        (["--episodes", "2000000"], 2, "'2000000'", "to 1000000"),
        (["--episodes", "1.5"], 2, "'1.5'", "whole number"),
        (["--seed", "-1"], 2, "'-1'", "from 0 to"),
        (["--seeds", "1", "1"], 2, "1 1", "name each once"),
        (["--seeds", "1", "--seed", "1"], 2, "--seed and --seeds", "keep one"),
        (["--num-envs", "0"], 2, "'0'", "from 1"),
        (["--num-envs", "1"], 2, "two copies", "pair_weight=0"),
        (["--threads", "0"], 2, "'0'", "from 1"),
        (["--eval-episodes", "0"], 2, "'0'", "from 1"),
        (["--eval-every", "-1"], 2, "'-1'", "from 0"),
        (["--save-every", "-1"], 2, "'-1'", "from 0"),
        (["--device", "gpu"], 2, "'gpu'", "cuda"),
        (["--device", "cuda:99"], 2, "'cuda:99'", "--device cpu"),
        (["--set", "learning_rate"], 2, "'learning_rate'", "--set learning_rate=0.001"),
        (["--set", "=3"], 2, "'=3'", "--set learning_rate=0.001"),
        (["--set", "learning_rat=1"], 2, "'learning_rat'", "did you mean 'learning_rate'?"),
        (["--set", "batch_size=-3"], 2, "-3", "integer >= 1"),
        (["--set", "gamma=1.5"], 2, "1.5", "0 to 1"),
        (["--set", "gamma=high"], 2, "'high'", "0 to 1"),
        (["--set", "learning_rate=NaN"], 2, "nan", "float"),
        (["--set", "share_parameters=1"], 2, "1", "true, false"),
        (["--set", "hidden_sizes=64"], 2, "64", "list of positive widths"),
        (["--set", "num_agents=4"], 2, "4", "5"),
        (["--set", "action_type=discrete"], 2, "discrete", "continuous"),
        (["--set", "seed=4"], 2, "4", "--seed"),
        (["--config", "missing.json"], 2, "No such file", "existing"),
        (["--data", "missing.csv"], 2, "missing.csv", "no such file; give the path"),
        (["--data", "."], 2, "this is a folder", "name a CSV file"),
        (["--set", "gamma=0.9", "gamma=0.8"], 2, "gamma", "give it once"),
        (["--data", str(EXAMPLES["retail"]), "--curriculum"], 2, "--curriculum together with --data", "leave it out"),
        (["--data", str(EXAMPLES["retail"]), "--difficulty", "easy"], 2, "as hard as they are", "leave it out"),
        (["--resume"], 2, "no run to resume", "start a run first"),
        (["--resume", "elsewhere"], 2, "'elsewhere'", "newest"),
        (["leftover"], 2, "'leftover'", "--help"),
    ],
)
def test_a_mistake_is_refused_before_training_with_what_was_found_and_what_to_do(
    tmp_path, capsys, monkeypatch, flags, code, found, remedy
):
    monkeypatch.chdir(tmp_path)
    try:
        result = train(RETAIL, tmp_path / "out", *TINY, *flags)
    except SystemExit as stopped:  # argparse
        result = stopped.code
    message = capsys.readouterr().err
    assert result == code and found in message and remedy in message, message
    assert "Traceback" not in message and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{learning_rate: 1}", "not valid JSON"),
        ("[1, 2]", "a list"),
        ('{"gama": 1}', "did you mean 'gamma'?"),
        ("\xff", "JSON"),
    ],
)
def test_a_config_file_that_makes_no_sense_is_refused(tmp_path, capsys, content, found):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    assert train(RETAIL, tmp_path / "out", *TINY, "--config", str(tmp_path / "config.json")) == 2
    assert found in capsys.readouterr().err


def test_a_results_folder_that_cannot_be_written_is_refused_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(RETAIL, tmp_path / "file" / "out", *TINY) == 1
    message = capsys.readouterr().err
    assert "cannot write results to" in message and "Not a directory" in message and "--out" in message


# --- main -------------------------------------------------------------------------------------------------------------


def test_main_needs_to_be_told_what_to_run(capsys):
    with pytest.raises(SystemExit) as stopped:
        main_script.main([])
    assert stopped.value.code == 2 and "--all" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--seed", "x"], ["--seed", "-1"], ["--device", "tpu"], ["--fas"]], ids=str)
def test_main_refuses_a_mistake_once_before_it_starts_the_demos(capsys, monkeypatch, flags):
    monkeypatch.setattr(main_script, "run_side_by_side", lambda scripts: pytest.fail("started"))
    with pytest.raises(SystemExit) as stopped:
        main_script.main(["--all", *flags])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and message.count("error:") == 1 and flags[-1] in message


@pytest.mark.parametrize("line", ["--all --episodes 5", "--audit RUN --fast", "--what-if RUN --seed 1"])
def test_main_refuses_a_flag_of_another_action(capsys, line):
    with pytest.raises(SystemExit) as stopped:
        main_script.main(line.split())
    stray = next(word for word in reversed(line.split()) if word.startswith("--"))
    assert stopped.value.code == 2 and f"argument {stray}: it is for" in capsys.readouterr().err


def test_main_runs_the_demos_with_its_flags(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(main_script, "run_side_by_side", lambda scripts: called.extend(scripts) or 7)
    assert main_script.main(["--all", "--fast", "--seed", "4", "--out", str(tmp_path)]) == 7
    flags = ["--seed", "4", "--device", "auto", "--fast", "--out"]
    assert called == [(ROOT / name / "demo.py", [*flags, str(tmp_path / name)]) for name in ("retail", "banking")]
    called.clear()
    main_script.main(["--banking"])
    assert called == [(ROOT / "banking" / "demo.py", ["--seed", "0", "--device", "auto"])]


def test_scripts_run_at_the_same_time_and_speak_one_after_the_other(tmp_path):
    meet = "import pathlib, sys, time\npathlib.Path(sys.argv[1]).touch()\n"
    meet += "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)\n"  # for ever, if they ran in turn
    meet += "print('this is', sys.argv[1], flush=True); sys.exit(int(sys.argv[3]))"
    (tmp_path / "meet.py").write_text(meet)
    caller = (
        "import sys; from pathlib import Path; from core.experiment.runs.side_by_side import run_side_by_side as run\n"
        "sys.exit(run([(Path(sys.argv[1]), ['a', 'b', '0']), (Path(sys.argv[1]), ['b', 'a', '3'])]))"
    )
    command = [sys.executable, "-c", caller, str(tmp_path / "meet.py")]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 3 and done.stdout.endswith("\n\nthis is a\nthis is b\n"), done.stderr


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_main_passes_signals_on_to_the_demos_and_none_outlives_it(tmp_path, number, code):
    (tmp_path / "wait.py").write_text(
        "import os, signal, sys, time\n"
        "from core.experiment.runs.side_by_side import stop_with_parent\n"
        "for n in (1, 2, 15): signal.signal(n, lambda n, _: sys.exit(128 + n))\n"
        "stop_with_parent(); open('new' + sys.argv[1], 'w').write(str(os.getpid()))\n"
        "os.rename('new' + sys.argv[1], sys.argv[1]); time.sleep(600)"
    )
    caller = (
        "import sys; from pathlib import Path; from core.experiment.runs.side_by_side import run_side_by_side as run\n"
        "sys.exit(run([(Path('wait.py'), ['a']), (Path('wait.py'), ['b'])]))"
    )
    command = [sys.executable, "-c", caller]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not ((tmp_path / "a").exists() and (tmp_path / "b").exists()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=600) == code
    deadline = time.monotonic() + 60
    for child in (int((tmp_path / name).read_text()) for name in "ab"):
        while alive(child):
            assert time.monotonic() < deadline, "a demo outlives main.py"
            time.sleep(0.01)


@pytest.mark.parametrize("script", ["main.py", "retail/train.py", "banking/demo.py"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_while_a_script_is_still_being_loaded_is_no_traceback(tmp_path, script, number):
    """The moment is that of the first import that takes long: torch's, here a module that stops its process."""
    (tmp_path / "torch.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--fast"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 128 + number and done.stdout == done.stderr == ""


def alive(process: int) -> bool:
    """Is it there, and more than the entry that an ended process leaves until somebody asks for its exit code?"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# --- stopping and resuming --------------------------------------------------------------------------------------------


def started(out: Path, *flags: str) -> subprocess.Popen:
    """A retail training in a process of its own that has trained at least one round."""
    command = [sys.executable, str(ROOT / "retail/train.py"), "--out", str(out), "--no-plots", *flags]
    process = subprocess.Popen(command, cwd=out.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while not list(out.glob("*/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.02)
    return process


LONG = [
    "--episodes",
    "60",
    "--num-envs",
    "4",
    "--eval-episodes",
    "2",
    "--save-every",
    "4",
    "--eval-every",
    "60",
    *LEARN,
]


def test_sigterm_finishes_the_round_and_the_resumed_run_equals_the_uninterrupted_one(tmp_path):
    process = started(tmp_path / "cut", *LONG)
    process.send_signal(signal.SIGTERM)
    message = process.communicate(timeout=600)[1]
    assert process.returncode == 143 and "Traceback" not in message
    run = newest(tmp_path / "cut")
    done = len(pd.read_csv(run / "progress.csv"))
    assert 4 <= done < 60 and f"{done} of 60 episodes are saved" in message and f"--resume {run}" in message
    assert (run / "checkpoint_previous.pt").is_file() or done == 4

    assert train(RETAIL, tmp_path / "cut", "--resume", "--no-plots") == 0
    assert newest(tmp_path / "cut") == run, "a resumed run goes on in its folder"
    assert train(RETAIL, tmp_path / "whole", *LONG, "--no-plots") == 0
    for name in ("progress.csv", "evaluation.csv", "summary.csv", "periods.csv"):
        pd.testing.assert_frame_equal(
            without_clock(run / name), without_clock(newest(tmp_path / "whole") / name), check_exact=True
        )


def test_ctrl_c_outside_the_training_stops_at_once_and_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupt(observations):
        os.kill(os.getpid(), signal.SIGINT)
        return np.zeros((*observations.shape[:-1], 1))

    with monkeypatch.context() as patch:
        patch.setattr(retail.train, "rules", lambda env: {"interrupted": interrupt})
        assert train(RETAIL, tmp_path, *TINY) == 130
    script, flags = re.search(r"stopped. continue with: \S*python\S* (\S+) (.+)", capsys.readouterr().err).groups()
    assert Path(script).resolve() == ROOT / "retail/train.py" and flags == f"--resume {newest(tmp_path)} --no-plots"
    assert train(RETAIL, tmp_path, "--resume", "--no-plots") == 0
    assert "starts from the beginning" in capsys.readouterr().out


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    endless = ["--episodes", "4", "--num-envs", "2", "--eval-episodes", "2", "--save-every", "1", "--eval-every", "0"]
    process = started(
        tmp_path / "out", *endless, "--set", "batch_size=8", "learning_starts=90", "updates_per_step=100000"
    )
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=600)[1]
    assert process.returncode == 130 and "once more stops at once" in message and "Traceback" not in message


def test_a_finished_run_can_be_resumed_for_more_episodes_and_for_its_evaluation(tmp_path, capsys):
    assert train(RETAIL, tmp_path, *TINY, *LEARN) == 0
    run = newest(tmp_path)
    (run / "evaluation.csv").unlink()
    assert train(RETAIL, tmp_path, "--resume", str(run), "--episodes", "6", "--no-plots") == 0
    assert len(pd.read_csv(run / "progress.csv")) == 6 and (run / "evaluation.csv").is_file()
    assert train(RETAIL, tmp_path, "--resume", run.name, "--episodes", "4") == 2
    assert "has 6 already" in capsys.readouterr().err


def test_a_resumed_run_may_be_evaluated_at_other_episodes_than_it_began_with(tmp_path):
    tiny = ("--episodes", "4", "--num-envs", "2", "--eval-episodes", "3", "--seeds", "0", "1", "--eval-every", "2")
    assert train(RETAIL, tmp_path, *tiny, *LEARN) == 0
    run = newest(tmp_path)
    (run / "seed1" / "checkpoint.pt").unlink()  # as if stopped between the two
    assert train(RETAIL, tmp_path, "--resume", str(run), "--episodes", "6", "--eval-every", "4") == 0
    assert all(len(pd.read_csv(run / f"seed{k}" / "progress.csv")) == 6 for k in (0, 1))
    assert (run / "learning_curve.png").is_file()


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--algo", "qmix"], "'maddpg'"),
        (["--seed", "5"], "began with 0"),
        (["--num-envs", "3"], "began with 2"),
        (["--difficulty", "hard"], "'medium'"),
        (["--set", "gamma=0.5"], "keeps its own"),
    ],
)
def test_a_resumed_run_keeps_what_it_began_with(tmp_path_factory, capsys, flags, found):
    out = tmp_path_factory.getbasetemp() / "kept"
    if not out.exists():
        assert train(RETAIL, out, *TINY, *LEARN) == 0
    assert train(RETAIL, out, "--resume", *flags) == 2
    message = capsys.readouterr().err
    assert found in message and flags[0] in message and "start a new run" in message


def test_damaged_runs_are_refused_or_continued_from_the_checkpoint_before(tmp_path, capsys):
    assert train(RETAIL, tmp_path, *TINY, *LEARN, "--save-every", "2") == 0
    run = newest(tmp_path)
    (run / "checkpoint.pt").write_bytes(b"no checkpoint")
    assert train(RETAIL, tmp_path, "--resume", "--no-plots") == 0
    captured = capsys.readouterr()
    assert "2 of 4 episodes were done before" in captured.out and "is damaged" in captured.err
    for path in run.glob("checkpoint*.pt"):
        path.write_bytes(b"no checkpoint")
    assert train(RETAIL, tmp_path, "--resume") == 1
    assert "no usable checkpoint" in capsys.readouterr().err
    assert train(BANKING, tmp_path, "--resume") == 2
    assert "is a retail run" in capsys.readouterr().err
    for content, complaint in (("{", "damaged"), ("[]", "expected an object, found a list"), ("{}", "has no entry")):
        (run / "config.json").write_text(content)
        assert train(RETAIL, tmp_path, "--resume") == 1
        assert complaint in capsys.readouterr().err


def test_the_checkpoint_of_another_team_is_refused(tmp_path, capsys):
    assert train(RETAIL, tmp_path, *TINY, *LEARN) == 0
    first = newest(tmp_path)
    assert train(RETAIL, tmp_path, *TINY, "--algo", "mappo") == 0
    (newest(tmp_path) / "checkpoint.pt").write_bytes((first / "checkpoint.pt").read_bytes())
    assert train(RETAIL, tmp_path, "--resume") == 1
    message = capsys.readouterr().err
    assert "MADDPGTeam" in message and "MAPPOTeam" in message


def test_a_training_that_diverges_stops_with_a_reason(tmp_path, capsys):
    flags = ["--episodes", "40", "--num-envs", "2", "--eval-episodes", "2", "--eval-every", "0"]
    assert train(RETAIL, tmp_path, *flags, "--set", "learning_rate=1e30", "batch_size=8", "learning_starts=20") == 1
    message = capsys.readouterr().err
    assert "training stopped in episodes" in message and "learning_rate" in message and "Traceback" not in message
