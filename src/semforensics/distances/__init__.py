"""How near the fakes are to the reals."""
