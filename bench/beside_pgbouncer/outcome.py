"""What a row has come to: the figures of both poolers, their ratio, and whether it is enough.

Ratios are taken within a round, where both ran one right after the other; the median of the
rounds stands for the row, the smallest and the largest for its spread.
"""

import statistics
from dataclasses import dataclass, field

from rows import FIGURES

OURS, THEIRS = "forebay", "pgbouncer"


@dataclass
class Outcome:
    """One row's figures, round by round, and what they were measured with."""

    row: object
    configurations: dict = field(default_factory=dict)  # by the pooler's name
    rounds: dict = field(default_factory=dict)  # (pooler, figure) -> one value a round
    calls: dict = field(default_factory=dict)  # pooler -> {system call: for one transaction}
    notes: list = field(default_factory=list)
    load: float = 0.0  # the machine's, at the end of the row

    def add(self, pooler, figures):
        for figure, value in figures.items():
            self.rounds.setdefault((pooler, figure), []).append(value)

    def figures(self):
        """The figures that were measured, in the order in which they are shown."""
        return [f for f in FIGURES if (OURS, f) in self.rounds or (THEIRS, f) in self.rounds]

    def median(self, pooler, figure):
        values = self.rounds.get((pooler, figure))
        return statistics.median(values) if values else None

    def ratio(self, figure):
        """Forebay's over PgBouncer's: median, smallest and largest of the rounds."""
        pairs = zip(self.rounds.get((OURS, figure), []), self.rounds.get((THEIRS, figure), []))
        ratios = [ours / theirs for ours, theirs in pairs if theirs > 0]
        if not ratios:
            return None
        return statistics.median(ratios), min(ratios), max(ratios)

    def verdict(self, figure):
        """`met` or `missed` where there is a goal that can be judged."""
        goal = self.row.goals.get(figure)
        if goal is None:
            return None
        ratio = self.ratio(figure)
        value = self.median(OURS, figure) if goal.absolute else ratio and ratio[0]
        if value is None:
            return None
        return "met" if goal.met(value) else "missed"

    def as_data(self):
        """For the machine-readable output."""
        return {
            "row": self.row.name,
            "what": self.row.what,
            "configurations": self.configurations,
            "notes": self.notes,
            "load": self.load,
            "system_calls": self.calls,
            "figures": {
                figure: {
                    "unit": FIGURES[figure].value[0],
                    OURS: self.rounds.get((OURS, figure), []),
                    THEIRS: self.rounds.get((THEIRS, figure), []),
                    "ratio": dict(zip(("median", "low", "high"), self.ratio(figure) or ())),
                    "goal": str(self.row.goals.get(figure, "")),
                    "verdict": self.verdict(figure),
                }
                for figure in self.figures()
            },
        }


HEAD = f"{'row':16} {'figure':29} {'forebay':>9} {'pgbouncer':>9}  {'ratio (range)':19} goal"


def lines(outcome):
    """The table's lines of one row."""
    name = outcome.row.name
    if not outcome.figures():
        yield f"{name:16} no figures"
    for figure in outcome.figures():
        unit = FIGURES[figure]
        cells = [
            "-" if value is None else unit.show(value)
            for value in (outcome.median(OURS, figure), outcome.median(THEIRS, figure))
        ]
        ratio = outcome.ratio(figure)
        spread = "-" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f}..{ratio[2]:.2f})"
        goal = outcome.row.goals.get(figure)
        end = f"{goal} {outcome.verdict(figure) or 'not comparable'}" if goal else ""
        yield f"{name:16} {unit.value[0]:29} {cells[0]:>9} {cells[1]:>9}  {spread:19} {end}".rstrip()
        name = ""
    for pooler, calls in outcome.calls.items():
        most = sorted(calls.items(), key=lambda call: -call[1])
        each = ", ".join(f"{call} {number:.2f}" for call, number in most)
        yield f"{'':16} {pooler}'s: {each}"
    for note in outcome.notes:
        yield f"{'':16} {note}"
