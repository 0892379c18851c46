"""Damaged files are refused in one way, and a file is the old one or the new one, whatever ends
the writer. Short forms here; the long ones are `make study`."""

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from diffviz.diffusion.checkpoints import load_denoiser, save_denoiser
from diffviz.diffusion.exact import DatasetDenoiser, GaussianDenoiser
from diffviz.diffusion.law import DataLaw
from diffviz.diffusion.rules import DEFAULT_ARMS
from diffviz.diffusion.schedule import NoiseSchedule
from diffviz.diffusion.unet import ContextUnet, weights_digest
from diffviz.errors import InputError
from diffviz.files.images import load_array
from diffviz.recording.partial import load_partial
from diffviz.recording.record import record
from diffviz.recording.run import Run
from diffviz.training import train

SCHEDULE = NoiseSchedule.course(6, 1e-3, 0.3)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
ROOT = Path(__file__).resolve().parent.parent
FORMATS = ("run", "partial", "safetensors", "pth", "training", "npy")


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four random changes: a bit, a byte, a run of bytes gone, doubled, zeroed or moved."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        # Headers are small beside the numbers, and more can go wrong there.
        near = rng.random()
        limit = len(data) if near < 0.5 else min(len(data), 4096)
        at = rng.randrange(max(limit, 1))
        at = len(data) - 1 - at if near > 0.8 else at
        size = min(rng.choice((1, 2, 8, 100)), len(data) - at)
        kind = rng.randrange(7)
        if not data:
            break
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[at : at + size]
        elif kind == 4:
            data[at : at + size] = bytes(size)
        elif kind == 5:
            data[at : at + size] = rng.randbytes(size)
        else:
            del data[at:]
    return bytes(data)


def small_network() -> ContextUnet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ContextUnet(n_feat=8).eval()


def made(kind: str, folder: Path):
    """(a whole file, how to read it, what it reads as)."""
    path = folder / f"file.{kind}"
    if kind == "run":
        denoiser = DatasetDenoiser(SCHEDULE, IMAGES[:, :4, :4])
        record(denoiser, SCHEDULE, n=3, progress=False, out=path)
        return path, lambda: Run.load(path), None
    if kind == "partial":
        whole = folder / "whole"

        def stop(block, index, recorder):
            if block == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            arms, denoiser = DEFAULT_ARMS[:1], GaussianDenoiser(NoiseSchedule.linear(2), 0.0, 1.0)
            record(
                denoiser,
                denoiser.schedule,
                arms=arms,
                n=4,
                block=2,
                out=whole,
                progress=False,
                watch=stop,
            )
        path.write_bytes((folder / "whole.partial").read_bytes())
        return path, lambda: content_of(*load_partial(path)), None
    if kind == "safetensors":
        law = DataLaw.of_images(np.linspace(-1, 1, 2 * 768).reshape(2, 3, 16, 16))
        save_denoiser(
            path,
            small_network(),
            SCHEDULE,
            classes=tuple("abcde"),
            data_recipe="two",
            data=law,
            facts={},
        )
        return path, lambda: network_of(path), None
    if kind == "pth":
        torch.save(small_network().state_dict(), path)
        return path, lambda: network_of(path), None
    if kind == "training":

        def resumed():
            options = {"epochs": 1, "batch": 4, "n_feat": 8}
            return weights_digest(
                list(train(IMAGES, None, SCHEDULE, checkpoint=path, resume=True, **options))[
                    -1
                ].network
            )

        return path, resumed, None
    np.save(path, IMAGES)
    path = path if path.exists() else path.with_name(path.name + ".npy")
    return path, lambda: load_array(path, "").tobytes(), None


def content_of(stats, spec):
    return spec, hashlib.sha256(stats.cells.tobytes() + stats.sums.tobytes()).hexdigest()


def network_of(path: Path):
    denoiser = load_denoiser(path)
    return denoiser.digest, denoiser.schedule.alpha_bars.tobytes(), denoiser.classes


def hangs(*_):
    raise AssertionError("20 seconds of work for one file")


def attack(kind: str, folder: Path, count: int, seed: int) -> dict[str, int]:
    """How many of the mutations were refused, and how many changed nothing that is read."""
    path, read, _ = made(kind, folder)
    before = read()
    content = path.read_bytes()
    rng, seen = random.Random(seed), {"refused": 0, "same": 0}
    signal.signal(signal.SIGPROF, hangs)
    for number in range(count):
        changed = mutated(content, rng)
        path.write_bytes(changed)
        signal.setitimer(signal.ITIMER_PROF, 20)  # of this process alone, busy neighbours or not
        try:
            found = read()
        except InputError as error:
            seen["refused"] += 1
            assert "\n" not in str(error) and str(path) in str(error), (kind, number, str(error))
        else:
            if kind != "npy":  # a plain array has no checksum
                assert found == before, (kind, number, "a silent difference")
            seen["same"] += 1
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return seen


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_refused_or_reads_the_same(tmp_path, kind):
    """One family of errors with the path in one line. Kills: a checksum over a part, a cut file
    that is read, a library's own exception, an allocation before a check."""
    seen = attack(kind, tmp_path, 12 if kind == "training" else 60, seed=1)
    assert seen["refused"] > 0


