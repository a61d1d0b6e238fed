"""Grids: values and names however they are written, the published grid's 480 points, and errors that name file, line and key."""

from __future__ import annotations

import itertools

import pytest

from bort.errors import BortError
from bort.training.grid import Point, grid_points, read_grid


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "grid.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_values_have_the_types_of_their_options(write):
    grid = read_grid(
        write('lr: [1e-4, 0.5, "9e-6"]\nbatch_size: [8, 16]\nuse_scheduler: [true, false]\ndtype: [float32]\nweight_decay: [0]\n')
    )
    assert grid == {
        "lr": [1e-4, 0.5, 9e-6],
        "batch_size": [8, 16],
        "use_scheduler": [True, False],
        "dtype": ["float32"],
        "weight_decay": [0.0],
    }
    assert [type(values[0]) for values in grid.values()] == [float, int, bool, str, float]


def test_points_are_the_product_and_their_names_are_all_different(write):
    points = grid_points(read_grid(write("lr: [1e-4, 1e-5]\nbatch_size: [8, 16, 32]")), [3, 1])
    assert [tuple(point.values.values()) for point in points] == list(itertools.product([1e-4, 1e-5], [8, 16, 32], [3, 1]))
    assert points[0].name == "batch_size=8,lr=1e-4,seed=3"
    assert len({point.name for point in points}) == 12


def test_what_has_one_value_is_not_named_unless_a_point_has_another():
    points = grid_points({"lr": [1e-4, 1e-5], "dropout": [0.2]}, [1])
    assert [point.name for point in points] == ["lr=1e-4,seed=1", "lr=1e-5,seed=1"]
    other = Point({"lr": 1e-4, "dropout": 0.3, "seed": 1}, points[0].fixed)
    assert other.name == "dropout=0.3,lr=1e-4,seed=1"
    assert [point.name for point in grid_points({"lr": [0.5]})] == ["seed=0"]


def test_a_name_is_never_too_long_for_a_file_and_stays_its_own():
    numbers = {name: value + 0.123456789012345 for value, name in enumerate(["lr", "dropout", "prob", "weight_decay", "beta1"])}
    points = [Point(numbers | {"epsilon": value, "text": "ü/" * 60, "seed": seed}) for value in (1e-6, 1e-7) for seed in (0, 1)]
    names = {point.name for point in points}
    assert len(names) == 4
    assert all(len(name.encode()) == 255 and "/" not in name for name in names)
    assert points[0].name == Point(dict(reversed(points[0].values.items()))).name
    assert len(Point({"seed": 10**400}).name) == 255


def test_the_published_grid_has_these_480_points():
    learning_rates, weight_decays, warm_ups = [1e-4, 1e-5, 9e-6], [0, 10, 100, 350], [0.35, 0.4, 0.45, 0.5]
    expected = set(itertools.product(learning_rates, weight_decays, warm_ups, [8, 16], range(5)))
    points = grid_points(read_grid("published"))
    names = ("lr", "weight_decay", "warmup_ratio", "batch_size", "seed")
    assert len(points) == len(expected) == 480
    assert {tuple(point.values[name] for name in names) for point in points} == expected
    assert all(point.values.keys() == set(names) for point in points)
    assert len(grid_points(read_grid("published"), [7])) == 96


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1e-4, "1e-4"), (9e-6, "9e-6"), (0.35, "0.35"), (350.0, "350"), (0.0, "0"), (0.01, "0.01"), (1.25e-5, "1.25e-5"), (1e22, "1e22"),
        (True, "true"), (16, "16"), ("a/b, c=d", "a%2Fb%2C%20c%3Dd"), ("..", ".."),
    ],
)  # fmt: skip
def test_names_can_be_read_back_and_be_names_of_files(value, name):
    point = Point({"x": value, "seed": 0})
    assert point.name == f"x={name},seed=0"
    if isinstance(value, float):
        assert float(name) == value


