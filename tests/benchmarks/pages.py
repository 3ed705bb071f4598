"""Where the benchmarks' tables go in the documents."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def put(mark: str, text: str, document: str = "docs/BENCHMARKS.md") -> None:
    """Replace what stands between <!-- mark:begin --> and <!-- mark:end -->."""
    path, begin, end = ROOT / document, f"<!-- {mark}:begin -->\n", f"<!-- {mark}:end -->"
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(before + begin + text + end + after, encoding="utf-8")
