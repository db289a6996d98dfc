"""What a plan takes: the only cycle formulas besides the machine's own."""
