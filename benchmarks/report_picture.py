"""Screen a made-up submission and photograph its report: docs/images/report.png.

    dvc pull data/released/real_subset.dvc data/released/screening_model.dvc
    python benchmarks/report_picture.py [--released FOLDER] [--keep FOLDER]

The submission has a PDF, a Word file and two TIFF files. All of their pictures are made here: fakes
of the released generators and simulated micrographs. It takes a minute, chromium and playwright.
"""

import argparse
import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from semforensics.acquire.simulated import draw_area, simulate_view
from semforensics.generators.common.sampling import generate_grey
from semforensics.generators.generate_fakes import load_generator
from semforensics.params import SimulatedParams
from semforensics.screening.records import Grey
from semforensics.screening.screener import Screener
from semforensics.screening.submission import Options, screen_submission

PICTURE = Path(__file__).parents[1] / "docs/images/report.png"
SIZE = (1280, 1250)
RELATIONSHIPS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def figure(panels: list[Grey], gap: int = 10) -> Image.Image:
    """Lay panels of one size side by side on white."""
    gutter = np.full((len(panels[0]), gap), 255, np.uint8)
    line = np.hstack([part for panel in panels for part in (gutter, panel)] + [gutter])
    return Image.fromarray(np.pad(line, ((gap, gap), (0, 0)), constant_values=255))


def docx(picture: Image.Image) -> bytes:
    """Write a Word file that shows one picture."""
    media, buffer = io.BytesIO(), io.BytesIO()
    picture.save(media, "PNG")
    body = f'<x xmlns:r="{RELATIONSHIPS}"><blip r:embed="r0"/></x>'
    link = '<Relationships><Relationship Id="r0" Target="media/image1.png"/></Relationships>'
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", body)
        archive.writestr("word/_rels/document.xml.rels", link)
        archive.writestr("word/media/image1.png", media.getvalue())
    return buffer.getvalue()


def submission(folder: Path, released: Path) -> list[Path]:
    """Write the files of a manuscript; some of its pictures are generated."""
    networks = [
        load_generator(released / f"real_subset/{name}.safetensors")
        for name in ("fastgan", "stylegan2_ada_best")
    ]
    fakes = [generate_grey(network, [0])[0].numpy() for network in networks]
    params = SimulatedParams(
        num_areas=3,
        magnifications_k=(100,),
        width_px=1280,
        height_px=960,
        ordered_share=0.75,
        compression="none",
    )
    views = [simulate_view(draw_area(params, area, seed=0), 100, 1280, 960) for area in range(2)]
    crop = views[1][300:428, 400:528]
    paths = [folder / name for name in ("manuscript.pdf", "answer.docx", "S1.tif", "S2.tif")]
    # A palette: Pillow would send grey levels through JPEG.
    figure([crop, *fakes]).convert("P").save(paths[0])
    paths[1].write_bytes(docx(Image.fromarray(generate_grey(networks[0], [1])[0].numpy())))
    for path, view in zip(paths[2:], views, strict=True):
        Image.fromarray(view).save(path)
    return paths


def photograph(report: Path, picture: Path) -> None:
    """Save the beginning of the report, as a window shows it, in few colours."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium")
        page = browser.new_page(viewport=dict(zip(("width", "height"), SIZE, strict=True)))
        page.goto(report.resolve().as_uri())
        shot = page.screenshot()
        browser.close()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(128).save(picture, optimize=True)


def main() -> None:
    """Make, screen, photograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--released", type=Path, default=Path("data/released"))
    parser.add_argument("--keep", type=Path, help="folder for the submission and its report")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = submission(folder, arguments.released)
        screener = Screener.load(arguments.released / "screening_model", prevalence=0.1)
        options = Options(
            folder / ".unfinished",
            "semforensics screen manuscript.pdf answer.docx S1.tif S2.tif --prevalence 0.1",
            names={path: path.name for path in paths},
        )
        print(*screen_submission(paths, folder / "report", screener, options).lines(), sep="\n")
        photograph(folder / "report/report.html", PICTURE)


if __name__ == "__main__":
    main()
