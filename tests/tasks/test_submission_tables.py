"""GLUE tables that the leaderboard would refuse."""

from __future__ import annotations

import pytest

from bort.tasks.submission_checks import MAX_FILE_BYTES

from .test_submission_broken import (
    AGAIN,
    ENTAILMENT,
    IN_ORDER,
    PLAIN,
    SCORE,
    TABLE_ROW,
    assert_refused,
    cells,
    line,
    lines,
    swap,
)

BROKEN_TABLES = {
    "another header": ("CoLA.tsv", line(1, b"id\tlabel"), [', line 1: the header is "id\\tlabel"; write index, a tab, prediction']),
    "no header": (
        "CoLA.tsv",
        lambda text: text.split(b"\n", 1)[1],
        [
            ", line 1: the header is {header}; write index, a tab, prediction",
            f": 7 rows where the test file has 8; {IN_ORDER}",
            f': index "0" missing (1 in all); {IN_ORDER}',
        ],
    ),
    "a byte-order mark": ("MRPC.tsv", lambda text: b"\xef\xbb\xbf" + text, [f", line 1: a byte-order mark; {PLAIN}"]),
    "line ends of Windows": (
        "MRPC.tsv",
        lambda text: text.replace(b"\n", b"\r\n"),
        [f", line 1: a carriage return; {PLAIN}"],
    ),
    "one line end of Windows": ("MRPC.tsv", line(4, b"2\t1\r"), [f", line 4: a carriage return; {PLAIN}"]),
    "UTF-16": (
        "WNLI.tsv",
        lambda text: text.decode().encode("utf-16-le"),
        [', line 1: the header is "i\\u0000n\\u0000d\\u0000e\\u0000x\\u0000\\t\\u0000p\\u0000r\\u0000e\\…; write index, a tab, prediction'],
    ),
    "no UTF-8": ("RTE.tsv", cells(3, prediction=b"entail\xffment"), [f", line 4: not UTF-8: invalid start byte at byte 8; {PLAIN}"]),
    "another word": ("RTE.tsv", cells(3, prediction=b"entails"), [f', line 4: the prediction is "entails"; {ENTAILMENT}']),
    "a word in capitals": ("QNLI.tsv", cells(2, prediction=b"Entailment"), [f', line 3: the prediction is "Entailment"; {ENTAILMENT}']),
    "a number for a word": ("RTE.tsv", cells(1, prediction=b"1"), [f', line 2: the prediction is "1"; {ENTAILMENT}']),
    "a word for a number": ("SST-2.tsv", cells(1, prediction=b"positive"), [', line 2: the prediction is "positive"; write one of 0, 1']),
    "a space": ("SST-2.tsv", cells(1, prediction=b"1 "), [', line 2: the prediction is "1 "; write one of 0, 1']),
    "a decimal": ("QQP.tsv", cells(1, prediction=b"1.0"), [', line 2: the prediction is "1.0"; write one of 0, 1']),
    "commas": ("WNLI.tsv", line(3, b"1,0"), [f", line 3: the number of columns is 1; {TABLE_ROW}"]),
    "three columns": ("WNLI.tsv", line(3, b"1\t0\t0.7"), [f", line 3: the number of columns is 3; {TABLE_ROW}"]),
    "a score above": ("STS-B.tsv", cells(2, prediction=b"5.001"), [f', line 3: the prediction is "5.001"; {SCORE}']),
    "a score below": ("STS-B.tsv", cells(2, prediction=b"-0.100"), [f', line 3: the prediction is "-0.100"; {SCORE}']),
    "no number": ("STS-B.tsv", cells(2, prediction=b"nan"), [f', line 3: the prediction is "nan"; {SCORE}']),
    "two decimals": ("STS-B.tsv", cells(2, prediction=b"3.14"), [f', line 3: the prediction is "3.14"; {SCORE}']),
    "many decimals": ("STS-B.tsv", cells(2, prediction=b"3.14159"), [f', line 3: the prediction is "3.14159"; {SCORE}']),
    "digits of another script": (
        "STS-B.tsv",
        cells(2, prediction="٣.١٤١".encode()),
        [f', line 3: the prediction is "\\u0663.\\u0661\\u0664\\u0661"; {SCORE}'],
    ),
    "a row missing": (
        "AX.tsv",
        lines(lambda rows: rows.pop(4)),
        [f": 7 rows where the test file has 8; {IN_ORDER}", f': index "3" missing (1 in all); {IN_ORDER}'],
    ),
    "a row twice": (
        "AX.tsv",
        lines(lambda rows: rows.insert(4, rows[3])),
        [f": 9 rows where the test file has 8; {IN_ORDER}", f', line 5: index "2" stands here again; {IN_ORDER}'],
    ),
    "a row too many": (
        "QQP.tsv",
        lambda text: text + b"8\t1\n",
        [f": 9 rows where the test file has 8; {IN_ORDER}", f', line 10: index "8" is not in the test file; {IN_ORDER}'],
    ),
    "indices from 1": (
        "CoLA.tsv",
        lines(lambda rows: rows.__setitem__(slice(1, 9), [b"%d\t1\n" % number for number in range(1, 9)])),
        [f', line 9: index "8" is not in the test file; {IN_ORDER}', f': index "0" missing (1 in all); {IN_ORDER}'],
    ),
    "an index with a nought": (
        "CoLA.tsv",
        cells(2, index=b"01"),
        [f', line 3: index "01" is not in the test file; {IN_ORDER}', f': index "1" missing (1 in all); {IN_ORDER}'],
    ),
    "rows out of order": (
        "CoLA.tsv",
        lines(swap(3, 5)),
        [f', line 4: index "4" where "2" is due (2 rows out of order); {IN_ORDER}'],
    ),
    "a blank line": ("QNLI.tsv", lines(lambda rows: rows.insert(3, b"\n")), [", line 4: a blank line; remove it"]),
    "a blank line at the end": ("QNLI.tsv", lambda text: text + b"\n", [", line 10: a blank line; remove it"]),
    "nothing in it": ("RTE.tsv", lambda text: b"", [f": an empty file; {AGAIN}"]),
    "a cut file": (
        "STS-B.tsv",
        lambda text: text[:-3],
        [", line 17: the prediction is {cut}; " + SCORE],
    ),
    "a file without end": ("RTE.tsv", lambda text: bytes(MAX_FILE_BYTES + 1), [f": larger than 16 MiB; no prediction file is; {AGAIN}"]),
    "a line without end": (
        "RTE.tsv",
        lambda text: text.replace(b"\n2\t", b"\n2\t" + b"x" * 2**20),
        [f", line 4: longer than 1 MiB; no line of a prediction file is; {AGAIN}"],
    ),
    "lines without end": ("RTE.tsv", lambda text: text * 100, [f": 2100 lines where there must be 21; {IN_ORDER}"]),
    "a terminal's commands": (
        "SST-2.tsv",
        cells(1, prediction=b"\x1b[2J"),
        [', line 2: the prediction is "\\u001b[2J"; write one of 0, 1'],
    ),
}


@pytest.mark.parametrize(("file", "edit", "reasons"), BROKEN_TABLES.values(), ids=BROKEN_TABLES)
def test_each_is_refused_with_its_own_reason(file, edit, reasons, repository, tmp_path, capsys):
    assert_refused("glue", file, edit, reasons, repository, tmp_path, capsys)
