"""Downloads to the data root: official digests, harmful archives, files that stand there already, several processes."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
import subprocess
import sys
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from bort.errors import BortError
from bort.tasks import TASKS, get_task
from bort.tasks.download import MANIFEST, SOURCES, changes_since_download, download

from .download_cases import CB_FILES, CB_PATH, CB_ZIP, ROWS, data, everything, failure, program, tar_of, zip_of


def test_a_task_arrives_in_its_folder_and_is_read(server, publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
    report = download("CB", tmp_path, progress=False)
    assert data(tmp_path) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()}
    assert len(get_task("CB", tmp_path).examples("train")) == 20
    assert [(file.url, file.size, file.sha256) for file in report.fetched] == [
        (server.url + CB_PATH, len(CB_ZIP), hashlib.sha256(CB_ZIP).hexdigest())
    ]
    assert json.loads((tmp_path / "superglue/CB" / MANIFEST).read_text())["fetched"][0]["sha256"] == report.fetched[0].sha256
    assert [path.name for path in (tmp_path / "superglue").iterdir()] == ["CB"]


def test_what_is_complete_is_not_asked_for_again(server, publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
    download("CB", tmp_path, progress=False)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    report = download(get_task("CB", tmp_path), progress=False)
    assert report.fetched == ()
    assert len(server.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_official_digest_is_demanded(server, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    message = failure("CB", tmp_path)
    assert f"{len(CB_ZIP)} bytes with the SHA-256 {hashlib.sha256(CB_ZIP).hexdigest()}" in message
    assert f"the official file has {SOURCES['superglue/CB'][0].sha256}" in message
    server.files[CB_PATH] = b"<!DOCTYPE html><p>Sign in"
    assert "a web page where the official file has" in failure("CB", tmp_path)
    server.files[CB_PATH] = bytes(SOURCES["superglue/CB"][0].size + 1)
    for order in ("serve", "no length"):
        server.orders[CB_PATH] = [order]
        assert "where at most 75482 were expected, so it is another file" in failure("CB", tmp_path)
    assert everything(tmp_path) == {}


def test_every_digest_is_one(tmp_path):
    sources = [source for group in SOURCES.values() for source in group]
    assert all(re.fullmatch("[0-9a-f]{64}", source.sha256) and source.size > 0 for source in sources)
    assert len({source.sha256 for source in sources}) == len(sources) == len({source.url for source in sources})
    assert {task.folders[0] for task in TASKS} <= set(SOURCES)


BROKEN = {
    "outside": (zip_of({"CB/train.jsonl": ROWS, "../evil.jsonl": b"x"}), "member '../evil.jsonl' points outside the folder"),
    "corrupt": (CB_ZIP.replace(b"p 3", b"p 4", 1), "the archive is damaged or cut short"),
    "cut short": (CB_ZIP[:-30], "the archive is damaged or cut short"),
    "bomb": (zip_of({"CB/train.jsonl": bytes(30_000_000)}), "member 'CB/train.jsonl' unpacks beyond"),
    "tar cut short": (tar_of({"CB/train.jsonl": ROWS})[:-20], "the archive is damaged or cut short"),
    "end of a tar missing": (gzip.compress(gzip.decompress(tar_of({"CB/train.jsonl": ROWS}))[:1024]), "cut short"),
    "something else": (zip_of({"CB/train.jsonl": ROWS, "CB/test.jsonl": ROWS}), "holds no val.jsonl, so it is not CB"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("existing", [False, True])
def test_after_a_refusal_nothing_is_left_and_existing_data_are_as_they_were(server, publish, tmp_path, name, existing):
    archive, reason = BROKEN[name]
    publish(CB_PATH, archive)
    root = tmp_path / "root"
    (root / "superglue").mkdir(parents=True)
    if existing:
        (root / "superglue/CB").mkdir()
        (root / "superglue/CB/train.jsonl").write_bytes(b"mine")
    before = everything(tmp_path)
    message = failure("CB", root)
    assert message.startswith(f"{server.url}{CB_PATH}: ")
    assert reason in message
    assert "another place" in message
    assert everything(tmp_path) == before
    assert [path.name for path in (root / "superglue").iterdir()] == (["CB"] if existing else [])
    publish(CB_PATH, CB_ZIP)
    report = download("CB", root, progress=False)
    assert data(root) == {f"superglue/CB/{name}": content for name, content in CB_FILES.items()} | (
        {"superglue/CB/train.jsonl": b"mine"} if existing else {}
    )
    assert report.kept == (("train.jsonl",) if existing else ())


def test_a_later_change_is_noticed(server, publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
    download("CB", tmp_path, progress=False)
    task = get_task("CB", tmp_path)
    assert changes_since_download(task) == []
    (tmp_path / "superglue/CB/test.jsonl").write_bytes(b"{}")
    assert changes_since_download(task) == ["test.jsonl"]
    (tmp_path / "superglue/CB/test.jsonl").unlink()
    assert changes_since_download(task) == ["test.jsonl"]
    publish(CB_PATH, zip_of({f"CB/{name}": content for name, content in CB_FILES.items()}))
    report = download("CB", tmp_path, progress=False)
    assert report.changed == (server.url + CB_PATH,)
    assert report.kept == ("train.jsonl", "val.jsonl")
    assert changes_since_download(task) == []


def test_a_file_that_a_repair_keeps_is_not_taken_for_the_published_one(publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
    (tmp_path / "superglue/CB").mkdir(parents=True)
    (tmp_path / "superglue/CB/train.jsonl").write_bytes(b"mine")
    assert download("CB", tmp_path, progress=False).kept == ("train.jsonl",)
    assert changes_since_download(get_task("CB", tmp_path)) == ["train.jsonl"]


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        '{"fetched": [1], "contents": {}, "files": {}}',
        '{"fetched": [], "contents": ["a"], "files": {}}',
        '{"fetched": [], "contents": {"train.jsonl": 1}, "files": {}}',
        '{"fetched": [], "contents": {}, "files": {"train.jsonl": "1"}}',
        *(f'{{"fetched": [], "contents": {{"{name}": "y"}}, "files": {{}}}}' for name in ("", ".", "..", "../x", "/etc", "\\u0000")),
    ],
)
def test_a_damaged_note_of_a_download_is_named(tmp_path, damage):
    (tmp_path / "superglue/CB").mkdir(parents=True)
    (tmp_path / "superglue/CB" / MANIFEST).write_text(damage)
    with pytest.raises(BortError, match=rf"{MANIFEST}: damaged .*; remove it"):
        changes_since_download(get_task("CB", tmp_path))


@pytest.mark.parametrize(
    "task", [task for task in TASKS if task.folders[0] not in ("glue/MRPC", "glue/AX", "race")], ids=lambda task: task.name
)
def test_every_archive_is_looked_for_under_its_published_path_and_unpacked_to_the_official_folder(publish, tmp_path, task):
    """The folder inside an archive may have any name: QQP-clean.zip holds QQP, QNLIv2.zip holds QNLI."""
    path = urlsplit(SOURCES[task.folders[0]][0].url).path
    files = {segment.file: segment.name.encode() for segment in task.segments}
    extra = {"X/original/train.tsv": b"no", "X/._train.tsv": b"no", "__MACOSX/X/._train.tsv": b"no", "X/Icon\r": b"no", "X/README": b"no"}
    publish(path, zip_of({"X/": b""} | {f"X/{name}": content for name, content in files.items()} | extra))
    download(task.name, tmp_path, progress=False)
    assert data(tmp_path) == {f"{task.folders[0]}/{name}": content for name, content in files.items()}
    assert all(get_task(task.name, tmp_path).is_present(segment.name) for segment in task.segments)


def test_race_comes_out_of_its_archive_for_all_three_tasks(publish, tmp_path):
    articles = {
        f"{segment}/{level}/{n}.txt": b"{}" for segment in ("train", "dev", "test") for level in ("high", "middle") for n in (1, 10)
    }
    members = {f"RACE/{name}": content for name, content in articles.items()}
    publish("/~glai1/data/race/RACE.tar.gz", tar_of(members | {"RACE/dev/high/._1.txt": b"no", "RACE/README": b"no"}))
    download("RACE-H", tmp_path, progress=False)
    assert data(tmp_path) == {f"race/{name}": content for name, content in articles.items()}
    assert download("RACE", tmp_path, progress=False).fetched == ()
    assert changes_since_download(get_task("RACE", tmp_path)) == []
    (tmp_path / "race/dev/high/10.txt").write_bytes(b"{ }")
    assert changes_since_download(get_task("RACE-M", tmp_path)) == ["dev"]


def test_ax_is_one_file_under_another_name(publish, tmp_path):
    publish("/glue/data/AX.tsv", b"index\tsentence1\tsentence2\n0\ta\tb\n")
    download("AX", tmp_path, progress=False)
    assert list(data(tmp_path)) == ["glue/AX/diagnostic.tsv"]
    assert get_task("AX", tmp_path).examples("test")[0].texts == ("a", "b")


HEADER = b"\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def publish_mrpc(publish, train, test, ids):
    for name, content in (("train", train), ("test", test)):
        publish(f"/senteval/senteval_data/msr_paraphrase_{name}.txt", content)
    publish("/glue/data/mrpc_dev_ids.tsv", ids)


def test_mrpc_is_put_together(publish, tmp_path):
    rows = [b'%d\t%d\t%d\tfirst "%d\tsecond %d' % (n % 2, 100 + n, 200 + n, n, n) for n in range(6)]
    publish_mrpc(publish, b"\r\n".join([HEADER, *rows]) + b"\r\n", b"\n".join([HEADER, *rows[:2]]), b"104\t204\n101\t201\n")
    download("MRPC", tmp_path, progress=False)
    assert data(tmp_path / "glue/MRPC") == {
        "train.tsv": b"\n".join([HEADER, rows[0], rows[2], rows[3], rows[5], b""]),
        "dev.tsv": b"\n".join([HEADER, rows[1], rows[4], b""]),
        "test.tsv": b'index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t100\t200\tfirst "0\tsecond 0\n1\t101\t201\tfirst "1\tsecond 1\n',
    }
    task = get_task("MRPC", tmp_path)
    assert [example.label for example in task.examples("dev")] == [1, 0]
    assert task.examples("test")[1].texts == ('first "1', "second 1")


def test_mrpc_is_put_together_as_glue_did(publish, tmp_path, shared):
    """The rows of GLUE's own files, shuffled back into the corpus's two, come out as GLUE's own files."""
    glue = {path.name: path.read_bytes() for path in (shared / "data/glue/MRPC").iterdir()}
    train, dev, test = (glue[f"{name}.tsv"].removesuffix(b"\n").split(b"\n") for name in ("train", "dev", "test"))
    mixed, dev_rows = train[1:], dev[1:]
    for number, place in enumerate(sorted(np.random.default_rng(0).integers(0, len(mixed), len(dev_rows)).tolist())):
        mixed.insert(place + number, dev_rows[number])
    ids = [b"\t".join(row.split(b"\t")[1:3]) for row in dev_rows]
    labelled_test = [b"1\t" + row.split(b"\t", 1)[1] for row in test[1:]]
    publish_mrpc(publish, b"\n".join([train[0], *mixed]), b"\n".join([train[0], *labelled_test]), b"\n".join(reversed(ids)) + b"\n")
    download("MRPC", tmp_path, progress=False)
    assert {name: content.split(b"\n") for name, content in data(tmp_path / "glue/MRPC").items()} == {
        name: [*content.removesuffix(b"\n").split(b"\n"), b""] for name, content in glue.items()
    }


