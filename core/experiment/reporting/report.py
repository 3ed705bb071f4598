"""report.html: what a run found, in one file that can be sent, read on a phone, and printed.

Sentences first, then the table with paired intervals, the pictures, one episode to step through, what was known of the
user's file, and what repeats the run. Nothing is loaded from elsewhere, and every name is escaped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from core.experiment.reporting.advice import advice
from core.experiment.reporting.tables import BEFORE, TRAINED, Results, gap_lines
from core.experiment.tuning import plus_minus

MOST = 2_000_000  # bytes; a picture that would go beyond is left out
PICTURES = {  # file of the run's folder -> what it shows
    "learning_curve.png": "The team while it trained, on unseen episodes",
    "before_after.png": "Before, after, and the classical rules",
    "episode.png": "One unseen episode",
}


class Frame(NamedTuple):
    """A moment of the episode: what happened, in words, and a row of cells for each place."""

    title: str
    rows: Sequence[Sequence[str | float]]


class Stepper(NamedTuple):
    """One episode to step through: the headers of its columns (the first names a place), and its moments."""

    columns: Sequence[str]
    frames: Sequence[Frame]


def page(
    title: str,
    results: Results,
    columns: Sequence[tuple[str, str, str]],
    gaps: Sequence[tuple[str, ...]],
    rivals: Sequence[str],
    stepper: Stepper,
    config: Mapping[str, Any],
    *,
    folder: Path,
    judged_on: str,
    caution: str = "",
    data_report: str = "",
) -> str:
    """The page as text, at most MOST bytes long.

    Args:
        columns, gaps, rivals: as `comparison` takes them.
        config: of the run: its command, seed and settings.
        folder: where the run's pictures are.
        judged_on: which episodes, in words.
        caution: what must be read before every result.
        data_report: of the user's own file.
    """
    team = results.trained[0]
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [f'<p class="caution">Caution: {escape(caution)}</p>'] if caution else []
    parts += [f"<p>{escape(_setting(results, judged_on))}</p>"]
    judged = f"{results.evaluated} unseen episodes ({judged_on})"
    parts += [f"<p><b>{escape(advice(results, gaps[0], judged))}</b></p>"]
    for policy in results.trained:
        lines = "".join(f"<li>{escape(line)}</li>" for line in gap_lines(results, rivals, gaps, policy))
        parts += [f"<p><b>{escape(policy.capitalize())}</b>, paired on the same episodes:</p><ul>{lines}</ul>"]
    parts += ["<h2>Everybody on the same episodes</h2>", _table(results, columns, team)]
    tail = ["<h2>One episode, step by step</h2>", _stepper(stepper)]
    tail += [f"<h2>Your file</h2><pre>{escape(data_report)}</pre>"] if data_report else []
    tail += ["<h2>Again</h2>", f"<p>This repeats the run:</p><pre>{escape(str(config.get('command', '')))}</pre>"]
    tail += [f"<details><summary>Settings</summary><pre>{escape(json.dumps(dict(config), indent=2))}</pre></details>"]
    room = MOST - sum(len(part.encode()) for part in [*parts, *tail]) - len(FRAME.encode())
    for name, caption in PICTURES.items():
        found = _picture(folder / name, caption)
        if len(found) < room:
            parts, room = [*parts, found], room - len(found)
    return FRAME.replace("BODY", "\n".join([*parts, *tail]), 1).replace("TITLE", escape(title), 1)


def _setting(results: Results, judged_on: str) -> str:
    seeds = len(results.histories)
    trained = f"{results.algorithm.upper()} trained on {results.episodes} episodes"
    trained += f", {seeds} times with different seeds" if seeds > 1 else ""
    return (
        f"{trained}. All policies were judged on the same {results.evaluated} unseen episodes ({judged_on}). After ± "
        f"is half the 95 % interval. {results.luck}"
    )


def _table(results: Results, columns: Sequence[tuple[str, str, str]], team: str) -> str:
    """Policies from the best to the worst; below each mean how far it is from the team, paired."""
    head = "".join(f"<th>{escape(header)}</th>" for header, _, _ in columns)
    lines = [f"<tr><th></th>{head}</tr>"]
    for policy in sorted(results.policies, key=lambda policy: -results.mean(policy, "team_return")):
        cells = [f"<th>{escape(policy)}</th>"]
        for _, metric, number in columns:
            text = number.format(results.mean(policy, metric))
            if policy != team:
                mean, half = results.difference(team, policy, metric)
                text += f"<br><small>{plus_minus(number.replace('{:', '{:+'), mean, half)}</small>"
            cells.append(f"<td>{text}</td>")
        own = ' class="own"' if policy in (BEFORE, *TRAINED) else ""
        lines.append(f"<tr{own}>{''.join(cells)}</tr>")
    note = f"Small: the difference from '{team}', with half its 95 % interval, paired on the same episodes."
    return f'<div class="wide"><table>{"".join(lines)}</table></div><p><small>{escape(note)}</small></p>'


def _picture(path: Path, caption: str) -> str:
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}"></figure>'


def _stepper(stepper: Stepper) -> str:
    """The episode as data, and the buttons that show a moment of it. On paper, it is the moment that was shown."""
    text = json.dumps({"columns": stepper.columns, "frames": stepper.frames}, ensure_ascii=True)
    for sign in "<>&":  # nothing in it can end the script
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    last = len(stepper.frames) - 1
    return (
        '<p class="steps"><button id="back" aria-label="back">&#9664;</button> '
        f'<input id="when" type="range" min="0" max="{last}" value="0" aria-label="moment"> '
        '<button id="on" aria-label="on">&#9654;</button></p><p id="said"></p>'
        f'<div class="wide"><table id="moment"></table></div><script>const episode = {text};{SCRIPT}</script>'
    )


SCRIPT = """
const get = id => document.getElementById(id), when = get("when"), table = get("moment");
const most = episode.columns.map((_, k) => Math.max(...episode.frames.flatMap(f => f[1].map(r => +r[k] || 0)), 1e-9));
function cell(kind, value, k) {
  const made = document.createElement(kind);
  made.textContent = typeof value !== "number" || Number.isInteger(value) ? value : value.toFixed(2);
  if (typeof value === "number")
    made.style.backgroundSize = Math.max(0, Math.min(100, 100 * value / most[k])) + "% 100%";
  return made;
}
function show() {
  const [title, rows] = episode.frames[+when.value];
  get("said").textContent = title;
  const lines = [episode.columns, ...rows].map((row, r) => {
    const line = document.createElement("tr");
    line.append(...row.map((value, k) => cell(r && k ? "td" : "th", value, k)));
    return line;
  });
  table.replaceChildren(...lines);
}
function move(by) { when.value = +when.value + by; show(); }
get("back").onclick = () => move(-1);
get("on").onclick = () => move(1);
when.oninput = show;
show();
"""

FRAME = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
body { font: 1rem/1.45 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 0 1rem 3rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
img { width: 100%; height: auto; } figure { margin: 1.5rem 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }
th:first-child { text-align: left; font-weight: normal; } tr:first-child th { font-weight: bold; }
tr.own th:first-child { font-weight: bold; } small { color: #666; } td small { white-space: nowrap; }
.caution { border-left: 4px solid #D55E00; padding-left: .8rem; font-weight: bold; }
#moment td { background: linear-gradient(#cfe5f3, #cfe5f3) no-repeat left; background-size: 0 100%; min-width: 5rem; }
.steps { display: flex; gap: .6rem; } .steps input { flex: 1; } button { font-size: 1.1rem; padding: .2rem .9rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .6rem; font-size: .8rem; }
@media print { html { font-size: 11px; } body { padding: 0; } .steps { display: none; }
 figure, tr { break-inside: avoid; } h2 { break-after: avoid; } }
</style></head>
<body>
BODY
</body></html>
"""
