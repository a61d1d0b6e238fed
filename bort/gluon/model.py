"""Bort as Gluon blocks, with the parameter names of the published weights.

Notable: one class is the student and its RoBERTa teachers (they differ in sizes and in one epsilon). The encoder is GluonNLP's
``BERTEncoder``; embedding, gathering of masked positions and the masked-language-model head stand here, because GluonNLP 0.10 demands
``masked_positions`` and uses the encoder's LayerNorm epsilon in the head, where the published weights were trained with 1e-12.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import gluonnlp as nlp
import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, nn

from bort.config import BortConfig
from bort.errors import BortError
from bort.gluon import kernels
from bort.gluon.first_token import FirstTokenCell
from bort.gluon.parameters import distinct_parameters, set_arrays
from bort.model_directory import find_model
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
        use_kernels: run LayerNorms and attention by ``bort/gluon/kernels.cc``; for the CPU only.
        only_first: return the first token's encoding only, in less time; for a model without a head.
    """

    def __init__(
        self, config: BortConfig, use_decoder: bool = True, use_kernels: bool = False, only_first: bool = False, **block: Any
    ) -> None:
        super().__init__(**block)
        if only_first and use_decoder:
            raise BortError("only_first leaves nothing for a masked-language-model head; build the model with use_decoder=False")
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
            if use_kernels:
                self.encoder.layer_norm = _KernelLayerNorm(self.encoder.layer_norm)
                for cell in self.encoder.transformer_cells:
                    cell.attention_cell = _KernelSelfAttention(cell.attention_cell)
                    cell.layer_norm = _KernelLayerNorm(cell.layer_norm)
                    cell.ffn.layer_norm = _KernelLayerNorm(cell.ffn.layer_norm)
            if only_first:
                cells = self.encoder.transformer_cells
                cells.register_child(FirstTokenCell(cells[-1]), str(len(cells) - 1))
            self.word_embed = nn.HybridSequential(prefix="word_embed_")
            with self.word_embed.name_scope():
                self.word_embed.add(nn.Embedding(config.vocab_size, config.hidden_size))
            if use_decoder:
                self.decoder = nn.HybridSequential(prefix="decoder_")
                with self.decoder.name_scope():
                    norm = nn.LayerNorm(in_channels=config.hidden_size, epsilon=config.decoder_layer_norm_eps)
                    self.decoder.add(
                        nn.Dense(config.hidden_size, flatten=False, in_units=config.hidden_size),
                        nn.GELU(),
                        _KernelLayerNorm(norm) if use_kernels else norm,
                        nn.Dense(config.vocab_size, flatten=False, in_units=config.hidden_size, params=self.word_embed[0].collect_params()),
                    )

    def __call__(self, input_ids: mx.nd.NDArray, valid_length: Any = None, masked_positions: Any = None) -> Any:
        """Encode, and predict the tokens at ``masked_positions`` if they are given.

        Args:
            input_ids: (B, T), any integer or float dtype that holds the ids exactly.
            valid_length: (B,), tokens of each row; without it every row is full.
            masked_positions: (B, M), each in [0, T).

        Returns:
            ``sequence`` (B, T, hidden_size), zero beyond ``valid_length``, or (B, 1, hidden_size) if ``only_first``; with
            ``masked_positions`` the pair of it and the logits ``decoded`` (B, M, vocab_size).

        Raises:
            BortError: if T exceeds the learned positions, or positions are given to a model without a head.
        """
        return self.encode(self.word_embed(input_ids), valid_length, masked_positions)

    def encode(self, embedded: Any, valid_length: Any = None, masked_positions: Any = None) -> Any:
        """As calling the model, from the words' embeddings (B, T, hidden_size) on."""
        valid_length = _checked_length(self.config, embedded, valid_length, self.word_embed[0].weight.dtype)
        if masked_positions is not None and not self.use_decoder:
            raise BortError("masked_positions need the masked-language-model head; build the model with use_decoder=True")
        sequence = super().__call__(embedded, valid_length)
        # The head is called from here, not from hybrid_forward, so that encoder and head are compiled each on its own and calls with and
        # without positions can alternate.
        return sequence if masked_positions is None else (sequence, self.decoder(_gather(sequence, masked_positions)))

    def hybrid_forward(self, F: Any, embedded: Any, valid_length: Any) -> Any:
        # GluonNLP's encoder works on (T, B, hidden_size).
        encoded, _ = self.encoder(embedded.transpose((1, 0, 2)), None, valid_length)
        return encoded.transpose((1, 0, 2))


class _KernelLayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis by Bort's kernel, with the parameters and the name of ``norm``."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(in_channels=norm.gamma.shape[0], epsilon=norm._epsilon, prefix=norm.prefix, params=norm.params)

    def hybrid_forward(self, F: Any, data: Any, gamma: Any, beta: Any) -> Any:
        # The kernel overwrites its gradients; behind an identity they are added where a caller has chosen to add.
        return F.bort_layer_norm(data, F.identity(gamma), F.identity(beta), eps=self._epsilon)


