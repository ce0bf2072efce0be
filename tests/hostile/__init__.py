"""Real nodes under attack, or broken at the worst time: they live, serve the others, and give nobody what is another's."""
