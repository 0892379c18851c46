r"""Two runs of one sampler from the same state of the random generators, step by step.

If both drew the same noise, it is not in their difference: with two answers m, m' of the model,

    x_s − x'_s = a·(x_t − x'_t) + b·(m_t − m'_t)

up to rounding, and a and b are known to rounding however large the noise was. A step for which
this does not hold drew other noise, or is no linear function; it keeps what the regression of one
run says of it. If it is linear for some values only, as where x̂_0 is clipped, these tell a and b;
see `inside`.
"""

import numpy as np
from numpy.typing import NDArray

from diffviz.identify.spy import EPS, NEXT, ONE, ROUNDING, SINGLE, Fit, Pairs, Watched, X, solve

Array = NDArray[np.float64]
COARSE = 1e-4
"""The last place of a type in which two runs agree to rounding whatever a step does."""
PLANES = 400
"""That are tried for a step which is linear for some values only."""
UNKNOWN = 1e15
"""The error of a coefficient of which nothing is known."""
CLEAR = 20.0
"""How many times its rounding a noise is, for a step to be worth the comparison."""


def pair(one: Watched, two: Watched) -> Pairs:
    """Compare the steps of two runs at the places that were kept of both.

    Of ``two`` these may be all that was kept; its leftover is then taken as that of ``one``.
    """
    steps = min(len(one.grams), len(two.places) - 1)
    apart = one.places[: steps + 1] - two.places[: steps + 1]
    before, after = apart[:steps], apart[1:, 0]  # (S, 2, K) of x_t and m_t, (S, K) of x_s
    noises = zip(one.noise[:steps], (two.noise or one.noise)[:steps], strict=True)
    floor = np.array([first.floor + second.floor for first, second in noises])
    clear = np.array([noise.std for noise in one.noise[:steps]]) > CLEAR * floor
    squares = np.einsum("sik,sjk->sij", before, before)
    product = np.einsum("sik,sk->si", before, after)
    best = np.einsum("sij,sj->si", np.linalg.pinv(squares, rcond=1e-14, hermitian=True), product)
    left = after - np.einsum("si,sik->sk", best, before)
    rms = np.sqrt((left**2).mean(axis=-1))
    size = np.sqrt(one.grams[:steps, NEXT, NEXT] / one.values)
    variance = np.maximum(rms, ROUNDING * np.maximum(size, 1e-30)) ** 2
    same = clear & (rms < floor)
    leftovers = _leftover(one, one, steps), _leftover(two, two if len(two.grams) else one, steps)
    r = np.einsum("sk,sk->s", *map(_unit, leftovers))
    free = one.places.shape[-1] - 2
    alike = np.abs(r) * np.sqrt(free / np.maximum(1 - r**2, 1e-12)) * clear
    rest = (0, len(one.grams) - steps)
    return Pairs(
        np.pad(same, rest),
        np.pad(squares / variance[:, None, None], (rest, (0, 0), (0, 0))),
        np.pad(product / variance[:, None], (rest, (0, 0))),
        np.pad(alike, rest),
    )


def crooked(pairs: Pairs, threshold: float) -> NDArray[np.bool_]:
    """Steps that drew the same noise twice and still differ by more than a and b explain."""
    return (pairs.alike > threshold) & ~pairs.same


def bends(watched: Watched, threshold: float) -> NDArray[np.bool_]:
    """Steps that are no linear function, by another run or by what squares and cubes explain."""
    bent = np.nan_to_num([noise.bent for noise in watched.noise]) > threshold
    return bent if watched.pairs is None else bent | crooked(watched.pairs, threshold)


def _leftover(run: Watched, known: Watched, steps: int) -> Array:
    """What the regression of the run ``known`` leaves over at the places, (S, K)."""
    coefficients = solve(known.grams[:steps], SINGLE).coefficients
    linear = np.einsum("si,sik->sk", coefficients[:, 1:], run.places[:steps])
    return run.places[1 : steps + 1, 0] - linear - coefficients[:, :1]


def _unit(rows: Array) -> Array:
    centered = rows - rows.mean(axis=-1, keepdims=True)
    return centered / np.maximum(np.sqrt((centered**2).sum(axis=-1, keepdims=True)), 1e-300)


