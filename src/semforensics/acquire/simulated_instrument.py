"""The simulated scanning electron microscope: what it makes of a scene.

In the order of the physics: secondary and backscattered signal, beam, scan, charging, dose,
detector, digitisation. A signal of 1 is about as bright as the grey scale goes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import lfilter

from semforensics.acquire.simulated_scene import Floats, Layer, Particles, Points, Scene

FULL_WIDTH_PX = 1280
FIELD_OF_VIEW_NM = 127e6
"""Width of a full frame times magnification: the SU8000's reference print is 127 mm wide."""
MARGIN_PX = 24
"""Rendered around the view, so that beam, drift and trails have something to draw from."""

YIELD_CAP = 4.0
"""Of a slope over a level surface: the escape depth bounds 1/cos at grazing angles."""
PALLADIUM, CARBON = 46, 6
PARTICLE_SIGNAL = 0.6
"""Of thick palladium over that of the background it lies on."""
SATURATION_NM = 6.0
"""t0 of 1 - exp(-t / t0): thickness of palladium that gives 63 % of the bulk's signal."""
RIM_SIGNAL = 0.2
"""More signal at the rim of a particle."""
EDGE_ROUGHNESS_NM = 2.5
"""Standard deviation of the fine raggedness of the edges of layers."""
HALO = 0.3
"""Share of the background's signal that particles beside it catch."""
HALO_NM = 5.0

ELECTRONS_PER_FRAME = 624
"""100 pA for 1 microsecond: 1e-10 A x 1e-6 s / 1.602e-19 C."""
FWHM_NM = {10.0: 1.5, 20.0: 1.2, 30.0: 1.0}
"""Of the focused beam, by kV: 1-1.5 nm, wider at low voltage as in the SU8000's data sheet."""
DEFOCUS_NM = 2.0
"""Standard deviation of the width that defocus adds; an operator focuses by eye."""
LINE_S = 1.4e-3
"""One line: 1280 pixels at 1 microsecond and the way back."""
MAINS_HZ = 50.0


@dataclass(frozen=True)
class Tone:
    """Brightness and contrast as set for a sample: grey = 255 (b + c signal)^gamma."""

    brightness: float
    contrast: float
    gamma: float


@dataclass(frozen=True)
class View:
    """Where and how one frame is taken."""

    width_px: int
    height_px: int
    """Without the info bar."""
    pixel_nm: float
    centre_nm: tuple[float, float]
    kv: float
    background: float
    """Signal of level carbon."""


def pixel_size_nm(magnification_k: int) -> float:
    """Width of a pixel: 1.98, 0.99, 0.50 nm at 50k, 100k, 200k."""
    return FIELD_OF_VIEW_NM / (FULL_WIDTH_PX * magnification_k * 1000)


def backscatter_coefficient(z: int) -> float:
    """Share of electrons that a bulk element of atomic number z throws back (Reuter 1972)."""
    return -0.0254 + 0.016 * z - 1.86e-4 * z**2 + 8.3e-7 * z**3


def draw_tone(rng: np.random.Generator) -> Tone:
    """Draw a sample's brightness and contrast, as wide as in the published images."""
    return Tone(
        brightness=rng.uniform(-0.14, 0.05),
        contrast=rng.uniform(0.95, 1.3),
        gamma=rng.uniform(0.95, 1.2),
    )


