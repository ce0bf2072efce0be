"""Real nodes under attack, or broken at the worst time: they survive, serve other owners, and give nobody another's values."""