@pytest.mark.parametrize(
    ("train", "ids", "reason"),
    [
        (b"h\n1\t2\t3\ta\n", b"2\t3\n", "msr_paraphrase_train.txt, line 2: 4 columns where 5 are needed"),
        (b"h\n1\t2\t3\ta\tb\n", b"2\t4\n", "mrpc_dev_ids.tsv, line 1: the pair is not in msr_paraphrase_train.txt"),
    ],
)
def test_mrpc_of_other_files_is_refused(publish, tmp_path, train, ids, reason):
    publish_mrpc(publish, train, b"h\n", ids)
    assert failure("MRPC", tmp_path).startswith(reason)
    assert everything(tmp_path) == {}


def test_a_folder_as_mirror(tmp_path, make_official, monkeypatch):
    make_official(CB_PATH, CB_ZIP)
    archive = tmp_path / f"mirror{CB_PATH}"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(CB_ZIP)
    monkeypatch.setenv("BORT_DATA_MIRROR", str(tmp_path / "mirror"))
    report = download("CB", tmp_path / "root", progress=False)
    assert report.fetched[0].url == str(archive)
    assert archive.read_bytes() == CB_ZIP
    assert list(data(tmp_path / "root")) == sorted(f"superglue/CB/{name}" for name in CB_FILES)
    assert f"{tmp_path}/mirror/glue/superglue/data/v2/COPA.zip: no such file; BORT_DATA_MIRROR is" in failure(
        dataclasses.replace(get_task("CB"), name="COPA", folders=("superglue/COPA",)), tmp_path / "root"
    )
    archive.write_bytes(CB_ZIP[:100])
    assert failure("CB", tmp_path / "other").startswith(f"{archive}: 100 bytes with the SHA-256 ")
    make_official(CB_PATH, CB_ZIP[:100])
    assert failure("CB", tmp_path / "other").startswith(f"{archive}: the archive is damaged")
    assert archive.exists()