def take_frame(scene: Scene, view: View, tone: Tone, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Image a scene, without info bar: grey levels, `view.height_px` x `view.width_px`.

    The generator is that of this frame: focus, scan, charging and noise differ each time.
    """
    # One generator a step: how many numbers one draws does not change the next one's settings.
    beam, scan, charging, dose, detector, converter = rng.spawn(6)
    signal = blur_by_beam(scene_signal(scene, view), view, beam)
    signal = charge(distort_by_scan(signal, scan), charging)
    signal = detect(expose(signal, dose), detector)
    inner = signal[MARGIN_PX:, MARGIN_PX:][: view.height_px, : view.width_px]
    return digitise(inner, tone, converter)


def scene_signal(scene: Scene, view: View) -> Floats:
    """Compute what an infinitely fine beam would see, with the margin around."""
    x, y = _axes(view)
    relief = scene.relief.on_grid(x, y)
    warped_x = scene.warp_nm * scene.warp[0].on_grid(x, y) + x.astype(np.float32)
    warped_y = scene.warp_nm * scene.warp[1].on_grid(x, y) + y.astype(np.float32)[:, None]

    relief *= np.float32(scene.relief_nm / view.pixel_nm)
    steepness = _squared_slope(relief, scene.tilt)
    relief *= np.float32(EDGE_ROUGHNESS_NM * view.pixel_nm / scene.relief_nm)
    swell = scene.swell.on_grid(x, y)
    # An edge is steep here and gentle there.
    unevenness = np.clip(np.float32(0.9) + np.float32(0.6) * swell, 0.1, 2)
    factor = np.ones_like(relief)
    for layer in scene.layers:
        window = _window(layer, x, y)
        _lay(
            layer, *(a[window] for a in (warped_x, warped_y, relief, unevenness, steepness, factor))
        )
    # The background is 0.2-0.3: it varies slowly around its mean.
    signal = np.float32(view.background) + np.float32(0.03) * np.tanh(swell)
    signal *= factor
    signal *= np.minimum(np.sqrt(1 + steepness), np.float32(YIELD_CAP))

    particles = stamp_particles(scene.particles, view, signal.shape)
    signal *= 1 - HALO * np.minimum(_blur(particles, HALO_NM / view.pixel_nm) / PARTICLE_SIGNAL, 1)
    signal += particles
    return signal


def _squared_slope(height: Floats, tilt: tuple[float, float]) -> Floats:
    """Square the slope of a height in pixels on a tilted ground, by central differences."""
    slope = np.empty_like(height)
    slope[1:-1] = np.float32(0.5) * (height[2:] - height[:-2]) + np.float32(tilt[1])
    slope[[0, -1]] = slope[[1, -2]]
    squared = slope * slope
    slope[:, 1:-1] = np.float32(0.5) * (height[:, 2:] - height[:, :-2]) + np.float32(tilt[0])
    slope[:, [0, -1]] = slope[:, [1, -2]]
    slope *= slope
    squared += slope
    return squared


def _axes(view: View) -> tuple[Points, Points]:
    """Coordinates of columns and rows in nm, margins included, of lengths that suit the FFT."""
    columns = fft.next_fast_len(view.width_px + 2 * MARGIN_PX, real=True)
    rows = fft.next_fast_len(view.height_px + 2 * MARGIN_PX, real=True)
    x = np.arange(columns) - MARGIN_PX - (view.width_px - 1) / 2
    y = np.arange(rows) - MARGIN_PX - (view.height_px - 1) / 2
    return x * view.pixel_nm + view.centre_nm[0], y * view.pixel_nm + view.centre_nm[1]


_REACH_NM, _PER_NM = 250, 4
"""Profiles are tabulated over this distance to either side of an edge, this finely."""


def _window(layer: Layer, x: Points, y: Points) -> tuple[slice, slice]:
    """Find the part of a grid that a layer and its shadow cover."""
    # Beyond five decay lengths a shadow is below 1 %; edges are displaced by 30 nm at most.
    reach = 5 * layer.shadow_nm + 30
    left, top = layer.corners.min(axis=0) - reach
    right, bottom = layer.corners.max(axis=0) + reach
    rows, columns = np.searchsorted(y, [top, bottom]), np.searchsorted(x, [left, right])
    return slice(*rows), slice(*columns)


def _lay(
    layer: Layer,
    x: Floats,
    y: Floats,
    roughness: Floats,
    unevenness: Floats,
    steepness: Floats,
    factor: Floats,
) -> None:
    """Lay a layer over a squared slope and a factor of the signal, in place."""
    if not x.size:
        return
    depth = np.full_like(x, _REACH_NM)
    for start, end in layer.edges:
        along = (end - start) / np.linalg.norm(end - start)
        inwards = np.array([-along[1], along[0]], np.float32)
        distance = x * inwards[0]
        distance += y * inwards[1]
        distance -= np.float32(inwards @ start)
        np.minimum(depth, distance, out=depth)
    depth += roughness
    np.clip(depth, -_REACH_NM, _REACH_NM, out=depth)
    depth += _REACH_NM
    depth *= _PER_NM
    index = depth.astype(np.intp)
    slope_squared, own_factor, shown = edge_profile(layer)
    shown = shown[index]
    steepness *= shown
    steepness += slope_squared[index] * unevenness
    factor -= 1
    factor *= shown
    factor += 1
    factor *= own_factor[index]


def edge_profile(layer: Layer) -> tuple[Floats, Floats, Floats]:
    """Tabulate squared slope, factor on the signal, and the share that shows of what lies below.

    All over the distance inwards from the edge of a layer.
    """
    depth = np.arange(-_REACH_NM, _REACH_NM + 1 / _PER_NM, 1 / _PER_NM)
    outside = 1 - layer.shadow * np.exp(np.minimum(depth, 0) / layer.shadow_nm)
    inside = layer.face * (1 + layer.glow * np.exp(-np.maximum(depth, 0) / layer.glow_nm))
    # A carbon edge lets electrons through for about a nanometre.
    covered = 1 / (1 + np.exp(np.clip(-depth, -50, 50)))
    factor = outside * (1 - covered) + inside * covered
    # Steepest at the very edge; the slope falls linearly to the face.
    bevel = np.clip(1 - np.maximum(depth, 0) / layer.bevel_nm, 0, 1)
    slope = 2 * layer.thickness_nm / layer.bevel_nm * bevel * covered
    tables = slope**2, factor, 1 - layer.opacity * covered
    return tables[0].astype(np.float32), tables[1].astype(np.float32), tables[2].astype(np.float32)


def stamp_particles(particles: Particles, view: View, shape: tuple[int, int]) -> Floats:
    """Draw the signal of the particles alone; where they overlap, the brighter one counts."""
    x, y = _axes(view)
    columns = (particles.centres[:, 0] - x[0]) / view.pixel_nm
    rows = (particles.centres[:, 1] - y[0]) / view.pixel_nm
    radii = particles.diameters_nm / 2 / view.pixel_nm
    half = np.ceil(1.25 * radii + 1).astype(int)
    inside = (columns > -half) & (columns < shape[1] + half)
    inside &= (rows > -half) & (rows < shape[0] + half)
    pad = 2 * int(half.max(initial=0)) + 1
    canvas = np.zeros((shape[0] + 2 * pad, shape[1] + 2 * pad), np.float32)
    flat = canvas.ravel()
    for size in np.unique(half[inside]):
        chosen = inside & (half == size)
        column, row = np.rint(columns[chosen]).astype(int), np.rint(rows[chosen]).astype(int)
        window = np.arange(-size, size + 1)
        off_x = (window + (column - columns[chosen])[:, None]).astype(np.float32)
        off_y = (window + (row - rows[chosen])[:, None]).astype(np.float32)
        # [particle, row, column]
        along, across = particles.oblong[chosen].astype(np.float32).T[:, :, None, None]
        distance = np.sqrt(
            ((1 - along) * (off_y * off_y)[:, :, None] + (1 + along) * (off_x * off_x)[:, None, :])
            + 2 * across * off_y[:, :, None] * off_x[:, None, :]
        )
        radius = radii[chosen].astype(np.float32)[:, None, None]
        values = sphere_signal(distance, radius, np.float32(view.pixel_nm))
        facet_x, facet_y = (particles.facets[chosen] / radii[chosen, None]).T[:, :, None, None]
        values *= 1 + facet_x.astype(np.float32) * off_x[:, None, :]
        values *= 1 + facet_y.astype(np.float32) * off_y[:, :, None]
        values *= particles.brightness[chosen].astype(np.float32)[:, None, None]
        places = (row[:, None] + pad + window)[:, :, None] * canvas.shape[1]
        places = places + (column[:, None] + pad + window)[:, None, :]
        np.maximum.at(flat, places.ravel(), values.ravel())
    return canvas[pad:-pad, pad:-pad]


def sphere_signal(distance_px: Floats, radius_px: Floats, pixel_nm: np.float32) -> Floats:
    """Compute the signal of a palladium sphere above the background.

    The contrast of the backscatter coefficients grows with the thickness under the beam; the rim,
    seen at a grazing angle, adds a share of what 1/cos adds up to its cap.
    """
    covered = np.clip(radius_px - distance_px + 0.5, 0, 1)
    cosine = np.sqrt(np.clip(1 - (distance_px / radius_px) ** 2, 1 / YIELD_CAP**2, 1))
    thickness_nm = 2 * pixel_nm * radius_px * cosine
    palladium, carbon = backscatter_coefficient(PALLADIUM), backscatter_coefficient(CARBON)
    contrast = np.float32(PARTICLE_SIGNAL * (palladium - carbon) / palladium)
    rim = np.float32(RIM_SIGNAL / (YIELD_CAP - 1)) * (1 / cosine - 1)
    body = contrast * (1 - np.exp(thickness_nm * np.float32(-1 / SATURATION_NM)))
    return np.asarray(covered * (body + rim), np.float32)


def _filter(image: Floats, transfer: Floats) -> Floats:
    """Multiply the spectrum; the margin takes what wraps around."""
    return np.asarray(fft.irfft2(fft.rfft2(image) * transfer, s=image.shape))


def _frequencies(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Cycles per pixel, along columns and rows of a half spectrum."""
    fx = np.fft.rfftfreq(shape[1]).astype(np.float32)
    return fx, np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]


