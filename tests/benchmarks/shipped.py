"""A team to ship, of a finished run: its folder without experience, optimizer moments and history, in <problem>/teams.

    python retail/train.py --seed 0
    python tests/benchmarks/shipped.py retail/latest maddpg
    python banking/train.py --credit known --eval-episodes 400 --seed 0
    python tests/benchmarks/shipped.py banking/latest mappo-known

It opens, plays, exports and explains as any run (`open_run("retail/teams/maddpg")`); only `--resume` has nothing to go
on from. tests/test_shipped_teams.py holds it to the figures in its summary.csv.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from core.experiment.deployment.saved_teams import trained  # noqa: E402
from core.experiment.runs.checkpoint import load_checkpoint  # noqa: E402
from core.experiment.runs.folders import ROOT, write_text  # noqa: E402
from core.team.files import write_tensors  # noqa: E402


def ship(run: str, name: str) -> Path:
    """Write <problem>/teams/<name> -> its path. Raises ValueError for a run that is none."""
    path, config, settings = trained(run)[0]
    saved = load_checkpoint(path)
    state = {**saved["agents"][0], "buffer": None}
    kind = {"action_type": state["config"]["action_type"]}
    known = settings.SETTINGS[config["algo"]].create_agents(**state["sizes"], config=kind).config.as_dict()
    state["config"] = {key: value for key, value in state["config"].items() if key in known}  # an option may be gone
    config["hyperparameters"] = {key: value for key, value in config["hyperparameters"].items() if key in known}
    state["optimizers"] = {key: {**optimizer, "state": {}} for key, optimizer in state["optimizers"].items()}
    place = ROOT / config["problem"] / "teams" / name
    place.mkdir(parents=True, exist_ok=True)
    write_tensors(place / "checkpoint.pt", {"agents": [state], **{k: saved[k] for k in ("seen",) if k in saved}})
    config["command"] = re.sub(r" --out \S+", "", config["command"])  # where the folder was says nothing
    write_text(place / "config.json", json.dumps({k: v for k, v in config.items() if k != "platform"}, indent=2) + "\n")
    shutil.copyfile(path.parent / "summary.csv", place / "summary.csv")
    return place


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run of one training: its folder or name")
    parser.add_argument("name", help="of the team")
    arguments = parser.parse_args()
    print(ship(arguments.run, arguments.name))
