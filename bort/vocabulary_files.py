"""Where a vocabulary is found: a directory given, this project's, GluonNLP's or Hugging Face's folder, or a mirror.

Notable: the hosts that served GluonNLP's files are gone, so RoBERTa's vocabulary is looked for wherever a user of MXNet or of Hugging Face
may have it already. What is found under its name is checked to be it, token for token and merge for merge. Nothing is fetched from a
network unless the environment variable ``BORT_VOCAB_MIRROR`` names a mirror.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from bort.byte_pair import MERGES_FILE, VOCAB_FILE
from bort.errors import BortError
from bort.tokenizer import PUBLISHED_FILES, PUBLISHED_NAME, Tokenizer, locate_files

MODEL_FOLDER = Path("model")
"""Where this project keeps parameters and vocabularies, in the working directory."""

_REPOSITORIES = tuple(f"models--{owner}roberta-{size}" for size in ("base", "large") for owner in ("", "FacebookAI--"))
_MIRRORED = {
    VOCAB_FILE: (898823, "9e7f63c2d15d666b52e21d250d2e513b87c9b713cfa6987a82ed89e5e6e50655"),
    MERGES_FILE: (456318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
}
"""Size in bytes and SHA-256 of RoBERTa's two files, the same in every Hugging Face repository."""
_TIMEOUT = 30.0


def find_tokenizer(vocab: str | os.PathLike[str] | None = None, dataset_name: str | None = None) -> Tokenizer:
    """The tokenizer that a user means; the first place that has one counts.

    1. ``vocab``, and then no other place;
    2. ``model/`` in the working directory, with any vocabulary if no ``dataset_name`` is given;
    3. ``$MXNET_HOME/models`` (``~/.mxnet/models``), with GluonNLP's two files;
    4. a snapshot of RoBERTa in ``$HF_HOME/hub`` (``~/.cache/huggingface/hub``);
    5. the mirror at the URL in ``$BORT_VOCAB_MIRROR`` (file, http or https), which serves ``vocab.json`` and ``merges.txt``; they are kept
       as GluonNLP's two files in place 3, where GluonNLP finds them too.

    Args:
        vocab: a directory, or a SentencePiece ``.model`` file.
        dataset_name: the published vocabulary's name; asks for it and for no other. ``vocab`` overrides it.

    Raises:
        BortError: if the name is unknown; if a place holds a damaged vocabulary, or another one than the name asks for; if a mirror does
            not serve the right files; if no place has one, listing the places and the ways to get one.
    """
    if vocab is not None:
        return Tokenizer.from_directory(Path(vocab))
    if dataset_name not in (None, PUBLISHED_NAME):
        raise BortError(f'no vocabulary is known by the name "{dataset_name}"; known is {PUBLISHED_NAME}; or give --vocab DIR')
    if locate_files(MODEL_FOLDER):
        tokenizer = Tokenizer.from_directory(MODEL_FOLDER)
        if dataset_name is not None:
            _check_published(tokenizer, MODEL_FOLDER)
        return tokenizer
    gluonnlp = _home("MXNET_HOME", "~/.mxnet") / "models"
    hub = _home("HF_HOME", "~/.cache/huggingface") / "hub"
    if all((gluonnlp / name).is_file() for name in PUBLISHED_FILES):
        return Tokenizer.from_directory(gluonnlp)
    for snapshot in (snapshot for name in _REPOSITORIES for snapshot in sorted((hub / name / "snapshots").glob("*/"))):
        if all((snapshot / name).is_file() for name in _MIRRORED):
            tokenizer = Tokenizer.from_directory(snapshot)
            _check_published(tokenizer, snapshot)
            return tokenizer
    mirror = os.environ.get("BORT_VOCAB_MIRROR")
    if mirror:
        return _download(mirror, gluonnlp)
    raise BortError(
        f'no vocabulary "{PUBLISHED_NAME}" in {MODEL_FOLDER}/, {gluonnlp}, {hub}; give --vocab DIR, or set BORT_VOCAB_MIRROR to a URL that '
        "serves RoBERTa's vocab.json and merges.txt, or train one: bort vocab train --help"
    )


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser()


def _check_published(tokenizer: Tokenizer, place: Path) -> None:
    if not tokenizer.is_published:
        raise BortError(
            f'{place}: holds another vocabulary than "{PUBLISHED_NAME}"; remove it from there, or ask for it by --vocab {place}'
        )


def _download(mirror: str, folder: Path) -> Tokenizer:
    """Fetch RoBERTa's two files into ``folder``, which keeps GluonNLP's form of them, all or nothing."""
    with tempfile.TemporaryDirectory() as temporary:
        for name, (size, sha256) in _MIRRORED.items():
            Path(temporary, name).write_bytes(_fetch(f"{mirror.rstrip('/')}/{name}", size, sha256))
        tokenizer = Tokenizer.from_directory(temporary)
    tokenizer.save_gluonnlp(folder)
    return tokenizer


def _fetch(url: str, size: int, sha256: str) -> bytes:
    if not url.startswith(("http://", "https://", "file://")):
        raise BortError(f"{url}: BORT_VOCAB_MIRROR must begin with http://, https:// or file://")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            content: bytes = response.read(size + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise BortError(f"{url}: cannot fetch it: {' '.join(str(reason).split())}; mend BORT_VOCAB_MIRROR, or give --vocab DIR") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        short = f"{len(content)} of {size} bytes" if len(content) < size else f"SHA-256 {found}, not {sha256}"
        raise BortError(f"{url}: not RoBERTa's file: {short}; mend BORT_VOCAB_MIRROR, or give --vocab DIR")
    return content
