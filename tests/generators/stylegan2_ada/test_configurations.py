"""Configurations give the numbers of the original's table."""

import pytest

from semforensics.generators.stylegan2_ada.configurations import configuration, resolve
from tests.generators.conftest import tiny_style


@pytest.mark.parametrize(
    ("name", "size_px", "expected"),
    [
        ("auto", 256, (16, 4, 16384, 0.0025, 0.8192, 5, 0.05, 2)),
        ("auto", 512, (8, 4, 32768, 0.0025, 6.5536, 2.5, 0.05, 2)),
        ("auto", 1024, (4, 4, 32768, 0.002, 52.4288, 1.25, 0.05, 2)),
        ("auto", 64, (32, 4, 16384, 0.0025, 0.0256, 10, 0.05, 2)),
        ("stylegan2", 1024, (32, 4, 32768, 0.002, 10, 10, 0, 8)),
        ("paper256", 256, (64, 8, 16384, 0.0025, 1, 20, 0, 8)),
        ("paper512", 512, (64, 8, 32768, 0.0025, 0.5, 20, 0, 8)),
        ("paper1024", 1024, (32, 4, 32768, 0.002, 2, 10, 0, 8)),
        ("cifar", 32, (64, 32, 32768, 0.0025, 0.01, 500, 0.05, 2)),
    ],
)
def test_rows_are_those_of_the_table(name: str, size_px: int, expected: tuple[float, ...]) -> None:
    """Batch, group, width, rate, R1 weight, average and depth of each row."""
    row = configuration(name, size_px)

    found = (
        row.batch, row.mbstd_group, row.channel_base, row.lr, row.r1_gamma, row.ema_kimg,
        row.ema_rampup, row.mapping_layers,
    )  # fmt: skip
    assert found == pytest.approx(expected)
    assert row.kimg == (100000 if name == "cifar" else 25000)
    assert (row.path_length_weight, row.style_mixing) == ((0, 0) if name == "cifar" else (2, 0.9))
    assert row.architecture == ("orig" if name == "cifar" else "resnet")


def test_several_devices_share_a_larger_batch() -> None:
    """Eight of them at 512 px: 64 images a step, R1 by that."""
    row = configuration("auto", 512, devices=8)

    assert (row.batch, row.mbstd_group) == (64, 4)
    assert row.r1_gamma == pytest.approx(0.0002 * 512**2 / 64)


def test_a_batch_takes_what_follows_from_it_along() -> None:
    """R1 weight, average and group of `auto` are computed from the batch that is used."""
    row = configuration("auto", 512, batch=2)

    assert (row.batch, row.mbstd_group) == (2, 2)
    assert row.r1_gamma == pytest.approx(0.0002 * 512**2 / 2)
    assert row.ema_kimg == pytest.approx(2 * 10 / 32)


def test_parameters_overrule_the_row() -> None:
    """What a parameter file says counts; what is null comes from the row."""
    row = resolve(tiny_style(configuration="paper512", batch=16, r1_gamma=6.5536, ema_kimg=2.5,
                             kimg=1000, mbstd_group=None, lr=None), 512)  # fmt: skip

    assert (row.batch, row.r1_gamma, row.ema_kimg, row.kimg) == (16, 6.5536, 2.5, 1000)
    assert (row.mbstd_group, row.lr) == (8, 0.0025)
    assert row.iterations == 62500


def test_an_unknown_row_is_refused() -> None:
    """The error lists what there is."""
    with pytest.raises(ValueError, match="expected auto or one of stylegan2, paper256"):
        configuration("24gb-gpu", 512)
