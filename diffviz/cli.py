"""The command line: it parses words, calls the library, and says where things are.

Exit status: 0 done, 1 findings of severity error, 2 bad input in one line, 130 interrupted. Files
are written before anything is printed, so a closed pipe or a full disk behind standard output
loses words and nothing else. torch is imported inside the commands that need it.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click import option

from diffviz.errors import InputError, said, shown
from diffviz.files.atomic import check_apart, check_writable, replacing
from diffviz.files.catalogue import LANGUAGES, text
from diffviz.files.terminal import printable, safe_streams

Command = Callable[..., None]
LINE = 500
"""Characters of an error; a longer one keeps its start and its end."""
TIMES = ("auto", "index", "index0", "fraction", "sigma", "flow")


HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 99, "show_default": True}


@click.group(context_settings=HELP)
@click.version_option(package_name="diffviz")
def cli() -> None:
    """See, and prove with numbers, what a diffusion sampler does at every step."""


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    return lambda command: reduce(lambda found, add: add(found), reversed(options), command)


_schedule_options = _options(
    option("--schedule", help="course, linear, cosine or scaled-linear [own, else course]."),
    option("--T", "T", type=int, help="Number of steps of the schedule [500]."),
    option("--beta-start", type=float, help="β at the first step."),
    option("--beta-end", type=float, help="β at t = T."),
)
_record_options = _options(
    option(
        "--denoiser",
        metavar="SPEC",
        help="gaussian:MEAN,STD, mixture:M,S,W;M,S,W, dataset:sprites, dataset:FILE.npy, "
        "or a checkpoint [the shipped network].",
    ),
    _schedule_options,
    option("--arms", help="Also ddpm/posterior, ddim(eta=ETA), ARM*SCALE [ddpm,z=0,ddim]."),
    option("--n", type=int, help="Samples per arm [64]."),
    option("--block", type=int, help="Samples per block [64 images]."),
    option("--seed", type=int, help="Of x_T and z [0]."),
    option("--steps", type=int, help="Steps to take, evenly spaced [all T]."),
    option("--class", "label", help="Sample this class only, for example hero."),
    option("--device", help="cpu or cuda [cpu]."),
    option("--executor", help="processes:N on this machine, or dask://HOST:PORT."),
)
_language = option("--lang", type=click.Choice(LANGUAGES), default="en")


def _request(options: dict[str, Any]) -> Any:
    """The recording that was asked for; what is not given keeps the request's own default."""
    from diffviz.recording.request import RecordRequest

    return RecordRequest(**{name: value for name, value in options.items() if value is not None})


def _schedule(options: dict[str, Any]) -> Any:
    """The schedule of these options, the tutorial's where nothing was said."""
    from diffviz.diffusion.schedule import KINDS, NoiseSchedule

    ends = (options.pop(name) for name in ("T", "beta_start", "beta_end"))
    return NoiseSchedule.named(options.pop("schedule") or KINDS[0], *ends)


def _load_runs(paths: tuple[str, ...]) -> dict[str, Any]:
    """The runs of the files, each under a name of its own."""
    from diffviz.recording.run import Run

    names = [Path(path).stem for path in paths]
    names = names if len(set(names)) == len(names) else list(paths)
    if len(set(names)) != len(names):
        raise InputError(f"{', '.join(paths)}: one is named twice; allowed is once each")
    return {name: Run.load(path) for name, path in zip(names, paths, strict=True)}


# -------------------------------------------------------------------- commands


@cli.command()
@_record_options
@option("--out", "-o", default="run.nc", help="The run file to write.")
@option("--resume", is_flag=True, help="Go on from the finished blocks beside --out.")
def record(out: str, resume: bool, **options: Any) -> None:
    """Sample all arms from the same noise and record every step.

    \b
    Example:
      diffviz record --denoiser gaussian:2,0.5 --n 4096 --out gaussian.nc
      diffviz record --arms "ddpm,ddpm*0.5,z=0" --n 24 --class hero --out hero.nc
    """
    request = _request(options)
    check_apart([out], [request.words.source_file])
    run = request.run(out=out, resume=resume)
    _say(f"{out}: {len(run.arms)} arms × {run.spec.n} samples × {run.spec.steps} steps")


