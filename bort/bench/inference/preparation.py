"""Everything that rows load, made before the first of them is started: models in all their forms, vocabularies, texts and ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bort.bench.inference.cases import make_batches, write_batches
from bort.bench.inference.processes import Place, available_memory
from bort.bench.inference.rows import PEERS, Row
from bort.bench.inference.texts import make_texts
from bort.bench.pretrain import Shape
from bort.bench.processes import measure
from bort.errors import BortError
from bort.model_directory import find_model

_MODELS, _PEERS = "bort.bench.inference.models", "bort.bench.inference.peers"
_VOCAB_SIZES, _LONGEST, _ROBERTAS_OWN_POSITIONS = {"wordpiece": 30522, "bpe": 50265}, 512, 2
# Quantising the largest peer takes about as much.
_MEMORY_OF_A_STEP = 8e9


@dataclass(frozen=True)
class Model:
    """A model to make.

    Attributes:
        name: of Bort, or of a peer.
        source: of Bort: an architecture, a ``config.json`` or a model folder.
        fields: of a peer's configuration, in place of those that are published.
        forms: runtimes and precisions that its rows need.
    """

    name: str
    source: str
    fields: Mapping[str, Any]
    forms: frozenset[tuple[str, str]]

    def vocabulary(self) -> tuple[str, int]:
        """Kind and size."""
        if self.name not in PEERS:
            return "bpe", find_model(self.source).config.vocab_size
        kind = PEERS[self.name].tokenizer
        return kind, int(self._field("vocab_size", _VOCAB_SIZES[kind]))

    def longest(self) -> int:
        """Tokens of the longest row."""
        if self.name not in PEERS:
            return find_model(self.source).config.max_position_embeddings
        own = _ROBERTAS_OWN_POSITIONS if PEERS[self.name].architecture == "RobertaModel" else 0
        return int(self._field("max_position_embeddings", _LONGEST)) - own

    def _field(self, name: str, default: int) -> Any:
        return (dict(PEERS[self.name].fields) | dict(self.fields)).get(name, default)

    def steps(self, folder: Path, cases: Path) -> list[tuple[str, dict[str, Any]]]:
        """Functions to call one after the other, each in a process of its own, and their arguments."""
        place: dict[str, Any] = {"folder": str(folder), "name": self.name}
        if self.name in PEERS:
            steps = [(f"{_PEERS}:make_peer", place | {"fields": dict(self.fields), "cases": str(cases), "threads": 1})]
        else:
            steps = [(f"{_MODELS}:make_bort", place | {"model": self.source, "cases": str(cases)})]
        if self.forms & {("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")}:
            steps.append((f"{_MODELS}:make_graph", place))
        if ("onnxruntime", "int8") in self.forms:
            steps.append((f"{_MODELS}:make_dynamic_int8", place))
        if ("openvino", "int8") in self.forms:
            sizes = {"vocab_size": self.vocabulary()[1], "longest": self.longest()}
            steps.append((f"{_MODELS}:make_static_int8", place | sizes))
        return steps


def models_of(rows: Sequence[Row], bort: str, fields: Mapping[str, Mapping[str, Any]]) -> list[Model]:
    """The models of these rows, each once.

    Args:
        bort: an architecture, a ``config.json`` or a model folder.
        fields: of peers' configurations, by name, in place of those that are published.
    """
    forms: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        forms.setdefault(row.model, set()).add((row.runtime, row.precision))
    return [Model(name, bort, fields.get(name, {}), frozenset(needed)) for name, needed in forms.items()]


def prepare(
    scratch: Path, models: Sequence[Model], shapes: Sequence[Shape], cores: Sequence[int], show_progress: bool
) -> tuple[dict[str, Place], list[dict[str, Any]]]:
    """Make everything.

    Args:
        scratch: an empty folder, which gets one for each model and one for each vocabulary.
        cores: models are made on as many at once as memory allows.

    Returns:
        Where each model's rows find their files, by name; and kind, size and tokens per word of each vocabulary.

    Raises:
        BortError: if a shape is longer than a model can read, or something needed is not installed.
    """
    longest = min(model.longest() for model in models)
    for shape in shapes:
        if shape.length > longest:
            raise BortError(f"--shapes {shape}: {longest} tokens are the most that all of these models read; give shorter ones")
    pairs = [(shape.batch_size, shape.length) for shape in shapes]
    cases = scratch / "cases.npz"
    vocabularies = {model.name: model.vocabulary() for model in models}
    write_batches(cases, make_batches(pairs, min(size for _, size in vocabularies.values()), longest))
    texts = {vocabulary: scratch / f"{vocabulary[0]}_{vocabulary[1]}" for vocabulary in vocabularies.values()}
    places = {model.name: Place(scratch / model.name, texts[vocabularies[model.name]], cases) for model in models}
    at_once = int(max(1, min(len(cores), available_memory() // _MEMORY_OF_A_STEP)))
    with (
        ThreadPoolExecutor(at_once) as pool,
        tqdm(total=len(models), desc="making models", leave=False, disable=not show_progress) as bar,
    ):
        free = list(cores[:at_once])

        def make(model: Model) -> None:
            core = free.pop()
            for function, arguments in model.steps(places[model.name].folder, cases):
                measure(function, arguments, [core])
            free.append(core)
            bar.update()

        made = [pool.submit(make, model) for model in models]
        try:
            for future in made:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        described = [make_texts(folder, *vocabulary, pairs) for vocabulary, folder in texts.items()]
    return places, described
