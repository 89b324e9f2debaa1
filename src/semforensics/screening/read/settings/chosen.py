"""Settings that every vendor writes, under one set of names and in one set of units.

Names of the vendors' keys: the files themselves for Zeiss, FEI/Thermo and Hitachi, the vendors'
and readers' public descriptions for Tescan and JEOL.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Final

import numpy as np

from semforensics.screening.read.settings.text import clean

CHOSEN: Final = (
    "Instrument",
    "Detector",
    "Accelerating voltage",
    "Working distance",
    "Magnification",
    "Pixel size",
    "Date",
    "Dwell time",
    "Scan",
    "Vacuum mode",
)
"""Names of the chosen settings, in the order in which they are shown."""

_VOLT_IN_KV: Final = {"v": 1e-3, "volt": 1e-3, "kv": 1.0}
_METRES_IN_NM: Final = {
    "fm": 1e-6, "pm": 1e-3, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "mm": 1e6, "cm": 1e7,
    "m": 1e9,
}  # fmt: skip
_METRES_IN_MM: Final = {unit: nm * 1e-6 for unit, nm in _METRES_IN_NM.items()}
_SECONDS_IN_US: Final = {"ns": 1e-3, "us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}
_UNITS: Final = {
    "Accelerating voltage": ("kV", _VOLT_IN_KV),
    "Working distance": ("mm", _METRES_IN_MM),
    "Pixel size": ("nm", _METRES_IN_NM),
    "Field width": ("nm", _METRES_IN_NM),
    "Dwell time": ("µs", _SECONDS_IN_US),
}

_NUMBER: Final = r"([-+]?\d{1,20}(?:\.\d{1,20})?(?:[eE][-+]?\d{1,3})?)"
_QUANTITY: Final = re.compile(rf"{_NUMBER}\s*([^\s\d]{{0,8}})")
_TIMES: Final = re.compile(rf"[xX]?\s*{_NUMBER}\s*([kKM]?)\s*[xX]?")
_SIZE: Final = re.compile(r"(\d{1,6})\s*[xX*, ]\s*(\d{1,6})")
_DATES: Final = ("%d %b %Y", "%Y/%m/%d", "%Y-%m-%d", "%d.%m.%Y")
_CLOCKS: Final = ("%H:%M:%S", "%I:%M:%S %p")
_TOLERANCE: Final = 0.03
"""Of a stated field width: instruments round to three digits."""

# What a vendor calls a setting: the unit where the value states none, then the keys, of which the
# first with a value counts. {beam} is the beam that took the picture.
_Keys = Mapping[str, tuple[str, ...]]
_ZEISS: Final[_Keys] = {
    "Instrument": ("", "DP_SEM"),
    "Serial": ("", "SV_SERIAL_NUMBER"),
    "Detector": ("", "DP_DETECTOR_TYPE", "DP_DETECTOR_CHANNEL"),
    "Accelerating voltage": ("kV", "AP_ACTUALKV"),
    "Working distance": ("mm", "AP_WD"),
    "Magnification": ("", "AP_MAG"),
    "Pixel size": ("nm", "AP_IMAGE_PIXEL_SIZE"),  # AP_PIXEL_SIZE is that of the monitor
    "Date": ("", "AP_DATE"),
    "Time": ("", "AP_TIME"),
    "Scan": ("", "DP_SCANRATE"),  # DP_DWELL_TIME is not the time of a pixel of the stored image
    "Frame time": ("", "AP_FRAME_TIME"),
    "Vacuum mode": ("", "DP_VAC_MODE"),
    "Image size": ("", "DP_IMAGE_STORE"),
    "Field width": ("nm", "AP_WIDTH"),
}
_FEI: Final[_Keys] = {
    "Instrument": ("", "System.SystemType", "System.Type", "Instrument.InstrumentClass"),
    "Serial": ("", "System.Dnumber", "Instrument.InstrumentID"),
    "Detector": ("", "Detectors.Name", "Detectors.ScanningDetector.DetectorName"),
    "Signal": ("", "Detectors.Mode", "Detectors.ScanningDetector.Signal"),
    "Accelerating voltage": (
        "V", "Beam.HV", "{beam}.HV", "Optics.AccelerationVoltage", "High tension"
    ),
    "Beam": ("", "Beam.Beam", "Acquisition.BeamType"),
    "Working distance": ("m", "{beam}.WD", "Stage.WorkingDistance", "Optics.WorkingDistance"),
    "Magnification": ("", "Magnification"),
    "Canvas width": ("m", "Image.MagCanvasRealWidth"),
    "Pixel size": (
        "m", "Scan.PixelWidth", "EScan.PixelWidth", "IScan.PixelWidth", "BinaryResult.PixelSize.X"
    ),
    "Date": (
        "", "PrivateFei.TimeOfCreation", "User.Date", "Acquisition.AcquisitionDatetime",
        "Acquisition date",
    ),
    "Time": ("", "User.Time", "Acquisition time"),
    "Dwell time": (
        "s", "Scan.Dwelltime", "EScan.Dwell", "IScan.Dwell", "ScanSettings.DwellTime"
    ),
    "Vacuum mode": ("", "Vacuum.UserMode"),
    "Image width": ("", "Image.ResolutionX", "BinaryResult.ImageSize.X"),
    "Image height": ("", "Image.ResolutionY", "BinaryResult.ImageSize.Y"),
    "Field width": (
        "m", "Scan.HorFieldsize", "EScan.HorFieldsize", "IScan.HorFieldsize", "{beam}.HFW",
        "Optics.ScanFieldOfView.X",
    ),
}  # fmt: skip
_HITACHI: Final[_Keys] = {
    "Instrument": ("", "SemImageFile.InstructName"),
    "Serial": ("", "SemImageFile.SerialNumber", "SerialNumber"),
    "Detector": ("", "SemImageFile.SignalName", "SignalName"),
    "Accelerating voltage": ("V", "SemImageFile.AcceleratingVoltage", "Condition.Vacc"),
    "Working distance": ("um", "SemImageFile.WorkingDistance", "Condition.WD"),
    "Magnification": ("", "SemImageFile.Magnification", "Condition.Mag"),
    "Pixel size": ("nm", "SemImageFile.PixelSize", "PixelSize"),
    "Date": ("", "SemImageFile.Date"),
    "Time": ("", "SemImageFile.Time"),
    "Scan": ("", "SemImageFile.ScanSpeed", "ScanSpeed"),
    "Vacuum mode": ("", "SemImageFile.Vacuum", "Vacuum"),
    "Image size": ("", "SemImageFile.DataSize"),
}
_JEOL: Final[_Keys] = {
    "Instrument": ("", "CM_INSTRUMENT"),
    "Detector": ("", "CM_SIGNAL"),
    "Accelerating voltage": ("kV", "CM_ACCEL_VOLT"),
    "Working distance": ("mm", "SM_WD"),
    "Magnification": ("", "CM_MAG"),
    "Bar length": ("um", "SM_MICRON_MARKER"),
    "Bar pixels": ("", "SM_MICRON_BAR"),
    "Date": ("", "CM_DATE"),
    "Time": ("", "CM_TIME"),
    "Image size": ("", "CM_FULL_SIZE"),
}
_TESCAN: Final[_Keys] = {
    "Instrument": ("", "MAIN.Device", "Device", "MAIN.DeviceModel", "DeviceModel"),
    "Serial": ("", "MAIN.SerialNumber", "SerialNumber"),
    "Detector": ("", "SEM.Detector", "Detector", "SEM.Detector0", "Detector0"),
    "Accelerating voltage": ("V", "SEM.HV", "FIB.HV", "HV"),
    "Working distance": ("m", "SEM.WD", "FIB.WD", "WD"),
    "Magnification": ("", "MAIN.Magnification", "SEM.Magnification", "Magnification"),
    "Pixel size": ("m", "MAIN.PixelSizeX", "PixelSizeX"),
    "Date": ("", "MAIN.Date", "Date"),
    "Time": ("", "MAIN.Time", "Time"),
    "Dwell time": ("s", "SEM.DwellTime", "FIB.DwellTime", "DwellTime"),
    "Scan": ("", "SEM.ScanMode", "ScanMode"),
}
_VENDORS: Final = {
    "Zeiss": _ZEISS, "FEI/Thermo": _FEI, "Hitachi": _HITACHI, "JEOL": _JEOL, "Tescan": _TESCAN
}  # fmt: skip


class Chosen:
    """The chosen settings of one file.

    Attributes:
        settings: Values by their names in `CHOSEN`, in its order; only those that are stated. A
            value that cannot be converted is the instrument's own text.
        keys: The vendor's keys that they were read from.
    """

    def __init__(self, vendor: str, values: Mapping[str, str]) -> None:
        """Look the settings up.

        Args:
            vendor: Such as "Zeiss"; one that is not known has no chosen settings.
            values: What the instrument wrote, by its keys.
        """
        self._stated: dict[str, tuple[str, str]] = {}
        self.keys: list[str] = []
        beam = values.get("Beam.Beam", "EBeam")
        for name, (unit, *keys) in _VENDORS.get(vendor, {}).items():
            for key in (key.replace("{beam}", beam) for key in keys):
                if key in values:
                    self._stated[name] = (values[key], unit)
                    self.keys.append(key)
                    break
        shown = {name: self._show(name, vendor) for name in CHOSEN}
        self.settings = {name: clean(value) for name, value in shown.items() if value}

    def contradictions(self, width_px: int, height_px: int) -> list[str]:
        """Compare what the settings state with each other and with the file's size.

        Rows below the stated height are no contradiction: many instruments add an info bar.
        """
        notes: list[str] = []
        size = self._size()
        if size and (size[0] != width_px or size[1] > height_px):
            notes.append(
                f"the settings state an image of {size[0]} x {size[1]} px, the file has"
                f" {width_px} x {height_px} px: it was cropped, turned or scaled after the"
                " settings were written, or they belong to another image"
            )
        pixel_nm, field_nm = self._number("Pixel size"), self._number("Field width")
        columns = size[0] if size else width_px
        if pixel_nm and field_nm and abs(pixel_nm * columns / field_nm - 1) > _TOLERANCE:
            notes.append(
                "the settings contradict each other: a pixel size of"
                f" {_digits(pixel_nm)} nm times {columns} px is {_digits(pixel_nm * columns)} nm,"
                f" the stated field width {_digits(field_nm)} nm"
            )
        return notes

    def _text(self, name: str) -> str:
        return self._stated.get(name, ("", ""))[0]

    def _show(self, name: str, vendor: str) -> str:
        text = self._text(name)
        match name:
            case "Instrument":
                return self._instrument(vendor)
            case "Detector":
                signal = self._text("Signal")
                return f"{text} ({signal})" if text and signal not in ("", text) else text
            case "Magnification":
                return self._magnification()
            case "Pixel size" if "Bar pixels" in self._stated:
                return self._pixel_size_of_bar()
            case "Date":
                return _date(text, self._text("Time"))
            case "Scan" if vendor == "Zeiss" and text:
                frame = self._text("Frame time")
                return f"speed {text}, {frame} a frame" if frame else f"speed {text}"
        if name in _UNITS and text:
            number = self._number(name)
            shown = text if number is None else f"{_digits(number)} {_UNITS[name][0]}"
            is_ion = name == "Accelerating voltage" and self._text("Beam") in ("IBeam", "Ion")
            return f"{shown}, ion beam" if is_ion else shown
        return text

    def _instrument(self, vendor: str) -> str:
        model, serial = self._text("Instrument"), self._text("Serial")
        if not model and not serial:
            return ""
        named = model if model.lower().startswith(vendor.lower()) else f"{vendor} {model}".strip()
        return f"{named}, serial number {serial}" if serial else named

    def _magnification(self) -> str:
        text = self._text("Magnification")
        if text:
            found = _TIMES.fullmatch(text)
            factor = {"": 1.0, "K": 1e3, "M": 1e6}
            times = float(found[1]) * factor[found[2].upper()] if found else 0.0
            return f"{_digits(times)} x" if _is_plausible(times) and times > 0 else text
        # FEI writes no magnification: it is the width on the screen or print over the field's.
        canvas, field = self._quantity("Canvas width", _METRES_IN_NM), self._number("Field width")
        if canvas and field and _is_plausible(canvas / field):
            return f"{_digits(canvas / field, 4)} x, from the widths of canvas and field"
        return ""

    def _pixel_size_of_bar(self) -> str:
        length = self._quantity("Bar length", _METRES_IN_NM)
        pixels = self._quantity("Bar pixels", {"": 1.0})
        if length and pixels and _is_plausible(length / pixels):
            return f"{_digits(length / pixels, 4)} nm, from the scale bar"
        return ""

    def _number(self, name: str) -> float | None:
        if name == "Pixel size" and "Bar pixels" in self._stated:
            return None  # too coarse to contradict anything
        return self._quantity(name, _UNITS[name][1])

    def _quantity(self, name: str, factors: Mapping[str, float]) -> float | None:
        """Return a stated quantity times the factor of its unit; None where it has another form."""
        text, unit = self._stated.get(name, ("", ""))
        found = _QUANTITY.fullmatch(text)
        factor = factors.get((found[2] or unit).lower()) if found else None
        if found is None or factor is None:
            return None
        number = float(found[1]) * factor
        return number if number == 0 or _is_plausible(number) else None

    def _size(self) -> tuple[int, int] | None:
        text = self._text("Image size")
        text = text or f"{self._text('Image width')} x {self._text('Image height')}"
        found = _SIZE.fullmatch(text)
        return (int(found[1]), int(found[2])) if found else None


def _is_plausible(number: float) -> bool:
    return isfinite(number) and 1e-9 < abs(number) < 1e15


def _digits(number: float, precision: int = 7) -> str:
    """Write a number without an exponent, so many significant digits at most."""
    return np.format_float_positional(number, precision, unique=False, fractional=False, trim="-")


def _date(date: str, time: str) -> str:
    """Write a date as 2019-07-18 10:09:27, or as it is where day and month may be exchanged."""
    both = f"{date} {time}".strip()
    for form in _DATES:
        for clock in _CLOCKS:
            for text in (date, both):
                try:
                    return str(datetime.strptime(text, f"{form} {clock}"))
                except ValueError:
                    pass
        try:
            day = datetime.strptime(date, form)
        except ValueError:
            continue
        return f"{day:%Y-%m-%d} {time}".strip()
    try:
        return str(datetime.fromisoformat(date))
    except ValueError:
        return both