@cli.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@_record_options
@option("--out", "-o", default="report.html", help="The page to write.")
@option("--json", "numbers", help="Also write the report's numbers to this file.")
@_language
@option("--title", help="Heading of the page.")
@option("--lessons", help="Where the built lessons are; terms lead there.")
def report(
    runs: tuple[str, ...],
    out: str,
    numbers: str | None,
    lang: str,
    title: str | None,
    lessons: str | None,
    **order: Any,
) -> None:
    """Write one self-contained HTML page about a run, or record one first.

    Several runs of the same data and schedule are shown arm beside arm.

    \b
    Example:
      diffviz report run.nc -o report.html --json numbers.json
      diffviz report before.nc after.nc -o both.html
      diffviz report --denoiser "mixture:-1,0.2,0.7;1.5,0.3,0.3" -o mixture.html
    """
    from diffviz.report import write_numbers, write_report

    heading = None if title is None else _decoded(title)
    asked = [name for name, value in order.items() if value is not None]
    if runs and asked:
        raise InputError(f"RUN is {runs[0]!r}, so nothing is recorded: leave out {asked[0]}")
    if runs:
        check_apart([out, numbers], runs)
        shown_runs, about = _load_runs(runs), " and ".join(runs)
    else:
        request = _request(order)
        check_apart([out, numbers], [request.words.source_file])
        run = request.run()
        shown_runs = {"": run}
        about = f"{len(run.arms)} arms × {run.spec.n} samples of {run.spec.denoiser}"
    write_report(shown_runs, out, language=lang, title=heading, lessons=lessons)
    if numbers is not None:
        write_numbers(shown_runs, numbers)
    _say(f"{out}: about {about}; open it in a browser")
    _say_also(numbers, "the same numbers")


@cli.command()
@click.argument("name")
@click.argument("run_file", metavar="RUN")
@option("--out", "-o", required=True, help="NAME.png, .svg, .pdf, .html or .gif.")
@_language
@option("--dark", is_flag=True, help="For a dark slide.")
@option("--width", type=click.IntRange(100, 4000), default=1100)
@option("--height", type=click.IntRange(100, 4000), help="Else what the picture needs.")
@option("--t", "t", type=int, help="The step shown, for histogram and strips.")
def figure(name: str, run_file: str, out: str, lang: str, dark: bool, **options: Any) -> None:
    """Draw one picture of a run for a slide.

    \b
    Example:
      diffviz figure ks run.nc -o ks.svg
      diffviz figure strips run.nc -o strips.gif
    """
    from diffviz.figures.export import export
    from diffviz.recording.run import Run

    check_apart([out], [run_file])
    theme = "dark" if dark else "light"
    export(name, Run.load(run_file), Path(out), language=lang, theme=theme, **options)
    _say(f"{out}: {name} of {run_file}")


@cli.command()
@_schedule_options
@option("--out", "-o", help="Also draw it: NAME.png, .svg, .pdf or .html.")
@_language
def schedule(out: str | None, lang: str, **options: Any) -> None:
    """Look at a noise schedule: its numbers, and which invariants hold.

    \b
    Example:
      diffviz schedule --schedule cosine --T 200
    """
    chosen = _schedule(options)
    if out is not None:
        from diffviz.figures.export import export_schedule

        export_schedule(chosen, check_writable(out), language=lang)
    _say(chosen.name)
    _say(f"{'t':>6}{'β':>12}{'ᾱ':>12}{'SNR':>12}{'S1':>10}{'S2':>10}{'S3':>10}")
    for t in sorted({*chosen.times(min(chosen.T, 10)).tolist(), 0, 1}):
        row = (chosen.betas, chosen.alpha_bars, chosen.snr, chosen.S1, chosen.S2, chosen.S3)
        beta, bar, snr, s1, s2, s3 = (float(values[t]) for values in row)
        _say(f"{t:>6}{beta:>12.6f}{bar:>12.6f}{snr:>12.5g}{s1:>10.5f}{s2:>10.5f}{s3:>10.5f}")
    for line in chosen.violations() or ["all invariants hold"]:
        _say(line)
    _say(f"√ᾱ_T = {chosen.alpha_bars[-1] ** 0.5:.4g}: what is left of the data at t = T")
    _say_also(out, "the same as a picture")