def test_the_fields_of_a_zip_change_nothing_that_is_read(tmp_path):
    """A bit in every byte of a member's local header and of its entry in the directory. Kills:
    verifying with one reader of zips and loading with another, to whom an attribute makes a
    folder of a member, and its numbers what happened to be in memory."""
    path, read, _ = made("pth", tmp_path)
    before, content, seen = read(), path.read_bytes(), {"refused": 0, "same": 0}
    name = b"/data/102"
    local = content.rindex(b"PK\x03\x04", 0, content.index(name))
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(name))
    for at in (*range(local + 4, local + 30), *range(entry + 4, entry + 46)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            assert read() == before, (at - local, at - entry)
            seen["same"] += 1
        except InputError:
            seen["refused"] += 1
    assert min(seen.values()) > 10, seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_ten_thousand_damaged_files_are_refused_or_read_the_same(tmp_path, kind):
    count = int(os.environ.get("DIFFVIZ_MUTATIONS", 10_000))
    seen = attack(kind, tmp_path, count, seed=int(os.environ.get("DIFFVIZ_SEED", 2)))
    print(kind, seen)
    assert sum(seen.values()) == count


WRITER = """
import sys
from diffviz.files.atomic import replacing
path, size = sys.argv[1], 2_000_000
number = 0
while True:
    number += 1
    print(number, flush=True)
    with replacing(path) as temporary:
        temporary.write_bytes(bytes([number % 250 + 1]) * size)
"""


def kills(tmp_path: Path, count: int, seed: int) -> set[int]:
    """Kill a writer at random moments; every time the file is one whole version."""
    path, rng, versions = tmp_path / "file.bin", random.Random(seed), set()
    path.write_bytes(bytes([251]) * 2_000_000)
    for _ in range(count):
        command = [sys.executable, "-c", WRITER, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None and process.stdout.readline() == b"1\n"
        begun, begins = time.monotonic(), rng.randrange(1, 5)
        for _ in range(begins):
            process.stdout.readline()
        time.sleep(rng.random() * (time.monotonic() - begun) / begins)
        process.kill()
        process.wait()
        process.stdout.close()
        content = path.read_bytes()
        assert len(content) == 2_000_000 and len(set(content)) == 1
        versions.add(content[0])
    return versions


def test_a_killed_writer_leaves_one_whole_version(tmp_path):
    """Kills: writing in place, a rename before the content is whole."""
    kills(tmp_path, 8, seed=0)


@pytest.mark.slow
def test_two_hundred_killed_writers_leave_one_whole_version(tmp_path):
    versions = kills(tmp_path, 200, seed=1)
    print("versions seen:", len(versions))
    assert len(versions) > 3 and len(list(tmp_path.iterdir())) <= 2


COMMAND = (
    *(sys.executable, "-m", "diffviz.cli", "record", "--denoiser", "gaussian:1,0.5"),
    *("--n", "600", "--block", "50", "--T", "60"),
)


@pytest.mark.slow
@pytest.mark.parametrize("extra", [(), ("--executor", "processes:2")])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_recordings_stopped_at_any_moment_resume_to_the_same_bits(tmp_path, extra, how):
    """Killed or interrupted again and again, while sampling and while writing."""
    rng, environment = random.Random(how), {**os.environ, "OMP_NUM_THREADS": "1"}
    out, whole = tmp_path / "run.nc", tmp_path / "whole.nc"
    quiet = {"env": environment, "cwd": ROOT, "stderr": subprocess.DEVNULL}
    subprocess.run([*COMMAND, "--out", str(whole)], check=True, stdout=subprocess.PIPE, **quiet)
    stops = 0
    for _ in range(40):
        process = subprocess.Popen(
            [*COMMAND, *extra, "--resume", "--out", str(out)],
            stdout=subprocess.PIPE,
            start_new_session=True,
            **quiet,
        )
        seen = (tmp_path / "run.nc.partial").exists()
        deadline = time.monotonic() + 60
        before = os.stat(tmp_path / "run.nc.partial").st_mtime_ns if seen else 0
        while process.poll() is None and time.monotonic() < deadline:
            partial = tmp_path / "run.nc.partial"
            if partial.exists() and partial.stat().st_mtime_ns != before:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)
        if process.poll() is None:
            os.killpg(process.pid, how)
            stops += 1
        process.communicate()
        if process.returncode == 0:
            break
        assert not out.exists()
    assert stops > 1 and Run.load(out) == Run.load(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.nc", "whole.nc"]


@pytest.mark.skipif(os.getuid() != 0 or not os.path.exists("/usr/bin/unshare"), reason="as root")
@pytest.mark.slow
def test_a_really_full_disk_keeps_the_old_file(tmp_path):
    """A file system of 200 kB in a mount namespace of its own."""
    mount = tmp_path / "small"
    mount.mkdir()
    script = (
        f"mount -t tmpfs -o size=200k none {mount} && cd {mount} && echo old > run.nc && "
        f"{' '.join(COMMAND)} --arms ddpm --out run.nc; echo status $?; cat run.nc; ls -A"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if "status" not in done.stdout:
        pytest.skip("no mount here: " + done.stderr[-100:])
    assert done.stdout.split() == ["status", "2", "old", "run.nc"], done.stdout + done.stderr
    assert "No space left" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_memory_is_bounded_by_what_a_file_holds(tmp_path):
    """An array that claims 10¹² values. Kills: allocating what a header says."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    words = header.ljust(117).encode() + b"\n"
    path = tmp_path / "bomb.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words + bytes(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"not a \.npy file of numbers"):
        load_array(path, "")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
