"""report.html: one file that loads nothing, escapes every name, and holds what the run found."""

from __future__ import annotations

import base64
import html
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from core.experiment.reporting.report import MOST, Frame, Stepper, page
from core.experiment.reporting.tables import AFTER, BEFORE, Results

EVIL = "</script><img src=x onerror=alert(1)>&'\""
COLUMNS, GAPS = (("cost, $", "cost", "{:.1f}"),), (("cost", "cheaper", "dearer"),)
VOID = {"meta", "img", "br", "input"}


class Reader(HTMLParser):
    """Tags, their attributes, and the text outside scripts; complains of a tag that is not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.text, self.script = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.script += data
        elif self.open[-1:] != ["style"]:
            self.text.append(data)


@pytest.fixture
def results() -> Results:
    """A rule with a hostile name is 1 dearer than the team in every episode."""
    costs = np.random.default_rng(0).uniform(5, 15, 50)
    rows = [(EVIL, None, costs + 1), (BEFORE, 0, 2 * costs), (AFTER, 0, costs)]
    frames = [
        pd.DataFrame({"policy": p, "training_seed": s, "episode": range(50), "seed": range(50), "cost": c})
        for p, s, c in rows
    ]
    table = pd.concat(frames, ignore_index=True)
    table["team_return"] = -table["cost"]
    return Results("maddpg", 7, {0: None}, table, ())


@pytest.fixture
def made(results, tmp_path):
    """The page of a run in tmp_path."""
    stepper = Stepper(("place", EVIL), [Frame(f"day {day} {EVIL}", [[EVIL, 0.5 * day]]) for day in range(3)])

    def make(**options) -> str:
        config = {"command": f"python retail/train.py --data '{EVIL}'", "seed": 3}
        arguments = EVIL, results, COLUMNS, GAPS, (), stepper, config
        return page(*arguments, folder=tmp_path, judged_on="medium", **options)

    return make


def test_sentences_come_before_the_table_and_the_table_pairs(made):
    text = " ".join(" ".join(Reader(made()).text).split())
    assert re.search(r"50\.0 % ± 0\.0 cheaper than before training.*Everybody on the same episodes", text)
    assert "+1.0 ± 0.0" in text, "the rule's paired difference from the team"


def test_every_name_is_escaped_wherever_it_stands(made):
    found = Reader(made(caution=EVIL, data_report=EVIL))
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert " ".join(found.text).count(EVIL) == 8, "title, heading, caution, advice, sentence, row, file, command"
    data = re.match(r"const episode = (\{.*?\});", found.script)
    assert "<" not in data[1] and json.loads(data[1])["frames"][2] == [f"day 2 {EVIL}", [[EVIL, 1.0]]]


def test_nothing_is_loaded_from_elsewhere(made, tmp_path):
    (tmp_path / "episode.png").write_bytes(b"\x89PNG" + bytes(1000))
    text = made()
    sources = [a.get("src", a.get("href")) for _, a in Reader(text).tags if a.keys() & {"src", "href"}]
    assert sources == ["data:image/png;base64," + base64.b64encode(b"\x89PNG" + bytes(1000)).decode()]
    assert "default-src 'none'" in text and not re.search(r"https?://|url\(|@import|fetch\(", text)


def test_a_page_stays_small_enough_to_send(made, tmp_path):
    (tmp_path / "episode.png").write_bytes(bytes(MOST))
    (tmp_path / "learning_curve.png").write_bytes(bytes(1000))
    text = made()
    assert len(text.encode()) <= MOST and text.count("<img") == 1


def test_what_repeats_the_run_is_told(made):
    text = made()
    assert "python retail/train.py --data" in html.unescape(text) and '"seed": 3' in html.unescape(text)
