"""Files, folders, patterns and lists name photos; what names none is refused in one line, at once."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.cli import fails
from xenomask.errors import XenomaskError
from xenomask.predict.inputs import check_photos, list_photos


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.png", "deeper/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "nameless").write_bytes((tmp_path / "a.png").read_bytes())  # known by its content
    return tmp_path


def names(photos):
    return [p.name for p in photos]


def test_list_photos__of_files_folders_patterns_and_lists(folder):
    assert names(list_photos([folder])) == ["a.png", "b.jpg", "nameless"]
    assert names(list_photos([folder / "b.jpg", f"{folder}/deeper"])) == ["b.jpg", "c.jpg"]
    assert names(list_photos([f"{folder}/*.jpg"])) == ["b.jpg"]
    assert names(list_photos([folder / "b.jpg", folder, f"{folder}/./a.png"])) == ["b.jpg", "a.png", "nameless"]
    assert names(list_photos([f"{folder}/**/*.jpg"])) == ["b.jpg", "c.jpg"]
    for drawn in ("b_overlay.jpg", "b_heatmap.png"):  # by detect, whose map lies beside; else a photo of that name
        (folder / drawn).write_bytes((folder / "b.jpg").read_bytes())
        assert drawn in names(list_photos([folder]))
    (folder / "b.hdf5").touch()
    assert names(list_photos([folder])) == ["a.png", "b.jpg", "nameless"]
    assert names(list_photos([f"{folder}/b*.*g"])) == ["b.jpg"]
    with pytest.raises(XenomaskError, match="a photo's name is empty"):
        list_photos([""])
    lines = io.StringIO(f"{folder}/b.jpg\n\n{folder}/deeper\r\n")
    assert names(list_photos(["-", str(folder / "a.png")], lines)) == ["b.jpg", "c.jpg", "a.png"]
    odd = folder / "x [1]*.jpg"  # a file of that name is that file
    odd.write_bytes((folder / "b.jpg").read_bytes())
    assert list_photos([str(odd)]) == [odd]


def test_list_photos__refuses_what_names_none(folder):
    (folder / "empty").mkdir()
    (folder / "outer/inner").mkdir(parents=True)
    for given, error in (
        ([folder / "z.jpg"], "no such photo"),
        ([folder / "empty"], "holds no picture"),
        ([folder / "outer"], "holds no picture; its folders are not looked into: name one, such as .*inner"),
        ([f"{folder}/*.webp"], "no file matches"),
        (["-"], "standard input names no photo"),
    ):
        with pytest.raises(XenomaskError, match=error):
            list_photos(given)
    with pytest.raises(XenomaskError, match="standard input names no photo"):
        list_photos(["-"], ["-\n"])
    picture = io.TextIOWrapper(io.BytesIO((folder / "a.png").read_bytes()), errors="surrogateescape")
    with pytest.raises(XenomaskError, match="standard input is a file itself"):
        list_photos(["-"], picture)
    (folder / "outer/set/photos").mkdir(parents=True)
    (folder / "outer/set/photos/x.png").write_bytes((folder / "a.png").read_bytes())
    with pytest.raises(XenomaskError, match=r"name one, such as .*outer/set/photos$"):
        list_photos([folder / "outer"])


def test_check_photos__none_is_written_over_by_the_picture_of_another(tmp_path):
    photos = [tmp_path / name for name in ("a.jpg", "a_overlay.jpg")]
    for path in photos:
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)
    with pytest.raises(XenomaskError, match="a_overlay.jpg is a photo that another one's picture would replace"):
        check_photos(photos, tmp_path)
    check_photos(photos[1:], tmp_path)  # its own is called a_overlay_overlay.jpg
    check_photos(photos, tmp_path / "out")


def test_cli__mistakes_are_said_before_anything_is_loaded(folder, capsys):
    assert "no such photo" in fails(capsys, "detect", folder / "z.jpg")
    code = (
        "import sys; sys.argv = ['xenomask', 'detect', 'z.jpg']\n"
        "from xenomask.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert e.code == 2, e.code\n"
        "assert not {'torch', 'transformers', 'matplotlib', 'numba'} & set(sys.modules), 'loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_cli__ctrl_c_says_so(tmp_path):
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # else ignored
        f"sys.argv[1:] = ['detect', '-', '--out', {str(tmp_path / 'out')!r}]\n"
        "from xenomask.cli import main; print('ready', flush=True); main()"
    )
    pipe = subprocess.PIPE
    started = [sys.executable, "-c", code]
    with subprocess.Popen(started, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        time.sleep(1)  # it waits for paths
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "stopped\n")


def test_list_photos__names_a_folder_below_that_has_photos_though_another_may_not_be_read(folder, monkeypatch):
    (folder / "outer/private").mkdir(parents=True)
    (folder / "outer/set").mkdir()
    (folder / "outer/set/x.png").write_bytes((folder / "a.png").read_bytes())
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "private":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(XenomaskError, match=r"name one, such as .*outer/set$"):
        list_photos([folder / "outer"])