def _gauss_transfer(squared_frequency: Floats, sigma_px: float) -> Floats:
    transfer: Floats = np.exp(np.float32(-2 * np.pi**2 * sigma_px**2) * squared_frequency)
    return transfer


def _blur(image: Floats, sigma_px: float) -> Floats:
    """Blur by a Gaussian."""
    fx, fy = _frequencies(image.shape)
    return _filter(image, _gauss_transfer(fx**2, sigma_px) * _gauss_transfer(fy**2, sigma_px))


def blur_by_beam(signal: Floats, view: View, rng: np.random.Generator) -> Floats:
    """Convolve with the beam: a Gaussian, defocused and astigmatic, and its skirt."""
    defocus_nm = abs(rng.normal(0, DEFOCUS_NM))
    sigma_px = np.hypot(FWHM_NM[view.kv], defocus_nm) / 2.355 / view.pixel_nm
    astigmatism = np.sqrt(rng.uniform(1, 1.5))
    angle = rng.uniform(0, np.pi)
    skirt = np.float32(rng.uniform(0.1, 0.2))
    fx, fy = _frequencies(signal.shape)
    long_axis = (np.float32(np.cos(angle)) * fx + np.float32(np.sin(angle)) * fy) * astigmatism
    short_axis = (np.float32(np.cos(angle)) * fy - np.float32(np.sin(angle)) * fx) / astigmatism
    squared = (long_axis * long_axis + short_axis * short_axis).astype(np.float32)
    transfer = (1 - skirt) * _gauss_transfer(squared, sigma_px)
    transfer += skirt * _gauss_transfer(squared, 8 * FWHM_NM[view.kv] / 2.355 / view.pixel_nm)
    return _filter(signal, transfer)


