"""The command line: it parses words, calls the library, and says where things are.

Exit status: 0 done, 1 findings of severity error, 2 bad input in one line, 130 interrupted.
torch is imported inside the commands that need it.
"""

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from diffviz.errors import InputError, said
from diffviz.files.catalogue import LANGUAGES

Command = Callable[..., None]
LINE = 500
"""Characters of an error; a longer one keeps its start and its end."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99})
@click.version_option(package_name="diffviz")
def cli() -> None:
    """See, and prove with numbers, what a diffusion sampler does at every step."""


def _schedule_options(command: Command) -> Command:
    for option in (
        click.option("--beta-end", type=float, help="β at t = T."),
        click.option("--beta-start", type=float, help="β at the first step."),
        click.option("--T", "T", type=int, help="Number of steps of the schedule [500]."),
        click.option(
            "--schedule",
            "schedule_kind",
            help="course, linear, cosine or scaled-linear [the network's own, else course].",
        ),
    ):
        command = option(command)
    return command


def _record_options(command: Command) -> Command:
    for option in (
        click.option(
            "--executor",
            "workers",
            help="processes:N computes blocks in N processes, dask://HOST:PORT in a cluster.",
        ),
        click.option("--device", default="cpu", show_default=True, help="cpu or cuda."),
        click.option("--class", "label", help="Sample this class only, for example hero."),
        click.option("--steps", type=int, help="Steps to take, evenly spaced [all T]."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of x_T and z."),
        click.option("--block", type=int, help="Samples per block [64 images]."),
        click.option("--n", type=int, default=64, show_default=True, help="Samples per arm."),
        click.option(
            "--arms",
            default="ddpm,z=0,ddim",
            show_default=True,
            help="Also ddpm/posterior, ddim(eta=ETA), and ddpm*SCALE for SCALE times the noise.",
        ),
    ):
        command = option(command)
    command = _schedule_options(command)
    return click.option(
        "--denoiser",
        "denoiser_text",
        metavar="SPEC",
        help="gaussian:MEAN,STD, mixture:M,S,W;M,S,W, dataset:sprites, dataset:FILE.npy, "
        "or a checkpoint [the shipped network].",
    )(command)


def _request(options: dict[str, Any]) -> Any:
    from diffviz.recording.request import RecordRequest

    names = {"denoiser_text": "denoiser", "schedule_kind": "schedule", "workers": "executor"}
    return RecordRequest(**{names.get(name, name): value for name, value in options.items()})


def _record(out: str | None, resume: bool, options: dict[str, Any]) -> Any:
    from diffviz.files.atomic import check_apart

    request = _request(options)
    check_apart([out], [request.words.source_file])
    return request.run(out=out, resume=resume)


def _files_of(denoiser: str | None) -> list[str]:
    """The names of files that these words may stand for."""
    return [] if denoiser is None else [denoiser, denoiser.removeprefix("dataset:")]


def _schedule(options: dict[str, Any]) -> Any:
    """The schedule asked for, or None when nothing was said about it."""
    names = ("schedule_kind", "T", "beta_start", "beta_end")
    if all(options[name] is None for name in names):
        return None
    from diffviz.diffusion.schedule import KINDS, NoiseSchedule

    return NoiseSchedule.named(
        KINDS[0] if options["schedule_kind"] is None else options["schedule_kind"],
        options["T"],
        options["beta_start"],
        options["beta_end"],
    )


@cli.command()
@_record_options
@click.option("--out", "-o", default="run.nc", show_default=True, help="The run file to write.")
@click.option("--resume", is_flag=True, help="Go on from the finished blocks beside --out.")
def record(out: str, resume: bool, **options: Any) -> None:
    """Sample all arms from the same noise and record every step.

    \b
    Example:
      diffviz record --denoiser gaussian:2,0.5 --n 4096 --out gaussian.nc
      diffviz record --arms "ddpm,ddpm*0.5,z=0" --n 24 --class hero --out hero.nc
    """
    run = _record(out, resume, options)
    _say(f"{out}: {len(run.arms)} arms × {run.spec.n} samples × {run.spec.steps} steps")


@cli.command()
@click.argument("run_file", metavar="[RUN]", required=False)
@_record_options
@click.option("--out", "-o", default="report.html", show_default=True, help="The page to write.")
@click.option("--json", "numbers", help="Also write the report's numbers to this file.")
@click.option("--lang", default="en", show_default=True, help="Language shown first: en or zh.")
@click.option("--title", help="Heading of the page.")
def report(
    run_file: str | None,
    out: str,
    numbers: str | None,
    lang: str,
    title: str | None,
    **options: Any,
) -> None:
    """Write one self-contained HTML page about a run, or record one first.

    \b
    Example:
      diffviz report run.nc -o report.html --json numbers.json
      diffviz report --denoiser "mixture:-1,0.2,0.7;1.5,0.3,0.3" -o mixture.html
    """
    from diffviz.files.atomic import check_apart
    from diffviz.recording.run import Run
    from diffviz.report import write_numbers, write_report

    _check_language(lang)
    (title or "").encode()  # a title that the page cannot hold is named before the run is made
    check_apart([out, numbers], [run_file, *_files_of(options["denoiser_text"])])
    if run_file is not None:
        given = click.get_current_context().get_parameter_source
        source = click.core.ParameterSource.COMMANDLINE
        extra = [name for name in options if given(name) is source]
        if extra:
            raise InputError(f"RUN is {run_file!r}, so nothing is recorded: leave out {extra[0]}")
        run = Run.load(run_file)
    else:
        run = _record(None, False, options)
    write_report(run, out, language=lang, title=title)
    _say(f"{out}: open it in a browser")
    if numbers is not None:
        write_numbers(run, numbers)
        _say(f"{numbers}: the same numbers")


@cli.command()
@click.argument("name")
@click.argument("run_file", metavar="RUN")
@click.option("--out", "-o", required=True, help="NAME.png, .svg, .pdf, .html or .gif.")
@click.option("--lang", default="en", show_default=True, help="en or zh.")
@click.option("--dark", is_flag=True, help="For a dark slide.")
@click.option("--width", type=click.IntRange(100, 4000), default=1100, show_default=True)
@click.option("--height", type=click.IntRange(100, 4000), help="Else what the picture needs.")
@click.option("--t", "t", type=int, help="The step shown, for histogram and strips.")
def figure(name: str, run_file: str, out: str, lang: str, dark: bool, **options: Any) -> None:
    """Draw one picture of a run for a slide.

    \b
    Example:
      diffviz figure ks run.nc -o ks.svg
      diffviz figure strips run.nc -o strips.gif
    """
    from diffviz.figures.export import export
    from diffviz.files.atomic import check_apart
    from diffviz.recording.run import Run

    _check_language(lang)
    check_apart([out], [run_file])
    export(
        name,
        Run.load(run_file),
        Path(out),
        language=lang,
        theme="dark" if dark else "light",
        **options,
    )
    _say(f"{out}: {name} of {run_file}")


@cli.command()
@_schedule_options
@click.option("--out", "-o", help="Also draw it: NAME.png, .svg, .pdf or .html.")
@click.option("--lang", default="en", show_default=True, help="en or zh.")
def schedule(out: str | None, lang: str, **options: Any) -> None:
    """Look at a noise schedule: its numbers, and which invariants hold.

    \b
    Example:
      diffviz schedule --schedule cosine --T 200
    """
    from diffviz.diffusion.schedule import NoiseSchedule

    _check_language(lang)
    chosen = _schedule(options) or NoiseSchedule.course()
    click.echo(chosen.name)
    click.echo(f"{'t':>6}{'β':>12}{'ᾱ':>12}{'SNR':>12}{'S1':>10}{'S2':>10}{'S3':>10}")
    for t in sorted({*chosen.times(min(chosen.T, 10)).tolist(), 0, 1}):
        row = (chosen.betas, chosen.alpha_bars, chosen.snr, chosen.S1, chosen.S2, chosen.S3)
        beta, bar, snr, s1, s2, s3 = (float(values[t]) for values in row)
        click.echo(f"{t:>6}{beta:>12.6f}{bar:>12.6f}{snr:>12.5g}{s1:>10.5f}{s2:>10.5f}{s3:>10.5f}")
    violations = chosen.violations()
    click.echo("all invariants hold" if not violations else "\n".join(violations))
    click.echo(f"√ᾱ_T = {chosen.alpha_bars[-1] ** 0.5:.4g}: what is left of the data at t = T")
    if out is not None:
        from diffviz.figures.export import export_schedule

        export_schedule(chosen, Path(out), language=lang)
        _say(f"{out}: the same as a picture")


@cli.command()
@click.option("--n", type=int, default=1000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", "-o", default="sprites.npy", show_default=True, help="uint8 images.")
@click.option("--labels", help="Also write the classes, one-hot, as the tutorial does.")
@click.option("--sheet", help="Also write a PNG that shows some of them.")
def sprites(n: int, seed: int, out: str, labels: str | None, sheet: str | None) -> None:
    """Make a data set of 16×16 sprites of five kinds. Nothing is downloaded.

    \b
    Example:
      diffviz sprites --n 12000 -o sprites.npy --labels labels.npy --sheet sheet.png
    """
    import numpy as np

    from diffviz.files.atomic import check_apart, replacing
    from diffviz.files.images import contact_sheet
    from diffviz.sprites.make import CLASSES, make_sprites

    check_apart([out, labels, sheet], [])
    images, kinds = make_sprites(n, seed)
    with replacing(out) as temporary, open(temporary, "wb") as file:
        np.save(file, images, allow_pickle=False)
    _say(f"{out}: {n} sprites, {images.shape[1:]} uint8")
    if labels is not None:
        with replacing(labels) as temporary, open(temporary, "wb") as file:
            np.save(file, np.eye(len(CLASSES))[kinds], allow_pickle=False)
        _say(f"{labels}: their classes, {', '.join(CLASSES)}")
    if sheet is not None:
        with replacing(sheet) as temporary:
            contact_sheet(images[:100], columns=20, scale=3).save(temporary, format="PNG")
        _say(f"{sheet}: a look at them")


@cli.command()
@_schedule_options
@click.option("--images", help="A folder of pictures or a .npy file [procedural sprites].")
@click.option("--labels", help="A .npy file of classes, integers or one-hot, for --images.")
@click.option("--n", type=int, default=12_000, show_default=True, help="Procedural sprites.")
@click.option("--data-seed", type=int, default=0, show_default=True, help="Of the sprites.")
@click.option("--epochs", type=int, default=50, show_default=True)
@click.option("--batch", type=int, default=100, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="At the start.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and noise.")
@click.option(
    "--context-drop",
    type=float,
    default=0.1,
    show_default=True,
    help="Share of images shown without their class.",
)
@click.option("--start", help="Weights to go on from, with batch norm held.")
@click.option(
    "--own",
    type=int,
    default=0,
    show_default=True,
    help="Trajectories of the network to start from, to learn from too.",
)
@click.option("--features", type=int, default=64, show_default=True, help="Width of the network.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--out", "-o", default="weights.safetensors", show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch.")
def train(out: str, resume: bool, **options: Any) -> None:
    """Train a ContextUnet on sprites or on your own images.

    The state after each epoch is kept in OUT.training until the training is whole.

    \b
    Example:
      diffviz train --epochs 50 -o sprites.safetensors
      diffviz train --images my_sprites/ --epochs 100 -o mine.safetensors --resume
    """
    from tqdm import tqdm

    from diffviz.diffusion.checkpoints import load_denoiser, save_denoiser
    from diffviz.diffusion.law import DataLaw
    from diffviz.diffusion.schedule import NoiseSchedule
    from diffviz.files.atomic import check_apart
    from diffviz.files.images import from_uint8
    from diffviz.training import train as epochs_of

    path = Path(out)
    state = path.with_name(path.name + ".training")
    check_apart([path, state], [options["images"], options["labels"], options["start"]])
    if resume and path.exists() and not state.exists():
        load_denoiser(path)
        _say(f"{out}: already whole")
        return
    images, labels, classes, recipe = _training_data(options)
    noise = _schedule(options) or NoiseSchedule.course()
    first = None if options["start"] is None else load_denoiser(options["start"])
    steps = -(-len(images) // max(options["batch"], 1))
    trained = epochs_of(
        images,
        labels,
        noise,
        epochs=options["epochs"],
        batch=options["batch"],
        lr=options["lr"],
        n_feat=options["features"],
        seed=options["seed"],
        device=options["device"],
        classes=classes,
        context_drop=options["context_drop"],
        own=options["own"],
        start=None if first is None else first.network,
        checkpoint=state,
        resume=resume,
        progress=lambda step, steps: bar.update(),
    )
    with tqdm(total=options["epochs"] * steps, unit="batch") as bar:
        for epoch in trained:
            bar.n = epoch.epoch * steps
            bar.set_postfix_str(f"epoch {epoch.epoch}, loss {epoch.loss:.4f}")
    facts = {
        "command": _command(),
        "seed": options["seed"],
        "epochs": epoch.epochs,
        "batch": options["batch"],
        "lr": options["lr"],
        "context_drop": options["context_drop"],
        "own": options["own"],
        "losses": list(epoch.losses),
    }
    if first is not None:
        facts["start"] = dict(first.facts)
    law = DataLaw.of_images(from_uint8(images), labels, classes)
    save_denoiser(
        path, epoch.network, noise, classes=classes, data_recipe=recipe, data=law, facts=facts
    )
    state.unlink(missing_ok=True)
    _say(f"{out}: {epoch.epochs} epochs, loss {epoch.loss:.4f}")


def _command() -> str:
    """What was typed, as it goes into a file of weights."""
    return " ".join(["diffviz", *(word for word in sys.argv[1:] if word != "--resume")])


def _training_data(options: dict[str, Any]) -> tuple[Any, Any, tuple[str, ...], str]:
    """(uint8 images, labels or None, class names, how to make the data again)."""
    from diffviz.files.images import load_images, load_labels
    from diffviz.sprites.make import CLASSES, make_sprites

    source, label_file = options["images"], options["labels"]
    if source is None:
        if label_file is not None:
            raise InputError("labels without images; the procedural sprites have their own")
        n, seed = options["n"], options["data_seed"]
        return *make_sprites(n, seed), CLASSES, f"sprites:n={n},seed={seed}"
    images = load_images(source)
    recipe = f"{len(images)} images of {Path(source).name}"
    if label_file is None:
        return images, None, (), recipe
    labels, width = load_labels(label_file, len(images))
    names = CLASSES if width == len(CLASSES) else tuple(f"class {i}" for i in range(width))
    return images, labels, names, recipe


@cli.command()
@click.argument("run_file", metavar="RUN")
@click.option("--lang", default="en", show_default=True, help="en or zh.")
@click.option("--json", "out", help="Also write the findings to this file.")
def diagnose(run_file: str, lang: str, out: str | None) -> None:
    """Say what is wrong with the samplers of a recorded run. Status 1 if something is.

    \b
    Example:
      diffviz diagnose run.nc --json findings.json
    """
    from diffviz.diagnosis.findings import diagnose as findings_of
    from diffviz.files.atomic import check_apart
    from diffviz.recording.run import Run

    _check_language(lang)
    check_apart([out], [run_file])
    _tell(findings_of(Run.load(run_file)), lang, out)


@cli.command()
@click.argument("sampler", metavar="MODULE:FUNCTION")
@_schedule_options
@click.option(
    "--time",
    "time",
    default="auto",
    show_default=True,
    help="What t is passed as: index (T…1), index0 (T−1…0), fraction (i/T), sigma.",
)
@click.option("--shape", default="64,3,16,16", show_default=True, help="Of the states, B,C,H,W.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--seconds", type=float, default=60.0, show_default=True, help="Time limit of a run."
)
@click.option("--lang", default="en", show_default=True, help="en or zh.")
@click.option("--json", "out", help="Also write the whole verdict, step by step, to this file.")
@click.option("--report", "page", help="Also write it as a page, NAME.html, with its curves.")
def xray(sampler: str, lang: str, out: str | None, page: str | None, **options: Any) -> None:
    """Identify the update rule of any sampler, FUNCTION(model) -> x_0, and what is wrong in it.

    The module is imported from the current folder or from what is installed. Status 1 if a
    finding of severity error is there.

    \b
    Example:
      diffviz xray my_sampler:sample_ddpm --schedule course --T 500
      diffviz xray my_sampler:sample_ddpm --report xray.html --json xray.json
    """
    from diffviz.diffusion.schedule import NoiseSchedule
    from diffviz.files.atomic import check_apart
    from diffviz.identify.xray import xray as identify

    _check_language(lang)
    check_apart([out, page], [])
    if options["time"] not in ("auto", "index", "index0", "fraction", "sigma"):
        allowed = "auto, index, index0, fraction, sigma"
        raise InputError(f"time is {options['time']!r}; allowed: {allowed}")
    try:
        shape = tuple(int(part) for part in options["shape"].split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(f"shape is {options['shape']!r}; allowed are positive numbers B,C,H,W")
    seen = identify(
        _function(sampler),
        _schedule(options) or NoiseSchedule.course(),
        shape=shape,
        seed=options["seed"],
        time=options["time"],
        seconds=options["seconds"],
    )
    _say(f"rule: {seen.rule or 'none that is known'} (t passed as {seen.time})")
    if out is not None or page is not None:
        from diffviz.report.xray import write_xray_numbers, write_xray_report
    if out is not None:
        write_xray_numbers(seen, out, lang)
    if page is not None:
        write_xray_report(seen, page, name=sampler, language=lang)
    _tell(seen.findings, lang, None)


@cli.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8050, show_default=True)
@click.option(
    "--checkpoint",
    "checkpoints",
    metavar="FILE",
    multiple=True,
    help="Weights that may be recorded with in the browser; can be given several times.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Recordings at a time, each in a process of its own; the others wait.",
)
def dashboard(
    runs: tuple[str, ...], host: str, port: int, checkpoints: tuple[str, ...], workers: int
) -> None:
    """Serve runs in the browser: scrub through all arms at once, turn the noise dial, record.

    \b
    Example:
      diffviz dashboard run.nc other.nc --port 8050
      diffviz dashboard --checkpoint mine.safetensors --checkpoint course.pth
    """
    from dashboards import serve

    serve([Path(run) for run in runs], host, port, checkpoints=checkpoints, workers=workers)


def _function(name: str) -> Callable[..., Any]:
    """The function that MODULE:FUNCTION names."""
    from importlib import import_module

    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise InputError(f"sampler is {name!r}; allowed is MODULE:FUNCTION")
    sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), attribute)
    except (Exception, SystemExit) as error:  # importing runs other people's code
        raise InputError(f"sampler is {name!r}: {type(error).__name__}: {said(error)}") from error
    if not callable(found):
        raise InputError(f"sampler is {name!r}, a {type(found).__name__}; not a function")
    return found


def _tell(findings: Any, language: str, out: str | None) -> None:
    """Print findings, write them as JSON if asked, and leave with status 1 for an error."""
    import json

    from diffviz.files.atomic import replacing

    for finding in findings:
        _say(f"[{finding.severity}] {finding.id}: {finding.text(language)}")
    if not findings:
        click.echo("no findings")
    if out is not None:
        rows = [finding.numbers(language) for finding in findings]
        with replacing(out) as temporary:
            text = json.dumps(rows, ensure_ascii=False, indent=1)
            temporary.write_text(text, encoding="utf-8")
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}; allowed: {', '.join(LANGUAGES)}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Whatever is wrong with the input becomes one line and status 2."""
    # Before torch is imported: threads that spin while they wait make a busy machine many times
    # slower, those that sleep cost little on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # for terminals without the letters
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # numpy's, about values that are then named in one line
    try:
        cli.main(arguments, prog_name="diffviz", standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        kept = {"record", "train"} & {*(sys.argv[1:] if arguments is None else arguments)}
        what = "; what is finished is kept, --resume goes on from it" if kept else ""
        _fail(f"interrupted{what}", 130)
    except UnicodeError:
        _fail("words that are not UTF-8 stand among the arguments", 2)
    except BrokenPipeError:
        _drop_output()
        sys.exit(0)
    except MemoryError:
        _fail("not enough memory; take a smaller --n, --block, or fewer --arms", 2)
    except OSError as error:  # a full disk below standard output, a folder that went away
        _drop_output()
        name = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}{error.strerror or error}", 2)


def _drop_output() -> None:
    """What is still buffered cannot be written either, and Python would complain at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> None:
    line = _printable(" ".join(message.split()))
    if len(line) > LINE:
        line = f"{line[: LINE // 2]} … {line[-LINE // 2 :]}"
    with suppress(OSError):
        click.echo(f"diffviz: {line}", err=True)
    sys.exit(status)


def _say(line: str) -> None:
    """Print a line that may hold names from anywhere."""
    click.echo(_printable(line))


def _printable(line: str) -> str:
    """The text with what would steer a terminal, or turn its order about, written out."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in line
    )
