"""The numbers follow their definitions, and their intervals hold them."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)
from tests.detector.conftest import made_up

from semforensics.trials.intervals import wilson_interval
from semforensics.trials.numbers import (
    Number,
    best_of_table,
    measure,
    predictive_table,
    reliability_table,
)


def by_name(numbers: list[Number]) -> dict[str, Number]:
    """Numbers under their names."""
    return {number.name: number for number in numbers}


def test_numbers_follow_their_definitions() -> None:
    """Accuracies count at the threshold and at logit 0; the rest is scikit-learn's."""
    scores = made_up()
    is_fake, logits = (scores["class"] == "fake").to_numpy(), scores["logit"].to_numpy()

    numbers = by_name(measure(scores, 0.7, 1.4, 300, np.random.default_rng(0)))

    for suffix, threshold in (("", 0.7), ("_at_half", 0.0)):
        right = (logits > threshold) == is_fake
        assert numbers[f"accuracy{suffix}"].value == right.mean()
        assert numbers[f"accuracy_real{suffix}"].value == right[~is_fake].mean()
        fake = numbers[f"accuracy_fake{suffix}"]
        assert fake.value == right[is_fake].mean()
        assert (fake.low, fake.high) == wilson_interval(int(right[is_fake].sum()), 50)
    for suffix, scale in (("", 1.4), ("_uncalibrated", 1.0)):
        probability = 1 / (1 + np.exp(-logits / scale))
        brier = brier_score_loss(is_fake, probability)
        assert numbers[f"brier_score{suffix}"].value == pytest.approx(brier, rel=1e-5)
        loss = log_loss(is_fake, probability)
        assert numbers[f"log_loss{suffix}"].value == pytest.approx(loss, rel=1e-5)
    assert numbers["auroc"].value == pytest.approx(roc_auc_score(is_fake, logits))
    precision = average_precision_score(is_fake, logits)
    assert numbers["average_precision"].value == pytest.approx(precision)
    assert "prevalence 0.455" in numbers["average_precision"].remark
    assert "60 reals, fewer than 300" in numbers["tpr_at_fpr_1_percent"].remark
    for name, number in numbers.items():
        assert 0 <= number.low < number.high <= (2 if name.startswith("log_loss") else 1)
        if not name.startswith("ece"):
            assert number.low <= number.value <= number.high


def test_errors_of_verdicts_are_of_decided_images() -> None:
    """Shares after abstention count decided images only; the share of those stands beside them."""
    scores = made_up()
    reals = scores[scores["class"] == "real"]
    decided = reals[reals["verdict"] != "inconclusive"]

    numbers = by_name(measure(scores, 0.0, 1.0, 100, np.random.default_rng(0)))

    alarms = int((decided["verdict"] == "ai-suspected").sum())
    assert numbers["decided_real"].value == len(decided) / 60
    assert numbers["false_alarms_of_decided"].value == pytest.approx(alarms / len(decided))
    assert numbers["false_alarms_of_decided"].high == wilson_interval(alarms, len(decided))[1]
    assert numbers["false_alarms_of_all"].value == pytest.approx(alarms / 60)
    assert numbers["inside_real"].value == reals["inside"].mean()


def test_without_a_verdict_errors_have_no_value() -> None:
    """Where nothing is decided there is no error rate, and any is possible."""
    scores = made_up().assign(verdict="inconclusive")

    numbers = by_name(measure(scores, 0.0, 1.0, 100, np.random.default_rng(0)))

    misses = numbers["misses_of_decided"]
    assert np.isnan(misses.value)
    assert (misses.low, misses.high) == (0, 1)
    assert numbers["decided_fake"].value == 0


def test_few_groups_widen_the_interval() -> None:
    """Reals that share a shift by group have a wider interval than reals by themselves."""
    scores = made_up()
    shift = (
        scores["group"].str.removeprefix("g").where(scores["class"] == "real", "0").astype(float)
    )
    scores["logit"] = (scores["logit"] + shift).astype(np.float32)
    alone = scores.assign(group=[f"x{i}" for i in range(len(scores))])

    grouped, single = (
        by_name(measure(s, 0.0, 1.0, 500, np.random.default_rng(0)))["auroc"]
        for s in (scores, alone)
    )

    assert grouped.high - grouped.low > 1.3 * (single.high - single.low)
    assert grouped.value == single.value


def test_reliability_bins_hold_all_images_and_both_probabilities() -> None:
    """Bins of about equal size, in rising order; a high temperature pulls to one half."""
    scores = made_up()

    table = reliability_table(scores, 3.0, "fastgan")

    assert table["bin"].tolist() == list(range(1, 16))
    assert table["n_fastgan"].sum() == 110
    assert table["n_fastgan"].between(7, 8).all()
    assert table["before_fastgan"].is_monotonic_increasing
    from_half = [(table[f"{name}_fastgan"] - 0.5).abs().sum() for name in ("before", "after")]
    assert from_half[1] < from_half[0]
    fakes = (table["share_of_fakes_fastgan"] * table["n_fastgan"]).sum()
    assert fakes == pytest.approx(50)


def test_a_forger_with_more_fakes_passes_more_often() -> None:
    """One fake passes as often as fakes are missed; the least of ten passes far more often."""
    scores = made_up()
    missed = (scores["logit"] <= 0)[scores["class"] == "fake"].mean()

    table = best_of_table(scores, 0.0).set_index("choices")

    assert table.index.tolist() == [1, 10]
    assert table.loc[1, "passes_threshold"] == pytest.approx(missed)
    assert table.loc[10, "passes_threshold"] > 0.9
    undecided_or_missed = (scores["verdict"] != "ai-suspected")[scores["class"] == "fake"].mean()
    assert table.loc[1, "passes_verdict"] == pytest.approx(undecided_or_missed)
    consistent = (scores["verdict"] == "consistent")[scores["class"] == "fake"].mean()
    assert table.loc[1, "called_consistent"] == pytest.approx(consistent)


def test_a_call_is_worth_less_where_fakes_are_rare() -> None:
    """At one half the predictive value is Bayes' on the rates; at 1 % it is far lower."""
    scores = made_up()
    is_fake, called = scores["class"] == "fake", scores["logit"] > 0.7
    tpr, fpr = called[is_fake].mean(), called[~is_fake].mean()

    table = predictive_table(scores, 0.7).set_index(["rule", "prevalence"])

    half = table.loc[("threshold", 0.5)]
    assert half["fake_if_called_fake"] == pytest.approx(tpr / (tpr + fpr))
    assert half["real_if_called_real"] == pytest.approx((1 - fpr) / (2 - fpr - tpr))
    rare = table.loc[("threshold", 0.01)]
    expected = 0.01 * tpr / (0.01 * tpr + 0.99 * fpr)
    assert rare["fake_if_called_fake"] == pytest.approx(expected)
    assert rare["fake_if_called_fake"] < 0.3 * half["fake_if_called_fake"]
    for name in ("fake_if_called_fake", "real_if_called_real"):
        assert (table[f"{name}_low"] < table[name]).all()
        assert (table[name] < table[f"{name}_high"]).all()
