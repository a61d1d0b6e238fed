"""The measurement itself: every row's process is started and verified, then they run in rounds, one at a time.

Notable: as many rows as memory has room for stay loaded throughout; where not all do, they come in packs that are loaded anew in every
round, so that a round still sees every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from tqdm import tqdm

from bort.bench.inference.cases import Difference
from bort.bench.inference.processes import Place, RowProcess, available_memory, size_on_disk
from bort.bench.inference.rows import Row

_SECONDS_OF_A_GROUP = 0.1
_ROUNDS_PER_TEXT = 4
# What loading takes at its peak, in units of the row's files, and what its libraries take beside.
_LOADING, _LIBRARIES = 3, 1_000_000_000


@dataclass
class Samples:
    """Seconds of a row's runs on one shape, by round.

    Attributes:
        from_ids: without tokenising.
        from_text: with it, every fourth round.
    """

    from_ids: list[list[float]] = field(default_factory=list)
    from_text: list[list[float]] = field(default_factory=list)


@dataclass
class Measured:
    """What was found of a row.

    Attributes:
        computes_in: precision of what is not INT8 in it.
        differences: of its outputs from the right ones, by batch.
        samples: by shape.
        memory: ``resident_mb`` and ``peak_mb`` at the end.
    """

    row: Row
    computes_in: str
    differences: Mapping[str, Difference]
    samples: dict[str, Samples]
    memory: dict[str, float] = field(default_factory=dict)


class _Crew:
    """The processes that are there at the moment."""

    def __init__(self, places: Mapping[str, Place], cores: Sequence[int]) -> None:
        self._places, self._cores = places, cores
        self.present: dict[Row, RowProcess] = {}

    def has_room(self, row: Row) -> bool:
        """Whether memory suffices to load another row."""
        return available_memory() > _LIBRARIES + _LOADING * size_on_disk(row, self._places[row.model].folder)

    def start(self, row: Row) -> RowProcess:
        """Load a row."""
        self.present[row] = RowProcess(row, self._places[row.model], self._cores)
        return self.present[row]

    def assemble(self, rows: Sequence[Row]) -> None:
        """Have these rows and no others."""
        if list(self.present) != list(rows):
            self.close()
            for row in rows:
                self.start(row)

    def close(self) -> None:
        """End all."""
        for process in self.present.values():
            process.close()
        self.present.clear()


def measure_rows(
    rows: Sequence[Row], places: Mapping[str, Place], shapes: Sequence[str], repeats: int, cores: Sequence[int], show_progress: bool
) -> tuple[list[Measured], int]:
    """Verify all rows, then time them.

    Args:
        places: where each model's files are.
        shapes: names of the batches to time.
        repeats: rounds.
        cores: that a row may use, one thread on each.

    Returns:
        What was found of each row, and in how many packs memory made them come.

    Raises:
        BortError: if a row cannot be loaded, its process ends, or verification fails; in the last case nothing has been timed.
    """
    measured: dict[Row, Measured] = {}
    packs: list[list[Row]] = [[]]
    steps = len(rows) * (1 + repeats * len(shapes))
    with closing(_Crew(places, cores)) as crew, tqdm(total=steps, desc="rows", leave=False, disable=not show_progress) as bar:
        for row in rows:
            if packs[-1] and not crew.has_room(row):
                crew.close()
                packs.append([])
            process = crew.start(row)
            packs[-1].append(row)
            measured[row] = Measured(row, process.computes_in, process.verify(), {shape: Samples() for shape in shapes})
            bar.update()
        for number in range(repeats):
            for pack in packs:
                crew.assemble(pack)
                for shape in shapes:
                    for row in pack if number % 2 == 0 else reversed(pack):
                        _time(crew.present[row], shape, number % _ROUNDS_PER_TEXT == 0, measured[row].samples[shape])
                        bar.update()
                for row in pack:
                    measured[row].memory = crew.present[row].memory()
    return list(measured.values()), len(packs)


def _time(process: RowProcess, shape: str, with_text: bool, samples: Samples) -> None:
    from_ids, from_text = process.time(shape, _SECONDS_OF_A_GROUP, with_text)
    samples.from_ids.append(from_ids)
    if with_text:
        samples.from_text.append(from_text)
