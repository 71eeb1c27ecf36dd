"""From the rows' files to a table in Markdown and a picture of drift and recovery."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from numpy.typing import NDArray

from visavis.training.ablation.measure import WINDOW
from visavis.training.ablation.rows import BASE, ROWS, TEACHER, UNTRAINED
from visavis.training.ablation.sessions import RECOVERY_CHUNKS

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Columns by the name of their figure: how the motion is, and whether it stays so.
_MOTION: Final = {
    "sync": "sync r",
    "sync_late": "r at chunks 91-100",
    "lips": "lips",
    "head": "head",
    "lids": "lids",
    "boundary_jump": "border jump",
}
_STABILITY: Final = {
    "drift 0": "drift at 1",
    "drift 1": "at 10",
    "drift 2": "at 100",
    "stray 0": "stray at 1",
    "stray 2": "at 100",
    "camera": "camera",
    "collapse": "collapse",
    "recover 0": "left after 1",
    "recover 1": "2",
    "recover 2": "5",
    "recover 3": "10",
}


_OF_ALL: Final[Mapping[str, Callable[[Any], Any]]] = {"mean": np.mean, "max": np.max}


@dataclass(frozen=True, slots=True)
class Record:
    """Figures of all seeds of a title, as read from the files."""

    title: str
    rounds: float
    figures: Sequence[Mapping[str, Any]]

    def values(self, name: str) -> NDArray[np.float64]:
        """One number a seed; "drift 2" is the third of a list, "recover 0" a mean over kinds,
        "drift_curve max" the greatest of a list."""
        key, _, index = name.partition(" ")
        found = []
        for one in self.figures:
            value = one[key]
            if key == "recover":
                value = float(np.mean([kind[int(index)] for kind in value.values()]))
            elif index in _OF_ALL:
                value = float(_OF_ALL[index](value))
            elif index:
                value = value[int(index)]
            found.append(value)
        return np.array(found, np.float64)

    def curve(self, name: str) -> NDArray[np.float64]:
        """A list a seed, [seeds, points]; recovery as the mean over kinds."""
        if name == "recover":
            rows = [np.mean(list(one[name].values()), axis=0) for one in self.figures]
        else:
            rows = [np.array(one[name]) for one in self.figures]
        return np.stack(rows)


_POOLED: Final = 10
# Of those that spoke for long.
_LONG: Final = {
    "drift 0": "drift at 1",
    "drift 1": "at 10",
    "drift 2": "at 100",
    "drift -1": "at the end",
    "drift_curve mean": "mean",
    "drift_curve max": "highest",
    "stray 0": "stray at 1",
    "stray -1": "at the end",
    "camera": "camera at the end",
    "sync_late": "r of the last ten",
    "collapse": "collapse",
}


def read_records(folder: Path) -> dict[str, Record]:
    """All titles in the table's order. Raises FileNotFoundError if there is no row yet."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        found.setdefault(record["title"], []).append(record)
    if not found:
        raise FileNotFoundError(f"{folder} holds no row; run visavis train ablation rows")
    order = [title for row in ROWS for title in (row.title, *row.also)]
    return {
        title: Record(
            title,
            float(np.mean([r["training"]["rounds"] for r in found[title]])),
            [r["figures"] for r in found[title]],
        )
        for title in order
        if title in found
    }


def interval(values: NDArray[np.float64]) -> str:
    """Mean, and the half width of its 95 % interval over seeds where there are three or more.

    Student's t: with three seeds it is wide, and should be.
    """
    mean = f"{values.mean():.2f}"
    if len(values) < 3:
        return mean
    half = _T[len(values)] * values.std(ddof=1) / len(values) ** 0.5
    return f"{mean} ± {half:.2f}"


# 97.5 % points of Student's t by number of values.
_T: Final = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}


def markdown(records: Mapping[str, Record], long: Mapping[str, Record] | None = None) -> str:
    """Two tables, a row a title: motion, with seeds and rounds of training, and stability; and a
    third of those that spoke for `long`."""
    further = [*_lines(long, _LONG, counts=False), ""] if long else []
    return "\n".join(
        [
            *_lines(records, _MOTION, counts=True),
            "",
            *_lines(records, _STABILITY, counts=False),
            "",
            *further,
        ]
    )


