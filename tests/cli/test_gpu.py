"""``--gpu`` where there is none: one line, and nothing is written."""

from __future__ import annotations

import mxnet as mx
import pytest

from bort.cli import main


@pytest.mark.parametrize(
    "command",
    [
        "predict --checkpoint {c} --input {t}/rows.tsv --output {t}/out --gpu",
        "predict --checkpoint {c} --task RTE --data_root {r}/test_data --output {t}/out --gpu",
        "finetune --task RTE --data_root {r}/test_data --init_from {c} --output_dir {t}/out --gpu",
    ],
)
def test_a_gpu_that_is_not_there_is_an_error_of_one_line(command, classifier, repository, tmp_path, capsys):
    if mx.context.num_gpus():
        pytest.skip("there is a GPU here")
    (tmp_path / "rows.tsv").write_text("It rains.\tIt is wet.\n")
    words = command.format(c=classifier, r=repository, t=tmp_path).split()
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith("bort: error: worker 0 needs GPU 0, MXNet finds 0; leave out --gpu")
    assert (out, err.count("\n")) == ("", 1)
    assert not (tmp_path / "out").exists()
    if words[0] == "predict":
        assert main(words[:-1]) == 0
        assert (tmp_path / "out").exists()
