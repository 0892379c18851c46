"""Files are there whole or not at all, through failure, a kill and a full disk."""

import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from diffviz.errors import InputError
from diffviz.files.atomic import (
    check_apart,
    check_writable,
    only_writer,
    read_bytes,
    replacing,
    seal,
    sealing,
    unseal,
)
from diffviz.files.images import (
    checked_images,
    checked_labels,
    contact_sheet,
    curve_svg,
    from_uint8,
    load_images,
    load_labels,
    stretch,
    to_uint8,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, failure):
    """Kills: writing in place; a temporary file that stays."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises((InputError, KeyboardInterrupt)), replacing(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_the_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    """Kills: a rename before the content is flushed, a folder that is never flushed."""
    order, fsync, replace = [], os.fsync, os.replace

    def flushed(handle):
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert order == ["file", "rename", "folder"]


def test_success_replaces_and_keeps_the_umask(tmp_path):
    """Kills: the private mode of a temporary file on a file for everybody."""
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    ordinary = tmp_path / "b.txt"
    ordinary.write_text("")
    assert path.read_text() == "new"
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_a_killed_writer_leaves_the_old_file_and_the_next_one_sweeps(tmp_path):
    """Kills: stale files that pile up."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import sys, os, signal; from diffviz.files.atomic import replacing\n"
        f"with replacing({str(path)!r}) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old" and len(names(tmp_path)) == 2
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and names(tmp_path) == ["a.txt"]


LATER = """
import sys
from diffviz.files.atomic import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("other")
"""


@pytest.mark.parametrize("container", [False, True])
def test_a_living_writer_is_left_alone(tmp_path, container):
    """Whatever its process number means there. Kills: a sweep by process numbers, which differ
    between containers."""
    prefix = ["unshare", "-pf", "--mount-proc"] if container else []
    if container and subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no containers here")
    path = tmp_path / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("mine")
        subprocess.run([*prefix, sys.executable, "-c", LATER, str(path)], check=True)
        assert path.read_text() == "other"
    assert path.read_text() == "mine" and names(tmp_path) == ["a.txt"]


def test_there_is_one_only_writer(tmp_path):
    """Kills: a lock that is left behind, one for all names, one that two can hold."""
    path = tmp_path / "a.txt"
    with only_writer(path), only_writer(tmp_path / "b.txt"):
        with pytest.raises(InputError, match=r"a\.txt: is being written"), only_writer(path):
            pass
        with replacing(path) as temporary:
            temporary.write_text("new")
    with only_writer(path):
        pass
    assert names(tmp_path) == ["a.txt"] and path.read_text() == "new"


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    """Threads have one process number, and so have containers. Kills: a temporary name made of
    that number alone, under which two write into one file."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" + seal(b"x"))
    path.chmod(0o600)

    def write(letter, count):
        for _ in range(40):
            with sealing(path) as temporary:
                temporary.write_bytes(letter * count)

    writers = [
        threading.Thread(target=write, args=arguments) for arguments in ((b"a", 10**5), (b"b", 7))
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert unseal(path.read_bytes()) in (b"x", b"a" * 10**5, b"b" * 7)
    assert names(tmp_path) == ["a.bin"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # as the old one


@pytest.mark.parametrize("words", ["record", "sprites"])
def test_a_full_disk_is_one_line_and_status_2(tmp_path, words):
    """As far as a process can be refused space without being root. Kills: HDF5 writing to the
    file itself, which ends in a crash; a safetensors error that nobody catches."""
    out = tmp_path / "out.file"
    out.write_bytes(b"old")
    arguments = {
        "record": ["--denoiser", "gaussian:0,1", "--T", "30", "--n", "600", "--block", "300"],
        "sprites": ["--n", "500"],
    }[words]

    def little_space():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = subprocess.run(
        [sys.executable, "-m", "diffviz.cli", words, *arguments, "-o", str(out)],
        preexec_fn=little_space,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "not written: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert out.read_bytes() == b"old" and names(tmp_path) == ["out.file"]


def test_paths_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "a.txt", "does not exist"),
        (tmp_path / "file" / "a.txt", "does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            check_writable(path)


def test_what_stands_there_and_is_no_file_is_not_replaced(tmp_path):
    """Kills: a rename over a device, which would take it from the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    made = [tmp_path / "pipe"]
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    made.append(tmp_path / "socket")
    if os.getuid() == 0:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        made.append(tmp_path / "null")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in [*made, tmp_path / "link"]:
        before = path.stat().st_mode
        with pytest.raises(InputError, match=r"is a (pipe|device or socket); give"):
            check_writable(path)
        with pytest.raises(InputError), replacing(path) as temporary:
            temporary.write_text("new")
        with pytest.raises(InputError, match=r"is a (pipe|device or socket); allowed"):
            read_bytes(path, 100, "allowed are files")
        assert path.stat().st_mode == before
    assert len(names(tmp_path)) == len(made) + 1


