"""Microscope settings of each vendor, in tags and beside the image."""

import base64
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from tests.screening.documents import encoded, micrograph

from semforensics.screening.read.apart import read_input
from semforensics.screening.read.provenance import read_provenance
from semforensics.screening.read.settings.chosen import CHOSEN
from semforensics.screening.read.settings.text import decode_text
from semforensics.screening.records import Limits, Picture, Provenance

ZEISS = (
    "0\r\n7.343750e-009\r\nDP_SEM\r\nSem = Supra 40\r\nDP_EHT_TRIPPED\r\nEHT tripped = No\r\n"
    "DP_MAG_RANGE\r\nMag Range = 2\r\nDP_DETECTOR_TYPE\r\nDetector = InLens\r\n"
    "DP_IMAGE_STORE\r\nStore resolution = 96 * 64\r\nDP_VAC_MODE\r\nVacuum Mode = High Vacuum\r\n"
    "DP_SCANRATE\r\nScan Speed = 6\r\nAP_ACTUALKV\r\nEHT = 20.00 kV\r\nAP_WD\r\nWD =  2.8 mm\r\n"
    "AP_MAG\r\nMag =  50.00 K X\r\nAP_PIXEL_SIZE\r\nPixel Size = 11.72 nm\r\n"
    "AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 5.860 nm\r\nAP_WIDTH\r\nWidth = 562.6 nm\r\n"
    "AP_TILT\r\nTilt Angle =   0.0 °\r\nAP_FRAME_TIME\r\nCycle Time = 26.0 Secs\r\n"
    "AP_FRAME_COUNTER\r\nFrame Counter Range Error 1794502\r\n"
    "AP_DATE\r\nDate :18 Jul 2019\r\nAP_TIME\r\nTime :10:09:27\r\n"
    "SV_SERIAL_NUMBER\r\nSerial No. = SUPRA 40-25-44\r\nSV_SAMPLE_ID\r\nSample ID = \r\n"
)
FEI = (
    "[User]\r\nDate=12/06/2015\r\nTime=11:27:39 AM\r\n[System]\r\nType=DualBeam\r\n"
    "SystemType=Quanta 3D FEG\r\nDnumber=D9183\r\n[Beam]\r\nHV=20000\r\nBeam=EBeam\r\n"
    "[EBeam]\r\nHFW=8e-006\r\nWD=0.0227287\r\n[Scan]\r\nDwelltime=3e-005\r\n"
    "PixelWidth=8.33333e-008\r\nHorFieldsize=8e-006\r\n[Image]\r\nResolutionX=96\r\n"
    "ResolutionY=56\r\nMagCanvasRealWidth=0.28\r\n[Vacuum]\r\nUserMode=High vacuum\r\nHumidity=\r\n"
    "[Detectors]\r\nNumber=1\r\nName=ETD\r\nMode=SE\r\n"
    "[PrivateFei]\r\nDatabarHeight=8\r\nTimeOfCreation=06.12.2015 11:27:39\r\n"
)
FEI_XML = (
    '<?xml version="1.0" encoding="utf-8"?><Metadata xmlns="http://fei"><Instrument>'
    "<InstrumentClass>Helios G4</InstrumentClass><InstrumentID>9925949</InstrumentID></Instrument>"
    "<Acquisition><AcquisitionDatetime>2022-12-14T13:53:39</AcquisitionDatetime>"
    "<BeamType>Ion</BeamType></Acquisition>"
    "<Optics><AccelerationVoltage>30000</AccelerationVoltage><ScanFieldOfView><X>9.6e-06</X>"
    "</ScanFieldOfView><WorkingDistance>0.0165</WorkingDistance></Optics>"
    "<ScanSettings><DwellTime>1E-06</DwellTime></ScanSettings><Detectors><ScanningDetector>"
    "<DetectorName>ETD</DetectorName><Signal>SE</Signal></ScanningDetector></Detectors>"
    "<BinaryResult><ImageSize><X>96</X><Y>64</Y></ImageSize><PixelSize>"
    '<X unit="m">1.0E-07</X></PixelSize></BinaryResult></Metadata>'
)
TESCAN = (
    "[MAIN]\r\nCompany=\r\nDate=2025-12-03\r\nDevice=TESCAN AMBER X\r\nMagnification=160000.0\r\n"
    "PixelSizeX=0.0000000015625\r\nSerialNumber=119-0053\r\nTime=17:19:26\r\n"
    "[SEM]\r\nDetector=E-T\r\nDwellTime=0.00001\r\nHV=15000.0\r\nScanMode=UH-RESOLUTION\r\n"
    "WD=0.005947501\r\n"
)
HITACHI = (
    "[SemImageFile]\r\nInstructName=TM4000\r\nSerialNumber=2170A6-05\r\nSampleName=花粉\r\n"
    "Date=2021/06/23\r\nTime=16:43:33\r\nDataSize=96x64\r\nPixelSize=82.68229\r\n"
    "SignalName=BSE\r\nAcceleratingVoltage=15000 Volt\r\nMagnification=1200\r\n"
    "WorkingDistance=7920.5 um\r\nVacuum=50\r\nScanSpeed=Capture_Slow(80)\r\nComment=\r\n"
)
JEOL = (
    "$CM_FORMAT JEOL/SEM\r\n$CM_VERSION 1.0\r\n$CM_COMMENT \r\n$CM_DATE 2019/03/12\r\n"
    "$CM_TIME 10:21:55\r\n$CM_INSTRUMENT JSM-7800F\r\n$CM_ACCEL_VOLT 15.00\r\n$CM_MAG 5000\r\n"
    "$CM_SIGNAL SEI\r\n$CM_FULL_SIZE 96 56\r\n$$SM_MICRON_BAR 180\r\n$$SM_MICRON_MARKER 5um\r\n"
    "$$SM_WD 10.1\r\n"
)
OF_FEI = {
    "Instrument": "FEI/Thermo Quanta 3D FEG, serial number D9183",
    "Detector": "ETD (SE)",
    "Accelerating voltage": "20 kV",
    "Working distance": "22.7287 mm",
    "Magnification": "35000 x, from the widths of canvas and field",
    "Pixel size": "83.3333 nm",
    "Date": "2015-12-06 11:27:39",
    "Dwell time": "30 µs",
    "Vacuum mode": "High vacuum",
}
OF_FEI_XML = {
    "Instrument": "FEI/Thermo Helios G4, serial number 9925949",
    "Detector": "ETD (SE)",
    "Accelerating voltage": "30 kV, ion beam",
    "Working distance": "16.5 mm",
    "Pixel size": "100 nm",
    "Date": "2022-12-14 13:53:39",
    "Dwell time": "1 µs",
}
OF_ZEISS = {
    "Instrument": "Zeiss Supra 40, serial number SUPRA 40-25-44",
    "Detector": "InLens",
    "Accelerating voltage": "20 kV",
    "Working distance": "2.8 mm",
    "Magnification": "50000 x",
    "Pixel size": "5.86 nm",
    "Date": "2019-07-18 10:09:27",
    "Scan": "speed 6, 26.0 Secs a frame",
    "Vacuum mode": "High Vacuum",
}
OF_TESCAN = {
    "Instrument": "TESCAN AMBER X, serial number 119-0053",
    "Detector": "E-T",
    "Accelerating voltage": "15 kV",
    "Working distance": "5.947501 mm",
    "Magnification": "160000 x",
    "Pixel size": "1.5625 nm",
    "Date": "2025-12-03 17:19:26",
    "Dwell time": "10 µs",
    "Scan": "UH-RESOLUTION",
}
OF_HITACHI = {
    "Instrument": "Hitachi TM4000, serial number 2170A6-05",
    "Detector": "BSE",
    "Accelerating voltage": "15 kV",
    "Working distance": "7.9205 mm",
    "Magnification": "1200 x",
    "Pixel size": "82.68229 nm",
    "Date": "2021-06-23 16:43:33",
    "Scan": "Capture_Slow(80)",
    "Vacuum mode": "50",
}
OF_JEOL = {
    "Instrument": "JEOL JSM-7800F",
    "Detector": "SEI",
    "Accelerating voltage": "15 kV",
    "Working distance": "10.1 mm",
    "Magnification": "5000 x",
    "Pixel size": "27.78 nm, from the scale bar",
    "Date": "2019-03-12 10:21:55",
}


