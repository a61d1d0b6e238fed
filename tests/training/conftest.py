"""A small corpus and engine for the loops' tests, made once."""

from __future__ import annotations

from dataclasses import replace

import pytest

import bort.training.progress
from bort import BortConfig
from bort.corpus.documents import find_text_files
from bort.corpus.masking import Masker
from bort.corpus.sequences import DynamicSequences
from bort.corpus.shards import Corpus, create_shards
from bort.gluon.pretraining import build_engine
from bort.model_directory import ModelSource
from bort.settings import DistillationSettings, OptimizerSettings, ShardSettings


class SlowClock:
    """Stands still but for the seconds that chosen operations are said to take."""

    def __init__(self):
        self.now = 0.0

    def taking(self, seconds, real):
        """The operation, which moves the clock each time."""

        def operation(*arguments):
            self.now += seconds
            return real(*arguments)

        return operation


@pytest.fixture
def slow_clock(monkeypatch):
    """The loops' clock for one test."""
    clock = SlowClock()
    monkeypatch.setattr(bort.training.progress.time, "perf_counter", lambda: clock.now)
    return clock


@pytest.fixture(scope="session")
def corpora(repository, tokenizer, tmp_path_factory):
    """Training and held-out shards of sequences of at most 32 tokens."""
    folder = tmp_path_factory.mktemp("shards")
    for part, outputs in (("corpus", 3), ("heldout", 1)):
        settings = ShardSettings(max_seq_length=32, num_outputs=outputs)
        create_shards(find_text_files([str(repository / "test_data" / part)]), tokenizer, folder / part, settings)
    return Corpus(folder / "corpus"), Corpus(folder / "heldout")


@pytest.fixture(scope="session")
def masked(tokenizer):
    """Masks a corpus as a run with the given settings does."""

    def masked(corpus, settings):
        masker = Masker(tokenizer.vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, settings.seed)
        return DynamicSequences(corpus, tokenizer.vocab, masker)

    return masked


@pytest.fixture(scope="session")
def student_config(tmp_path_factory):
    """config.json of a small student."""
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(
        '{"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}'
    )
    return path


@pytest.fixture
def make_engine(student_config, tokenizer):
    """Builds an engine with a fresh student, without a teacher."""

    def make(seed=0, dropout=0.1):
        config = replace(BortConfig.from_json(student_config), vocab_size=len(tokenizer.vocab), hidden_dropout_prob=dropout)
        source = ModelSource("student", config, None)
        engine = build_engine(source, None, DistillationSettings(), OptimizerSettings(), seed, config.vocab_size, longest=32)
        return engine, config

    return make