def test_processes_that_ask_for_one_task_fetch_it_once(server, tmp_path):
    server.files[CB_PATH] = CB_ZIP
    server.orders[CB_PATH] = ["hold"] * 3
    said = tmp_path / "said"
    root = tmp_path / "root"
    command = [sys.executable, "-c", program(CB_ZIP, "print(len(download('CB', sys.argv[1]).fetched))\n"), root]
    with said.open("w") as errors:
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) for _ in range(3)]
    # The answer is held back until each of the three asks for the file or says that it waits.
    deadline = time.monotonic() + 60
    while len(server.requests) + len(said.read_text().splitlines()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.release.set()
    assert sorted(process.communicate()[0] for process in processes) == ["0\n", "0\n", "1\n"]
    assert len(server.requests) == 1
    assert said.read_text() == f"bort: another process downloads to {root}/superglue; waiting for it\n" * 2


def test_what_a_killed_process_left_is_cleared_away(publish, tmp_path):
    publish(CB_PATH, CB_ZIP)
    (tmp_path / "superglue/.CB.abc123.partial/unpacked").mkdir(parents=True)
    (tmp_path / "superglue/.CB.abc123.partial/CB.zip").write_bytes(CB_ZIP)
    (tmp_path / "superglue/.COPA.abc123.partial").mkdir()
    download("CB", tmp_path, progress=False)
    assert sorted(path.name for path in (tmp_path / "superglue").iterdir()) == [".COPA.abc123.partial", "CB"]


def test_a_full_disk_leaves_no_folder(publish, tmp_path):
    """A limit on the size of files stands for the disk's."""
    archive = zip_of({f"CB/{name}": bytes(300_000) for name in CB_FILES})
    publish(CB_PATH, archive)
    limited = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from bort.cli import main\n"
        "sys.exit(main(['tasks', 'download', 'CB', '--data_root', sys.argv[1]]))\n"
    )
    process = subprocess.run([sys.executable, "-c", program(archive, limited), tmp_path], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert re.fullmatch(r"bort: error: .*File too large; check the file and the disk\n", process.stderr)
    assert everything(tmp_path) == {}
    assert list((tmp_path / "superglue").iterdir()) == []


RACE_PATH = "/~glai1/data/race/RACE.tar.gz"
ARTICLES = {f"{segment}/{level}/{n}.txt": b"{}" for segment in ("train", "dev", "test") for level in ("high", "middle") for n in (1, 10)}


def test_one_article_in_each_folder_is_not_all_of_race(publish, tmp_path):
    """As a process leaves it that was killed while it put articles into a folder that was there before."""
    publish(RACE_PATH, tar_of({f"RACE/{name}": content for name, content in ARTICLES.items()}))
    for name in ARTICLES:
        if name.endswith("/1.txt"):
            (tmp_path / "race" / name).parent.mkdir(parents=True)
            (tmp_path / "race" / name).write_bytes(b"{}")
    (tmp_path / "race/dev/high/.10.txt.x.partial").write_bytes(b"{")
    assert len(download("RACE", tmp_path, progress=False).kept) == 6
    assert {name for name in data(tmp_path / "race") if not name.endswith(".partial")} == set(ARTICLES)
    assert download("RACE", tmp_path, progress=False).fetched == ()
    (tmp_path / "race/dev/high/10.txt").unlink()
    assert len(download("RACE-M", tmp_path, progress=False).fetched) == 1
    assert (tmp_path / "race/dev/high/10.txt").exists()


@pytest.mark.parametrize("mirror", ["http://[::1", "ftp://127.0.0.1/x", "http://", "https://name:secret@[x/", "http://a:99999", "x://y"])
def test_a_mirror_that_is_no_place_is_refused_before_anything_is_made(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("BORT_DATA_MIRROR", mirror)
    message = failure("CB", tmp_path / "root")
    assert message.startswith("BORT_DATA_MIRROR is ")
    assert "give an http or https address, or a folder" in message
    assert "secret" not in message
    assert not (tmp_path / "root").exists()


def test_the_scheme_of_a_mirror_may_be_in_capitals(server, publish, tmp_path, monkeypatch):
    publish(CB_PATH, CB_ZIP)
    monkeypatch.setenv("BORT_DATA_MIRROR", server.url.replace("http", "HTTP") + "/")
    assert download("CB", tmp_path, progress=False).fetched[0].url == server.url + CB_PATH