def tiff(*tags: tuple[int, bytes]) -> bytes:
    """Write a TIFF of 96x64 px with bytes in further tags."""
    buffer = io.BytesIO()
    extra = [(number, "B", len(value), value, True) for number, value in tags]
    tifffile.imwrite(buffer, micrograph(64, 96), extratags=extra, metadata=None)
    return buffer.getvalue()


def read(*tags: tuple[int, bytes]) -> Provenance:
    """Read what a TIFF with such tags says."""
    return read_provenance(tiff(*tags), "x.tif", None)


def chosen(found: Provenance) -> dict[str, str]:
    """Return the settings under common names."""
    return {name: text for name, text in found.instrument.items() if name in CHOSEN}


@pytest.mark.parametrize(
    ("tag", "text", "settings"),
    [
        (34118, ZEISS.encode("latin-1"), OF_ZEISS),
        (34118, ZEISS.encode("latin-1") + b"\0" * 5000, OF_ZEISS),
        (34682, FEI.encode(), OF_FEI),
        (34680, FEI.encode(), OF_FEI),
        (34680, FEI_XML.encode(), OF_FEI_XML),
        (34680, b"\xef\xbb\xbf" + FEI_XML.encode(), OF_FEI_XML),
        (34680, FEI_XML.encode("utf-16"), OF_FEI_XML),
        (34680, base64.b64encode(b"\xef\xbb\xbf" + FEI_XML.encode()), OF_FEI_XML),
        (34680, b"\xef\xbb\xbf" + base64.encodebytes(FEI_XML.encode("utf-16")), OF_FEI_XML),
        (34683, FEI_XML.encode(), OF_FEI_XML),
        (50431, TESCAN.encode(), OF_TESCAN),
    ],
)
def test_settings_of_a_tag_have_common_names_and_units(
    tag: int, text: bytes, settings: dict[str, str]
) -> None:
    """They come first and in one order, and no file that agrees with itself gets a note."""
    found = read((tag, text))

    assert list(found.instrument.items())[: len(settings)] == list(settings.items())
    assert chosen(found) == settings
    assert found.instrument_source is not None
    assert found.instrument_source.startswith(f"TIFF tag {tag} (")
    assert found.notes == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp932"])
