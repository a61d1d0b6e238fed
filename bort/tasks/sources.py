"""Where the benchmarks publish their files, and the digests by which an official file is known.

Sizes and digests are those recorded by Hugging Face ``datasets`` for the same addresses (its ``dataset_infos.json`` of glue and race, its
``checksums.txt`` of super_glue); those of GLUE's files that TensorFlow Datasets lists too agree with it. Downloads from the official hosts
have not been tested.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bort.errors import BortError

ELSEWHERE = "name another place with BORT_DATA_MIRROR"
"""What to do about a place that does not have the official file."""


@dataclass(frozen=True)
class Source:
    """One published file.

    Attributes:
        url: where it is published.
        size: its bytes.
        sha256: its SHA-256 in hexadecimal.
    """

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]


_GLUE = "https://dl.fbaipublicfiles.com/glue/data"
_SENTEVAL = "https://dl.fbaipublicfiles.com/senteval/senteval_data"
_SUPERGLUE = "https://dl.fbaipublicfiles.com/glue/superglue/data/v2"

SOURCES: dict[str, tuple[Source, ...]] = {
    "glue/CoLA": (Source(f"{_GLUE}/CoLA.zip", 376971, "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff"),),
    "glue/SST-2": (Source(f"{_GLUE}/SST-2.zip", 7439277, "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa"),),
    "glue/MRPC": (
        Source(f"{_SENTEVAL}/msr_paraphrase_train.txt", 1047044, "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89"),
        Source(f"{_SENTEVAL}/msr_paraphrase_test.txt", 441275, "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784"),
        Source(f"{_GLUE}/mrpc_dev_ids.tsv", 6222, "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7"),
    ),
    "glue/STS-B": (Source(f"{_GLUE}/STS-B.zip", 802872, "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85"),),
    "glue/QQP": (Source(f"{_GLUE}/QQP-clean.zip", 41696084, "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0"),),
    "glue/MNLI": (Source(f"{_GLUE}/MNLI.zip", 312783507, "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633"),),
    "glue/QNLI": (Source(f"{_GLUE}/QNLIv2.zip", 10627589, "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5"),),
    "glue/RTE": (Source(f"{_GLUE}/RTE.zip", 697150, "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee"),),
    "glue/WNLI": (Source(f"{_GLUE}/WNLI.zip", 28999, "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46"),),
    "glue/AX": (Source(f"{_GLUE}/AX.tsv", 222257, "0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd"),),
    "superglue/BoolQ": (Source(f"{_SUPERGLUE}/BoolQ.zip", 4118001, "853fbe7922f70c59629f06a39e8d9ca440c3d740e760fd3b87a5ddf3dcba2436"),),
    "superglue/CB": (Source(f"{_SUPERGLUE}/CB.zip", 75482, "8d641383298d54554066ba1c93f56ae7410af75df621b90c63028806bbbbb535"),),
    "superglue/COPA": (Source(f"{_SUPERGLUE}/COPA.zip", 43986, "405906cddac74bc1e1ce8220f1107d1025b66a25ef10149d91b10bb30651125f"),),
    "superglue/MultiRC": (
        Source(f"{_SUPERGLUE}/MultiRC.zip", 1116225, "b3cd440856e72eb166b2edcd37b798455f1ebd51f2c3de64c0c2a4e1971d2737"),
    ),
    "superglue/ReCoRD": (Source(f"{_SUPERGLUE}/ReCoRD.zip", 51757880, "30c7b651ab21b8bf8fab986495cd1084333010e040548f861b839eec0044ac18"),),
    "superglue/RTE": (Source(f"{_SUPERGLUE}/RTE.zip", 750920, "6310aab3f000424c9d0318a1ff20692e07c7f4aa15e8f17a5972ea0a35c398b9"),),
    "superglue/WiC": (Source(f"{_SUPERGLUE}/WiC.zip", 396213, "ee7e67f4ae9eafbf533780faa198e62167f3cda54256cdf261877be3c0e90900"),),
    "superglue/WSC": (Source(f"{_SUPERGLUE}/WSC.zip", 32751, "2ed6dfa94556b4a128ff0441efe365b2e883124e7e6aa00fb8d3a6cb1fd520a9"),),
    "superglue/AX-b": (Source(f"{_SUPERGLUE}/AX-b.zip", 33950, "43b45c55a273575c58a33cd68f10a971f83daa3aa223bfbc4077b92fbdf960b3"),),
    "superglue/AX-g": (Source(f"{_SUPERGLUE}/AX-g.zip", 10413, "2d4e00d3a7d23d2c3787ee4c1382cc81a72cb05a76fc9d78d142949247ed61b9"),),
    "race": (
        Source(
            "http://www.cs.cmu.edu/~glai1/data/race/RACE.tar.gz",
            25443609,
            "b2769cc9fdc5c546a693300eb9a966cec6870bd349fbc44ed5225f8ad33006e5",
        ),
    ),
}
"""The published files of each official folder under the data root."""


def is_address(place: str) -> bool:
    """Whether what ``place_of`` gave is an http or https address, and not a path."""
    return place.startswith(("http://", "https://"))


def place_of(source: Source) -> str:
    """Where to get a published file: its address or, with ``BORT_DATA_MIRROR``, an address or a path in the mirror.

    Raises:
        BortError: if ``BORT_DATA_MIRROR`` is neither an http or https address nor a path.
    """
    mirror = os.environ.get("BORT_DATA_MIRROR", "")
    path = urlsplit(source.url).path
    if not mirror:
        return source.url
    if "://" not in mirror:
        return str(Path(mirror).expanduser() / path.lstrip("/"))
    scheme, _, rest = mirror.partition("://")
    try:
        parts = urlsplit(mirror)
        fits = scheme.lower() in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fits = False
    if not fits:
        # There may be a password before the @.
        shown = re.sub("//.*@", "//", mirror)
        raise BortError(f"BORT_DATA_MIRROR is {shown}; give an http or https address, or a folder, with the published paths below it")
    return f"{scheme.lower()}://{rest.rstrip('/')}{path}"
