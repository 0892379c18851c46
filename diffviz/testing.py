"""For the tests of other projects: a sampler is what it should be, or an error says why not."""

from diffviz.diagnosis.findings import Finding
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.identify.paths import Time
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
    rule: str | None = "ddpm/beta",
    *,
    shape: tuple[int, ...] = (64, 3, 16, 16),
    seed: int = 0,
    time: Time = "auto",
    seconds: float = 60.0,
) -> XRay:
    """Check that ``sample_fn(model) -> x_0`` behaves, and follows ``rule``.

    With ``rule=None`` any right sampler passes. Warnings, such as a clipped x̂_0, do not fail. The
    other arguments are those of ``xray``.

    Raises:
        AssertionError: it misbehaves or cannot be judged, it has findings of severity error, or it
            follows another rule. The message has one line per finding.
        InputError: it is no sampler at all, as for ``xray``.
    """
    __tracebackhide__ = True  # pytest shows the line of the test instead
    seen = xray(sample_fn, schedule, shape=shape, seed=seed, time=time, seconds=seconds)
    wrong = [finding for finding in seen.findings if finding.severity == "error"]
    if not wrong and not seen.behaves:
        wrong = list(seen.findings)
    what = f"the sampler is not {rule}" if rule else "the sampler is not right"
    same = rule is None or seen.rule == rule or any({seen.rule, rule} <= names for names in SAME)
    if not wrong and not same:
        if not {seen.rule, rule} <= VARIANCES:
            follows = (
                f"it follows {seen.rule}" if seen.rule else "it is right, and has no name here"
            )
            raise AssertionError(f"{what}:\n  {follows}")
        t_range = (int(seen.coefficients["t"][0]), int(seen.coefficients["t"][-1]))
        evidence = {"found": str(seen.rule), "expected": str(rule)}
        wrong = [Finding("variance-posterior-vs-beta", "information", "", t_range, evidence)]
    if wrong:
        lines = "\n".join(f"  {finding.id}: {finding.message}" for finding in wrong)
        raise AssertionError(f"{what}:\n{lines}")
    return seen
