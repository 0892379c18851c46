"""Arrays in, numbers out.

Moments, and the Kolmogorov-Smirnov distance D = sup_x |F_n(x) - F(x)| between a sample and a law.
Nothing here knows about diffusion. Needs numpy and scipy only.
"""
