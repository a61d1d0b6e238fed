"""Archives made to do harm, and archives that came to harm: each refused in one line, nothing outside the folder touched."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

import pytest

from bort.errors import BortError
from bort.tasks import archives
from bort.tasks.archives import Limits, unpack

GOOD = {"CB/train.jsonl": b'{"idx": 0}\n' * 50, "CB/val.jsonl": b"{}\n", "CB/notes/original.txt": b"left out\n"}


def wanted(name):
    return name.rpartition("/")[2] if name.endswith(".jsonl") else None


def zip_of(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return path


def tar_of(path, members):
    """Members are (TarInfo or name, content)."""
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, target="train.jsonl"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refused(tmp_path, archive, limits=None):
    """The one line of the refusal; nothing may have been written outside the folder."""
    folder = tmp_path / "out" / "folder"
    folder.mkdir(parents=True)
    with pytest.raises(BortError) as caught:
        unpack(archive, folder, wanted, limits)
    assert {path.name for path in tmp_path.iterdir()} == {"out", archive.name}
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    message = str(caught.value)
    assert message.startswith(f"{archive}: ")
    assert message.endswith("; take it from another place")
    assert "\n" not in message
    return message.removeprefix(f"{archive}: ").removesuffix("; take it from another place")


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_wanted_members_come_out_and_no_others(tmp_path, make):
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack(make(tmp_path / "archive", GOOD), folder, wanted)
    assert {path.name: path.read_bytes() for path in folder.rglob("*")} == {
        "train.jsonl": GOOD["CB/train.jsonl"],
        "val.jsonl": b"{}\n",
    }


OUTSIDE = ["../x.jsonl", "CB/../../x.jsonl", "/tmp/x.jsonl", "..\\x.jsonl", "C:\\x.jsonl", "C:x.jsonl", "\\x.jsonl", "CB/.."]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_name_that_points_outside(tmp_path, make, name):
    assert refused(tmp_path, make(tmp_path / "archive", GOOD | {name: b"{}"})) == f"member {name!r} points outside the folder"


def test_a_zip_name_with_a_hidden_end(tmp_path):
    archive = zip_of(tmp_path / "archive", GOOD | {"CB/a.jsonlX../x": b"{}"})
    archive.write_bytes(archive.read_bytes().replace(b"CB/a.jsonlX../x", b"CB/a.jsonl\0../x"))
    assert refused(tmp_path, archive) == r"member 'CB/a.jsonl\x00../x' points outside the folder"


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666])
def test_a_zip_with_a_link_or_a_device(tmp_path, mode):
    info = zipfile.ZipInfo("CB/test.jsonl")
    info.create_system, info.external_attr = 3, mode << 16
    kind = {0o120777: "a symbolic link", 0o010666: "a pipe"}.get(mode, "a device")
    assert refused(tmp_path, zip_of(tmp_path / "archive", [*GOOD.items(), (info, "/etc/passwd")])) == f"member 'CB/test.jsonl' is {kind}"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device or a pipe"),
        (tarfile.BLKTYPE, "a device or a pipe"),
        (tarfile.FIFOTYPE, "a device or a pipe"),
    ],
)
@pytest.mark.parametrize("name", ["CB/test.jsonl", "CB/innocent.txt"])
def test_a_tar_with_a_link_or_a_device_even_if_it_is_not_wanted(tmp_path, kind, words, name):
    archive = tar_of(tmp_path / "archive", [*GOOD.items(), (special(name, kind, "/etc/passwd"), b"")])
    assert refused(tmp_path, archive) == f"member {name!r} is {words}"


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_two_members_for_one_file(tmp_path, make):
    archive = make(tmp_path / "archive", [*GOOD.items(), ("other/train.jsonl", b"{}")])
    assert refused(tmp_path, archive) == "member 'other/train.jsonl' is train.jsonl a second time"


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_name_in_other_letters_is_not_wanted(tmp_path, make):
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack(make(tmp_path / "archive", GOOD | {"CB/TRAIN.JSONL": b"!", "CB/train.jsonl\n": b"!"}), folder, wanted)
    assert sorted(path.name for path in folder.iterdir()) == ["train.jsonl", "val.jsonl"]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_bomb_of_high_ratio(tmp_path, make):
    archive = make(tmp_path / "archive", GOOD | {"CB/test.jsonl": bytes(40_000_000)})
    assert archive.stat().st_size < 100_000
    assert "unpacks beyond 16777216 bytes, more than such data have" in refused(tmp_path, archive)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 16 << 20


def test_a_tar_bomb_in_a_member_that_is_not_wanted(tmp_path):
    archive = tar_of(tmp_path / "archive", {"big.bin": bytes(40_000_000)} | GOOD)
    assert refused(tmp_path, archive) == "unpacks beyond 16777216 bytes, more than such data have"


def test_a_bomb_with_a_lying_header(tmp_path):
    """The directory and the member's own header say 10 bytes; what is packed is 40 MB."""
    archive = zip_of(tmp_path / "archive", {"CB/test.jsonl": bytes(40_000_000)})
    archive.write_bytes(archive.read_bytes().replace(struct.pack("<I", 40_000_000), struct.pack("<I", 10)))
    with zipfile.ZipFile(archive) as opened:
        assert opened.infolist()[0].file_size == 10
    assert "damaged or cut short" in refused(tmp_path, archive)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 10


def test_a_header_that_claims_more_than_there_is(tmp_path):
    archive = zip_of(tmp_path / "archive", {"CB/test.jsonl": bytes(1000)})
    archive.write_bytes(archive.read_bytes().replace(struct.pack("<I", 1000), struct.pack("<I", 10**9)))
    assert "member 'CB/test.jsonl' has 1000 bytes where the archive's directory says 1000000000" in refused(tmp_path, archive)