class _KernelSelfAttention(nlp.model.bert.DotProductSelfAttentionCell):
    """Self-attention by Bort's kernel, with the parameters and the name of ``cell``."""

    def __init__(self, cell: nlp.model.bert.DotProductSelfAttentionCell) -> None:
        super().__init__(cell.units, cell._num_heads, cell._dropout, prefix=cell.prefix, params=cell.params)

    def hybrid_forward(self, F: Any, inputs: Any, valid_length: Any, **parameters: Any) -> Any:
        """Take inputs (T, B, C) and valid_length (B, T), the same in each column; return the context (T, B, C) and no weights."""
        projected = [
            F.FullyConnected(inputs, parameters[f"{name}_weight"], parameters[f"{name}_bias"], num_hidden=self.units, flatten=False)
            for name in ("query", "key", "value")
        ]
        lengths = F.cast(F.slice_axis(valid_length, axis=1, begin=0, end=1), dtype="float32").reshape((-1,))
        # An operator is not told whether it trains, but Dropout is: it leaves a one alone only in prediction.
        gate = F.Dropout(F.ones((1,)), p=self._dropout)
        seed = F.random.uniform(0, 2**24, shape=(2,))
        return F.bort_attention(*projected, lengths, F.BlockGrad(gate), seed, heads=self._num_heads, dropout=self._dropout), None


def _checked_length(config: BortConfig, inputs: Any, valid_length: Any, dtype: Any = "float32") -> Any:
    """``valid_length`` as the encoder takes it; symbols, which a compiled parent block hands down, were checked there.

    A hybridized block is compiled for one set of arguments, so an absent length becomes a full one.
    """
    if not isinstance(inputs, mx.nd.NDArray):
        return valid_length
    batch_size, length = inputs.shape[:2]
    if length > config.max_position_embeddings:
        raise BortError(f"sequences of {length} tokens do not fit max_position_embeddings {config.max_position_embeddings}")
    if valid_length is None:
        return mx.nd.full((batch_size,), length, ctx=inputs.context, dtype=dtype)
    return valid_length.astype(dtype, copy=False)


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
        valid_length = _checked_length(self.bort.config, input_ids, valid_length, self.bort.word_embed[0].weight.dtype)
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


_HEAD_INITIALIZERS = {
    "gaussian": mx.init.Normal,
    "uniform": mx.init.Uniform,
    "orthogonal": mx.init.Orthogonal,
    "xavier": lambda scale: mx.init.Xavier(),
}


def initialize_head(classifier: BortClassifier, ctx: mx.Context, seed: int, kind: str = "gaussian", scale: float = 0.02) -> None:
    """Draw the layers that a classifier has besides its encoder; biases are zeros.

    Args:
        seed: fixes the draw, whatever was drawn before and on whatever device.
        kind: gaussian (standard deviation ``scale``), uniform (within ±``scale``), orthogonal (orthonormal rows times ``scale``), or xavier
            (uniform, its width from the layer's sizes: Glorot and Bengio 2010; ``scale`` is not used).

    Raises:
        BortError: if ``kind`` is none of these.
    """
    if kind not in _HEAD_INITIALIZERS:
        raise BortError(f"the classifier's initialisation must be one of {', '.join(_HEAD_INITIALIZERS)}, got {kind}")
    # The place behind those of the encoder's parameters. MXNet draws initial values on the CPU and then copies them.
    place = len(distinct_parameters(classifier.bort))
    mx.random.seed(int(generator(Purpose.WEIGHTS, seed, place).integers(2**31)), ctx=mx.cpu())
    classifier.classifier.initialize(_HEAD_INITIALIZERS[kind](scale), ctx=ctx, force_reinit=True)


def get_bort_model(
    model_name: str | os.PathLike[str] | BortConfig = "bort_4_8_768_1024",
    dataset_name: str | None = None,
    vocab: Vocab | Tokenizer | str | os.PathLike[str] | None = None,
    params: str | os.PathLike[str] | None = None,
    use_decoder: bool = True,
    ctx: mx.Context | list[mx.Context] | None = None,
    seed: int = 0,
    use_kernels: bool | None = None,
) -> tuple[BortModel, Vocab | None]:
    """Build a named (or any) Bort, loaded from a parameter file or initialised Normal(0.02).

    Args:
        model_name: an architecture of :data:`bort.config.ARCHITECTURES`, a ``config.json`` or a :class:`BortConfig`; or a model folder or
            a folder that Transformers wrote for a BERT or RoBERTa, with its own parameters unless ``params`` are given.
        dataset_name: name of a published vocabulary, looked for in the usual places.
        vocab: a ``Vocab``, or the directory of one; overrides ``dataset_name``.
        params: ``.params`` or ``.safetensors`` file; its names may be the published ones, GluonNLP's BERT's or Transformers'.
        use_decoder: keep the masked-language-model head.
        ctx: device or devices; the CPU by default.
        seed: fixes the initial weights where there are no parameters.
        use_kernels: run LayerNorms and attention by ``bort/gluon/kernels.cc``, which is for float32 on CPUs; None where it can. Without it
            the network consists of MXNet's operators alone: it can be cast, exported and moved to another device.

    Returns:
        The model, hybridized with static memory, and the vocabulary, None if none was named.

    Raises:
        BortError: if a file is missing, damaged, or does not fit the architecture, or the vocabulary has another size than the model.
    """
    source = find_model(model_name, params)
    config = source.config
    if isinstance(vocab, Tokenizer):
        vocab = vocab.vocab
    elif not isinstance(vocab, Vocab) and (vocab is not None or dataset_name is not None):
        vocab = find_tokenizer(vocab, dataset_name).vocab
    if vocab is not None and len(vocab) != config.vocab_size:
        raise BortError(f"the vocabulary has {len(vocab)} tokens, the model {config.vocab_size}; they belong to different models")
    ctx = ctx or mx.cpu()
    if use_kernels is None:
        use_kernels = all(map(kernels.are_available, [ctx] if isinstance(ctx, mx.Context) else ctx))
    net = BortModel(config, use_decoder=use_decoder, use_kernels=use_kernels, prefix="")
    if source.parameters is None:
        initialize(net, ctx, seed)
    else:
        set_arrays(net, source.read_parameters(), ctx, str(source.parameters))
    net.hybridize(static_alloc=True)
    return net, vocab