@pytest.mark.parametrize(
    "name", ["", "a\0b", "x" * 256, "a/b", "x" * 5000, "folder/", 3, b"x", None]
)
def test_names_that_cannot_be_are_one_line(tmp_path, monkeypatch, name):
    """Kills: a name of a folder taken for one of a file, a TypeError of the library."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        check_writable(name)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError):
        read_bytes(name, 100, "allowed are files")
    assert not names(tmp_path)


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    """Kills: a link that turns into a file, while the file that it named stays old."""
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with replacing(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "link.txt").is_symlink() and len(names(tmp_path)) == 2


def test_outputs_are_apart_from_each_other_and_from_inputs(tmp_path, monkeypatch):
    """By what they are, not by how they are spelt. Kills: comparing the words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.nc").write_text("a run")
    (tmp_path / "link.nc").symlink_to("run.nc")
    for outputs, inputs in (
        (["run.nc"], ["./run.nc"]),
        (["link.nc"], ["run.nc"]),
        (["a.html", str(tmp_path / "a.html")], []),
    ):
        with pytest.raises(InputError, match="named twice"):
            check_apart(outputs, inputs)
    check_apart(["a.html", None, "b.html"], ["run.nc", None, "gaussian:0,1"])


def test_what_is_read_is_a_file_of_a_bounded_size(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(3 * 2**20))
    (tmp_path / "empty").touch()
    assert read_bytes(path, 3 * 2**20, "") == bytes(3 * 2**20)
    for wrong, words in (
        (path, "3 MiB; allowed are 2 MiB"),
        (tmp_path, "is a folder; allowed"),
        (tmp_path / "no", "no such file; allowed"),
        (path / "b", "no such file; allowed"),
        (tmp_path / "empty", "empty; allowed"),
    ):
        with pytest.raises(InputError, match=words):
            read_bytes(wrong, 2 * 2**20, "allowed are files")