def test_a_name_does_not_depend_on_order_or_spelling(write):
    one = grid_points(read_grid(write("lr: [1e-4, 0.5]\nseed: [2]\nbatch_size: [8, 16]")))
    other = grid_points(read_grid(write("batch_size: [ 16, 0008 ]\nlr: [5e-1, 0.00010]\nseed: [2]")))
    assert {point.name for point in one} == {point.name for point in other}
    assert one[0].name == "batch_size=8,lr=1e-4,seed=2"


def test_seeds_alone_are_a_grid():
    assert [point.name for point in grid_points({}, [0, 4])] == ["seed=0", "seed=4"]


WRONG = {
    "unknown name": ("epochs: [1]\nlearning_rate: [1]", r"line 2: no setting learning_rate; there are .*lr"),
    "what is no setting": ("output_dir: [a]", "line 1: no setting output_dir"),
    "a run's setting that decides nothing": ("ckpt_interval: [1]", "line 1: no setting ckpt_interval"),
    "a key that is a list": ("? [lr]\n: [1]", "line 1: no setting"),
    "wrong type": ("lr: [1e-4]\nbatch_size: [8, 8.5]", 'line 2: batch_size takes a whole number, not "8.5"'),
    "text for a number": ("lr:\n- 1e-4\n- fast", 'line 3: lr takes a number, not "fast"'),
    "nothing for a number": ("lr: [1e-4, ~]", 'lr takes a number, not "~"'),
    "no flag": ("use_scheduler: [yes]", 'use_scheduler takes true or false, not "yes"'),
    "a list in a list": ("lr: [[1e-4]]", "lr takes a number, not a list"),
    "out of range": ("warmup_ratio: [0.1, 1.5]", r"line 1: warmup_ratio must lie in \[0, 1\], got 1.5"),
    "not finite": ("lr: [inf]", "line 1: lr must be positive, got inf"),
    "no such choice": ("dtype: [float8]", "line 1: dtype must be one of float32, float16"),
    "empty list": ("lr: []", r"line 1: lr needs a list of values, such as lr: \[1e-4\]"),
    "no list": ("batch_size: 8", r"line 1: batch_size needs a list of values, such as batch_size: \[8\]"),
    "a value twice": ("lr: [1e-4, 0.0001]", "line 1: lr has the value 1e-4 twice"),
    "a key twice": ("lr: [1]\nlr: [2]", "line 2: lr is there twice"),
    "a list": ("[1, 2]", "not a grid"),
    "nothing": ("# nothing\n", "not a grid"),
    "no YAML": ("lr: [1\nx: ]", "line 2: not YAML"),
    "two documents": ("lr: [1]\n---\nlr: [2]", "line 2: not YAML"),
    "a Python object": ("lr: !!python/object/apply:os.system [echo]", "grid.yaml, line 1: lr takes a number"),
    "deep": ("[" * 5000, "not YAML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_file_line_and_key(name, write):
    text, message = WRONG[name]
    with pytest.raises(BortError, match=message) as error:
        read_grid(write(text))
    assert "grid.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_aliases_do_not_multiply(write):
    bomb = "a: &a [1]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
    with pytest.raises(BortError, match="line 1: no setting a"):
        read_grid(write(bomb))


def test_what_is_no_text_and_what_is_missing(tmp_path):
    (tmp_path / "grid.yaml").write_bytes(b"lr: [\xff]")
    with pytest.raises(BortError, match=r"grid\.yaml: not YAML in UTF-8"):
        read_grid(str(tmp_path / "grid.yaml"))
    with pytest.raises(BortError, match=r"nowhere\.yaml: No such file.*--grid takes a YAML file or published"):
        read_grid(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "large.yaml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(BortError, match="larger than a grid can be"):
        read_grid(str(tmp_path / "large.yaml"))


def test_wrong_seeds_and_too_many_points():
    with pytest.raises(BortError, match="--seeds: seed must be at least 0, got -1"):
        grid_points({}, [0, -1])
    with pytest.raises(BortError, match="--seeds: 3 is there twice"):
        grid_points({}, [3, 1, 3])
    with pytest.raises(BortError, match="the grid has 1,000,000 points"):
        grid_points({"lr": [0.1] * 1000, "prob": [0.1] * 1000})
