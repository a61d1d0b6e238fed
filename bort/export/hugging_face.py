"""A model folder as Transformers reads it, and back: ``BertForMaskedLM``, ``BertForSequenceClassification``, or the encoder alone.

Notable: nothing is approximated. Bort is a BERT with one token type, whose embedding is zero; its classifier is BERT's pooler followed by
BERT's classifier. One thing differs: Transformers has one epsilon for all LayerNorms, where the masked-language-model head of the published
Bort has its own (1e-12 against 1e-5), so its logits, and nothing else, differ a little. ``config.json`` keeps our own fields too, which
Transformers carries along, so that the way back loses nothing. The tokenizer joins a pair by a single ``</s>``, as Bort was trained, where
RoBERTa's puts two. In Transformers ``<mask>`` in a text is the special token, as its users expect; here it never is.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from bort.byte_pair import MERGES_FILE, VOCAB_FILE, merges_text
from bort.config import BortConfig
from bort.encoder_files import WHOLE_FILE
from bort.errors import BortError
from bort.files import whole_directory
from bort.hugging_face_names import from_hugging_face, is_hugging_face, to_hugging_face
from bort.model_directory import CONFIG_FILE, TrainedTask, read_task, write_model_directory
from bort.parameters import read_parameters, write_safetensors
from bort.tokenizer import Tokenizer, locate_files
from bort.vocabulary import read_text

TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_ENCODER = "bort."
_CLASSIFIER = {
    "classifier.1.weight": "bert.pooler.dense.weight",
    "classifier.1.bias": "bert.pooler.dense.bias",
    "classifier.3.weight": "classifier.weight",
    "classifier.3.bias": "classifier.bias",
}
# safetensors' own note of the framework, without which Transformers refuses a file.
_METADATA = {"format": "pt"}


def write_hugging_face(
    folder: Path | str,
    config: BortConfig,
    parameters: Mapping[str, np.ndarray],
    tokenizer: Tokenizer,
    task: TrainedTask | None = None,
    written_labels: tuple[str | int, ...] = (),
) -> str:
    """Write a folder that ``AutoModel…`` and ``AutoTokenizer`` load, whole or not at all.

    Args:
        parameters: under published names, in float32: of an encoder, with its head or without, or of a classifier, ``bort.*`` and
            ``classifier.*``.
        tokenizer: a byte-level BPE.
        task: what a classifier was fine-tuned for.
        written_labels: its classes as people write them; by default as the task has them.

    Returns:
        The class of Transformers that it is: ``BertForMaskedLM``, ``BertForSequenceClassification`` or ``BertModel``.

    Raises:
        BortError: if parameters are missing or unknown, or the tokenizer is a SentencePiece model.
    """
    files = tokenizer_files(tokenizer, task.max_len if task else config.max_position_embeddings)
    arrays, kind = _their_parameters(parameters)
    if (kind == "BertForSequenceClassification") != (task is not None):
        raise ValueError("a classifier and what it was fine-tuned for go together")
    fields = {"architectures": [kind]} | config.to_dict() | token_fields(tokenizer) | {"torch_dtype": "float32"}
    if task is not None:
        fields |= label_fields(written_labels or task.labels) | {
            "classifier_dropout": config.hidden_dropout_prob,
            "task": {"name": task.name, "labels": task.labels, "max_len": task.max_len, "keep_question": task.keep_question},
        }
    with whole_directory(folder) as partial:
        (partial / CONFIG_FILE).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8")
        tokenizer.save(partial)
        write_safetensors(partial / WHOLE_FILE, arrays, _METADATA)
    return kind


def convert_to_gluon(source: Path | str, folder: Path | str) -> None:
    """Write a model folder of ours from one that ``write_hugging_face`` made, or that Transformers saved after loading it.

    Raises:
        BortError: if the folder is not whole, holds another kind of model, or a classifier does not say what it was fine-tuned for.
    """
    source = Path(source)
    config = BortConfig.from_json(source / CONFIG_FILE)
    path = source / WHOLE_FILE
    arrays = read_parameters(path)
    if not is_hugging_face(arrays):
        raise BortError(f"{path}: not the parameters of a BERT with Transformers' names; give a folder with those of one")
    head = {ours: arrays[theirs] for ours, theirs in _CLASSIFIER.items() if theirs in arrays}
    is_classifier = "classifier.weight" in arrays
    if is_classifier and len(head) != len(_CLASSIFIER):
        raise BortError(f"{path}: a classifier without its pooler ({', '.join(_CLASSIFIER.values())} belong together)")
    try:
        encoder = from_hugging_face({name: array for name, array in arrays.items() if not name.startswith("classifier.")})
    except BortError as error:
        raise BortError(f"{path}: {error}") from None
    stored = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8")).get("task")
    if is_classifier and stored is None:
        raise BortError(f"{source / CONFIG_FILE}: no task; only a classifier that bort export wrote says what its outputs mean")
    task = read_task(source / CONFIG_FILE, stored, config) if is_classifier else None
    parameters = {f"{_ENCODER}{name}": array for name, array in encoder.items()} | head if is_classifier else encoder
    write_model_directory(folder, config, parameters, _read_tokenizer(source), task)


def _read_tokenizer(source: Path) -> Tokenizer:
    """The tokenizer of a folder; Transformers leaves ``tokenizer.json`` alone when it saves one."""
    path = source / TOKENIZER_FILE
    if locate_files(source) or not path.is_file():
        return Tokenizer.from_directory(source)
    try:
        fields = json.loads(read_text(path))
        model, pre_tokenizer = fields["model"], fields["pre_tokenizer"]
        if (model["type"], pre_tokenizer["type"], pre_tokenizer["add_prefix_space"]) != ("BPE", "ByteLevel", False):
            raise ValueError("of another kind")
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
        merges = merges_text(tuple((left, right) for left, right in pairs))
        with tempfile.TemporaryDirectory(prefix="bort_export_") as scratch:
            # Whatever the file says is checked by the reader of the two files.
            (Path(scratch) / VOCAB_FILE).write_text(json.dumps(model["vocab"]), encoding="utf-8")
            (Path(scratch) / MERGES_FILE).write_text(merges, encoding="utf-8")
            return Tokenizer.from_directory(scratch)
    except (BortError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BortError(f"{path}: not the byte-level BPE that bort export writes; give the folder as it was") from error


def _their_parameters(parameters: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """Arrays under Transformers' names, and the class that they are of."""
    head = {name: array for name, array in parameters.items() if name.startswith("classifier.")}
    if not head:
        kind = "BertForMaskedLM" if any(name.startswith("decoder.") for name in parameters) else "BertModel"
        # The names of a bare BertModel begin with "bert." too: Transformers takes that prefix off, and it tells our reader what they are.
        return to_hugging_face(parameters), kind
    if head.keys() != _CLASSIFIER.keys():
        raise BortError(f"the classifier's parameters are {', '.join(sorted(head))}, expected {', '.join(_CLASSIFIER)}")
    encoder = {name.removeprefix(_ENCODER): array for name, array in parameters.items() if name.startswith(_ENCODER)}
    # A masked-language-model head that came along is of no use to a classifier.
    encoder = {name: array for name, array in encoder.items() if not name.startswith("decoder.")}
    return to_hugging_face(encoder) | {theirs: head[ours] for ours, theirs in _CLASSIFIER.items()}, "BertForSequenceClassification"