@pytest.mark.parametrize(("text", "settings"), [(HITACHI, OF_HITACHI), (JEOL, OF_JEOL)])
def test_settings_beside_an_image_are_read_in_any_encoding(
    tmp_path: Path, encoding: str, text: str, settings: dict[str, str]
) -> None:
    """Hitachi and JEOL write a text file beside the image, in the computer's encoding."""
    path = tmp_path / "x.tif"
    path.write_bytes(tiff())
    path.with_suffix(".txt").write_bytes(text.encode(encoding))

    (picture,) = read_input(path, "x.tif", Limits())

    assert isinstance(picture, Picture)
    assert chosen(picture.provenance) == settings
    assert picture.provenance.notes == ()
    if text is HITACHI:
        assert picture.provenance.instrument["SemImageFile.SampleName"] == "花粉"


def test_western_letters_are_not_taken_for_japanese() -> None:
    """A micro sign of Windows-1252 is valid Shift-JIS, but no Japanese text."""
    assert decode_text("$$SM_MICRON_MARKER 5µm".encode("cp1252"), may_be_japanese=True) == (
        "$$SM_MICRON_MARKER 5µm"
    )
    assert decode_text("Jérôme".encode("cp1252")) == "Jérôme"


def test_zeiss_entries_keep_their_whole_names() -> None:
    """Names with blanks stay apart, units stay, and values of one name carry their key."""
    found = read((34118, ZEISS.encode("latin-1"))).instrument

    assert found["EHT"] == "20.00 kV"
    assert found["EHT tripped"] == "No"
    assert found["Mag"] == "50.00 K X"
    assert found["Mag Range"] == "2"
    assert found["Image Pixel Size"] == "5.860 nm"
    assert found["Pixel Size"] == "11.72 nm"
    assert found["Tilt Angle"] == "0.0 °"
    assert found["Date (AP_DATE)"] == "18 Jul 2019"
    assert found["AP_FRAME_COUNTER"] == "Frame Counter Range Error 1794502"
    assert "Sample ID" not in found


def test_the_monitors_pixel_size_is_not_the_images() -> None:
    """Without AP_IMAGE_PIXEL_SIZE the pixel size of the image is not stated."""
    text = "AP_PIXEL_SIZE\r\nPixel Size = 11.72 nm\r\nAP_WD\r\nWD = 2.8 mm\r\n"

    assert chosen(read((34118, text.encode()))) == {"Working distance": "2.8 mm"}


