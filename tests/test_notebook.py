"""The notebook runs from its first cell to its last, in a copy of the repository without weights, and shows what it promises."""

from __future__ import annotations

import os
import shutil

import nbformat
from nbclient import NotebookClient


def printed(cell):
    return "".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", []))


def test_the_notebook_runs(repository, tmp_path):
    notebook = nbformat.read(repository / "notebooks" / "load_bort.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is kept without outputs"
    for name in ("test_data", "notebooks"):
        shutil.copytree(repository / name, tmp_path / name)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "notebooks")}})
    # The kernel is this environment's own, whatever else is installed for the user.
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    client.execute()
    text = "\n".join(printed(cell) for cell in notebook.cells)
    assert "BortModel(" in text
    assert "total" in text
    assert "cosine" in text
    assert text.count("The soup at the[") == 5
    assert "SST-2 dev accuracy" in text
    assert "index\tprediction\n0\t" in text