@cli.command()
@option("--n", default=1000, help="How many.")
@option("--seed", default=0)
@option("--out", "-o", default="sprites.npy", help="uint8 images.")
@option("--labels", help="Also write the classes, one-hot, as the tutorial does.")
@option("--sheet", help="Also write a PNG that shows some of them.")
def sprites(n: int, seed: int, out: str, labels: str | None, sheet: str | None) -> None:
    """Make a data set of 16×16 sprites of five kinds. Nothing is downloaded.

    \b
    Example:
      diffviz sprites --n 12000 -o sprites.npy --labels labels.npy --sheet sheet.png
    """
    import numpy as np

    from diffviz.files.images import contact_sheet, save_array
    from diffviz.sprites.make import CLASSES, make_sprites

    check_apart([out, labels, sheet], [])
    images, kinds = make_sprites(n, seed)
    save_array(out, images)
    if labels is not None:
        save_array(labels, np.eye(len(CLASSES))[kinds])
    if sheet is not None:
        with replacing(sheet) as temporary:
            contact_sheet(images[:100], columns=20, scale=3).save(temporary, format="PNG")
    _say(f"{out}: {n} sprites, {images.shape[1:]} uint8")
    _say_also(labels, f"their classes, {', '.join(CLASSES)}")
    _say_also(sheet, "a look at them")


