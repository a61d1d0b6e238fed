"""Bort as Gluon blocks, with the parameter names of the published weights.

Notable: one class is the student and its RoBERTa teachers (they differ in sizes and in one epsilon). The encoder is GluonNLP's
``BERTEncoder``; embedding, gathering of masked positions and the masked-language-model head stand here, because GluonNLP 0.10 demands
``masked_positions`` and uses the encoder's LayerNorm epsilon in the head, where the published weights were trained with 1e-12.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import gluonnlp as nlp
import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, nn

from bort.config import BortConfig, resolve_config
from bort.errors import BortError
from bort.gluon.parameters import distinct_parameters, load_parameters
from bort.randomness import Purpose, generator
from bort.tokenizer import Tokenizer
from bort.vocabulary import Vocab
from bort.vocabulary_files import find_tokenizer


class _QuietBlock(HybridBlock):
    """A block of which a part may stay out of what is compiled: the head, where only the encoder is wanted."""

    def _build_cache(self, *arguments: Any) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Parameter .* is not used by any computation")
            super()._build_cache(*arguments)


class BortModel(_QuietBlock):
    """Encoder with an optional masked-language-model head.

    Args:
        config: sizes.
        use_decoder: build the head; its output projection is tied to the word embedding.
    """

    def __init__(self, config: BortConfig, use_decoder: bool = True, **block: Any) -> None:
        super().__init__(**block)
        self.config = config
        self.use_decoder = use_decoder
        with self.name_scope():
            self.encoder = nlp.model.BERTEncoder(
                num_layers=config.num_hidden_layers,
                units=config.hidden_size,
                hidden_size=config.intermediate_size,
                max_length=config.max_position_embeddings,
                num_heads=config.num_attention_heads,
                dropout=config.hidden_dropout_prob,
                layer_norm_eps=config.layer_norm_eps,
            )
            for cell in self.encoder.transformer_cells:
                # GluonNLP leaves these input widths to the first batch; known now, files can be checked against them.
                cell.proj.weight.shape = (config.hidden_size, config.hidden_size)
                cell.ffn.ffn_1.weight.shape = (config.intermediate_size, config.hidden_size)
                cell.ffn.ffn_2.weight.shape = (config.hidden_size, config.intermediate_size)
            self.word_embed = nn.HybridSequential(prefix="word_embed_")
            with self.word_embed.name_scope():
                self.word_embed.add(nn.Embedding(config.vocab_size, config.hidden_size))
            if use_decoder:
                self.decoder = nn.HybridSequential(prefix="decoder_")
                with self.decoder.name_scope():
                    self.decoder.add(
                        nn.Dense(config.hidden_size, flatten=False, in_units=config.hidden_size),
                        nn.GELU(),
                        nn.LayerNorm(in_channels=config.hidden_size, epsilon=config.decoder_layer_norm_eps),
                        nn.Dense(config.vocab_size, flatten=False, in_units=config.hidden_size, params=self.word_embed[0].collect_params()),
                    )

    def __call__(self, input_ids: mx.nd.NDArray, valid_length: Any = None, masked_positions: Any = None) -> Any:
        """Encode, and predict the tokens at ``masked_positions`` if they are given.

        Args:
            input_ids: (B, T), any integer or float dtype that holds the ids exactly.
            valid_length: (B,), tokens of each row; without it every row is full.
            masked_positions: (B, M), each in [0, T).

        Returns:
            ``sequence`` (B, T, hidden_size), zero beyond ``valid_length``; with ``masked_positions`` the pair of it and the logits
            ``decoded`` (B, M, vocab_size).

        Raises:
            BortError: if T exceeds the learned positions, or positions are given to a model without a head.
        """
        valid_length = _checked_length(self.config, input_ids, valid_length)
        if masked_positions is not None and not self.use_decoder:
            raise BortError("masked_positions need the masked-language-model head; build the model with use_decoder=True")
        sequence = super().__call__(input_ids, valid_length)
        # The head is called from here, not from hybrid_forward, so that encoder and head are compiled each on its own and calls with and
        # without positions can alternate.
        return sequence if masked_positions is None else (sequence, self.decoder(_gather(sequence, masked_positions)))

    def hybrid_forward(self, F: Any, input_ids: Any, valid_length: Any) -> Any:
        # GluonNLP's encoder works on (T, B, hidden_size).
        embedded = self.word_embed(input_ids).transpose((1, 0, 2))
        encoded, _ = self.encoder(embedded, None, valid_length)
        return encoded.transpose((1, 0, 2))


def _checked_length(config: BortConfig, input_ids: Any, valid_length: Any) -> Any:
    """``valid_length`` as the encoder takes it; symbols, which a compiled parent block hands down, were checked there.

    A hybridized block is compiled for one set of arguments, so an absent length becomes a full one.
    """
    if not isinstance(input_ids, mx.nd.NDArray):
        return valid_length
    batch_size, length = input_ids.shape
    if length > config.max_position_embeddings:
        raise BortError(f"sequences of {length} tokens do not fit max_position_embeddings {config.max_position_embeddings}")
    if valid_length is None:
        return mx.nd.full((batch_size,), length, ctx=input_ids.context)
    return valid_length.astype("float32", copy=False)


def _gather(sequence: Any, positions: Any) -> Any:
    """Rows of ``sequence`` (B, T, C) at ``positions`` (B, M): (B, M, C)."""
    F = mx.nd if isinstance(sequence, mx.nd.NDArray) else mx.sym
    positions = positions.astype("int32")
    rows = F.broadcast_like(F.contrib.arange_like(positions, axis=0).astype("int32").expand_dims(1), positions)
    return F.gather_nd(sequence, F.stack(rows, positions, axis=0))


class BortClassifier(_QuietBlock):
    """Dropout → Dense(hidden, tanh) → dropout → Dense(num_classes) on the first token's encoding.

    Args:
        net: encoder; its head, if any, is not used.
        num_classes: outputs a row; 1 for a regression.
        dropout: in [0, 1).
    """

    def __init__(self, net: BortModel, num_classes: int, dropout: float = 0.1, **block: Any) -> None:
        super().__init__(**block)
        self.bort = net
        hidden_size = net.config.hidden_size
        with self.name_scope():
            self.classifier = nn.HybridSequential()
            with self.classifier.name_scope():
                self.classifier.add(
                    nn.Dropout(dropout),
                    nn.Dense(hidden_size, flatten=False, activation="tanh", in_units=hidden_size),
                    nn.Dropout(dropout),
                    nn.Dense(num_classes, flatten=False, in_units=hidden_size),
                )

    def __call__(self, input_ids: mx.nd.NDArray, valid_length: Any = None) -> Any:
        """Classify.

        Args:
            input_ids: (B, T), any integer or float dtype that holds the ids exactly.
            valid_length: (B,), tokens of each row; without it every row is full.

        Returns:
            Logits (B, num_classes).

        Raises:
            BortError: if T exceeds the learned positions.
        """
        valid_length = _checked_length(self.bort.config, input_ids, valid_length)
        return super().__call__(input_ids, valid_length)

    def hybrid_forward(self, F: Any, input_ids: Any, valid_length: Any = None) -> Any:
        sequence = self.bort(input_ids, valid_length)
        return self.classifier(sequence.slice_axis(axis=1, begin=0, end=1).reshape((0, -1)))


def initialize(net: HybridBlock, ctx: mx.Context | list[mx.Context], seed: int = 0) -> None:
    """Normal(0.02) for weights, zeros for biases, ones for LayerNorm scales: the published recipe.

    Args:
        seed: fixes the draw, which NumPy makes parameter by parameter, so it is the same on every device and for every worker.
    """
    net.initialize(mx.init.Zero(), ctx=ctx, force_reinit=True)
    for index, (name, parameter) in enumerate(distinct_parameters(net).items()):
        if name.endswith("weight"):
            draw = generator(Purpose.WEIGHTS, seed, index).standard_normal(parameter.shape, dtype=np.float32)
            parameter.set_data(mx.nd.array(0.02 * draw))


def get_bort_model(
    model_name: str | BortConfig = "bort_4_8_768_1024",
    dataset_name: str | None = None,
    vocab: Vocab | Tokenizer | str | os.PathLike[str] | None = None,
    params: str | os.PathLike[str] | None = None,
    use_decoder: bool = True,
    ctx: mx.Context | list[mx.Context] | None = None,
    seed: int = 0,
) -> tuple[BortModel, Vocab | None]:
    """Build a named (or any) Bort, loaded from a parameter file or initialised Normal(0.02).

    Args:
        model_name: an architecture of :data:`bort.config.ARCHITECTURES`, a ``config.json``, or a :class:`BortConfig`.
        dataset_name: name of a published vocabulary, looked for in the usual places.
        vocab: a ``Vocab``, or the directory of one; overrides ``dataset_name``.
        params: ``.params`` or ``.safetensors`` file under published names.
        use_decoder: keep the masked-language-model head.
        ctx: device or devices; the CPU by default.
        seed: fixes the initial weights where no ``params`` are given.

    Returns:
        The model, hybridized with static memory, and the vocabulary, None if none was named.

    Raises:
        BortError: if a file is missing, damaged, or does not fit the architecture, or the vocabulary has another size than the model.
    """
    config = resolve_config(model_name)
    if isinstance(vocab, Tokenizer):
        vocab = vocab.vocab
    elif not isinstance(vocab, Vocab) and (vocab is not None or dataset_name is not None):
        vocab = find_tokenizer(vocab, dataset_name).vocab
    if vocab is not None and len(vocab) != config.vocab_size:
        raise BortError(f"the vocabulary has {len(vocab)} tokens, the model {config.vocab_size}; they belong to different models")
    net = BortModel(config, use_decoder=use_decoder, prefix="")
    if params is None:
        initialize(net, ctx or mx.cpu(), seed)
    else:
        load_parameters(net, Path(params), ctx or mx.cpu())
    net.hybridize(static_alloc=True)
    return net, vocab
