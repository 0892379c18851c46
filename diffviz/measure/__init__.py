"""Arrays in, numbers out.

Moments that add up (`moments`), and the Kolmogorov-Smirnov distance D = sup_x |F_n(x) - F(x)|
between a sample and a law (`ks`). Nothing here knows about diffusion. Needs numpy and scipy only.
"""
