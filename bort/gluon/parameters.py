"""Moves parameters between files, NumPy and Gluon blocks under their published names.

Notable: loading does not use Gluon's own ``load_parameters``, so a damaged file is refused with its offset and a parameter that does not
fit is named with both shapes. The tied output projection is one array under two names, ``word_embed.0.weight`` and ``decoder.3.weight``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock, Parameter

from bort.encoder_files import read_encoder
from bort.errors import BortError

DECODER_PREFIX = "decoder."


def named_parameters(net: HybridBlock) -> dict[str, Parameter]:
    """Parameters under their published names; a tied parameter appears under each of its names."""
    return dict(net._collect_params_with_prefix())


def distinct_parameters(net: HybridBlock) -> dict[str, Parameter]:
    """Parameters under their first published name in alphabetical order, each parameter once."""
    distinct: dict[int, tuple[str, Parameter]] = {}
    for name, parameter in sorted(named_parameters(net).items()):
        distinct.setdefault(id(parameter), (name, parameter))
    return dict(distinct.values())


def get_arrays(net: HybridBlock) -> dict[str, np.ndarray]:
    """Copies of all parameters under their published names; waits for the device."""
    return {name: parameter.data(parameter.list_ctx()[0]).asnumpy() for name, parameter in named_parameters(net).items()}


def set_arrays(net: HybridBlock, arrays: Mapping[str, np.ndarray], ctx: mx.Context | list[mx.Context], source: str) -> None:
    """Give ``net`` the values in ``arrays``, which it must name completely; the head's are ignored by a model without one.

    Args:
        source: what the arrays came from, for the error message.

    Raises:
        BortError: if a parameter is missing, unknown or of another shape.
    """
    parameters = named_parameters(net)
    missing = sorted(parameters.keys() - arrays.keys())
    if missing:
        raise BortError(f"{source}: no parameter {missing[0]!r}{_and_more(missing)}; the file belongs to another architecture")
    has_decoder = any(DECODER_PREFIX in name for name in parameters)
    unknown = sorted(name for name in arrays.keys() - parameters.keys() if has_decoder or DECODER_PREFIX not in name)
    if unknown:
        raise BortError(f"{source}: unknown parameter {unknown[0]!r}{_and_more(unknown)}; the file belongs to another architecture")
    for name, parameter in parameters.items():
        if tuple(parameter.shape) != arrays[name].shape:
            raise BortError(f"{source}: {name} has shape {arrays[name].shape}, the model needs {tuple(parameter.shape)}")
    for name, parameter in distinct_parameters(net).items():
        parameter._load_init(mx.nd.array(arrays[name], dtype=parameter.dtype), ctx)


def load_parameters(net: HybridBlock, path: Path, ctx: mx.Context | list[mx.Context]) -> None:
    """Load a ``.params`` or ``.safetensors`` file into ``net``.

    Raises:
        BortError: if the file is missing, damaged or does not fit.
    """
    set_arrays(net, read_encoder(path), ctx, str(path))


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
