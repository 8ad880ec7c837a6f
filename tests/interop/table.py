"""The table of results: one row a comparison, written whole as Markdown and, one line a group, for docs/formats.md."""

import contextlib
import dataclasses
import math
import sys

import numpy as np


@dataclasses.dataclass
class Row:
    """One comparison: what was compared, who wrote and who read, and how far apart the results are."""

    kind: str
    group: str
    what: str
    direction: str
    difference: float = math.nan
    tolerance: float = 0.0
    passed: bool | None = None  # None: not run
    note: str = ""
    excuse: str = ""  # why what differs is not counted


def difference(got, wanted, where=None):
    """Largest |got - wanted|, as a part of the root mean square of what is wanted; infinite where shapes or NaNs differ."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    if got.size != wanted.size:
        return math.inf
    got = got.reshape(wanted.shape)
    if where is not None:
        got, wanted = got[where], wanted[where]
    if not wanted.size or not np.isfinite(got).all() or not np.isfinite(wanted).all():
        return math.inf
    scale = math.sqrt(np.mean(wanted**2))
    return float(np.abs(got - wanted).max() / (scale or 1.0))


class Table:
    def __init__(self, quiet=False):
        self.rows, self.quiet = [], quiet

    def add(self, row):
        self.rows.append(row)
        if not self.quiet or row.passed is False:
            mark = {True: "ok", False: "FAILED", None: "not run"}[row.passed]
            print(f"{mark:7} {row.kind}: {row.what} ({row.direction}) {number(row)} {row.note}".rstrip(), flush=True)

    def numbers(self, kind, group, what, direction, diff, tolerance, note=""):
        """A row that passes where the difference is within the tolerance."""
        self.add(Row(kind, group, what, direction, diff, tolerance, bool(diff <= tolerance), note))

    def same(self, kind, group, what, direction, wrong, note="", excuse=""):
        """A row of things that must be equal: `wrong` names the first that differs, or is empty."""
        self.add(Row(kind, group, what, direction, 0.0 if not wrong else math.inf, 0.0, not wrong, wrong or note, excuse))

    def skipped(self, kind, group, what, direction, why):
        self.add(Row(kind, group, what, direction, note=f"not run: {why}"))

    @contextlib.contextmanager
    def case(self, kind, group, what, direction):
        """Whatever a case raises is a failed row: the other cases go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.add(Row(kind, group, what, direction, math.inf, 0.0, False, f"{type(error).__name__}: {lines[-1][:300]}"))

    def count(self):
        return sum(row.passed is True for row in self.rows), sum(row.passed is False for row in self.rows)

    def whole(self):
        lines = ["| kind | what | direction | largest difference | tolerance | passed |", "|---|---|---|---|---|---|"]
        for row in self.rows:
            passed = {True: f"yes; {row.excuse}" if row.excuse else "yes", False: f"**no**: {row.note}", None: row.note}[row.passed]
            cells = [row.kind, row.what, row.direction, number(row), f"{row.tolerance:g}", passed]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(lines) + "\n"

    def short(self):
        """One line for all rows of a kind, a group and a direction, by kind."""
        groups, lines = {}, {}
        for row in self.rows:
            groups.setdefault((row.kind, row.group, row.direction), []).append(row)
        for (kind, group, direction), rows in groups.items():
            run = [row for row in rows if row.passed is not None]
            worst = max(run, key=lambda row: row.difference, default=rows[0])
            told = {row.excuse for row in rows if row.excuse} | {row.note for row in rows if row.passed is None}
            passed = "; ".join([f"{sum(row.passed for row in run)} of {len(run)}"] * bool(run) + sorted(told))
            loosest = max(row.tolerance for row in rows)
            text = f"| {kind}: {group} | {direction} | {len(rows)} | {number(worst)} | {loosest:g} | {passed} |"
            lines.setdefault(kind, []).append(text)
        return lines


def number(row):
    if row.passed is None:
        return "-"
    return "differs" if math.isinf(row.difference) else "0" if row.difference == 0 else f"{row.difference:.1e}"


def update_section(path, head, lines):
    """Puts the lines between the two comments of a document; they are added at its end where there are none. Kinds that were not run keep theirs."""
    begin, end = "<!-- interop: begin -->", "<!-- interop: end -->"
    page = path.read_text() if path.exists() else ""
    before, after = page.rstrip("\n") + ("\n\n" if page else ""), ""
    if begin in page and end in page:
        before, rest = page.split(begin, 1)
        section, after = rest.split(end, 1)
        kept = {}
        for line in section.splitlines():
            if line.startswith("| ") and ": " in line.split(" | ")[0]:
                kept.setdefault(line[2:].split(": ")[0], []).append(line)
        lines = kept | lines
    table = ["| what | direction | cases | largest difference | tolerance | passed |", "|---|---|---|---|---|---|"]
    table += [line for kind in lines.values() for line in kind]
    path.write_text(before + begin + "\n" + head + "\n".join(table) + "\n" + end + "\n" + after.lstrip("\n"))
    print(f"{path}: section written", file=sys.stderr)
