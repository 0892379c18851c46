"""For the tests of other projects: a sampler is what it should be, or an error says why not."""

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.identify.spy import Time
from diffviz.identify.xray import Sampler, XRay, xray

SAME = (
    {"ddpm/posterior", "ddim(eta=1)", "euler-ancestral"},
    {"ddim(eta=0)", "euler"},
)
"""Names of one rule: the first holds wherever ᾱ is the product of α."""
VARIANCES = {"ddpm/beta", *SAME[0]}


def assert_sampler(
    sample_fn: Sampler,
    schedule: NoiseSchedule,
    rule: str = "ddpm/beta",
    *,
    shape: tuple[int, ...] = (64, 3, 16, 16),
    seed: int = 0,
    time: Time = "auto",
    seconds: float = 60.0,
) -> XRay:
    """Check that ``sample_fn(model) -> x_0`` follows ``rule``; arguments as for ``xray``.

    Warnings, such as a clipped x̂_0, do not fail.

    Raises:
        AssertionError: it has findings of severity error, or follows another rule. The message
            has one line per finding.
        InputError: it is no sampler at all, as for ``xray``.
    """
    __tracebackhide__ = True  # pytest shows the line of the test instead
    seen = xray(sample_fn, schedule, shape=shape, seed=seed, time=time, seconds=seconds)
    wrong = [finding for finding in seen.findings if finding.severity == "error"]
    same = any({seen.rule, rule} <= names for names in SAME)
    if not wrong and seen.rule != rule and not same:
        t_range = (int(seen.coefficients["t"][0]), int(seen.coefficients["t"][-1]))
        if {seen.rule, rule} <= VARIANCES:
            evidence = {"found": str(seen.rule), "expected": rule}
            wrong = [Finding("variance-posterior-vs-beta", "information", "", t_range, evidence)]
        elif seen.rule is None:
            wrong = list(seen.findings)
        else:
            raise AssertionError(f"the sampler is not {rule}:\n  it follows {seen.rule}")
    if wrong:
        lines = "\n".join(f"  {finding.id}: {finding.message}" for finding in wrong)
        raise AssertionError(f"the sampler is not {rule}:\n{lines}")
    return seen
