"""Predictions from an exported folder, whichever runtime it is for: labels and scores, hidden states, or words for a mask.

Notable: rows are computed by length, about a thousand positions at a time, so a short text never pays for a long one; answers come in the
order given. One model may be used from several threads at once. A row becomes the same input ids as in fine-tuning, by the same code.
Neither MXNet nor PyTorch is imported.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from bort.engine import ClassificationBatch
from bort.errors import BortError, on_one_line
from bort.export.exported_folder import ExportedFolder, read_exported_folder
from bort.export.runtimes import Session, open_session
from bort.tasks import Example, Task
from bort.tasks.encoding import encode_examples
from bort.tasks.json_fields import JsonObject
from bort.tasks.row_stream import texts_of
from bort.tokenizer import Tokenizer
from bort.training.prediction import trained_task
from bort.vocabulary import Vocab

TextRow = str | tuple[str, ...] | list[str] | Mapping[str, Any]
"""A text, two texts, or the fields of a row as the task's own files have them."""

# More at once is no faster: the caches hold the activations of so many, and their products outweigh the reading of the weights.
_MOST_POSITIONS = 1024
# Runtimes prepare anew for every shape, so widths are multiples of this.
_LENGTH_STEP = 8
# What a call costs by itself, in positions that could have been computed instead.
_POSITIONS_OF_A_CALL = 16


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one row.

    Attributes:
        label: the most probable class, as the task's leaderboard writes it; None where the task is a regression.
        score: the probability of ``label``, from 0 to 1; the score itself where the task is a regression, within its range.
        probabilities: of every class, in the order of the outputs; empty where the task is a regression.
    """

    label: str | int | None
    score: float
    probabilities: Mapping[str | int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Filling:
    """One token for a mask.

    Attributes:
        token: its text, with the space before it where it begins a word.
        score: its probability among all tokens, from 0 to 1.
        text: the whole text with the token in place of the mask.
    """

    token: str
    score: float
    text: str


class ExportedModel:
    """A model that is loaded and ready; :meth:`from_directory` makes one.

    Attributes:
        folder: what the exported folder says of itself.
        session: the runtime that computes.
        tokenizer: the model's own.
        task: what a classifier was fine-tuned for; None for another model.
    """

    def __init__(self, folder: ExportedFolder, session: Session, tokenizer: Tokenizer) -> None:
        self.folder, self.session, self.tokenizer = folder, session, tokenizer
        self._shared = _SharedTokenizer(tokenizer)
        self.task = None if folder.task is None else trained_task(folder.path, folder.task)
        self._check_outputs()

    @classmethod
    def from_directory(
        cls, path: Path | str, runtime: str | None = None, precision: str | None = None, threads: int | None = None
    ) -> ExportedModel:
        """Load what ``bort export --format onnx`` wrote.

        Args:
            runtime: ``onnxruntime`` or ``openvino``; by default the one that the folder is for.
            precision: ``float32`` or ``bfloat16``, of what is not INT8; by default as :func:`bort.export.runtimes.open_session` chooses.
            threads: by default one per core, or what ``OMP_NUM_THREADS`` says.

        Raises:
            BortError: if the folder is not whole, the runtime is not installed, or this CPU cannot compute the model rightly.
        """
        folder = read_exported_folder(path)
        folder.check_cpu()
        return cls(folder, open_session(folder.model, runtime, precision, threads), folder.tokenizer())

    def predict(self, texts: Iterable[TextRow]) -> list[Prediction]:
        """What the classifier says of each row, in order.

        Args:
            texts: for a task of single texts, texts; for one of pairs, two texts each; or the fields of the task's own rows, such as
                ``{"premise": …, "choice1": …, "choice2": …, "question": …}``. What is too long is cut as in fine-tuning.

        Raises:
            BortError: if this is not a classifier, or a row has not the texts of the task; rows count from 0.
        """
        return self._predict(texts, 0)

    def predict_stream(self, texts: Iterable[TextRow], window: int = 1024) -> Iterator[Prediction]:
        """Yield what :meth:`predict` says of each row of an input that may never end; memory depends on ``window`` alone.

        Args:
            window: rows that are read before the first of them is answered; 1 answers each before the next is read.

        Raises:
            BortError: as :meth:`predict`, when the row is reached.
        """
        if window < 1:
            raise BortError(f"window must be at least 1, got {window}")
        rows = iter(texts)
        for first in itertools.count(0, window):
            group = list(itertools.islice(rows, window))
            if not group:
                return
            yield from self._predict(group, first)

    def encode(self, texts: Iterable[TextRow]) -> NDArray[np.float32]:
        """Hidden states of each row's first token, ``<s>``, (N, hidden_size), in order.

        Args:
            texts: texts, or two texts each, as :meth:`predict` takes them; cut where they are longer than the model can read.

        Raises:
            BortError: if this is a classifier, whose hidden states are not kept; if a row is not one or two texts.
        """
        rows = self._hidden_states(texts, slice(1))
        return np.concatenate(rows) if rows else np.empty((0, self.folder.config.hidden_size), dtype=np.float32)

    def encode_tokens(self, texts: Iterable[TextRow]) -> list[NDArray[np.float32]]:
        """Hidden states of all tokens of each row, special tokens included: one array (T, hidden_size) a row, in order.

        Args and raises as :meth:`encode`.
        """
        return self._hidden_states(texts, slice(None))

    def fill_mask(self, text: str, top_k: int = 5) -> list[Filling]:
        """The most probable tokens for the one ``<mask>`` in a text, the most probable first.

        As in Transformers, ``<mask>`` is the mask here and takes the space before it; special tokens are not offered.

        Raises:
            BortError: if this is not a masked language model, the text has no ``<mask>`` or several, or is longer than the model can read.
        """
        if self.folder.kind != "mlm":
            raise self._of_another_kind("fill_mask", "a pre-trained model with its head")
        before, *after = text.split(Vocab.mask_token)
        if len(after) != 1:
            raise BortError(f"{len(after)} times {Vocab.mask_token} in the text; write it where the one word is missing")
        left, right = (ids.tolist() for ids in self._shared.encode_batch([before.rstrip(), after[0]]))
        vocab, longest = self.tokenizer.vocab, self.folder.config.max_position_embeddings
        row = np.array([vocab.bos_id, *left, vocab.mask_id, *right, vocab.eos_id])
        if len(row) > longest:
            raise BortError(f"the text has {len(row)} tokens, special ones included, the model reads {longest}; cut it")
        ((_, outputs),) = self._run([row], np.array([[1 + len(left)]]))
        probabilities = scipy.special.softmax(outputs["logits"][0, 0].astype(np.float64))
        ranked = (int(index) for index in np.argsort(-probabilities, kind="stable") if index not in vocab.special_ids)
        decode = self._shared.decode
        return [
            Filling(decode([index]), float(probabilities[index]), decode([*left, index, *right]))
            for index in itertools.islice(ranked, top_k)
        ]

    def logits(self, rows: Sequence[NDArray[np.integer]]) -> NDArray[np.float32]:
        """A classifier's outputs, (N, classes), in the order of ``rows``: input ids (T,) each, special tokens included.

        Raises:
            BortError: if this is not a classifier.
        """
        task = self._classifier("logits")
        logits = np.empty((len(rows), task.num_classes), dtype=np.float32)
        for batch, outputs in self._run(rows):
            logits[batch] = outputs["logits"]
        return logits

    def _predict(self, texts: Iterable[TextRow], first: int) -> list[Prediction]:
        task = self._classifier("predict")
        logits = self.logits(self._input_ids(texts, first)).astype(np.float64)
        if not np.isfinite(logits).all():
            raise BortError(f"{self.folder.path}: the model's outputs are not finite; export it again in float32, or train it again")
        if task.is_regression:
            low, high = task.score_range
            return [Prediction(None, min(max(low, score), high)) for score in logits[:, 0].tolist()]
        labels = task.leaderboard_labels
        rows = scipy.special.softmax(logits, axis=1).tolist()
        return [Prediction(labels[row.index(max(row))], max(row), dict(zip(labels, row, strict=True))) for row in rows]

    def _hidden_states(self, texts: Iterable[TextRow], kept: slice) -> list[NDArray[np.float32]]:
        """The ``kept`` tokens' of each row."""
        if self.folder.kind == "classifier":
            raise self._of_another_kind("encode", "a pre-trained model")
        rows = self._input_ids(texts, 0)
        states: dict[int, NDArray[np.float32]] = {}
        for batch, outputs in self._run(rows):
            for row, hidden in zip(batch, outputs["last_hidden_state"], strict=True):
                # A copy, since a view would keep the whole batch in memory.
                states[row] = hidden[: len(rows[row])][kept].copy()
        return [states[row] for row in range(len(rows))]

    def _input_ids(self, texts: Iterable[TextRow], first: int) -> list[NDArray[np.int32]]:
        """Input ids of each row; an error counts rows from ``first``."""
        if isinstance(texts, str | Mapping):
            raise BortError("one row where a list of rows is needed; put it into brackets: [row]")
        rows = [_row_texts(row, f"row {number}", self.task) for number, row in enumerate(texts, start=first)]
        trained = self.folder.task
        longest = self.folder.config.max_position_embeddings if trained is None else trained.max_len
        return encode_examples([Example(0, row, None, 0) for row in rows], self._shared, longest)

    def _run(
        self, rows: Sequence[NDArray[np.integer]], masked_positions: NDArray[np.int64] | None = None
    ) -> Iterator[tuple[list[int], dict[str, NDArray[np.float32]]]]:
        """Yield the numbers of the rows of each batch, and its outputs; ``masked_positions`` (N, M) by default are the first token's."""
        if masked_positions is None:
            masked_positions = np.zeros((len(rows), 1), dtype=np.int64)
        for batch in batches_by_length([len(row) for row in rows]):
            width = min(_padded(len(rows[batch[0]])), self.folder.config.max_position_embeddings)
            input_ids = np.full((len(batch), width), self.tokenizer.vocab.pad_id, dtype=np.int64)
            attention_mask = np.zeros((len(batch), width), dtype=np.int64)
            for place, row in enumerate(batch):
                input_ids[place, : len(rows[row])] = rows[row]
                attention_mask[place, : len(rows[row])] = 1
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            if self.folder.kind == "mlm":
                inputs["masked_positions"] = masked_positions[batch]
            yield batch, self.session.run(inputs)

    def _check_outputs(self) -> None:
        """Run one row, since nothing else says that the model's file and the rest of the folder belong together."""
        config, classes = self.folder.config, self.task.num_classes if self.task else 0
        states, words = {"last_hidden_state": config.hidden_size}, {"logits": config.vocab_size}
        expected = {"classifier": {"logits": classes}, "encoder": states, "mlm": states | words}[self.folder.kind]
        try:
            ((_, outputs),) = self._run([np.array([self.tokenizer.vocab.bos_id, self.tokenizer.vocab.eos_id])])
            found = {name: array.shape[-1] for name, array in outputs.items()}
        except Exception as error:
            raise BortError(f"{self.folder.model}: fails on two tokens ({on_one_line(str(error)):.200}); export the model again") from None
        if found != expected:
            raise BortError(f"{self.folder.model}: has the outputs {found}, the folder says {expected}; export the model again")

    def _classifier(self, asked: str) -> Task:
        """The classifier's task, for what only a classifier can do."""
        if self.task is None:
            raise self._of_another_kind(asked, "a classifier")
        return self.task

    def _of_another_kind(self, asked: str, needed: str) -> BortError:
        return BortError(f'{self.folder.path}: an exported model of the kind "{self.folder.kind}"; {asked} needs {needed}')