def _lines(records: Mapping[str, Record], columns: Mapping[str, str], *, counts: bool) -> list[str]:
    heads = [*(("seeds", "rounds") if counts else ()), *columns.values()]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for record in records.values():
        cells = [f"{len(record.figures)}", f"{record.rounds:.0f}"] if counts else []
        cells += [interval(record.values(name)) for name in columns]
        lines.append(f"| {record.title} | " + " | ".join(cells) + " |")
    return lines


_DRAWN: Final = {
    TEACHER: ("0.5", "-"),
    UNTRAINED: ("0.75", "-"),
    BASE: ("tab:blue", "-"),
    "K = 1": ("tab:red", "-"),
    "K = 5": ("tab:green", "-"),
    "causal in the chunk": ("tab:orange", "-"),
    f"{UNTRAINED}, harsh": ("0.75", "--"),
    f"{BASE}, harsh": ("tab:blue", "--"),
    "K = 1, harsh": ("tab:red", "--"),
}


_LABELS: Final = {TEACHER: f"{TEACHER} (Euler)"}


def draw_picture(
    records: Mapping[str, Record], path: Path, long: Mapping[str, Record] | None = None
) -> None:
    """Drift over chunks, also over the `long` ones, and what is left of a disturbance, for the
    headline rows; one legend is for all three."""
    figure, panels = plt.subplots(1, 3, figsize=(16, 4.2))
    drift, longer, recovery = panels
    for title, (colour, dashes) in _DRAWN.items():
        style = {"color": colour, "ls": dashes, "label": _LABELS.get(title, title)}
        if title in records:
            record = records[title]
            _draw_drift(drift, record, style)
            left = record.curve("recover")
            start = np.ones((len(left), 1))
            _draw(recovery, np.array((0, *RECOVERY_CHUNKS)), np.hstack([start, left]), style)
        if long and title in long:
            _draw_drift(longer, long[title], style, pool=_POOLED)
    drift.set_title("Drift, five chunks a point")
    longer.set_title(f"Drift in long sessions, {WINDOW * _POOLED} chunks a point")
    recovery.set_title("Recovery from disturbed motion frames")
    for axes in (drift, longer):
        axes.set_xlabel("chunk (12 new frames, 0.48 s)")
        axes.set_ylabel("drift: distance from the data, in its spread")
    recovery.set_xlabel("chunks after the disturbance")
    recovery.set_ylabel("share that is left, mean of four kinds")
    # What is gone for good would stretch a scale of ratios without an end.
    recovery.set(yscale="log", ylim=(3e-3, 1.2))
    named: dict[str, Any] = {}
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        lines, labels = axes.get_legend_handles_labels()
        named |= dict(zip(labels, lines, strict=True))
    figure.tight_layout()
    handles, titles = list(named.values()), list(named)
    figure.legend(
        handles, titles, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=5, frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _draw_drift(axes: Any, record: Record, style: Mapping[str, str], *, pool: int = 1) -> None:
    """`pool` windows make a point, with the least and the greatest of them around it."""
    curves = record.curve("drift_curve")
    pool = min(pool, curves.shape[1])
    count = curves.shape[1] // pool
    points = curves[:, : count * pool].reshape(len(curves), count, pool).transpose(0, 2, 1)
    step = WINDOW * pool
    at = step * np.arange(points.shape[2]) + (step + 1) / 2
    _draw(axes, at, points.reshape(-1, points.shape[2]), style)


def _draw(
    axes: Any, at: NDArray[Any], curves: NDArray[np.float64], style: Mapping[str, str]
) -> None:
    axes.plot(at, curves.mean(axis=0), lw=1.8, **style)
    axes.fill_between(
        at, curves.min(axis=0), curves.max(axis=0), color=style["color"], alpha=0.12, lw=0
    )
