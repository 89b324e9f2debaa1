"""Encoder-decoders, whose reconstructions of reals are fakes of another kind."""
