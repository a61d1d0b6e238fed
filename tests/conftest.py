"""Fixtures of the whole suite: the repository, the parity targets and real data if they are here, and a small vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

# Restores what MXNet needs of NumPy, so that tests can import mxnet in any order.
import bort.gluon
import bort.training.journal

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with ``golden/`` (outputs of the published implementation) and ``data/`` (public data sets), beside the checkout."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip(f"{folder} is not here: it holds the published implementation's outputs and public data")
    return folder


@pytest.fixture(scope="session")
def tokenizer(repository, tmp_path_factory):
    """A byte-level BPE of 400 tokens trained on test_data/corpus."""
    from bort.cli import main
    from bort.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("vocab")
    assert main(["vocab", "train", "--input", str(repository / "test_data/corpus"), "--output", str(folder), "--vocab_size", "400"]) == 0
    return Tokenizer.from_directory(folder)


@pytest.fixture(scope="module")
def blank_curves():
    """No curves are drawn at the end of this module's runs, most of whose time that would be: ``training/test_journal.py`` proves them.

    Yields what draws them, for the run of a module that shall.
    """
    with pytest.MonkeyPatch.context() as patch:
        real = bort.training.journal.draw_curves
        patch.setattr(bort.training.journal, "draw_curves", lambda run: (run / bort.training.journal.CURVES_FILE).touch())
        yield real


def pytest_collection_modifyitems(items):
    """Put the longest file first, so that of several processes none is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