def distort_by_scan(signal: Floats, rng: np.random.Generator) -> Floats:
    """Move every pixel to where the beam really was: vibration, mains, line jitter and drift."""
    rows, columns = signal.shape
    row_s = np.arange(rows) * LINE_S
    column_s = np.arange(columns) * (LINE_S / columns)
    frequencies = np.array([MAINS_HZ, *rng.uniform(1, 100, 3)])
    amplitudes = rng.dirichlet(np.ones(len(frequencies))) * rng.uniform(0.05, 0.2)
    shift_x = np.zeros(signal.shape, np.float32)
    # sin(a + b) of row time and column time, as two outer products
    for frequency, amplitude in zip(frequencies, amplitudes, strict=True):
        a = 2 * np.pi * (frequency * row_s + rng.uniform())
        b = 2 * np.pi * frequency * column_s
        shift_x += (amplitude * np.sin(a)).astype(np.float32)[:, None] * np.cos(b, dtype=np.float32)
        shift_x += (amplitude * np.cos(a)).astype(np.float32)[:, None] * np.sin(b, dtype=np.float32)
    jitter = lfilter([1], [1, -0.8], rng.normal(0, np.sqrt(1 - 0.8**2), rows))
    drift = rng.uniform(-3, 3, 2) / np.sqrt(2)
    progress = np.linspace(-0.5, 0.5, rows)
    line_shift = rng.uniform(0.1, 0.4) * jitter + drift[0] * progress
    shift_x += line_shift.astype(np.float32)[:, None]

    # Slow axis first, a row at a time; then the fast axis, a pixel at a time.
    source_row = np.clip(np.arange(rows) + drift[1] * progress, 1, rows - 3)
    low = source_row.astype(int)
    weights = cubic_weights((source_row - low).astype(np.float32)[:, None])
    moved = sum(w * signal[low + k] for w, k in zip(weights, range(-1, 3), strict=True))
    shift_x += np.arange(columns, dtype=np.float32)
    np.clip(shift_x, 1, columns - 3, out=shift_x)
    base = shift_x.astype(np.int32)
    shift_x -= base
    base += np.arange(rows, dtype=np.int32)[:, None] * columns
    flat = np.ravel(moved)
    taps = zip(cubic_weights(shift_x), range(-1, 3), strict=True)
    return np.asarray(sum(w * flat[base + k] for w, k in taps), np.float32)


