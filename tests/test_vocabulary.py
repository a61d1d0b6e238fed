"""The table of tokens: what it refuses, and that its files are the ones that GluonNLP and Hugging Face write."""

from __future__ import annotations

import hashlib
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort import BortError, Vocab

TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "a", "Ġthe", "力", "<mask>")


@pytest.fixture
def vocab() -> Vocab:
    return Vocab(TOKENS)


def test_lookups_in_the_terms_of_gluonnlp(vocab):
    assert len(vocab) == 8
    assert "Ġthe" in vocab
    assert "the" not in vocab
    assert vocab["Ġthe"] == 5
    assert vocab["never seen"] == vocab.unk_id == 3
    assert vocab[["a", "never seen"]] == vocab.to_indices(["a", "never seen"]) == [4, 3]
    assert vocab.to_tokens(5) == "Ġthe"
    assert vocab.to_tokens([4, 7]) == vocab.to_tokens(np.array([4, 7], dtype=np.uint16)) == ["a", "<mask>"]


@pytest.mark.parametrize("outside", [-1, 8])
def test_an_id_outside_the_table_is_never_a_token(vocab, outside):
    with pytest.raises(IndexError, match="0 to 7"):
        vocab.to_tokens([0, outside])


def test_special_ids(vocab):
    assert (vocab.bos_id, vocab.pad_id, vocab.eos_id, vocab.unk_id, vocab.mask_id) == (0, 1, 2, 3, 7)
    assert vocab.special_ids == (0, 1, 2, 3, 7)
    assert vocab.to_tokens(list(vocab.special_ids)) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def test_fingerprint_depends_on_tokens_and_their_order_and_on_nothing_else(vocab):
    swapped = (*TOKENS[:4], "Ġthe", "a", *TOKENS[6:])
    joined = (*TOKENS[:4], "aĠthe", *TOKENS[6:])
    prints = {Vocab(tokens).fingerprint for tokens in (TOKENS, swapped, joined)}
    assert len(prints) == 3
    assert Vocab(TOKENS).fingerprint == vocab.fingerprint == pickle.loads(pickle.dumps(vocab)).fingerprint
    assert Vocab(TOKENS) == vocab != Vocab(swapped)


@given(st.lists(st.text(), unique=True, max_size=50).filter(lambda tokens: not set(tokens) & set(Vocab.special_tokens)), st.randoms())
@settings(derandomize=True, deadline=None, max_examples=50)
def test_both_formats_keep_any_table(tmp_path_factory, tokens, random):
    tokens += Vocab.special_tokens
    random.shuffle(tokens)
    vocab = Vocab(tuple(tokens))
    path = tmp_path_factory.mktemp("vocabulary") / "file"
    for contents in (vocab.to_hugging_face_json(), vocab.to_gluonnlp_json()):
        path.write_text(contents, encoding="utf-8")
        assert Vocab.from_file(path) == vocab


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        ('{"a": 0, "a": 1}', "'a' stands in it twice"),
        ('{"a": 0', "not the JSON of a vocabulary"),
        ("[" * 100_000, "not the JSON of a vocabulary"),
        ("[]", "a JSON object of tokens and ids, found list"),
        ('{"a": 1.0}', "the id of 'a' is 1.0"),
        ('{"a": true}', "the id of 'a' is True"),
        ('{"a": 0, "b": 0}', "ids must run from 0 to 1, one for each token, but 'b' has 0, not 1"),
        ('{"a": 0, "b": 2}', "'b' has 2, not 1"),
        ('{"a": -1}', "'a' has -1, not 0"),
        ('{"a": 10000000000000}', "'a' has 10000000000000, not 0"),
        ('{"<s>": 0, "<pad>": 1, "</s>": 2}', "special token <unk>, <mask> is absent"),
        ('{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "\\ud800": 5}', r"'\ud800' of id 5 holds a lone surrogate"),
        ('{"idx_to_token": ["a", 7], "token_to_idx": {"a": 0}}', "idx_to_token[1] is 7"),
        ('{"idx_to_token": ["a", "b"], "token_to_idx": {"a": 0, "b": 0}}', "token_to_idx and idx_to_token disagree"),
        ('{"idx_to_token": ["a", "b", "a"], "token_to_idx": {"a": 2, "b": 1}}', "the token 'a' has two ids, 0 and 2"),
        ('{"idx_to_token": ["a", "b"]}', "token_to_idx and idx_to_token disagree"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path, contents, complaint):
    path = tmp_path / "vocab.json"
    path.write_text(contents, encoding="utf-8")
    with pytest.raises(BortError) as error:
        Vocab.from_file(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert complaint in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BortError, match=r"absent\.json: cannot read it: No such file"):
        Vocab.from_file(tmp_path / "absent.json")
    (tmp_path / "latin.json").write_bytes('{"é": 0}'.encode("latin-1"))
    with pytest.raises(BortError, match=r"latin\.json: not UTF-8 at byte 2"):
        Vocab.from_file(tmp_path / "latin.json")


def test_a_token_with_two_ids_is_refused():
    with pytest.raises(BortError, match="the token 'a' has two ids, 4 and 6"):
        Vocab((*TOKENS[:4], "a", "b", "a", "<mask>"))


def test_roberta_as_gluonnlp_wrote_it(shared):
    vocab = Vocab.from_file(shared / "data" / "vocab" / "vocab.json")
    assert hashlib.sha1(vocab.to_gluonnlp_json().encode()).hexdigest() == "2b804f8f90f9f93c07994b703ce508725061cf43"


def test_gluonnlp_itself_writes_the_same_file_and_reads_ours(vocab):
    import bort.gluon  # noqa: F401, I001
    import gluonnlp

    ids = {token: position for position, token in enumerate(TOKENS)}
    # GluonNLP's converter gave it the ids for counts; that is the order which the published file has.
    theirs = gluonnlp.Vocab(
        ids, token_to_idx=ids, unknown_token="<unk>", padding_token="<pad>", bos_token="<s>", eos_token="</s>", mask_token="<mask>"
    )
    assert vocab.to_gluonnlp_json() == theirs.to_json()
    read = gluonnlp.Vocab.from_json(vocab.to_gluonnlp_json())
    assert tuple(read.idx_to_token) == vocab.tokens
    assert read["never seen"] == vocab.unk_id
    assert (read.padding_token, read.bos_token, read.eos_token, read.mask_token) == ("<pad>", "<s>", "</s>", "<mask>")


def test_vocab_json_is_what_hugging_face_reads(vocab):
    assert json.loads(vocab.to_hugging_face_json()) == {token: position for position, token in enumerate(TOKENS)}
