"""The last layer of an encoder for its first token alone, which is all that a classifier reads.

Notable: with one query per head, the products of attention can be taken in another order: the query is carried into the space of the
layer's inputs, and the weighted inputs, not the values, are summed up. So no position but the first is multiplied by any matrix of the
layer. Less than a tenth of its work is left, and the outputs are those of the whole layer up to rounding.

With x_t the inputs, q the query of a head of width D, W_k, b_k, W_v and b_v its projections, and a the dropped softmax of the scores:
``score_t = (W_kᵀ q · x_t + q · b_k) / √D`` and ``context = W_v Σ_t a_t x_t + b_v Σ_t a_t``.
"""

from __future__ import annotations

from typing import Any

import gluonnlp as nlp
from mxnet.gluon import HybridBlock


class FirstTokenCell(HybridBlock):
    """An encoder's layer that returns its first position only, with the parameters and the name of ``cell``.

    Args:
        cell: the whole layer; its feed-forward network and its norms are used as they are.
    """

    def __init__(self, cell: nlp.model.bert.BERTEncoderCell) -> None:
        super().__init__(prefix=cell.prefix)
        self.attention_cell = _FirstTokenAttention(cell.attention_cell)
        self.proj, self.ffn, self.layer_norm = cell.proj, cell.ffn, cell.layer_norm
        self._dropout = cell._dropout

    def hybrid_forward(self, F: Any, inputs: Any, valid_length: Any) -> Any:
        """Take inputs (T, B, C) and valid_length (B, T), the same in each column; return (1, B, C) and no attention weights."""
        first = inputs.slice_axis(axis=0, begin=0, end=1)
        attended = F.Dropout(self.proj(self.attention_cell(first, inputs, valid_length)), p=self._dropout)
        return self.ffn(self.layer_norm(attended + first)), []


class _FirstTokenAttention(nlp.model.bert.DotProductSelfAttentionCell):
    """Self-attention of the first position, with the parameters and the name of ``cell``."""

    def __init__(self, cell: nlp.model.bert.DotProductSelfAttentionCell) -> None:
        super().__init__(cell.units, cell._num_heads, cell._dropout, prefix=cell.prefix, params=cell.params)

    def hybrid_forward(self, F: Any, first: Any, inputs: Any, valid_length: Any, **parameters: Any) -> Any:
        """Take first (1, B, C), inputs (T, B, C) and valid_length (B, T), the same in each column; return the context (1, B, C)."""
        heads, units = self._num_heads, self.units
        width = units // heads
        inputs = inputs.transpose((1, 0, 2))
        query = F.FullyConnected(first, parameters["query_weight"], parameters["query_bias"], num_hidden=units, flatten=False)
        query = (query / width**0.5).reshape((-1, heads, width)).transpose((1, 0, 2))
        carried = F.batch_dot(query, parameters["key_weight"].reshape((heads, width, units))).transpose((1, 0, 2))
        bias = F.broadcast_mul(query, parameters["key_bias"].reshape((heads, 1, width))).sum(axis=2, keepdims=True).transpose((1, 0, 2))
        scores = F.broadcast_add(F.batch_dot(carried, inputs, transpose_b=True), bias)
        lengths = F.broadcast_axis(valid_length.slice_axis(axis=1, begin=0, end=1), axis=1, size=heads)
        weights = self.dropout_layer(F.softmax(scores, length=lengths, use_length=True, axis=-1))
        summed = F.batch_dot(weights, inputs).transpose((1, 0, 2))
        context = F.batch_dot(summed, parameters["value_weight"].reshape((heads, width, units)), transpose_b=True)
        total = weights.sum(axis=2, keepdims=True).transpose((1, 0, 2))
        context = context + F.broadcast_mul(total, parameters["value_bias"].reshape((heads, 1, width)))
        return context.transpose((1, 0, 2)).reshape((1, -1, units))