def test_the_border_of_images_is_affine_and_exact():
    """0, 255 and every level survive; shapes turn. Kills: /255, a range taken from the image."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    x = from_uint8(levels)
    assert x.shape == (1, 3, 16, 16) and x.min() == -1 and x.max() == 1
    np.testing.assert_array_equal(to_uint8(x), levels)
    np.testing.assert_array_equal(to_uint8(x * 3)[0, 0, 0], 0)  # clipped, not wrapped
    np.testing.assert_array_equal(to_uint8(np.full((1, 3, 2, 2), np.nan)), 128)


def test_stretching_hides_drift_and_survives_a_constant_channel():
    """The tutorial divides by zero there. Kills: one range for all channels."""
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    np.testing.assert_allclose(stretch(0.1 * x + 5), stretch(x), atol=1e-9)
    assert stretch(x).min((2, 3)) == pytest.approx(-1) and stretch(x).max((2, 3)) == pytest.approx(
        1
    )
    assert (stretch(np.ones((1, 3, 2, 2))) == 0).all()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 4, 4), np.uint8), "(n, height, width, 3)"),
        (np.zeros((2, 4, 4, 3)), "float64; allowed is uint8"),
        (np.zeros((0, 4, 4, 3), np.uint8), "holds no image"),
    ],
)
def test_wrong_arrays_of_images_are_named(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError) as error:
        load_images(tmp_path / "a.npy")
    assert words in str(error.value)


def test_a_folder_of_pictures_lies_on_white_in_the_order_of_names(tmp_path):
    """Kills: black behind what is clear, channels or files exchanged, any file taken."""
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    Image.fromarray(clear).save(tmp_path / "b.png")
    Image.fromarray(clear[..., :3]).save(tmp_path / "a.BMP")
    (tmp_path / "notes.txt").write_text("no picture")
    images = load_images(tmp_path)
    assert images.shape == (2, 4, 4, 3)
    assert images[:, 0, 0].tolist() == [[10, 20, 30]] * 2
    assert images[:, 3, 3].tolist() == [[0, 0, 0], [255, 255, 255]]
    Image.fromarray(clear[:3]).save(tmp_path / "c.png")
    with pytest.raises(InputError, match=r"c\.png: 4×3 pixels; the first picture has 4×4"):
        load_images(tmp_path)


def test_labels_are_classes_from_0(tmp_path):
    """Kills: one class too few, columns for rows, a label that is cut."""
    path = tmp_path / "l.npy"
    for labels, right, classes in (
        ([0, 2, 1], [0, 2, 1], 3),
        ([[0, 1], [1, 0], [0, 1]], [1, 0, 1], 2),
        ([0.0, 5.0, 1.0], [0, 5, 1], 6),
    ):
        np.save(path, np.array(labels))
        found, count = load_labels(path, 3)
        assert (found.tolist(), count) == (right, classes)
    for wrong in ([0, 1], [0, 1.5, 1], [-1, 0, 1], [0, 1, 1024], [[1, 1]] * 3, ["a", "b", "c"]):
        np.save(path, np.array(wrong))
        with pytest.raises(InputError, match="allowed are 3 integers"):
            load_labels(path, 3)
    assert checked_labels([0, 4], 2, 5).tolist() == [0, 4]
    for wrong in ([0, 5], [-1, 0], [0], [0.0, 1.0]):
        with pytest.raises(InputError, match="indices of the 5 classes"):
            checked_labels(wrong, 2, 5)


def test_images_are_checked_by_their_range(tmp_path):
    """Kills: a bound that 1 itself does not pass, channels last taken for first."""
    ends = np.array([-1.0, 1.0, 0.0]).reshape(1, 3, 1, 1)
    assert checked_images(ends).ravel().tolist() == [-1, 1, 0]
    assert checked_images(np.full((1, 2, 2, 3), 255, np.uint8)).shape == (1, 3, 2, 2)
    for wrong, words in (
        (ends * 1.01, "not in"),
        (ends * np.nan, "not numbers"),
        (np.zeros((1, 3, 2, 4)), "4×2 pixels"),
        (np.zeros((1, 2, 2, 3)), r"allowed is \(N, 3"),
        (np.zeros((1, 3, 2, 2), int), "int64"),
    ):
        with pytest.raises(InputError, match=words):
            checked_images(wrong)


def test_a_sheet_and_a_curve_are_read_from_left_to_right():
    """Kills: rows for columns, a curve upside down, its largest value misplaced."""
    images = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    sheet = np.array(contact_sheet(images, columns=3, scale=2))
    assert sheet[::2, ::2, 0].tolist() == [[0, 1, 2], [3, 4, 255]]
    svg = curve_svg([4.0, 1.0], 4, "loss")
    (points,) = re.findall('points="(.*?)"', svg)
    assert points == "185.0,20.0 330.0,215.0" and ">4.000<" in svg and ">loss<" in svg
