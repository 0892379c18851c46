"""Denoisers: anything that answers (x_t, t) with the noise it sees, ε̂ ≈ E[ε | x_t]."""
