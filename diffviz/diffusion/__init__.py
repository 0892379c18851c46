"""The mathematics of diffusion sampling.

Forward: q(x_t | x_0) = N(√ᾱ_t x_0, (1 - ᾱ_t) I). Backward: a rule maps
(x_t, ε̂(x_t, t)) to the mean and std of x_s; the loop in ``sampler`` applies it from T to 0.

Read ``schedule`` first, then ``sampler``; the denoisers in closed form are in ``exact``.
"""
