"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys

import pytest

from bort.files import file_digest, whole_directory, whole_file, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_on_success_with_ordinary_permissions(tmp_path):
    write_text(tmp_path / "new" / "file.txt", "é\n")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "new" / "file.txt").read_text(encoding="utf-8") == "é\n"
    assert (tmp_path / "new" / "file.txt").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert names(tmp_path / "new") == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "file", "old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "file") as partial:
        partial.write_text("half" * (1 // 0))
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_directory_replaces_an_older_one_whole(tmp_path):
    for content in ("old", "new"):
        with whole_directory(tmp_path / "model") as partial:
            (partial / f"{content}.txt").write_text(content)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new.txt"]


def test_a_failure_leaves_the_old_directory_and_nothing_else(tmp_path):
    with whole_directory(tmp_path / "model") as partial:
        (partial / "old.txt").touch()
    with pytest.raises(ZeroDivisionError), whole_directory(tmp_path / "model") as partial:
        (partial / "new.txt").write_text("half" * (1 // 0))
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old.txt"]


def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path):
    program = (
        "import sys, time\nfrom bort.files import whole_file\n"
        f"with whole_file({str(tmp_path / 'file')!r}) as partial:\n"
        "    partial.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "file").exists()
    assert all(name.endswith(".partial") for name in names(tmp_path))


def test_a_path_of_the_wrong_kind_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotADirectoryError), whole_directory(tmp_path / "file"):
        pass
    with pytest.raises(IsADirectoryError), whole_file(tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_link_to_a_directory_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_directory(tmp_path / "link") as partial:
        (partial / "new.txt").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["new.txt"]
    assert names(tmp_path) == ["link", "real"]


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (5 << 18) + 1])
def test_a_digest_is_that_of_all_bytes(tmp_path, size):
    content = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "absent")
