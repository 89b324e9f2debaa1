"""The diffusion model is tested in the same places as the encoder-decoders."""

from tests.generators.autoencoders.conftest import make_place, place

__all__ = ["make_place", "place"]