def cubic_weights(t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the Catmull-Rom weights of the samples at -1, 0, 1, 2 for t between 0 and 1."""
    return (  # type: ignore[return-value]  # numpy's stubs widen float32 scalars
        t * (t * (1 - np.float32(0.5) * t) - np.float32(0.5)),
        1 + t * t * (np.float32(1.5) * t - np.float32(2.5)),
        t * (np.float32(0.5) + t * (2 - np.float32(1.5) * t)),
        t * t * (np.float32(0.5) * t - np.float32(0.5)),
    )


def charge(signal: Floats, rng: np.random.Generator) -> Floats:
    """Charge up: a slow gradient of up to 10 %, and trails along the lines from bright features."""
    y = np.linspace(-1, 1, signal.shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, signal.shape[1], dtype=np.float32)
    shares = rng.dirichlet(np.ones(5)) * rng.choice([-1, 1], 5) * rng.uniform(0.03, 0.1)
    c = shares.astype(np.float32)
    gradient = (c[0] * x + c[1] * x**2) + (c[2] * y + c[3] * y**2) + c[4] * x * y
    reach = np.exp(-1 / rng.uniform(15, 60))
    bright = np.maximum(signal - np.float32(2 * np.median(signal[::8, ::8])), 0)
    trail = lfilter(np.array([1 - reach], np.float32), np.array([1, -reach], np.float32), bright)
    strength = np.float32(rng.uniform(-0.35, 0.1))  # mostly dark: carbon loses more than it gains
    charged: Floats = np.maximum(signal * (1 + gradient) + strength * trail, np.float32(0.01))
    return charged


def expose(signal: Floats, rng: np.random.Generator) -> Floats:
    """Count electrons: Poisson noise of 1 to 16 averaged frames."""
    frames = rng.choice([1, 2, 4, 8, 16], p=[0.7, 0.22, 0.05, 0.02, 0.01])
    electrons = np.float32(frames * ELECTRONS_PER_FRAME)
    return (rng.poisson(electrons * signal) / electrons).astype(np.float32)


def detect(signal: Floats, rng: np.random.Generator) -> Floats:
    """Amplify: read noise, then the amplifier's one-pole low pass along the fast axis."""
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    noise *= np.float32(rng.uniform(0.01, 0.021))
    pole = np.float32(rng.uniform(0.2, 0.4))
    one_pole = np.array([1 - pole], np.float32), np.array([1, -pole], np.float32)
    return np.asarray(lfilter(*one_pole, signal + noise))


def digitise(signal: Floats, tone: Tone, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Convert to 8 bits with the sample's tone curve and small offsets of whole rows."""
    level = np.clip(np.float32(tone.brightness) + np.float32(tone.contrast) * signal, 0, None)
    grey = 255 * level ** np.float32(tone.gamma)
    grey += rng.normal(0, rng.uniform(0.3, 1), len(grey)).astype(np.float32)[:, None]
    digits: NDArray[np.uint8] = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return digits
