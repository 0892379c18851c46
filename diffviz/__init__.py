"""See, and prove with numbers, what a diffusion sampler does at every step."""
