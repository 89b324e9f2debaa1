import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from semforensics.figures.gallery import NUM_PAIRS, nearest_gallery, suspicious_gallery


def images(prefix: str, count: int, seed: int) -> dict[str, np.ndarray]:
    """Images of noise by name."""
    rng = np.random.default_rng(seed)
    return {
        f"{prefix}{i}.png": rng.integers(0, 256, (32, 32), dtype=np.uint8) for i in range(count)
    }


def pairs_of(figure) -> list[np.ndarray]:
    """The images as they are drawn, at their own resolution, in order."""
    return [image.get_array()[::4, ::4, 0] for image in figure.images]


def lines_of(figure) -> list[str]:
    """The captions' lines."""
    texts = [text.get_text() for text in figure.findobj(Text) if "\n" in text.get_text()]
    return [line for text in texts for line in text.split("\n")]


@pytest.mark.parametrize(("by", "label"), [("mse", "MSE 3.0"), ("lpips", "LPIPS 3.0000")])
def test_nearest_pairs_come_first(by, label):
    """The fakes of the smallest distance are drawn, nearest first, each beside its real."""
    fakes, reals = images("f", 15, seed=1), images("r", 3, seed=2)
    per_fake = pd.DataFrame(
        {"file": list(fakes), f"{by}_min": [(7.0 * i + 3) % 15 for i in range(15)]}
    )
    per_fake[f"{by}_nearest"] = [f"r{i % 3}.png" for i in range(15)]

    figure = nearest_gallery(per_fake, fakes, reals, by=by, source="fastgan")

    drawn = pairs_of(figure)
    ordered = per_fake.sort_values(f"{by}_min")
    assert len(drawn) == 2 * NUM_PAIRS
    for place, (_, row) in enumerate(ordered.head(NUM_PAIRS).iterrows()):
        assert (drawn[2 * place] == fakes[row["file"]]).all()
        assert (drawn[2 * place + 1] == reals[row[f"{by}_nearest"]]).all()
    assert f"f0, {label}" in lines_of(figure)


def test_suspicious_fakes_stand_beside_their_real_turned_alike():
    """A mirrored copy is drawn beside the mirrored real, with the distances that gave it away."""
    reals = images("r", 2, seed=2)
    fakes = {"f0.png": reals["r1.png"][:, ::-1], "f1.png": reals["r0.png"][::-1]}
    rows = {
        "file": ["f0.png", "f1.png"],
        "by": ["mse and lpips", "lpips"],
        "mse": [0.0, 99.0],
        "mse_nearest": ["r1.png", "r1.png"],
        "mse_flip": ["left-right", "none"],
        "lpips": [0.0, 0.01],
        "lpips_nearest": ["r0.png", "r0.png"],
        "lpips_flip": ["none", "up-down"],
    }

    figure = suspicious_gallery(pd.DataFrame(rows), fakes, reals, source="fastgan")

    fake_0, real_0, fake_1, real_1 = pairs_of(figure)
    assert (fake_0 == real_0).all()
    assert (fake_1 == real_1).all()
    assert lines_of(figure) == [
        "f0, MSE 0.0, LPIPS 0.0000",
        "r1, mirrored",
        "f1, LPIPS 0.0100",
        "r0, upside down",
    ]


def test_no_suspicion_is_said():
    """Without suspicious fakes the figure says so."""
    empty = pd.DataFrame(columns=["file", "by", "mse", "lpips"])

    figure = suspicious_gallery(empty, {}, {}, source="fastgan")

    texts = [text.get_text() for text in figure.findobj(Text)]
    assert "No fake is suspiciously near to a real." in texts
    assert not figure.images