def fitted(watched: Watched) -> Fit:
    """a, b, the bias and σ of every step: by regression, and by the pair where there is one.

    Both are estimates of the same (a, b); they are weighed by their inverse covariances. A fit of
    the values for which the steps are linear, where there is one, is all that counts.
    """
    if watched.inside is not None:
        return watched.inside
    found = solve(watched.grams, SINGLE)
    pairs = watched.pairs
    if pairs is None or not pairs.same.any():
        return found
    same = pairs.same
    gram = watched.grams[same]
    n = gram[:, ONE, ONE]
    own = np.linalg.inv(found.covariance[same][:, 1:, 1:])
    covariance = np.linalg.inv(own + pairs.information[same])
    right = np.einsum("sij,sj->si", own, found.coefficients[same, 1:]) + pairs.product[same]
    slopes = np.einsum("sij,sj->si", covariance, right)
    mean = (gram[:, ONE, NEXT] - np.einsum("si,si->s", slopes, gram[:, ONE, [X, EPS]])) / n
    left = np.zeros((len(gram), NEXT + 1))
    left[:, ONE], left[:, [X, EPS]], left[:, NEXT] = -mean, -slopes, 1
    rest = np.einsum("si,sij,sj->s", left, gram, left)
    std = np.sqrt(np.maximum(rest, 0) / np.maximum(n - len(SINGLE), 1))
    coefficients, errors = found.coefficients.copy(), found.covariance.copy()
    spread = found.std.copy()
    coefficients[same] = np.column_stack([mean, slopes])
    errors[same] = 0.0
    errors[same, 0, 0] = std**2 / n
    errors[same, 1:, 1:] = covariance
    spread[same] = std
    return Fit(coefficients, errors, spread)


def inside(one: Watched, two: Watched) -> tuple[Fit, float] | None:
    """a, b, bias and σ of steps that are linear for some values only, and how many these are.

    Values that are clipped in neither of two runs with the same noise lie on one plane

        x_s − x'_s = a·(x_t − x'_t) + b·(m_t − m'_t),

    to rounding. Of the planes through two values each, drawn at random (RANSAC, Fischler and
    Bolles 1981), the one with most values is taken. Where x̂_0 is clipped in both runs, x_s holds
    only one of x_t and m_t, so planes with a = 0 or b = 0 are left out. None if fewer than half
    of the steps have such a plane; of a and b at the others nothing is known.
    """
    steps = min(len(one.grams), len(two.places) - 1)
    size = one.places.shape[-1]
    least = max(16, size // 16)
    draws = np.random.default_rng(0).integers(size, size=(2, PLANES))
    floors = 2 * np.array([noise.floor for noise in one.noise])
    found, errors = np.zeros((len(one.grams), 3)), np.zeros((len(one.grams), 3, 3))
    std, counts = np.zeros(len(one.grams)), np.zeros(len(one.grams), dtype=int)
    for i in range(steps):
        apart = one.places[i] - two.places[i]
        after = one.places[i + 1, 0] - two.places[i + 1, 0]
        on, slopes = _plane(apart, after, floors[i], draws)
        if on.sum() < least or not np.isfinite(floors[i]):
            continue
        # Runs that have not parted yet, or in one direction only, tell a or b from rounding.
        spread = np.linalg.svd(apart[:, on], compute_uv=False)[-1] / np.sqrt(on.sum())
        if spread < 1e3 * ROUNDING * np.sqrt((one.places[i] ** 2).mean()):
            continue
        counts[i] = on.sum()
        left = one.places[i + 1, 0, on] - slopes @ one.places[i][:, on]
        std[i] = left.std(ddof=1)
        found[i] = left.mean(), *slopes
        rest = max(float((after - slopes @ apart)[on].std()), ROUNDING * float(after.std()))
        errors[i, 0, 0] = std[i] ** 2 / counts[i]
        errors[i, 1:, 1:] = rest**2 * np.linalg.pinv(apart[:, on] @ apart[:, on].T, hermitian=True)
    known = counts > 0
    if known.mean() < 0.5:
        return None
    place = np.arange(len(known))
    for column in (found[:, 0], found[:, 1], found[:, 2], std):
        column[~known] = np.interp(place[~known], place[known], column[known])
    errors[~known] = UNKNOWN**2 * np.eye(3)
    return Fit(found, errors, std), float(np.median(counts[known]))


def _plane(
    apart: Array, after: Array, floor: float, draws: NDArray[np.int_]
) -> tuple[NDArray[np.bool_], Array]:
    """(values on the plane that holds most of them, its slopes (2,))."""
    scale = np.sqrt((apart**2).mean(axis=1))
    one, two = apart[:, draws[0]], apart[:, draws[1]]
    after_one, after_two = after[draws[0]], after[draws[1]]
    with np.errstate(all="ignore"):
        determinant = one[0] * two[1] - one[1] * two[0]
        slopes = np.stack(
            [after_one * two[1] - after_two * one[1], one[0] * after_two - two[0] * after_one]
        ) / np.where(determinant == 0, np.nan, determinant)
        slopes[:, (np.abs(slopes) * scale[:, None] < 200 * floor).any(axis=0)] = np.nan
        near = np.abs(after - slopes.T @ apart) < floor
    on = near[np.argmax(near.sum(axis=1))]
    best = np.zeros(2)
    nothing = np.zeros_like(on), best
    for _ in range(4):
        if on.sum() < 3:
            return nothing
        best = np.linalg.lstsq(apart[:, on].T, after[on], rcond=None)[0]
        away = np.abs(after - best @ apart)
        on = away < floor
    # Values that lie near a plane by chance lie at all distances from it.
    return (on, best) if on.sum() > 0.8 * (away < 4 * floor).sum() else nothing