@cli.command()
@_schedule_options
@option("--images", help="A folder of pictures or a .npy file [procedural sprites].")
@option("--labels", help="A .npy file of classes, integers or one-hot, for --images.")
@option("--n", default=12_000, help="Procedural sprites.")
@option("--data-seed", default=0, help="Of the sprites.")
@option("--epochs", default=50)
@option("--batch", default=100)
@option("--lr", default=1e-3, help="At the start.")
@option("--seed", default=0, help="Of weights and noise.")
@option("--context-drop", default=0.1, help="Part shown without its class.")
@option("--start", help="Weights to go on from, with batch norm held.")
@option("--features", "n_feat", default=64, help="Width of the network.")
@option("--device", default="cpu", help="cpu or cuda.")
@option("--out", "-o", default="weights.safetensors")
@option("--resume", is_flag=True, help="Go on from the last finished epoch.")
@option("--preview", metavar="FOLDER", help="Write samples and the loss, now and then, there.")
def train(out: str, resume: bool, preview: str | None, start: str | None, **options: Any) -> None:
    """Train a ContextUnet on sprites or on your own images.

    The state after each epoch is kept in OUT.training until the training is whole.

    \b
    Example:
      diffviz train --epochs 50 -o sprites.safetensors --preview pictures
      diffviz train --images my_sprites/ --epochs 100 -o mine.safetensors --resume
    """
    from tqdm.auto import tqdm

    from diffviz.diffusion.checkpoints import load_denoiser, save_denoiser
    from diffviz.diffusion.law import DataLaw
    from diffviz.files.images import from_uint8
    from diffviz.training import save_preview
    from diffviz.training import train as epochs_of

    state = f"{out}.training"
    check_apart([out, state], [options["images"], options["labels"], start])
    if resume and os.path.exists(out) and not os.path.exists(state):
        load_denoiser(out)
        _say(f"{out}: already whole")
        return
    noise = _schedule(options)
    images, labels, classes, recipe = _training_data(options)
    first = None if start is None else load_denoiser(start)
    if preview is not None:
        Path(preview).mkdir(parents=True, exist_ok=True)
    steps = -(-len(images) // max(options["batch"], 1))
    trained = epochs_of(
        images,
        labels,
        noise,
        **options,
        classes=classes,
        start=None if first is None else first.network,
        checkpoint=state,
        resume=resume,
        progress=lambda step, steps: bar.update(),
    )
    with tqdm(total=options["epochs"] * steps, unit="batch") as bar:
        for epoch in trained:
            bar.n = epoch.epoch * steps
            bar.set_postfix_str(f"epoch {epoch.epoch}, loss {epoch.loss:.4f}")
            if preview is not None:
                save_preview(epoch, Path(preview), noise, classes)
    words = " ".join(["diffviz", *(word for word in sys.argv[1:] if word != "--resume")])
    facts = {"command": words, **options, "losses": list(epoch.losses)}
    if first is not None:
        facts["start"] = dict(first.facts)
    law = DataLaw.of_images(from_uint8(images), labels, classes)
    save_denoiser(
        out, epoch.network, noise, classes=classes, data_recipe=recipe, data=law, facts=facts
    )
    Path(state).unlink(missing_ok=True)
    _say(f"{out}: {epoch.epochs} epochs, loss {epoch.loss:.4f}")
    _say_also(preview, "samples after some epochs, and the loss")


def _training_data(options: dict[str, Any]) -> tuple[Any, Any, tuple[str, ...], str]:
    """(uint8 images, labels or None, class names, how to make the data again)."""
    from diffviz.files.images import load_images, load_labels
    from diffviz.sprites.make import CLASSES, make_sprites

    names = ("images", "labels", "n", "data_seed")
    source, label_file, n, seed = (options.pop(name) for name in names)
    if source is None and label_file is not None:
        raise InputError("labels without images; the procedural sprites have their own")
    if source is None:
        return *make_sprites(n, seed), CLASSES, f"sprites:n={n},seed={seed}"
    images = load_images(source)
    recipe = f"{len(images)} images of {Path(source).name}"
    if label_file is None:
        return images, None, (), recipe
    labels, width = load_labels(label_file, len(images))
    classes = CLASSES if width == len(CLASSES) else tuple(f"class {i}" for i in range(width))
    return images, labels, classes, recipe


@cli.command()
@click.argument("run_file", metavar="RUN")
@_language
@option("--json", "out", help="Also write the findings to this file.")
def diagnose(run_file: str, lang: str, out: str | None) -> None:
    """Say what is wrong with the samplers of a recorded run. Status 1 if something is.

    \b
    Example:
      diffviz diagnose run.nc --json findings.json
    """
    from diffviz.diagnosis.findings import diagnose as findings_of
    from diffviz.recording.run import Run

    check_apart([out], [run_file])
    findings = findings_of(Run.load(run_file))
    if out is not None:
        rows = [finding.numbers(lang) for finding in findings]
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")
    _tell(findings, lang)


@cli.command()
@click.argument("sampler", metavar="MODULE:FUNCTION")
@_schedule_options
@option(
    "--time",
    type=click.Choice(TIMES),
    default="auto",
    help="What t is passed as: index (T…1), index0 (T−1…0), fraction (i/T), sigma or flow.",
)
@option("--shape", default="64,3,16,16", help="Of the states, B,C,H,W.")
@option("--seed", default=0)
@option("--seconds", default=60.0, help="Time limit of a run.")
@_language
@option("--json", "out", help="Also write the whole verdict, step by step, to this file.")
@option("--report", "page", help="Also write it as a page, NAME.html, with its curves.")
def xray(
    sampler: str, shape: str, lang: str, out: str | None, page: str | None, **options: Any
) -> None:
    """Identify the update rule of any sampler, FUNCTION(model) -> x_0, and what is wrong in it.

    The module is imported from the current folder or from what is installed. Status 1 if a
    finding of severity error is there.

    \b
    Example:
      diffviz xray my_sampler:sample_ddpm --schedule course --T 500
      diffviz xray my_sampler:sample_ddpm --report xray.html --json xray.json
    """
    from diffviz.identify.xray import xray as identify

    check_apart([out, page], [])
    try:
        sizes = tuple(int(part) for part in shape.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"shape is {shown(shape)}; allowed are positive numbers B,C,H,W")
    noise = _schedule(options)
    seen = identify(_function(sampler), noise, shape=sizes, **options)
    if out is not None or page is not None:
        from diffviz.report.xray import write_xray_numbers, write_xray_report
    if out is not None:
        write_xray_numbers(seen, out, lang)
    if page is not None:
        write_xray_report(seen, page, name=sampler, language=lang)
    rule = seen.rule or text("story.print.no_rule", lang)
    _say(text("story.print.rule", lang, rule=rule, time=seen.time))
    _tell(seen.findings, lang)


def _function(name: str) -> Callable[..., Any]:
    """The function that MODULE:FUNCTION names."""
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


@cli.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@option("--host", default="127.0.0.1", help="Address to listen on.")
@option("--port", type=click.IntRange(1, 65535), default=8050)
@option("--checkpoint", "checkpoints", multiple=True, help="Weights to record with; repeatable.")
@option("--workers", type=click.IntRange(1, 64), default=1, help="Recordings at a time.")
def dashboard(runs: tuple[str, ...], host: str, port: int, **options: Any) -> None:
    """Serve runs in the browser: scrub through all arms at once, turn the noise dial, record.

    Without a RUN it opens the one that comes with diffviz.

    \b
    Example:
      diffviz dashboard run.nc other.nc --port 8050
      diffviz dashboard --checkpoint mine.safetensors --checkpoint course.pth
    """
    from dashboards.app import serve

    serve(runs, host, port, **options)


# -------------------------------------------------------------------- printing and leaving


def _decoded(word: str) -> str:
    """An argument as text, also where the locale cannot decode it and keeps its bytes."""
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError:
        raise InputError(f"{word!a:.80} is not UTF-8; allowed are words in UTF-8") from None


def _tell(findings: Any, language: str) -> None:
    """Print findings, and leave with status 1 for an error."""
    for finding in findings:
        severity = text(f"report.xray.{finding.severity}", language)
        _say(f"[{severity}] {finding.id}: {finding.text(language)}")
    if not findings:
        _say(text("story.print.nothing", language))
    if any(finding.severity == "error" for finding in findings):
        sys.exit(1)


def _say(line: str) -> None:
    """Print a line that may hold names from anywhere."""
    print(printable(line))


def _say_also(path: str | None, what: str) -> None:
    """Say what is in a file, if that file was asked for."""
    if path is not None:
        _say(f"{path}: {what}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Whatever is wrong with the input becomes one line and status 2."""
    # Before torch is imported: threads that spin while they wait make a busy machine many times
    # slower, those that sleep cost little on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # numpy's, about values that are then named in one line
    with safe_streams():
        status, line = _run(sys.argv[1:] if arguments is None else arguments)
        if line:
            print(f"diffviz: {_short(line)}", file=sys.stderr)
    if status:
        sys.exit(status)


def _run(arguments: list[str]) -> tuple[int, str]:
    """(exit status, what to say about it)."""
    try:
        os.getcwd()
    except OSError:
        return 2, "the current folder is gone; change to one that exists"
    try:
        cli.main(arguments, prog_name="diffviz", standalone_mode=False)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0, ""
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2, ""
    except (InputError, click.ClickException) as error:
        return 2, getattr(error, "format_message", error.__str__)()
    except (KeyboardInterrupt, click.Abort):
        kept = {"record", "train"} & set(arguments)
        what = "; what is finished is kept, --resume goes on from it" if kept else ""
        return 130, f"interrupted{what}"
    except UnicodeError:
        return 2, "words that are not UTF-8 stand among the arguments"
    except MemoryError:
        return 2, "not enough memory; take a smaller --n, --block, or fewer --arms"
    except OSError as error:  # a folder that went away
        name = f"{error.filename}: " if error.filename else ""
        return 2, f"{name}{error.strerror or error}"
    return 0, ""


def _short(line: str) -> str:
    line = printable(" ".join(line.split()))
    return line if len(line) <= LINE else f"{line[: LINE // 2]} … {line[-LINE // 2 :]}"


if __name__ == "__main__":
    main()
