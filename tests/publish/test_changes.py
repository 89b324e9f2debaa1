"""A number and its interval are one; what is better, what is chance, what is no result."""

import math

import pytest

from semforensics.publish.changes import Change, Measured, exact, measured_in, results_in


@pytest.mark.parametrize(
    ("key", "old", "new", "verdict"),
    [
        ("both.accuracy", 0.9, 0.8, "worse, no interval"),
        ("false_alarms_of_decided", 0.01, 0.02, "worse, no interval"),
        ("false_alarms_of_decided", 0.02, 0.01, "better, no interval"),
        ("decided_real", 0.5, 0.6, "better, no interval"),
        ("kid_alex_conv5_mean", 0.3, 0.2, "better, no interval"),
        ("leave_one_out.npr.auroc", 0.3, 0.2, "worse, no interval"),
        ("leave_one_out.srm.auroc", 0.3, 0.2, "changed, no interval"),
        ("mse_min", 0.3, 0.2, "changed, no interval"),
        ("red_gates", 1, 1, "same"),
    ],
)
def test_what_is_better_follows_from_the_name(
    key: str, old: float, new: float, verdict: str
) -> None:
    """Shares of errors fall, accuracies rise, distances and baselines are neither good nor bad."""
    assert Change(key, Measured(old), Measured(new)).verdict == verdict


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (Measured(0.9, 0.8, 0.95), Measured(0.85, 0.7, 0.9), "within"),
        (Measured(0.9, 0.8, 0.95), Measured(0.7, 0.6, 0.8), "⚠ **worse**"),
        (Measured(0.7, 0.6, 0.8), Measured(0.9, 0.8, 0.95), "better"),
        # All right: the interval of the old value has no width, that of the new one tells.
        (Measured(1.0, 1.0, 1.0), Measured(0.9999, 0.9994, 1.0), "within"),
        (Measured(1.0, 1.0, 1.0), Measured(0.99, 0.98, 0.999), "⚠ **worse**"),
        (Measured(0.9, 0.8, 0.95), Measured(0.7), "⚠ **worse**"),
        (Measured(0.9, 0.8, 0.95), None, "gone"),
        (None, Measured(0.9), "new"),
    ],
)
def test_only_what_lies_outside_of_the_intervals_is_flagged(
    old: Measured | None, new: Measured | None, verdict: str
) -> None:
    """Each value has to lie outside of the interval of the other."""
    change = Change("fastgan.accuracy", old, new)

    assert change.verdict == verdict
    assert change.is_worse == ("⚠" in verdict)
    assert change.is_better == (verdict == "better")


def test_a_gate_that_turns_red_is_flagged() -> None:
    """A gate is passed or not, and a count of gates is exact."""
    passed, failed = results_in({"passed": True}), results_in({"passed": False})

    assert Change("passed", passed["passed"], failed["passed"]).is_worse
    assert Change("red_gates", exact(0), exact(1)).is_worse
    assert Change("red_gates", exact(1), exact(0)).is_better


def test_results_are_what_was_measured() -> None:
    """Ends of intervals, thresholds, hashes, counts and parameters are no results."""
    found = results_in(
        {
            "detector": "both", "threshold": 0.4, "threshold_logit": -0.4, "temperature": 0.7,
            "alpha": 0.05, "phases": 4, "num_seeds": 2, "n_real": 120, "tile_px": 64,
            "model_sha256": "00", "bootstrap_resamples": 9, "panels": [{"suspected": 1}],
            "fastgan": {
                "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "prevalence": 0.5,
                "misses_of_decided": None, "misses_of_decided_low": 0.0,
            },
            "gates": {"one": {"passed": True, "value": 0.1, "low": 0.0, "high": 0.2, "bound": 0.5}},
            "n_fragile": 48, "particle_size_distance_px": 0.9, "kid_alex": 0.2, "kid_alex_sd": 0.1,
            "kid_alex_floor": 0.1,
        }
    )  # fmt: skip

    assert found == {
        "fastgan.accuracy": Measured(0.9, 0.8, 0.95),
        "gates.one.passed": Measured(True, True, True),
        "gates.one.value": Measured(0.1, 0.0, 0.2),
        "n_fragile": Measured(48),
        "particle_size_distance_px": Measured(0.9),
        "kid_alex": Measured(0.2),
    }


def test_an_interval_contains_the_spread_over_trainings() -> None:
    """Where a file holds both, a change within either is no warning."""
    values = {
        "accuracy": 0.9, "accuracy_low": 0.85, "accuracy_high": 0.95,
        "accuracy_over_seeds": 0.8, "accuracy_over_seeds_low": 0.6, "accuracy_over_seeds_high": 0.9,
    }  # fmt: skip

    measured = measured_in(values, "accuracy")

    assert measured == Measured(0.9, 0.6, 0.95)
    assert list(results_in(values)) == ["accuracy"]
    assert Change("accuracy", measured, Measured(0.7)).verdict == "within"
    assert Measured(0.9).joined(measured) == measured
    assert Measured(0.8).joined(measured) == Measured(0.8), "of another number"


def test_a_number_and_its_interval_are_one_text() -> None:
    """Three digits, whole numbers where there are more; no brackets without an interval."""
    assert str(Measured(0.98765, 0.9639, 0.99574)) == "0.988 (0.964 to 0.996)"
    assert str(Measured(2309.24, 2000.0, 2500.0)) == "2309 (2000 to 2500)"
    assert str(Measured(1.0, 1.0, 1.0)) == "1"
    assert str(Measured(0.99993, 0.9994, 1.0)) == "0.9999 (0.999 to 1)"
    assert str(Measured(False)) == "False"


def test_a_missing_number_is_drawn_as_none() -> None:
    """The picture leaves out what one revision lacks."""
    row = Change("accuracy", None, Measured(0.9, 0.8, 1.0)).as_row()

    assert math.isnan(row["old"])
    assert (row["new"], row["new_low"], row["new_high"], row["verdict"]) == (0.9, 0.8, 1.0, "")
