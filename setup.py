"""Package metadata. Versions for a working environment are pinned in requirements.txt; scripts/setup_env.sh installs them."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# What tests compare with or a file format depends on is exact, as in requirements-peers.txt.
TORCH = "torch==2.13.0"
ONNX = ["onnx==1.23.2", "ml_dtypes==0.5.4"]

setup(
    name="bort",
    version=re.search(r'__version__ = "(.+)"', (HERE / "bort/__init__.py").read_text(encoding="utf-8"))[1],
    description="Bort: a BERT of four layers, distilled from RoBERTa, from raw text to leaderboard predictions",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["bort", "bort.*", "data", "data.*"]),
    package_data={
        "bort.gluon": ["kernels.cc"],
        "bort.bench.inference": ["peaks.cc"],
        "bort.tasks": ["recipes.yaml"],
        "bort.training": ["grids/*.yaml"],
    },
    entry_points={"console_scripts": ["bort=bort.cli:main"]},
    install_requires=[
        "gigatoken==0.10.0",
        "gluonnlp==0.10.0",
        "matplotlib>=3.8",
        "numpy>=1.24,<2",
        "protobuf>=5",
        "PyYAML>=6",
        "requests>=2.28",
        "rich>=13",
        "safetensors>=0.4",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "sentencepiece>=0.2",
        "tensorboardX>=2.6",
        "tokenizers>=0.20",
        "tqdm>=4.66",
        "urllib3>=2",
        "zstandard>=0.22",
    ],
    extras_require={
        # One build of MXNet is installed at a time; they share the import name. GPU wheels reach compute capability 8.6 at most.
        "cpu": ["mxnet==1.9.1"],
        "cu101": ["mxnet-cu101==1.9.1"],
        "cu112": ["mxnet-cu112==1.9.1"],
        "horovod": ["horovod==0.28.1"],
        # Exported models: bort export --format onnx, and either runtime of them.
        "onnx": [*ONNX, "onnxruntime==1.32.0"],
        "openvino": [*ONNX, "openvino==2026.4.1", "nncf==3.4.0"],
        # Sweeps of fine-tuning on a cluster: bort finetune --ray.
        "ray": ["ray==2.60.0"],
        # What benchmarks and tests compare with: bort bench pretrain --vs torch.
        "torch": [TORCH],
        "peers": [TORCH, "transformers==5.23.0"],
    },
)
