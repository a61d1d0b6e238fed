"""The pins: of the extras, of what is installed here, and of the commands that messages and pages name, each package in one version."""

from __future__ import annotations

import importlib.metadata
import re
import runpy
import subprocess
import sysconfig

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bort.training.sweep_ray import RAY_VERSION

FILES = ("requirements.txt", "requirements-peers.txt")
EXTRAS = ("onnx", "openvino", "peers", "ray", "torch")
EXACT = re.compile(r"\b([A-Za-z][\w.-]*)==(\d[\w.]*\w)")


def versions(text):
    """Exact versions by package in any text."""
    return {canonicalize_name(name): version for name, version in EXACT.findall(text)}


def requirements(path):
    """Versions by package of a requirements file, of the lines that are for this Python."""
    lines = (re.sub(r"\s*#.*", "", line) for line in path.read_text(encoding="utf-8").splitlines())
    parsed = [Requirement(line) for line in lines if line]
    wanted = [requirement for requirement in parsed if requirement.marker is None or requirement.marker.evaluate()]
    found = versions("\n".join(f"{requirement.name}{requirement.specifier}" for requirement in wanted))
    assert len(found) == len(wanted), f"{path.name}: a package comes twice, or its version is not exact"
    return found


@pytest.fixture(scope="module")
def pinned(repository):
    """Versions by package from both files, none of which is in both."""
    base, peers = (requirements(repository / name) for name in FILES)
    assert not base.keys() & peers.keys()
    return base | peers


def test_extras_are_the_versions_that_are_tested(repository, pinned, monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(repository / "setup.py"))
    for extra in EXTRAS:
        found = versions("\n".join(given["extras_require"][extra]))
        assert len(found) == len(given["extras_require"][extra]), f"{extra}: a version is not exact"
        assert found.items() <= pinned.items(), extra


def test_what_is_installed_is_what_is_pinned(pinned):
    # This folder alone, since setuptools puts another before it, with versions of its own.
    packages = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    installed = {canonicalize_name(package.metadata["Name"]): package.version.split("+")[0] for package in packages}
    common = installed.keys() & pinned.keys()
    assert len(common) > 60
    assert {name: installed[name] for name in common} == {name: pinned[name] for name in common}


def test_messages_and_pages_name_the_versions_that_are_tested(repository, pinned):
    assert pinned["ray"] == RAY_VERSION
    files = [*(repository / "bort").rglob("*.py"), *(repository / "docs").glob("*.md"), repository / "README.md"]
    named = {path: versions(path.read_text(encoding="utf-8")) for path in files}
    assert {path: found for path, found in named.items() if not found.items() <= pinned.items()} == {}
    assert {"torch", "transformers"} <= {name for found in named.values() for name in found}


def test_the_set_up_has_one_option(repository):
    done = subprocess.run([repository / "scripts/setup_env.sh", "--all"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "setup_env: error: --all is not an option; the only one is --peers\n"