@pytest.mark.parametrize("size", [10**12, -(10**6)])
def test_a_tar_header_of_an_absurd_size(tmp_path, size):
    info = tarfile.TarInfo("CB/test.jsonl")
    info.size = size
    with gzip.open(tmp_path / "archive", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(10 * 512))
    message = refused(tmp_path, tmp_path / "archive")
    assert "bytes" in message or "damaged" in message


@pytest.mark.parametrize("size", [1 << 30, -512])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_that_would_be_read_into_memory(tmp_path, kind, size):
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, size
    with gzip.open(tmp_path / "archive", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 21))
    assert refused(tmp_path, tmp_path / "archive") == f"a header of {size} bytes"


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_too_many_members(tmp_path, make):
    archive = make(tmp_path / "archive", {f"{number}.txt": b"" for number in range(101)})
    assert refused(tmp_path, archive, Limits(members=100)) == "more than 100 members"


def test_headers_of_headers_of_headers(tmp_path):
    info = tarfile.TarInfo("long")
    info.type = tarfile.XHDTYPE
    with gzip.open(tmp_path / "archive", "wb") as file:
        file.write(info.tobuf() * 5000)
    assert "damaged or cut short" in refused(tmp_path, tmp_path / "archive")


def test_an_encrypted_member(tmp_path):
    archive = zip_of(tmp_path / "archive", {"CB/test.jsonl": b"{}"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert refused(tmp_path, archive) == "member 'CB/test.jsonl' is encrypted"


def test_an_unusual_method(tmp_path):
    archive = zip_of(tmp_path / "archive", GOOD, zipfile.ZIP_LZMA)
    assert refused(tmp_path, archive) == "member 'CB/train.jsonl' is packed in an unusual way"


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_every_truncation(tmp_path, make):
    whole = make(tmp_path / "whole", {"CB/train.jsonl": bytes(range(256)) * 8}).read_bytes()
    (tmp_path / "whole").unlink()
    archive = tmp_path / "archive"
    for length in {*range(0, len(whole), 7), len(whole) - 1}:
        archive.write_bytes(whole[:length])
        folder = tmp_path / f"folder{length}"
        folder.mkdir()
        with pytest.raises(BortError, match=r"cut short|neither a zip nor"):
            unpack(archive, folder, wanted)


def test_a_tar_cut_short_inside_a_sound_gzip_file(tmp_path):
    plain = gzip.decompress(tar_of(tmp_path / "whole", GOOD).read_bytes())
    (tmp_path / "whole").unlink()
    end = len(plain.rstrip(b"\0"))
    end += -end % 512
    for length in range(0, end + 1, 100):
        folder = tmp_path / f"folder{length}"
        folder.mkdir()
        (tmp_path / "archive").write_bytes(gzip.compress(plain[:length]))
        with pytest.raises(BortError, match="cut short"):
            unpack(tmp_path / "archive", folder, wanted)


def test_a_flipped_byte_is_found_by_the_checksum(tmp_path):
    archive = zip_of(tmp_path / "archive", GOOD, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b'{"idx": 0}\n{', b'{"idx": 1}\n{', 1))
    assert "damaged or cut short" in refused(tmp_path, archive)
    packed = bytearray(tar_of(tmp_path / "archive", GOOD).read_bytes())
    packed[-8:-4] = struct.pack("<I", zlib.crc32(b"another"))
    archive.write_bytes(packed)
    with pytest.raises(BortError, match="damaged"):
        unpack(archive, tmp_path / "out/folder", lambda name: None)


def test_an_offset_outside_the_archive(tmp_path):
    archive = zip_of(tmp_path / "archive", GOOD)
    content = bytearray(archive.read_bytes())
    content[-6:-2] = struct.pack("<I", len(content) + 1000)  # where the directory begins
    archive.write_bytes(content)
    assert "damaged or cut short" in refused(tmp_path, archive)


def test_more_after_the_end_of_a_tar(tmp_path):
    plain = gzip.decompress(tar_of(tmp_path / "archive", GOOD).read_bytes())
    (tmp_path / "archive").write_bytes(gzip.compress(plain + b"more"))
    assert refused(tmp_path, tmp_path / "archive") == "the archive is damaged (there is more after its end)"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html><html>404</html>", "neither a zip nor a tar.gz archive"),
        (b"", "neither a zip nor a tar.gz archive"),
        (b"Rar!", "neither a zip nor a tar.gz archive"),
    ],
)
def test_no_archive_at_all(tmp_path, content, reason):
    (tmp_path / "archive").write_bytes(content)
    assert refused(tmp_path, tmp_path / "archive") == reason


@pytest.mark.parametrize("size", [7, 64, 1 << 20])
def test_the_members_of_a_zip_are_counted_before_its_directory_is_read(tmp_path, monkeypatch, size):
    """The directory's end is damaged, so a reader of the directory would have said that; a signature may be cut by the end of a portion."""
    archive = zip_of(tmp_path / "archive", {f"CB/{number}.txt": b"" for number in range(10)})
    archive.write_bytes(archive.read_bytes()[:-10])
    monkeypatch.setattr(archives, "_COPIED_AT_ONCE", size)
    assert refused(tmp_path, archive, Limits(members=9)) == "more than 9 members"
    archive.rename(tmp_path / "again")
    (tmp_path / "out/folder").rmdir()
    (tmp_path / "out").rmdir()
    assert "damaged or cut short" in refused(tmp_path, tmp_path / "again", Limits(members=10))
