"""A folder that needs nothing else to be deployed: the model, its vocabulary, the names of its labels, and what is known of it.

``model.onnx``, or ``openvino_model.xml`` with its ``.bin``; ``config.json`` with the fields of a Hugging Face ``BertConfig``, ``id2label``
among them; the tokenizer as ``tokenizer.json``, which Hugging Face's library applies, and as the two files we read; and ``export.json``:
what kind of model, in which precision, and for INT8 the report of what that cost. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bort.config import BortConfig
from bort.errors import BortError
from bort.export.hugging_face import label_fields, token_fields, tokenizer_files
from bort.files import whole_directory
from bort.machine import cpu_flags, has_vnni
from bort.model_directory import CONFIG_FILE, TrainedTask, read_task
from bort.tokenizer import Tokenizer

MODEL_FILE, IR_FILE, DESCRIPTION_FILE = "model.onnx", "openvino_model.xml", "export.json"
_KINDS, _PRECISIONS = ("encoder", "mlm", "classifier"), ("float32", "int8")


@dataclass(frozen=True)
class ExportedFolder:
    """What an exported folder says of itself.

    Attributes:
        path: the folder.
        config: sizes.
        kind: encoder, mlm or classifier.
        task: what a classifier was fine-tuned for; None for the others.
        precision: float32 or int8.
        reduced_range: whether INT8 weights use 7 of their 8 bits, so that sums of two products fit 16 bits on CPUs without VNNI.
        report: what was measured when the model was quantised; empty for float32.
    """

    path: Path
    config: BortConfig
    kind: str
    task: TrainedTask | None
    precision: str
    reduced_range: bool
    report: Mapping[str, Any]

    @property
    def model(self) -> Path:
        """The file that a runtime opens."""
        return self.path / (IR_FILE if (self.path / IR_FILE).is_file() else MODEL_FILE)

    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer.

        Raises:
            BortError: if the folder holds none, or one of another size than the model.
        """
        tokenizer = Tokenizer.from_directory(self.path)
        if len(tokenizer.vocab) != self.config.vocab_size:
            raise BortError(f"{self.path}: the vocabulary has {len(tokenizer.vocab)} tokens, config.json says {self.config.vocab_size}")
        return tokenizer

    def check_cpu(self, flags: frozenset[str] | None = None) -> None:
        """Refuse an INT8 model whose sums would overflow.

        Args:
            flags: of the CPU; by default of this one.

        Raises:
            BortError: if it has no VNNI and the weights use their whole range.
        """
        if self.precision == "int8" and not self.reduced_range and not has_vnni(cpu_flags() if flags is None else flags):
            raise BortError(
                f"{self.path}: its INT8 weights need a CPU with VNNI, and this one has none: its answers would be wrong without a word; "
                "export it again with --reduced_range yes, or in float32"
            )


def write_exported_folder(
    folder: Path | str,
    place_model: Callable[[Path], None],
    config: BortConfig,
    kind: str,
    tokenizer: Tokenizer,
    task: TrainedTask | None = None,
    labels: Sequence[str | int] = (),
    precision: str = "float32",
    reduced_range: bool = False,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Write the folder, whole or not at all.

    Args:
        place_model: writes :data:`MODEL_FILE`, or :data:`IR_FILE` and its ``.bin``, into the folder it is given.
        labels: a classifier's classes as people write them; by default as the task has them.
    """
    fields = config.to_dict() | token_fields(tokenizer)
    if task is not None:
        fields |= label_fields(tuple(labels) or task.labels) | {"task": asdict(task)}
    description = {"kind": kind, "precision": precision, "reduced_range": reduced_range, "report": dict(report or {})}
    # A SentencePiece model has no such form; its own file, which the tokenizer saves, is all there is.
    texts = tokenizer_files(tokenizer, task.max_len if task else config.max_position_embeddings) if tokenizer.merges is not None else {}
    texts[CONFIG_FILE] = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    texts[DESCRIPTION_FILE] = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    with whole_directory(folder) as partial:
        place_model(partial)
        tokenizer.save(partial)
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")


def read_exported_folder(path: Path | str) -> ExportedFolder:
    """Describe an exported folder.

    Raises:
        BortError: if a file is missing or damaged.
    """
    path = Path(path)
    description = _read_object(path / DESCRIPTION_FILE)
    config = BortConfig.from_json(path / CONFIG_FILE)
    stored = _read_object(path / CONFIG_FILE).get("task")
    task = None if stored is None else read_task(path / CONFIG_FILE, stored, config)
    match description:
        case {"kind": str(kind), "precision": str(precision), "reduced_range": bool(reduced_range), "report": dict(report)} if (
            kind in _KINDS and precision in _PRECISIONS and (kind == "classifier") == (task is not None)
        ):
            folder = ExportedFolder(path, config, kind, task, precision, reduced_range, report)
        case _:
            raise BortError(f"{path / DESCRIPTION_FILE}: not as bort export writes it, or of another model; export the model again")
    if not folder.model.is_file():
        raise BortError(f"{path}: no {MODEL_FILE} and no {IR_FILE}; export the model again: bort export --help")
    return folder


def _read_object(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BortError(f"{path}: cannot read: {error.strerror}; give a folder that bort export --format onnx wrote") from None
    except (ValueError, RecursionError) as error:
        raise BortError(f"{path}: not JSON: {error}; export the model again") from None
    if not isinstance(fields, dict):
        raise BortError(f"{path}: expected a JSON object, found {type(fields).__name__}; export the model again")
    return fields
