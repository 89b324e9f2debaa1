"""The interval of another training, from what several trainings measured."""

import numpy as np
import pytest

from semforensics.core.errors import InputError
from semforensics.trials.spread import COLUMNS, half_width, read_spread, with_spread

HEAD = ",".join(COLUMNS)


def table(*rows: tuple[str, str, str, int, float]) -> str:
    """A CSV of such rows."""
    return "\n".join([HEAD, *(",".join(map(str, row)) for row in rows)]) + "\n"


@pytest.mark.parametrize("trainings", [3, 5])
def test_another_training_is_in_the_interval_19_times_in_20(trainings: int) -> None:
    """Of normal values: in the interval around one that is reported lies another one."""
    values = np.random.default_rng(0).normal(0.9, 0.02, (20_000, trainings + 2))

    held = [abs(old - new) <= half_width(stored) for old, new, *stored in values.tolist()]

    assert np.mean(held) == pytest.approx(0.95, abs=0.005)


def test_numbers_of_three_trainings_have_a_spread() -> None:
    """Those with GANs trained again count before those of the classifier alone; two are too few."""
    rows = [("f", "a.auroc", "classifier", seed, 0.8 + seed / 1e3) for seed in (100, 200, 300)]
    rows += [("f", "a.auroc", "all", seed, 0.7 + seed / 1e4) for seed in (100, 200, 300)]
    rows += [("f", "b.auroc", "classifier", seed, 0.9) for seed in (100, 200)]
    rows += [("f", "c.auroc", "classifier", seed, seed / 1e3) for seed in (100, 200, 300)]

    spread = read_spread(table(*rows))

    assert set(spread) == {("f", "a.auroc"), ("f", "c.auroc")}
    # Student's t of 2 degrees of freedom is 4.303 at 97.5 %.
    assert spread["f", "a.auroc"] == pytest.approx(4.303 * 0.01 * 2**0.5, rel=1e-3)
    assert spread["f", "c.auroc"] == pytest.approx(4.303 * 0.1 * 2**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "expected file, key"),
        (table(("f", "k", "all", 1, float("nan"))), "line 2.*expected a number"),
        (table(("f", "k", "gan", 1, 0.5)), "expected a number of all or classifier"),
        (f"{HEAD}\nf,k,all,1,high\n", "line 2"),
    ],
)
def test_another_table_is_refused(text: str, message: str) -> None:
    """Other columns, numbers that are none, other kinds of trainings."""
    with pytest.raises(InputError, match=message):
        read_spread(text)


def test_the_ends_stand_beside_the_numbers_that_have_a_spread() -> None:
    """Shares stay within 0 and 1; distances may go below, and others stay as they are."""
    metrics = {
        "gan": {"auroc": 0.98, "auroc_low": 0.9, "auroc_high": 1.0, "n_real": 7, "ok": True},
        "mse_min": 3.0,
    }
    spread = {("f", "gan.auroc"): 0.05, ("f", "mse_min"): 4.0, ("g", "gan.n_real"): 1.0}

    found = with_spread(metrics, "f", spread)

    assert found["gan"] == metrics["gan"] | {
        "auroc_over_seeds_low": pytest.approx(0.93),
        "auroc_over_seeds_high": 1.0,
    }
    assert found["mse_min_over_seeds_low"] == -1.0
    assert found["mse_min_over_seeds_high"] == 7.0
    assert metrics["mse_min"] == 3.0
    assert "auroc_over_seeds_low" not in metrics["gan"]