def test_what_is_left_out_is_counted() -> None:
    """The chosen settings and their sources come first, wherever the vendor writes them."""
    noise = "".join(f"DP_NOISE_{n}\r\nNoise {n} = {n}\r\n" for n in range(800))

    found = read((34118, (noise + ZEISS).encode("latin-1")))

    assert chosen(found) == OF_ZEISS
    assert found.instrument["Image Pixel Size"] == "5.860 nm"
    assert len(found.instrument) == 60
    assert found.notes == ("768 further entries of the instrument's settings are left out",)


def test_tescan_blocks_are_read() -> None:
    """Older files have a thumbnail and blocks with binary heads instead of section names."""
    thumbnail = encoded(micrograph(16, 16), "JPEG")
    lines = TESCAN.replace("[MAIN]\r\n", "").split("[SEM]\r\n")
    blocks = b"".join(b"\x02\0\xe4\x05\0\0" + block.encode() for block in lines)

    found = read((50431, b"\x01\0\x10\x01\0\0" + thumbnail + blocks))

    assert chosen(found) == OF_TESCAN
    assert found.instrument_source == "TIFF tag 50431 (Tescan)"


def test_labels_of_fei_are_read() -> None:
    """Older XML has a label, a value and a unit for each setting."""
    text = "<Root><Data><Label>High tension</Label><Value>300</Value><Unit>kV</Unit></Data></Root>"

    found = read((34680, text.encode())).instrument

    assert found == {"Accelerating voltage": "300 kV", "High tension": "300 kV"}


def test_hitachis_comment_is_read_where_the_text_file_is_missing() -> None:
    """The TIFF itself holds a few settings as a comment in UTF-16."""
    comment = (
        "SignalName=BSE\r\nPixelSize=82.68229\r\nCondition=Vacc=15.0kV Mag=x1.20k WD=7.9mm\r\n"
    )

    found = read((40092, comment.encode("utf-16-le")))

    assert found.instrument_source == "TIFF tag 40092 (Hitachi)"
    assert chosen(found) == {
        "Detector": "BSE",
        "Accelerating voltage": "15 kV",
        "Working distance": "7.9 mm",
        "Magnification": "1200 x",
        "Pixel size": "82.68229 nm",
    }


def test_settings_in_exif_are_read() -> None:
    """A program that saves a JPEG may copy the vendor's tag into EXIF."""
    exif = Image.Exif()
    exif[34118] = ZEISS

    data = encoded(micrograph(64, 96), "JPEG", exif=exif)
    found = read_provenance(data, "x.jpg", None)

    assert chosen(found) == OF_ZEISS
    assert found.instrument_source == "EXIF tag 34118 (Zeiss)"


def test_make_and_model_are_the_instrument_where_nothing_else_is() -> None:
    """Vendors' settings go before them; the tags themselves are listed with the software's."""
    exif = Image.Exif()
    exif[271], exif[272] = "TESCAN\0\0", "MIRA3"

    plain = read_provenance(encoded(micrograph(64, 96), "TIFF", exif=exif), "x.tif", None)
    jpeg = read_provenance(encoded(micrograph(64, 96), "JPEG", exif=exif), "x.jpg", None)
    beside = read_provenance(encoded(micrograph(64, 96), "TIFF", exif=exif), "x.tif", JEOL)

    assert plain.instrument == jpeg.instrument == {"Instrument": "TESCAN MIRA3"}
    assert plain.instrument_source == "TIFF tags Make and Model"
    assert jpeg.software == {"EXIF Make": "TESCAN", "EXIF Model": "MIRA3"}
    assert chosen(beside) == {**OF_JEOL}


@pytest.mark.parametrize(
    ("tag", "value", "vendor"),
    [
        (34680, b"\x07\x01 binary \xff\xfe", "FEI/Thermo"),
        (34680, b"<!DOCTYPE a [<!ENTITY b 'c'>]><a><b>&b;</b></a>", "FEI/Thermo"),
        (34680, b"<a>" * 40 + b"x" + b"</a>" * 40, "FEI/Thermo"),
        (34118, b"0\r\n1\r\n", "Zeiss"),
        (50431, np.random.default_rng(0).bytes(500), "Tescan"),
        (51023, b"<Fibics/>", "Fibics"),
    ],
)
def test_settings_in_another_form_are_named(tag: int, value: bytes, vendor: str) -> None:
    """A vendor's tag that cannot be read is not the same as no tag."""
    found = read((tag, value))

    assert found.instrument == {}
    assert found.instrument_source == (
        f"TIFF tag {tag} ({vendor}): settings in a form this program does not read"
    )