@dataclass(frozen=True)
class ExportedPredictor:
    """A classifier for the code that labels whole tasks; implements :class:`bort.engine.Predictor`."""

    model: ExportedModel

    def predict(self, batch: ClassificationBatch) -> NDArray[np.float32]:
        """Logits (B, num_classes); zeros for a row that only fills the batch."""
        counting = np.flatnonzero(batch.weights)
        logits = self.model.logits([batch.input_ids[row, : batch.valid_length[row]] for row in counting])
        filled = np.zeros((len(batch.weights), logits.shape[1]), dtype=np.float32)
        filled[counting] = logits
        return filled


class _SharedTokenizer:
    """A tokenizer for several threads, which its library is not; each encodes on its own: to hand few texts over would take longer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.vocab = tokenizer, tokenizer.vocab
        self._lock = threading.Lock()

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.unsignedinteger]]:
        """Ids of each text, without special tokens."""
        with self._lock:
            ids, starts = self._tokenizer.encode_ragged(texts)
        return [ids[start:stop] for start, stop in itertools.pairwise(starts.tolist())]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, without special tokens."""
        with self._lock:
            return self._tokenizer.decode(ids)


def batches_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the numbers of the rows of each batch, the longest row first; every row is in one batch.

    A batch ends where it would come to more than a thousand positions, unless it is one row, or where padding would cost more than
    another call.

    Args:
        lengths: tokens of each row.
    """
    batch: list[int] = []
    width = padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        room = _padded(lengths[row])
        if batch and ((len(batch) + 1) * width > _MOST_POSITIONS or padding + width - room > _POSITIONS_OF_A_CALL):
            yield batch
            batch = []
        if not batch:
            width, padding = room, 0
        batch.append(row)
        padding += width - room
    if batch:
        yield batch


def _padded(length: int) -> int:
    return -(-length // _LENGTH_STEP) * _LENGTH_STEP


def _row_texts(row: TextRow, where: str, task: Task | None) -> tuple[str, ...]:
    """The one or two texts that a model reads of a row."""
    if isinstance(row, Mapping):
        if task is None:
            raise BortError(f"{where}: fields, which only a classifier's task has names for; give a text, or two")
        return texts_of(JsonObject(dict(row), where), task)
    texts = tuple(row) if isinstance(row, tuple | list) else (row,)
    allowed = (1, 2) if task is None else (2 if task.is_pair else 1,)
    if len(texts) not in allowed:
        raise BortError(f"{where}: {len(texts)} texts where {' or '.join(map(str, allowed))} should be")
    named = JsonObject(dict(zip(("text",) if len(texts) == 1 else ("text1", "text2"), texts, strict=True)), where)
    return tuple(named.text(name) for name in named.values)
