"""A plan as wavelets on the fabric: its streams, and the simulator that carries them."""