def test_values_in_another_form_stay_as_they_are() -> None:
    """What is no number in a known unit is shown in the instrument's own words."""
    text = (
        "[SemImageFile]\nAcceleratingVoltage=1,5 kV\nWorkingDistance=near\nMagnification=high\n"
        "PixelSize=1e999\nDate=03/04/2019\nTime=10:00\n"
    )

    found = read_provenance(tiff(), "x.tif", text)

    assert chosen(found) == {
        "Accelerating voltage": "1,5 kV",
        "Working distance": "near",
        "Magnification": "high",
        "Pixel size": "1e999",
        "Date": "03/04/2019 10:00",
    }


def test_settings_that_disagree_with_each_other_get_a_note() -> None:
    """Pixel size times width is the field width, within rounding."""
    text = ZEISS.replace("Width = 562.6 nm", "Width = 5.626 µm")

    (note,) = read((34118, text.encode("latin-1"))).notes

    assert note == (
        "the settings contradict each other: a pixel size of 5.86 nm times 96 px is 562.56 nm,"
        " the stated field width 5626 nm"
    )


@pytest.mark.parametrize(("stated", "n_notes"), [("96 * 64", 0), ("96 * 60", 0), ("64 * 96", 1)])
def test_settings_of_another_size_get_a_note(stated: str, n_notes: int) -> None:
    """A turned, cropped or scaled file is named; an info bar below the stated rows is none."""
    text = ZEISS.replace("96 * 64", stated).replace("AP_WIDTH", "AP_HEIGHT")

    notes = read((34118, text.encode("latin-1"))).notes

    assert len(notes) == n_notes
    assert all("state an image of 64 x 96 px, the file has 96 x 64 px" in note for note in notes)


@pytest.mark.parametrize(
    "value",
    [
        b"<a>" * 400_000,
        b"<a><b>1</b>" * 200_000,
        b"AP_WD\n" * 200_000,
        b"[" * 1_500_000,
        b"k=v\n" * 400_000,
        b"A" * 1_500_000,
        b"\xff\xd8\xff" * 500_000,
        b"x=" + b" " * 1_500_000,
    ],
)
@pytest.mark.parametrize("tag", [34118, 34680, 50431])
def test_hostile_tags_are_read_in_bounds(tag: int, value: bytes) -> None:
    """Whatever a tag holds, little of it is shown and it takes a moment."""
    data = tiff((tag, value))
    start = time.process_time()

    found = read_provenance(data, "x.tif", None)

    assert time.process_time() - start < 5
    assert len(found.instrument) <= 60
    assert all(len(text) <= 300 for item in found.instrument.items() for text in item)


def _field(data: bytes, pattern: str) -> str:
    found = re.search(pattern.encode("latin-1"), data, re.DOTALL)
    assert found, pattern
    return found[1].decode("latin-1").strip()


def _number(text: str) -> float:
    return float(text.split()[0].rstrip(","))


def _picture(path: Path) -> Provenance:
    picture = next(iter(read_input(path, path.name, Limits())))
    assert isinstance(picture, Picture)
    return picture.provenance


def _pictures(shared: Path, mark: bytes) -> list[tuple[Path, bytes]]:
    files = [path for path in sorted((shared / "sem").rglob("*")) if path.is_file()]
    return [(path, data) for path in files if mark in (data := path.read_bytes())]


def test_settings_of_real_zeiss_files_are_right(shared: Path) -> None:
    """Each of the chosen ones agrees with the text of the file."""
    files = _pictures(shared, b"AP_ACTUALKV\r\n")
    assert len(files) == 21

    for path, data in files:
        found = _picture(path).instrument
        kilo = "K X" in _field(data, r"AP_MAG\r\nMag = ([^\r]+)")
        image_nm = _field(data, r"AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = ([\d.]+) nm\r")
        magnification = float(_field(data, r"AP_MAG\r\nMag = +([\d.]+)")) * (1000 if kilo else 1)
        day = _field(data, r"AP_DATE\r\nDate :(\d+) ")

        assert _number(found["Accelerating voltage"]) == float(
            _field(data, r"AP_ACTUALKV\r\nEHT = +([\d.]+) kV\r")
        )
        assert _number(found["Working distance"]) == float(
            _field(data, r"AP_WD\r\nWD = +([\d.]+) mm\r")
        )
        assert _number(found["Magnification"]) == pytest.approx(magnification)
        assert _number(found["Pixel size"]) == float(image_nm)
        assert found["Detector"] == _field(data, r"DP_DETECTOR_CHANNEL\r\nSignal A = ([^\r]+)")
        assert _field(data, r"DP_SEM\r\nSem = ([^\r]+)") in found["Instrument"]
        assert found["Date"][8:10] == f"{int(day):02d}"
        assert found["Date"][:4] == _field(data, r"AP_DATE\r\nDate :\d+ \w+ (\d{4})")


