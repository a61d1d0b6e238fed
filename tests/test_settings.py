"""Settings: values outside their range are refused by name, and every field is an option with help."""

from __future__ import annotations

import argparse
import dataclasses
import math

import pytest

from bort import BortError, settings
from bort.cli.options import add_settings, get_settings

ALL = [value for value in vars(settings).values() if dataclasses.is_dataclass(value)]


@pytest.mark.parametrize("kind", ALL)
def test_every_field_is_an_option_with_its_default_and_help(kind):
    parser = argparse.ArgumentParser()
    add_settings(parser, kind)
    assert get_settings(kind, parser.parse_args([])) == kind()
    helps = {action.dest: action.help for action in parser._actions}
    assert all(len(helps[field.name]) > 5 for field in dataclasses.fields(kind))
    number = next(field for field in dataclasses.fields(kind) if field.type == "float" or field.type == "int")
    value = "7" if number.type == "int" else "0.5"
    assert float(getattr(get_settings(kind, parser.parse_args([f"--{number.name}", value])), number.name)) == float(value)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (settings.ShardSettings, "max_seq_length", 3),
        (settings.ShardSettings, "short_seq_prob", 1.5),
        (settings.ShardSettings, "num_outputs", 0),
        (settings.PretrainingSettings, "num_steps", 0),
        (settings.PretrainingSettings, "num_buckets", 0),
        (settings.PretrainingSettings, "lr", 0.0),
        (settings.PretrainingSettings, "lr", math.nan),
        (settings.PretrainingSettings, "lr", math.inf),
        (settings.PretrainingSettings, "masked_lm_prob", 0.0),
        (settings.PretrainingSettings, "warmup_ratio", -0.1),
        (settings.PretrainingSettings, "seed", -1),
        (settings.DistillationSettings, "distillation_temperature", 0.0),
        (settings.DistillationSettings, "kd_loss", "squared"),
        (settings.DistillationSettings, "mlm_weight", -1.0),
        (settings.OptimizerSettings, "weight_decay", -0.1),
        (settings.OptimizerSettings, "max_gradient_norm", math.nan),
        (settings.RunSettings, "log_interval", 0),
        (settings.RunSettings, "ckpt_interval", -1),
        (settings.FinetuningSettings, "epochs", 0),
        (settings.FinetuningSettings, "max_len", 4),
        (settings.FinetuningSettings, "dropout", 1.0),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(kind, field, value):
    with pytest.raises(BortError, match=field):
        kind(**{field: value})
