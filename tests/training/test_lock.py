"""One process at a time: the second is refused, and neither an end nor a kill leaves the folder held."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bort import BortError
from bort.training.lock import only_process


def test_two_of_a_kind_stand_in_each_others_way_and_two_kinds_do_not(tmp_path):
    folder = tmp_path / "new"
    with only_process(folder, "run"), only_process(folder, "sweep"):
        # The one that was refused first must not have let go of it for the next.
        for _ in range(2):
            message = r"new: another run is at work there; wait for its end, or give another --output_dir"
            with pytest.raises(BortError, match=message), only_process(folder, "run"):
                pass
    assert not folder.exists()
    with only_process(folder, "run"):
        pass


def test_a_kill_lets_go(tmp_path):
    program = (
        f"import pathlib, sys; from bort.training.lock import only_process\n"
        f"with only_process(pathlib.Path({str(tmp_path)!r}), 'run'): print('held', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(BortError, match="another run"), only_process(tmp_path, "run"):
        pass
    process.kill()
    process.communicate(timeout=60)
    with only_process(tmp_path, "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_that_its_holder_removed_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """Opened before the holder's end and locked after it."""
    opened = os.open

    def open_late(path, *words):
        descriptor = opened(path, *words)
        if str(path).endswith(".run.lock"):
            monkeypatch.setattr(os, "open", opened)
            os.unlink(path)
        return descriptor

    monkeypatch.setattr(os, "open", open_late)
    with only_process(tmp_path, "run"):
        assert (tmp_path / ".run.lock").exists()
        with pytest.raises(BortError, match="another run"), only_process(tmp_path, "run"):
            pass


def test_a_new_folder_into_which_nothing_came_is_removed(tmp_path):
    with only_process(tmp_path / "run", "run"):
        pass
    assert not (tmp_path / "run").exists()
    with only_process(tmp_path / "run", "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]
    (tmp_path / "old").mkdir()
    with only_process(tmp_path / "old", "run"):
        pass
    assert (tmp_path / "old").exists()
