"""Pictures that are drawn, or made anew out of micrographs."""

from pathlib import Path

import numpy as np
import pytest

from semforensics.core.errors import InputError
from semforensics.generators.published.drawn import (
    SCENES,
    SIDE_PX,
    Drawn,
    draw_scene,
    read_drawn,
    redo,
    write_drawn,
)


@pytest.mark.parametrize("kind", SCENES)
def test_scenes_are_drawn_from_their_seed(kind: str) -> None:
    """The same seed draws the same scene; another one another, and none is blank."""
    scenes = [SCENES[kind](np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3)]

    np.testing.assert_array_equal(scenes[0], scenes[1])
    assert all(scene.shape == (SIDE_PX, SIDE_PX) for scene in scenes)
    assert min(scene.std() for scene in scenes) > 3
    assert len({scene.tobytes() for scene in scenes}) == 4


def test_all_kinds_of_scenes_come_up_and_differ_in_noise_and_sharpness() -> None:
    """What a network could learn of noise or sharpness is different in each."""
    rng = np.random.default_rng(0)
    drawn = [draw_scene(rng) for _ in range(40)]

    assert {kind for kind, _ in drawn} == set(SCENES)
    assert all(image.dtype == np.uint8 and image.shape == (SIDE_PX, SIDE_PX) for _, image in drawn)
    steps = [np.abs(np.diff(image.astype(float))).mean() / image.std() for _, image in drawn]
    assert max(steps) > 5 * min(steps)


@pytest.mark.parametrize("shape", [(110, 300), (128, 128), (900, 700)])
def test_a_micrograph_made_anew(shape: tuple[int, int]) -> None:
    """It has the size of a picture, whatever the size of the micrograph, and is not the same."""
    micrograph = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    made = [redo(np.random.default_rng(seed), micrograph) for seed in (1, 1, 2)]

    assert all(image.shape == (SIDE_PX, SIDE_PX) and image.dtype == np.uint8 for image in made)
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Collections and pixels come back; a family without drawn pictures has none."""
    images = [np.full((4, 4), level, np.uint8) for level in (1, 2, 3, 4)]
    wanted = [Drawn("leaves", "", *images[:2]), Drawn("micrograph", "NA", *images[2:])]
    write_drawn(tmp_path / "taesd", iter(wanted))

    found = list(read_drawn(tmp_path / "taesd"))

    assert [one[:2] for one in found] == [one[:2] for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one.real, other.real)
        np.testing.assert_array_equal(one.fake, other.fake)
    assert list(read_drawn(tmp_path / "other")) == []


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    """The error says which file."""
    image = np.zeros((4, 4), np.uint8)
    write_drawn(tmp_path, iter([Drawn("cells", "", image, image)]))
    (tmp_path / "drawn/fake/00000.png").write_bytes(b"nothing")

    with pytest.raises(InputError, match=r"00000\.png"):
        list(read_drawn(tmp_path))
