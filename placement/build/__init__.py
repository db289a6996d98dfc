"""With splits and regions given: steps, moves, addresses, routes."""
