"""Raw micrographs to crops: geometry, names, and all or nothing."""

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from semforensics.core.errors import InputError
from semforensics.core.images import read_crop, read_grey
from semforensics.core.tables import CROP_COLUMNS, LEFT_OUT_COLUMNS
from semforensics.micrographs.crop import crop, cut
from semforensics.params import CropParams
from tests.conftest import Call, Ended
from tests.micrographs.conftest import MakeRaw, Raw, write_catalogue
from tests.micrographs.drawing import draw_bar, draw_scene


def params(**changes: object) -> CropParams:
    """Tiles of 32 px; the info bar is found."""
    usual = {
        **{"geometry": "tiles", "size_px": 32, "info_bar": "auto", "max_megapixels": 1},
        **{"max_flat_share": None, "max_tiles": None, "max_left_out": 0},
    }
    return CropParams.model_validate(usual | changes)


def run_crop(raw: Raw, tmp_path: Path, section: CropParams) -> list[dict[str, str]]:
    """Crop a folder, and read the table of crops."""
    outputs = [tmp_path / name for name in ("cropped", "crops.csv", "left_out.csv")]
    line = crop(*raw, *outputs, section)
    with (tmp_path / "crops.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert line.startswith(f"{len(rows)} crops in ")
    return rows


def test_tiles_with_text_are_left_out_and_counted(
    make_raw: MakeRaw, tmp_path: Path, root: Path, call: Call
) -> None:
    """Text over the image would tell reals from fakes; the command says how many tiles it cost."""
    scene = Image.fromarray(draw_scene(0, 320, 480))
    draw = ImageDraw.Draw(scene)
    draw.text((330, 270), "500 nm", 255, ImageFont.load_default(24))
    draw.rectangle((330, 304, 459, 308), 255)
    raw = make_raw({"a.png": np.asarray(scene), "b.png": draw_scene(1, 320, 480)})

    rows = run_crop(raw, tmp_path, params(size_px=64))
    (tmp_path / "again").mkdir()
    done = command(call, root, tmp_path / "again", raw, size_px=64)

    places = {(int(row["top_px"]), int(row["left_px"])) for row in rows if "a_" in row["file"]}
    assert places == {(y, x) for y in range(0, 320, 64) for x in range(0, 448, 64)} - {
        (256, 320), (256, 384)
    }  # fmt: skip
    assert len(rows) == 70 - 2
    assert "68 crops in" in done.stdout
    assert "left out: 2 tiles (text or lines), listed in" in done.stdout


def test_a_micrograph_full_of_text_is_named(make_raw: MakeRaw, tmp_path: Path) -> None:
    """None of its tiles can be used."""
    scene = Image.fromarray(draw_scene(0, 128, 128))
    ImageDraw.Draw(scene).text((8, 8), "500\nnm", 255, ImageFont.load_default(40))

    with pytest.raises(ValueError, match="none of 1 tiles can be used: text or lines in 1"):
        run_crop(make_raw({"a.png": np.asarray(scene)}), tmp_path, params(size_px=128, info_bar=0))


def test_crops_put_together_give_the_image_above_the_bar(make_raw: MakeRaw, tmp_path: Path) -> None:
    """Tiles hold the native pixels above the info bar, up to the last whole tile."""
    scene = draw_scene(0, height=170, width=250)
    raw = make_raw({"a.tif": np.vstack([scene, draw_bar(30, 250)])})

    rows = run_crop(raw, tmp_path, params())

    together = np.zeros((160, 224), dtype=np.uint8)
    for row in rows:
        top, left = int(row["top_px"]), int(row["left_px"])
        together[top : top + 32, left : left + 32] = read_crop(tmp_path / "cropped" / row["file"])
    assert len(rows) == 35
    np.testing.assert_array_equal(together, scene[:160, :224])


@given(st.integers(16, 90), st.integers(16, 90), st.sampled_from([2, 8, 14, 16]))
def test_tiles_are_even_and_do_not_overlap(height: int, width: int, size: int) -> None:
    """Tiles begin at even coordinates, never overlap, and leave less than a tile at the edges."""
    image = np.arange(height * width, dtype=np.uint32).reshape(height, width).astype(np.uint8)
    covered = np.zeros((height, width), dtype=int)

    section = params().model_copy(update={"size_px": size})
    for top, left, tile in cut(image, section):
        assert top % 2 == left % 2 == 0
        np.testing.assert_array_equal(tile, image[top : top + size, left : left + size])
        covered[top : top + size, left : left + size] += 1

    assert covered.max() == 1
    assert covered.sum() == (height // size) * (width // size) * size**2


def test_resize_is_isotropic_and_takes_the_centre(make_raw: MakeRaw, tmp_path: Path) -> None:
    """A disc stays round, and the sides of a wide frame are cut off alike."""
    y, x = np.mgrid[:128, :256]
    disc = np.where((y - 63.5) ** 2 + (x - 127.5) ** 2 < 40**2, 180, 70).astype(np.uint8)

    rows = run_crop(
        make_raw({"a.png": disc}), tmp_path, params(geometry="resize", size_px=64, info_bar=0)
    )

    crop = read_crop(tmp_path / "cropped/a.png")
    assert [(r["file"], r["top_px"], r["left_px"]) for r in rows] == [("a.png", "0", "64")]
    assert crop.shape == (64, 64)
    np.testing.assert_array_equal(crop, crop[::-1, ::-1])
    assert np.abs(crop.astype(int) - crop.T).max() <= 1  # rounded after each of two passes
    assert abs((crop >= 125).sum() - np.pi * 20**2) < 20


def test_squash_keeps_the_whole_frame(make_raw: MakeRaw, tmp_path: Path) -> None:
    """The thesis's geometry presses the whole frame into a square."""
    ramp = np.tile(np.linspace(0, 255, 256).round().astype(np.uint8), (128, 1))

    run_crop(make_raw({"a.png": ramp}), tmp_path, params(geometry="squash", info_bar=0))

    crop = read_crop(tmp_path / "cropped/a.png")
    assert crop.shape == (32, 32)
    # Each column averages 8 columns of the ramp.
    assert np.abs(crop[16] - (np.arange(32) * 8 + 3.5)).max() < 3


@pytest.mark.parametrize("geometry", ["resize", "squash"])
def test_resampling_is_antialiased(make_raw: MakeRaw, tmp_path: Path, geometry: str) -> None:
    """The finest checkerboard becomes grey, not a moiré pattern."""
    board = (np.indices((128, 128)).sum(axis=0) % 2 * 255).astype(np.uint8)

    run_crop(make_raw({"a.png": board}), tmp_path, params(geometry=geometry, info_bar=0))

    crop = read_crop(tmp_path / "cropped/a.png")
    assert np.abs(crop[4:-4, 4:-4].astype(int) - 127.5).max() <= 2


def test_rows_inherit_from_the_catalogue(make_raw: MakeRaw, tmp_path: Path) -> None:
    """Each crop names its micrograph, place, group, label, magnification and voltage."""
    raw = make_raw({"S1/b.tif": draw_scene(0, 64, 64), "a.tif": draw_scene(1, 32, 64)})

    rows = run_crop(raw, tmp_path, params(info_bar=0))

    assert tuple(rows[0]) == CROP_COLUMNS
    assert [r["file"] for r in rows] == [
        "S1_b_y0000_x0000.png",
        "S1_b_y0000_x0032.png",
        "S1_b_y0032_x0000.png",
        "S1_b_y0032_x0032.png",
        "a_y0000_x0000.png",
        "a_y0000_x0032.png",
    ]
    assert {p.name for p in (tmp_path / "cropped").iterdir()} == {r["file"] for r in rows}
    assert list(rows[3].values()) == [
        "S1_b_y0032_x0032.png", "S1/b.tif", "group of S1/b.tif", "ordered", "50", "", "32", "32",
    ]  # fmt: skip


def test_the_manual_bar_is_cut_from_the_bottom(make_raw: MakeRaw, tmp_path: Path) -> None:
    """A number of rows in the parameters overrides the search."""
    scene = draw_scene(0, 96, 64)

    rows = run_crop(make_raw({"a.tif": scene}), tmp_path, params(info_bar=33))

    assert {r["top_px"] for r in rows} == {"0"}


def test_the_bar_does_not_set_the_scale_of_16_bits(make_raw: MakeRaw, tmp_path: Path) -> None:
    """Depth is reduced by the percentiles of the image, not by black and white of its bar."""
    scene = 20_000 + draw_scene(0).astype(np.uint16) * 20
    bar = draw_bar(30, 240).astype(np.uint16) * 257

    run_crop(make_raw({"a.tif": np.vstack([scene, bar])}), tmp_path, params())

    crops = [read_crop(p) for p in (tmp_path / "cropped").iterdir()]
    assert min(c.min() for c in crops) == 0
    assert max(c.max() for c in crops) == 255


@pytest.mark.parametrize(
    ("first", "second"), [("a.tif", "a.png"), ("s/a.tif", "s_a.tif"), ("A.tif", "a.png")]
)
def test_names_that_would_collide_are_refused(
    make_raw: MakeRaw, tmp_path: Path, first: str, second: str
) -> None:
    """Two micrographs never write to one name, on file systems that ignore case neither."""
    raw = make_raw({first: draw_scene(0, 32, 32), second: draw_scene(1, 32, 32)})

    with pytest.raises(ValueError, match="would share the name"):
        run_crop(raw, tmp_path, params(info_bar=0))


@pytest.mark.parametrize("geometry", ["tiles", "resize", "squash"])
def test_micrographs_smaller_than_a_crop_are_refused(
    make_raw: MakeRaw, tmp_path: Path, geometry: str
) -> None:
    """Nothing is enlarged or dropped in silence: a small frame is refused by name and size."""
    raw = make_raw({"a.tif": draw_scene(0, 40, 64)})

    with pytest.raises(
        ValueError, match=r"a\.tif: 64x31 px without 9 rows of info bar, need .* 32x32"
    ):
        run_crop(raw, tmp_path, params(geometry=geometry, info_bar=9))


def test_folder_and_catalogue_must_agree(make_raw: MakeRaw, tmp_path: Path) -> None:
    """A file that is missing or not listed is an error; all of them are named."""
    raw, catalogue = make_raw({"a.tif": draw_scene(0, 32, 32), "b.tif": draw_scene(1, 32, 32)})
    write_catalogue(catalogue, ["a.tif", "c.tif"])

    with pytest.raises(ValueError, match=r"(?s)c\.tif: in .*missing.*b\.tif: not in"):
        run_crop((raw, catalogue), tmp_path, params(info_bar=0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.drop(columns="magnification_k"), "columns .*; expected .*magnification_k"),
        (lambda t: t.head(0), "lists nothing"),
        (lambda t: t.assign(group=""), "a.tif: no group"),
        (lambda t: pd.concat([t, t]), "a.tif: listed twice"),
    ],
)
def test_broken_catalogues_are_refused(
    make_raw: MakeRaw, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    """A catalogue without column, row, group, or with a file twice, is refused."""
    raw, catalogue = make_raw({"a.tif": draw_scene(0, 32, 32)})
    change(pd.read_csv(catalogue)).to_csv(catalogue, index=False)

    with pytest.raises(InputError, match=reason):
        run_crop((raw, catalogue), tmp_path, params(info_bar=0))


def test_same_input_same_bytes(make_raw: MakeRaw, tmp_path: Path) -> None:
    """Two runs write the same bytes."""
    raw = make_raw({"b.tif": draw_scene(0, 64, 64), "a.tif": draw_scene(1, 64, 64)})
    for run in ("1", "2"):
        (tmp_path / run).mkdir()
        run_crop(raw, tmp_path / run, params(info_bar=0))

    first, second = (
        {p.relative_to(tmp_path / run): p.read_bytes() for p in (tmp_path / run).rglob("*.*")}
        for run in ("1", "2")
    )
    assert first == second
    assert len(first) == 10


def left_out(tmp_path: Path) -> list[tuple[str, ...]]:
    """What the table of what is left out says."""
    with (tmp_path / "left_out.csv").open() as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == LEFT_OUT_COLUMNS
    return [tuple(row) for row in rows]


def test_what_cannot_be_used_is_left_out_by_name(make_raw: MakeRaw, tmp_path: Path) -> None:
    """Up to the share that is allowed, micrographs that cannot be used are listed and left out."""
    raw = make_raw({name: draw_scene(0, 64, 64) for name in ("a.png", "b.png", "c.png")})
    (raw[0] / "b.png").write_bytes(b"no image")

    rows = run_crop(raw, tmp_path, params(info_bar=0, max_left_out=0.4))
    with pytest.raises(InputError, match=r"b\.png: not a TIFF"):
        run_crop(raw, tmp_path, params(info_bar=0, max_left_out=0.3))

    assert {row["micrograph"] for row in rows} == {"a.png", "c.png"}
    assert left_out(tmp_path) == [("b.png", "", "not a TIFF, PNG or JPEG image")]


def test_flat_tiles_are_left_out(make_raw: MakeRaw, tmp_path: Path) -> None:
    """Tiles of nearly one grey level are counted and left out."""
    frame = draw_scene(0, 64, 96)
    frame[:32, :64] = 200

    rows = run_crop(make_raw({"a.png": frame}), tmp_path, params(info_bar=0, max_flat_share=0.9))

    assert len(rows) == 4
    assert left_out(tmp_path) == [("a.png", "2", "flat")]


def test_the_table_of_the_folder_knows_the_bar(make_raw: MakeRaw, tmp_path: Path) -> None:
    """Rows that the catalogue says are cut off count before the parameter."""
    raw, catalogue = make_raw({"a.png": draw_scene(0, 64, 64), "b.png": draw_scene(1, 64, 64)})
    table = pd.read_csv(catalogue, dtype=str).assign(
        collection="c", instrument="", pixels="", info_bar=["32", ""], use="train"
    )
    table.to_csv(catalogue, index=False)

    rows = run_crop((raw, catalogue), tmp_path, params(info_bar=0))

    counts = Counter(row["micrograph"] for row in rows)
    assert counts == {"a.png": 2, "b.png": 4}
    assert {(row["collection"], row["use"]) for row in rows} == {("c", "train")}


def test_tiles_are_drawn_by_the_root_of_a_collections_size(
    make_raw: MakeRaw, tmp_path: Path
) -> None:
    """The largest collection gives the tiles asked for, one of a quarter of its size gives half."""
    sizes = {"a/1.png": 256, "a/2.png": 256, "b/1.png": 128, "b/2.png": 128, "c/1.png": 64}
    raw, catalogue = make_raw({name: draw_scene(0, side, side) for name, side in sizes.items()})
    table = pd.read_csv(catalogue, dtype=str)
    known = {"instrument": "", "pixels": "", "info_bar": ""}
    uses = ["measure" if file.startswith("c") else "train" for file in table["file"]]
    table = table.assign(collection=table["file"].str[0], **known, use=uses)
    table.to_csv(catalogue, index=False)

    rows = run_crop((raw, catalogue), tmp_path, params(info_bar=0, max_tiles=32))

    # Of 128, 32 and 4 tiles: blocks of 16 neighbours, and all that are for measuring.
    assert Counter(row["micrograph"] for row in rows if row["collection"] == "a") == {
        "a/1.png": 16, "a/2.png": 16,
    }  # fmt: skip
    assert Counter(row["collection"] for row in rows) == {"a": 32, "b": 16, "c": 4}
    for file in ("a/1.png", "a/2.png"):
        places = {(int(r["top_px"]), int(r["left_px"])) for r in rows if r["micrograph"] == file}
        first = min(places)
        assert places == {
            (first[0] + 32 * i, first[1] + 32 * j) for i in range(4) for j in range(4)
        }
    assert {path.name for path in (tmp_path / "cropped").iterdir()} == {r["file"] for r in rows}
    dropped = sum(int(n) for _, n, reason in left_out(tmp_path) if reason == "max_tiles")
    assert dropped == 128 + 32 - 32 - 16


def command(call: Call, root: Path, tmp_path: Path, raw: Raw, **changes: object) -> Ended:
    """Call `crop` as the pipeline does, with tiles of 32 px."""
    values = yaml.safe_load((root / "params.yaml").read_text())
    values["crop"] = params(**changes).model_dump()
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    outs = (tmp_path / name for name in ("cropped", "crops.csv", "left_out.csv"))
    return call("crop", *raw, *outs, "--params", tmp_path / "params.yaml")


def test_one_error_lists_every_bad_file(
    root: Path, make_raw: MakeRaw, tmp_path: Path, call: Call
) -> None:
    """Bad files end in exit code 2 and one message with each and its reason; nothing is written."""
    frame = np.vstack([draw_scene(0), draw_bar(30, 240)])
    raw, catalogue = make_raw({"good.tif": frame, "cut.tif": frame, "torn.jpg": frame})
    for name in ("cut.tif", "torn.jpg"):
        (raw / name).write_bytes((raw / name).read_bytes()[:2000])
    (raw / "empty.tif").touch()
    (raw / "notes.png").write_text("not an image")
    images = [Image.fromarray(frame), Image.fromarray(frame[::-1])]
    images[0].save(raw / "animated.png", save_all=True, append_images=images[1:])
    images[0].convert("CMYK").save(raw / "cmyk.jpg")
    images[0].resize((1001, 1000)).save(raw / "huge.png")
    tifffile.imwrite(raw / "float.tif", frame.astype(np.float32))
    images[1].save(raw / "upside_down.png")
    Image.fromarray(draw_scene(1, height=20)).save(raw / "small.png")
    expected = {
        "animated.png": "2 pages or frames, expected one",
        "cmyk.jpg": "samples of mode CMYK",
        "cut.tif": "cannot be decoded: ",
        "empty.tif": "empty file",
        "float.tif": "samples of type float32",
        "huge.png": "too large: 1001x1000 px, more than 1 megapixels",
        "notes.png": "not a TIFF, PNG or JPEG image",
        "small.png": "240x20 px without 0 rows of info bar, need at least 32x32",
        "torn.jpg": "cannot be decoded: ",
        "upside_down.png": "unsure of the info bar",
    }
    write_catalogue(catalogue, ["good.tif", *expected])
    before = {p: p.read_bytes() for p in raw.iterdir()}

    done = command(call, root, tmp_path, (raw, catalogue))

    assert done.returncode == 2
    assert done.stderr.startswith("error: 10 of 11 micrographs cannot be used:\n")
    lines = done.stderr.splitlines()[1:]
    assert len(lines) == len(expected)
    for line, (name, reason) in zip(lines, expected.items(), strict=True):
        assert line.strip().startswith(f"{name}: {reason}")
    assert {p.name for p in tmp_path.iterdir()} == {"raw", "catalogue.csv", "params.yaml"}
    assert {p: p.read_bytes() for p in raw.iterdir()} == before


def test_the_command_crops(root: Path, make_raw: MakeRaw, tmp_path: Path, call: Call) -> None:
    """The command writes crops and table, and says how many."""
    raw = make_raw({"a.tif": np.vstack([draw_scene(0), draw_bar(30, 240)])})

    done = command(call, root, tmp_path, raw)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"35 crops in {tmp_path / 'cropped'}\n"
    assert len(list((tmp_path / "cropped").iterdir())) == 35


def test_real_micrographs_give_fifteen_native_tiles_each(shared: Path, tmp_path: Path) -> None:
    """A micrograph of 1280x890 px gives 5x3 native tiles of 256 px, bar on or off."""
    folder = shared / "sem/boiko-pdc-partial"
    files = ["original_with_bar/ordered/1-S1-no_area-50k-ordered.tif"]
    files += ["cropped_890/disordered/11-S4-A51-100k-disordered.tif"]
    (tmp_path / "raw").mkdir()
    for file in files:
        (tmp_path / "raw" / Path(file).name).symlink_to(folder / file)
    write_catalogue(tmp_path / "catalogue.csv", [Path(f).name for f in files])

    rows = run_crop(
        (tmp_path / "raw", tmp_path / "catalogue.csv"),
        tmp_path,
        params(size_px=256, max_megapixels=2),
    )

    assert len(rows) == 30
    last = read_crop(tmp_path / "cropped/1-S1-no_area-50k-ordered_y0512_x1024.png")
    np.testing.assert_array_equal(last, read_grey(folder / files[0])[512:768, 1024:1280])