def test_settings_of_real_fei_files_are_right(shared: Path) -> None:
    """Each of the chosen ones agrees with the text of the file; none contradicts itself."""
    files = _pictures(shared, b"[PrivateFei]\r\n")
    assert len(files) == 8

    for path, data in files:
        provenance = _picture(path)
        found = provenance.instrument
        beam = _field(data, r"\[Beam\][^\[]*\nBeam=(\w+)")
        millimetres = 1e3 * float(_field(data, rf"\[{beam}\][^\[]*\nWD=([^\r]+)"))

        assert _number(found["Accelerating voltage"]) * 1e3 == float(
            _field(data, r"\[Beam\]\r\nHV=(\d+)\r")
        )
        assert _number(found["Working distance"]) == pytest.approx(millimetres)
        assert _number(found["Pixel size"]) == pytest.approx(
            1e9 * float(_field(data, r"\nPixelWidth=([^\r]+)"))
        )
        assert found["Detector"].split(" (")[0] == _field(
            data, r"\[Detectors\][^\[]*\nName=([^\r]+)"
        )
        year, month, day = found["Date"].split()[0].split("-")
        assert f"{month}/{day}/{year}" == _field(data, r"\[User\]\r\nDate=([^\r]+)")
        if "Magnification" in found:
            field = float(_field(data, r"\nHorFieldsize=([^\r]+)"))
            canvas = float(_field(data, r"\nMagCanvasRealWidth=([^\r]+)"))
            assert _number(found["Magnification"]) == pytest.approx(canvas / field, rel=1e-3)
        assert not any("settings state" in note for note in provenance.notes)
        assert not any("contradict" in note for note in provenance.notes)


def test_xml_and_sections_of_a_real_fei_file_agree(shared: Path) -> None:
    """A Helios writes its settings twice, as sections and as XML."""
    path = shared / "sem" / "openfibsem_thermo" / "detection" / "test_image_2.tif"
    with Image.open(path) as image:
        assert isinstance(image, TiffImageFile)
        xml = image.tag_v2[34683]

    sections = chosen(_picture(path))
    found = chosen(read((34683, xml.encode())))

    assert found.keys() - sections.keys() == set()
    for name in ("Accelerating voltage", "Working distance", "Date", "Dwell time"):
        assert found[name] == sections[name]
    assert _number(found["Pixel size"]) == pytest.approx(_number(sections["Pixel size"]), rel=1e-5)
    assert found["Instrument"] == sections["Instrument"]


def test_settings_of_real_hitachi_files_are_right(shared: Path) -> None:
    """The side-cars are in UTF-16, under names with Japanese characters."""
    folder = shared / "sem" / "hitachi_tm4000_sidecar"
    files = sorted(folder.glob("*.tif"))
    assert len(files) == 3

    for path in files:
        found = _picture(path).instrument
        lines = path.with_suffix(".txt").read_text(encoding="utf-16").splitlines()
        stated = dict(line.split("=", 1) for line in lines if "=" in line)

        assert _number(found["Accelerating voltage"]) * 1e3 == _number(
            stated["AcceleratingVoltage"]
        )
        assert _number(found["Working distance"]) * 1e3 == pytest.approx(
            _number(stated["WorkingDistance"])
        )
        assert _number(found["Magnification"]) == float(stated["Magnification"])
        assert _number(found["Pixel size"]) == float(stated["PixelSize"])
        assert found["Detector"] == stated["SignalName"]
        assert found["Date"] == f"{stated['Date'].replace('/', '-')} {stated['Time']}"
        assert found["Instrument"].startswith("Hitachi TM4000")
