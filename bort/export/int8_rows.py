"""Rows that INT8 models are calibrated with and measured on: of a task, of a text file, or for want of both, of random tokens.

Notable: which rows are taken of many is drawn from a fixed seed, so the same files give the same model. They are tokenised as in
fine-tuning. A masked language model sees masks, and predicts what stands there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from bort.config import BortConfig
from bort.corpus.masking import Masker
from bort.errors import BortError
from bort.model_directory import TrainedTask
from bort.randomness import Purpose, generator
from bort.tasks import Example, Task
from bort.tasks.encoding import encode_examples
from bort.tasks.row_stream import read_rows
from bort.tokenizer import Tokenizer

Inputs = dict[str, NDArray[np.int64]]

_SEED = 0
# A huge file is not read to its end.
_MOST_LINES, _LONGEST_LINE = 100_000, 1 << 20
_RANDOM_ROWS, _SHORTEST_RANDOM, _LONGEST_RANDOM = 32, 8, 128
_MASKED, _MOST_MASKED = 0.15, 80
_ItemT = TypeVar("_ItemT")


@dataclass(frozen=True)
class Reader:
    """What a model makes of texts.

    Attributes:
        kind: encoder, mlm or classifier.
        tokenizer: the model's own.
        max_len: most tokens of a row, special ones included.
        keep_question: whether a long input of RACE loses the end of its article, and never of its question.
    """

    kind: str
    tokenizer: Tokenizer
    max_len: int
    keep_question: bool = False

    @classmethod
    def of(cls, kind: str, tokenizer: Tokenizer, config: BortConfig, trained: TrainedTask | None) -> Reader:
        """That of a model; ``trained`` says what a classifier was fine-tuned for."""
        if trained is None:
            return cls(kind, tokenizer, config.max_position_embeddings)
        return cls(kind, tokenizer, trained.max_len, trained.keep_question)

    def inputs(self, examples: Sequence[Example]) -> list[Inputs]:
        """What the model is given for each example, a batch of one without padding."""
        rows = encode_examples(examples, self.tokenizer, self.max_len, self.keep_question)
        return self.inputs_of_ids(rows)

    def inputs_of_ids(self, rows: Sequence[NDArray[np.int32]]) -> list[Inputs]:
        """The same of input ids (T,) each; a masked language model's are masked here."""
        masker = Masker(self.tokenizer.vocab, _MASKED, _MOST_MASKED, _SEED) if self.kind == "mlm" else None
        result = []
        for number, ids in enumerate(rows):
            inputs = {}
            if masker is not None:
                ids, positions = masker.mask(ids, 0, number)
                inputs["masked_positions"] = positions[None].astype(np.int64)
            inputs |= {"input_ids": ids[None].astype(np.int64), "attention_mask": np.ones((1, len(ids)), dtype=np.int64)}
            result.append(inputs)
        return result

    def random_inputs(self) -> list[Inputs]:
        """Rows of random tokens, for speed alone."""
        random, vocab = generator(Purpose.ORDER, _SEED), self.tokenizer.vocab
        ordinary = np.setdiff1d(np.arange(len(vocab), dtype=np.int32), vocab.special_ids)
        longest = min(_LONGEST_RANDOM, self.max_len)
        lengths = random.integers(min(_SHORTEST_RANDOM, longest), longest + 1, _RANDOM_ROWS)
        rows = [random.choice(ordinary, length) for length in lengths.tolist()]
        for row in rows:
            row[0], row[-1] = vocab.bos_id, vocab.eos_id
        return self.inputs_of_ids(rows)


def draw(items: Sequence[_ItemT], most: int) -> list[_ItemT]:
    """At most ``most`` of the items, drawn at random, always the same ones."""
    return [items[place] for place in generator(Purpose.ORDER, _SEED, 0).permutation(len(items))[:most].tolist()]


def training_examples(task: Task) -> list[Example]:
    """Training rows of a task.

    Raises:
        BortError: if they are not there, or damaged.
    """
    return [example for name in task.segment_names("train") for example in task.examples(name)]


def examples_of_file(path: Path, task: Task | None) -> list[Example]:
    """Rows of a file: of a classifier's task as ``bort predict --input`` reads them, else one text a line; only the first of very many.

    Raises:
        BortError: if it cannot be read, is not UTF-8, holds nothing, or a row has not the texts of the task; names the line.
    """
    try:
        with path.open("rb") as file:
            if task is None:
                lines = itertools.islice(_lines(file, path), _MOST_LINES)
                examples = [Example(number, (line,), None, number + 1) for number, line in enumerate(lines)]
            else:
                rows = (row.example for _, group, _ in read_rows(file.fileno(), str(path), task) for row in group)
                examples = list(itertools.islice(rows, _MOST_LINES))
    except OSError as error:
        raise BortError(f"{path}: cannot read: {error.strerror}; give a file of texts") from None
    if not examples:
        raise BortError(f"{path}: no rows to calibrate with; give a file with a few hundred texts, one a line")
    return examples


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """Lines that are not blank."""
    for number in itertools.count(1):
        line = file.readline(_LONGEST_LINE)
        if not line:
            return
        if len(line) == _LONGEST_LINE:
            raise BortError(f"{path}, line {number}: longer than {_LONGEST_LINE >> 20} MiB; is this a file of texts, one a line?")
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise BortError(f"{path}, line {number}: not UTF-8 at byte {error.start} of the line; convert the file first") from None
        if text:
            yield text