def label_fields(labels: tuple[str | int, ...] | None) -> dict[str, Any]:
    if labels is None:
        return {"problem_type": "regression", "num_labels": 1}
    names = [label if isinstance(label, str) else json.dumps(label) for label in labels]
    return {
        "problem_type": "single_label_classification",
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }


def token_fields(tokenizer: Tokenizer) -> dict[str, int]:
    vocab = tokenizer.vocab
    return {"pad_token_id": vocab.pad_id, "bos_token_id": vocab.bos_id, "eos_token_id": vocab.eos_id}


def tokenizer_files(tokenizer: Tokenizer, max_len: int) -> dict[str, str]:
    """``tokenizer.json``, which holds all that is applied, and ``tokenizer_config.json``, which names the special tokens."""
    vocab = tokenizer.vocab
    if tokenizer.merges is None:
        raise BortError("the vocabulary is a SentencePiece model, which this export does not convert; it takes a byte-level BPE")
    ids = {token: position for position, token in enumerate(vocab.tokens)}
    library = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=list(tokenizer.merges)))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    bos, eos = vocab.bos_token, vocab.eos_token
    library.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} $B:0 {eos}:0",
        special_tokens=[(bos, vocab.bos_id), (eos, vocab.eos_id)],
    )
    # A mask takes the space before it, as RoBERTa's does: "a <mask>" and "a<mask>" are the same.
    library.add_special_tokens([tokenizers.AddedToken(token, lstrip=token == vocab.mask_token) for token in vocab.special_tokens])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_len,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "bos_token": bos,
        "cls_token": bos,
        "eos_token": eos,
        "sep_token": eos,
        "pad_token": vocab.pad_token,
        "unk_token": vocab.unk_token,
        "mask_token": vocab.mask_token,
    }
    return {TOKENIZER_FILE: library.to_str(pretty=True) + "\n", TOKENIZER_CONFIG_FILE: json.dumps(config, indent=2) + "\n"}
