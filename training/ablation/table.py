"""Makes the rows one after the other: trains, measures, writes one JSON a row and seed.

Any number of processes may work on one folder: a claim file keeps them apart, and a row that is
written is not made again.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from visavis.engine.dit.model import FlashTalkDiT
from visavis.training.ablation.data import AblationData
from visavis.training.ablation.hand_over import ErringChunks
from visavis.training.ablation.measure import measure
from visavis.training.ablation.rows import ROWS, Row, slug
from visavis.training.ablation.sessions import Deployment, HeldSessions
from visavis.training.distill import Distillation
from visavis.training.parallel import Workers
from visavis.training.progress import log
from visavis.training.run_models import copy_model
from visavis.training.self_rollout import network_evaluations, plan_round

LONG_FOLDER: Final = "long"


def jobs() -> list[tuple[Row, int]]:
    """Every row and seed: the headline's rows (those with several seeds) first, seed by seed."""
    order = [(row, seed) for row in ROWS for seed in row.seeds]
    return sorted(order, key=lambda job: (len(job[0].seeds) == 1, job[1]))


class Table:
    """A folder of rows, and what they are made from."""

    def __init__(
        self,
        folder: Path,
        data: AblationData,
        teacher: FlashTalkDiT,
        *,
        evaluations: int,
        sessions: int,
        chunks: int,
        long_chunks: int = 0,
    ) -> None:
        """`evaluations` of networks train a row; `sessions` are rolled out for `chunks`, and half
        as many for `long_chunks` (0: none) where a row asks for that."""
        self.folder, self.data, self.teacher = folder, data, teacher
        self.evaluations, self.chunks, self.long_chunks = evaluations, chunks, long_chunks
        self.sessions = HeldSessions.draw(data.held, data.held_errors, sessions)

    def make(self, row: Row, seed: int) -> bool:
        """Train and measure one row and seed, unless it is done or claimed; true if it was made."""
        path = self.path(row.title, seed)
        long = seed in row.long and self.long_chunks > 0
        if path.exists() and (not long or self.long_path(row.title, seed).exists()):
            return False
        with _claim(path) as mine:
            if not mine:
                return False
            began, before = time.monotonic(), time.process_time()
            network, training = self._network(row, seed)
            # The titles that share this network come first: the row itself is what "done" means.
            also = row.also.items() if seed == row.seeds[0] else ()
            if long:
                self._measure(row.title, row.how, network, seed, training, long=True)
            for title, how in (*also, (row.title, row.how)):
                self._measure(title, how, network, seed, training)
            log.info(
                "%s, seed %d: %.0f s, %.0f s of CPU",
                row.title,
                seed,
                time.monotonic() - began,
                time.process_time() - before,
            )
        return True

    def path(self, title: str, seed: int) -> Path:
        """Where a row and seed is written."""
        return self.folder / f"{slug(title)}.{seed}.json"

    def long_path(self, title: str, seed: int) -> Path:
        """Where what it does for long is written."""
        return self.folder / LONG_FOLDER / f"{slug(title)}.{seed}.json"

    def _network(self, row: Row, seed: int) -> tuple[FlashTalkDiT, dict[str, object]]:
        if not row.trained:
            return self.teacher, {"rounds": 0, "evaluations": 0}
        job = Distillation(row.recipe(seed), copy_model(self.teacher), Workers())
        chunks = ErringChunks(self.data.train, self.data.train_errors, row.how.errors)
        spent, last = 0, {}
        while True:
            cost = network_evaluations(job.recipe, plan_round(job.recipe, job.step))
            if spent + cost > self.evaluations:
                break
            last = job.round(chunks)
            spent += cost
            if job.step % 50 == 0:
                line = " ".join(f"{name} {value:.4g}" for name, value in last.items())
                log.info("%s, seed %d, round %d: %s", row.title, seed, job.step, line)
        return job.averaged(), {"rounds": job.step, "evaluations": spent, **last}

    def _measure(
        self,
        title: str,
        how: Deployment,
        network: FlashTalkDiT,
        seed: int,
        training: dict[str, object],
        *,
        long: bool = False,
    ) -> None:
        sessions, chunks, path = self.sessions, self.chunks, self.path(title, seed)
        if long:
            sessions = sessions.first(max(1, len(sessions.layout) // 2))
            chunks, path = self.long_chunks, self.long_path(title, seed)
        found = measure(network, sessions, how, seed, chunks=chunks, recover=not long)
        record = {
            "title": title,
            "seed": seed,
            "how": asdict(how),
            "training": training,
            "sessions": len(sessions.layout),
            "chunks": chunks,
            "figures": found.as_dict(),
        }
        _write(path, record)


def _write(path: Path, record: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(path)


@contextmanager
def _claim(path: Path) -> Iterator[bool]:
    """True for the one process that may make the file; a claim left by a dead process is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = path.with_suffix(".claim")
    if claim.exists() and not _alive(claim):
        claim.unlink(missing_ok=True)
    try:
        with claim.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        yield False
        return
    try:
        yield True
    finally:
        claim.unlink(missing_ok=True)


def _alive(claim: Path) -> bool:
    try:
        os.kill(int(claim.read_text() or "0"), 0)
    except (ValueError, ProcessLookupError, FileNotFoundError):
        return False
    return True
