"""Feeds damaged and forged files to every reader of xenomask; prints executions, seconds and findings a target.

Example: python benchmarks/fuzz.py --seconds 120 --out /tmp/fuzz            # 120 s each of all targets
         python benchmarks/fuzz.py --target pth --only 1234567             # one case again, by its number

A case is a good file with up to six mutations: bytes flipped, cut, repeated, copied elsewhere, extreme integers; and,
where the file has a structure, changes of it: values of JSON swapped for odd ones, pickles put together from
instructions, config text from a grammar. Every case is drawn from its number alone. It must end as a success or as a
XenomaskError of one line, within 10 s of processor time, below 1 GB of memory, with no file written beside its own and
no connection opened. A process does the cases; one that dies, or hangs for a minute, is replaced, and the case is kept.
"""

import argparse
import copy
import json
import logging
import multiprocessing as mp
import os
import pickle
import random
import shutil
import socket
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT, MEMORY, CANARY = 10.0, 1000, "canary"  # seconds, MB, a file's name
ODD: list[Any] = [
    None, True, -1, 0, 1, 3, 10**9, 2**63, -(2**63), 10**30, 1e308, 0.5, "", "x", "../../x", "/etc/passwd", "a\nb",
    "\0",
    "kernels-community/x", "hf-hub:a/b", [], {}, [1], [[[]]], {"a": 1}, "eager", "swin", "resnet", "timm_backbone",
    "detr", "https://example.com/x", "é" * 300, float("nan"), float("inf"), [10**9] * 4, "0", {"0": 1}, ["1", 2],
]  # fmt: skip


# --- mutations -----------------------------------------------------------------------------------------------------


def of_bytes(r: random.Random, data: bytes) -> bytes:
    """One mutation of bytes."""
    if not data:
        return r.randbytes(r.randint(0, 40))
    b = bytearray(data)
    # structures lie at both ends
    at = min(len(b) - 1, int(r.choice((len(b), 400, 4000)) * r.random()))
    at = len(b) - 1 - at if r.random() < 0.3 else at
    match r.randrange(7):
        case 0:
            b[at] ^= 1 << r.randrange(8)
        case 1:
            b[at] = r.choice((0, 1, 127, 128, 255, r.randrange(256)))
        case 2:
            number = r.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, 2**40, len(b)))
            width = r.choice((2, 4, 8))
            b[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, r.choice(("little", "big")))
        case 3:
            del b[at:]
        case 4:
            del b[at : at + r.randint(1, 64)]
        case 5:
            b[at:at] = b[at : at + r.randint(1, 200)] * r.choice((1, 2, 50))
        case _:
            other = r.randrange(len(b))
            n = r.randint(1, 64)
            b[at : at + n] = b[other : other + n]
    return bytes(b)


def of_json(r: random.Random, text: bytes) -> bytes:
    """One value of a JSON text swapped, dropped, added or nested; sometimes bytes instead."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return of_bytes(r, text)
    if r.random() < 0.15:
        return of_bytes(r, text)
    if r.random() < 0.03:
        depth = r.choice((10, 1000, 100_000))
        return b"[" * depth + b"]" * depth
    places: list[tuple[Any, Any]] = []
    waiting = [table] if isinstance(table, dict | list) else []
    while waiting:
        value = waiting.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        places += ((value, k) for k in keys)
        waiting += (value[k] for k in keys if isinstance(value[k], dict | list))
    if not places:
        return json.dumps(r.choice(ODD)).encode()
    holder, key = r.choice(places)
    match r.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[r.choice((*map(str, range(3)), "backbone", "attn_implementation", "auto_map", "model_type", "name",
                             "quantization_config", "num_labels", "_name_or_path", "__class__"))
                   ] = r.choice(ODD)  # fmt: skip
        case 2:
            other, k = r.choice(places)
            holder[key] = copy.deepcopy(other[k])
        case 3 if isinstance(holder[key], int | float):
            holder[key] = holder[key] * r.choice((-1, 2, 3, 1000, 10**6, 0.5))
        case _:
            holder[key] = r.choice(ODD)
    return json.dumps(table).encode()


def of_safetensors(r: random.Random, data: bytes) -> bytes:
    """A mutation of the header, whose length stays true most times, or of the numbers."""
    n = int.from_bytes(data[:8], "little")
    if r.random() < 0.3 or n > len(data):
        return of_bytes(r, data)
    header = of_json(r, data[8 : 8 + n])
    return (len(header) if r.random() < 0.9 else r.choice((0, 2**63, n))).to_bytes(8, "little") + header + data[8 + n :]


def a_pickle(r: random.Random, canary: str) -> bytes:
    """A program of pickle instructions, most of them in a sensible place."""
    names = ("os system", "builtins exec", "builtins getattr", "collections OrderedDict", "torch FloatStorage",
             "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "numpy.core.multiarray _reconstruct",
             "numpy ndarray", "numpy dtype", "_codecs encode", "numpy.core.multiarray scalar", "posix system",
             "mmengine.logging.history_buffer HistoryBuffer", "__builtin__ bytes",
             "copyreg _reconstructor")  # fmt: skip
    texts = ("latin1", "utf-32", "f4", "storage", "0", "cpu", f"touch {canary}", "model", "state_dict",
             "a" * 5000, "é")  # fmt: skip

    def text() -> bytes:
        raw = r.choice(texts).encode()
        return b"X" + struct.pack("<I", len(raw)) + raw

    def value(depth: int) -> bytes:
        if depth > 6:
            return b"N"
        kinds = (
            lambda: b"N", lambda: b"K" + bytes([r.randrange(256)]), lambda: b"J" + r.randbytes(4), text, text,
            lambda: b"(" + b"".join(value(depth + 1) for _ in range(r.randrange(5))) + b"t",
            lambda: b"}(" + b"".join(text() + value(depth + 1) for _ in range(r.randrange(4))) + b"u",
            lambda: b"](" + b"".join(value(depth + 1) for _ in range(r.randrange(4))) + b"e",
            lambda: b"c" + "\n".join(r.choice(names).split(" ")).encode() + b"\n",
            lambda: b"c" + "\n".join(r.choice(names).split(" ")).encode() + b"\n"
            + b"(" + b"".join(value(depth + 1) for _ in range(r.randrange(5))) + b"t" + r.choice((b"R", b"R", b"\x81")),
            lambda: value(depth + 1) + value(depth + 1) + b"b",
            lambda: value(depth + 1) + b"q" + bytes([r.randrange(4)]), lambda: b"h" + bytes([r.randrange(4)]),
            lambda: b"(" + b"X\x07\0\0\0storage" + b"ctorch\nFloatStorage\n" + text() + text() + b"J"
            + struct.pack("<i", r.choice((1, 1000, 2**31 - 1, -1))) + b"tQ", lambda: r.randbytes(1),
        )  # fmt: skip
        return r.choice(kinds)()

    return b"\x80" + bytes([r.choice((2, 2, 2, 3, 4, 5))]) + value(0) + b"."


def a_config(r: random.Random, canary: str) -> str:
    """Config text from a grammar: what is understood, what is refused, and nonsense."""

    def value(depth: int) -> str:
        if depth > 5:
            return str(r.choice(ODD[:30]))
        v = lambda: value(depth + 1)  # noqa: E731
        return r.choice((
            lambda: repr(r.choice(ODD)), lambda: r.choice("abcd"), lambda: f"[{v()}, {v()}]", lambda: f"({v()}, {v()})",
            lambda: f"dict({r.choice('abcd')}={v()}, **{v()})", lambda: f"dict({r.choice('abcd')}={v()})",
            lambda: f"{{{v()}: {v()}}}",
            lambda: f"{v()} {r.choice(('+', '-', '*', '/', '//', '%', '**', '<<', '@'))} {v()}",
            lambda: f"-{v()}", lambda: f"not {v()}", lambda: f"{v()}[{v()}]", lambda: f"_base_.{r.choice('abcd')}",
            lambda: f"{{{{_base_.{r.choice('abcd')}}}}}", lambda: f"[{v()} for x in range({v()})]",
            lambda: f"f'{{{v()}}}'",
            lambda: f"open({canary!r}, 'w')", lambda: f"__import__('os').system('touch {canary}')",
            lambda: f"list({v()})", lambda: f"int({v()})", lambda: f"(lambda: {v()})()", lambda: f"{v()}.__class__",
            lambda: "9" * r.choice((5, 400, 5000)), lambda: "[" * 300 + "]" * 300, lambda: f"{v()} if {v()} else {v()}",
            lambda: f"dict(type='SwinTransformer', depths={v()}, window_size={v()})",
        ))()  # fmt: skip

    def line() -> str:
        a = r.choice("abcd")
        return r.choice((
            lambda: f"{a} = {value(0)}", lambda: f"{a} = {value(0)}", lambda: f"model = dict(backbone={value(0)})",
            lambda: f"{a}.update({value(0)})",
            lambda: f"_base_ = {r.choice(('good.py', '../x.py', '/etc/passwd', []))!r}",
            lambda: "import os", lambda: f"for {a} in {value(0)}:\n    pass", lambda: f"del {a}",
            lambda: f"{a}: int = {value(0)}",
            lambda: f"{a} = {a} * {value(0)}", lambda: f"def {a}():\n    return {value(0)}",
            lambda: f"data_preprocessor = dict(mean={value(0)}, std={value(0)}, bgr_to_rgb=True)",
            lambda: f"test_pipeline = [dict(type='Resize', scale={value(0)}, keep_ratio=True)]",
            lambda: "a = dict()\nb = [a, a]\nc = [b] * 3",
        ))()  # fmt: skip

    return "\n".join(line() for _ in range(r.randint(1, 6))) + "\n"


# --- targets: (make the seeds once, make a case, read it) ----------------------------------------------------------


def seeds(folder: Path) -> None:
    """A small good file of each kind."""
    import numpy as np
    import torch

    from xenomask.detector.folder import assemble
    from xenomask.models import build, load
    from xenomask.queries import write_queries
    from xenomask.store import write_map
    from xenomask.types import QuerySet, ScoreMap

    torch.set_num_threads(1)  # a process with threads must not be forked
    torch.manual_seed(0)
    network = build("tiny")
    network.save(folder / "own")
    sha = load(folder / "own").sha256
    origin = {"per_frame_iou": {"a": [0.5, 0.1], "b": [0.5, 0.0]}, "iou": 0.25, "top_k": None}
    write_queries(folder / "own", QuerySet(sha, {1: 2}, {0: 0.5}, (1,), {"outlier": origin}))
    assemble(folder / "detector", "d", [("a", folder / "own"), ("b", folder / "own")], [0.25, 0.75], "maskomaly")
    table = json.loads((folder / "detector/detector.json").read_text())
    for row in table["members"]:
        del row["files"]  # with hashes, every changed file is refused before it is read
    (folder / "detector/detector.json").write_text(json.dumps(table))
    module: Any = network.module
    module.save_pretrained(folder / "hf")
    shutil.copy(Path(__file__).parents[1] / "tests/golden/mmseg/random_micro.pth", folder / "zip.pth")
    content = torch.load(folder / "zip.pth", weights_only=True)
    torch.save(content, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    arrays = {k.replace("decode_head.", "sem_seg_head."): v.numpy() for k, v in content["state_dict"].items()}
    (folder / "a.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, 2))
    y, x = np.mgrid[:30, :40]
    pictures(folder / "pictures")
    write_map(folder / "map.hdf5", ScoreMap((np.sin(x / 5) + y / 30).astype(np.float32), "eam"))
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()


def pictures(folder: Path) -> None:
    """Small pictures of all formats and many modes, some turned by EXIF, and a program that Ghostscript would run."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), np.uint8)
    rgb, rgba, grey = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in ("png", "jpg", "webp", "avif", "tif", "bmp", "gif"):
        rgb.save(folder / f"rgb.{ending}", **({"exif": exif} if ending in ("png", "jpg", "webp", "tif") else {}))
    rgba.save(folder / "rgba.png")
    rgba.save(folder / "rgba.webp", lossless=True)
    grey.save(folder / "grey.png")
    grey.convert("P").save(folder / "palette.png")
    grey.convert("1").save(folder / "bits.tif", compression="group4")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(folder / "float.tif", compression="tiff_lzw")
    rgb.save(folder / "progressive.jpg", progressive=True)
    (folder / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n")


def mutated(r: random.Random, path: Path, how: Callable[[random.Random, bytes], bytes]) -> None:
    data = path.read_bytes()
    for _ in range(r.choice((1, 1, 1, 2, 3, 6))):
        data = how(r, data)
    path.write_bytes(data)


def pth(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.models.convert.recognise import convert

    path = case / "a.pth"
    kind = r.randrange(4)
    if kind == 0:  # a zip with a pickle of our own
        import zipfile

        with zipfile.ZipFile(path, "w") as z:
            z.writestr("archive/data.pkl", a_pickle(r, str(case / CANARY)))
            z.writestr("archive/version", b"3\n")
            z.writestr("archive/byteorder", b"little")
            z.writestr("archive/data/0", bytes(4000))
    elif kind == 1:
        head = b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        path.write_bytes(head + a_pickle(r, str(case / CANARY)) + pickle.dumps([], 2))
    else:
        path.write_bytes((good / r.choice(("zip.pth", "legacy.pth"))).read_bytes())
        mutated(r, path, of_bytes)
    return lambda: convert(path)


def pkl(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.models.convert.recognise import convert

    path = case / "a.pkl"
    if r.random() < 0.5:
        path.write_bytes(a_pickle(r, str(case / CANARY)))
    else:
        path.write_bytes((good / "a.pkl").read_bytes())
        mutated(r, path, of_bytes)
    return lambda: convert(path)


def config(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.models.convert.architecture import read_architecture
    from xenomask.models.convert.checkpoint import read_checkpoint
    from xenomask.models.convert.common import recognised
    from xenomask.models.convert.entries import Entries
    from xenomask.models.convert.mmseg import settings
    from xenomask.models.convert.names import MMSEG
    from xenomask.models.convert.pyconfig import read_config

    path = case / "a.py"
    if r.random() < 0.7:
        path.write_text(a_config(r, str(case / CANARY)), errors="replace")
        (case / "good.py").write_text("a = 1\nb = dict(c=2)\n")
    else:
        path.write_bytes((Path(__file__).parents[1] / "tests/golden/mmseg/config.py").read_bytes())
        mutated(r, path, of_bytes)

    def read() -> None:
        tensors = read_checkpoint(good / "zip.pth").tensors
        settings(Entries(read_config(path)), read_architecture(recognised(tensors, MMSEG)))

    return read


def _folder(kind: str, r: random.Random, good: Path, case: Path) -> Path:
    folder = Path(shutil.copytree(good / kind, case / kind))
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = r.choice(files)
    mutated(r, path, of_safetensors if path.suffix == ".safetensors" else of_json)
    return folder


def checkpoint(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.models import load

    folder = _folder("own", r, good, case)
    return lambda: load(folder)


def huggingface(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.models import load

    folder = _folder("hf", r, good, case)
    return lambda: load(folder)


def detector(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.detector import Detector
    from xenomask.detector.folder import describe_folder

    folder = Path(shutil.copytree(good / "detector", case / "detector"))
    path = folder / "detector.json" if r.random() < 0.7 else r.choice(sorted(folder.rglob("*.json")))
    mutated(r, path, of_json)

    def read() -> None:
        describe_folder(folder)
        Detector.from_folder(folder)

    return read


def queries(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.queries import read_queries, without_frame

    path = case / "query_analysis" / "queries.json"
    path.parent.mkdir()
    path.write_bytes((good / "own/query_analysis/queries.json").read_bytes())
    sha = json.loads(path.read_text())["checkpoint_sha256"]
    mutated(r, path, of_json)
    return lambda: without_frame(read_queries(case, sha), "b")


def hdf5(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    from xenomask.store import map_format, map_photo, read_map

    path = case / "map.hdf5"
    path.write_bytes((good / "map.hdf5").read_bytes())
    mutated(r, path, of_bytes)
    return lambda: (map_format(path), map_photo(path), read_map(path))


def picture(r: random.Random, good: Path, case: Path) -> Callable[[], Any]:
    """A photo, label or cut-out of one of the formats that are read, mutated, sometimes under another's name."""
    from xenomask.datasets.read import read_label, read_photo
    from xenomask.picture_files import open_picture, read_header
    from xenomask.pictures import read_numbers, read_rgba

    source = r.choice(sorted((good / "pictures").iterdir()))
    path = case / (source.name if r.random() < 0.8 else r.choice(("a.png", "b.jpg", "c.webp", "d.ps", "e")))
    path.write_bytes(source.read_bytes())
    mutated(r, path, of_bytes)
    reads: list[Callable[[], Any]] = [
        lambda: read_photo(path),
        lambda: read_label(path, r.choice(("anomaly", "train_ids", "camvid"))),
        lambda: read_rgba(open_picture(path)),
        lambda: (read_header(path), read_numbers(open_picture(path))),
    ]
    return r.choice(reads)


TARGETS: dict[str, Callable[[random.Random, Path, Path], Callable[[], Any]]] = {
    f.__name__: f for f in (pth, pkl, config, checkpoint, huggingface, detector, queries, hdf5, picture)
}


# --- running -------------------------------------------------------------------------------------------------------


def run_case(target: str, number: int, good: Path, case: Path) -> str:
    """What was wrong with one case; "" for nothing."""
    from xenomask.errors import XenomaskError

    shutil.rmtree(case, ignore_errors=True)
    case.mkdir(parents=True)
    read = TARGETS[target](random.Random(f"{target} {number}"), good, case)
    before = sorted(case.rglob("*"))
    began = time.process_time()  # a busy machine is no finding; one that hangs is stopped by the clock
    said = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except XenomaskError as e:
        if "\n" in str(e) or not str(e) or len(str(e)) > 2000:
            said = f"no one clear line: {str(e)[:300]!r}"
    except BaseException as e:
        import traceback

        said = f"{type(e).__name__}: {str(e)[:200]} @ {traceback.extract_tb(e.__traceback__)[-1]}"
    if time.process_time() - began > LIMIT:
        said = said or f"took {time.process_time() - began:.1f} s"
    if sorted(case.rglob("*")) != before:
        said = "wrote a file: " + str(set(case.rglob("*")) - set(before))
    return said


def peak() -> int:
    """The process' largest memory so far, in MB."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) // 1024


def _no_network(*args: Any, **kwargs: Any) -> Any:
    raise SystemExit(f"asks the network for {str(args[-2:])[:100]}")


def worker(target: str, good: Path, case: Path, numbers: Any, seconds: float, pipe: Any) -> None:
    """Does cases until the time is over; tells the number of each before it begins."""
    os.nice(5)
    logging.disable(logging.CRITICAL)
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = _no_network  # pyright: ignore
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # HDF5 and transformers talk
    run_case(target, -1, good, case)  # imports
    top = peak()
    end = time.monotonic() + seconds
    for number in numbers:
        if time.monotonic() > end:
            break
        pipe.send(("begin", number))
        said = run_case(target, number, good, case)
        if peak() > max(MEMORY, top + 20):
            said = said or f"took {peak()} MB"
        top = max(top, peak())
        pipe.send(("end", said))
    pipe.send(("over", top))


def fuzz(target: str, seconds: float, first: int, good: Path, out: Path) -> dict[str, Any]:
    """Runs a target for that long, replacing processes that die or hang; findings are kept in `out`."""
    context = mp.get_context("fork")  # what is imported need not be imported again
    began, done, findings, number, top = time.monotonic(), 0, [], first, 0
    case = out / "case" / target
    while (left := seconds - (time.monotonic() - began)) > 0:
        here, there = context.Pipe()
        numbers = range(number, 2**62)
        process = context.Process(target=worker, args=(target, good, case, numbers, left, there), daemon=True)
        process.start()
        there.close()
        said, current = "", -1
        while True:
            try:
                if not here.poll(240 if current < 0 else 6 * LIMIT):
                    said = "hangs"
                    break
                kind, what = here.recv()
            except (EOFError, OSError):
                process.join()
                said = f"the process died with {process.exitcode}"
                break
            if kind == "begin":
                current = what
            elif kind == "over":
                top = max(top, what)
                break
            else:
                done += 1
                number = current + 1
                if what:
                    findings.append(_keep(target, current, what, case, out))
        if said:
            process.kill()
            process.join()
            if current < 0:
                raise SystemExit(f"{target}: the first case {said}")
            done += 1
            findings.append(_keep(target, current, said, case, out))
            number = current + 1
        else:
            process.join()
            break
    return {"target": target, "first": first, "executions": done, "seconds": round(time.monotonic() - began),
            "peak_MB": top, "findings": findings}  # fmt: skip


def _keep(target: str, number: int, said: str, case: Path, out: Path) -> str:
    kept = out / "findings" / f"{target}-{number}"
    shutil.rmtree(kept, ignore_errors=True)
    if case.is_dir():
        shutil.copytree(case, kept)
    line = f"{target} {number}: {said}"
    print("FINDING", line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="this case alone")
    parser.add_argument("--out", type=Path, default=Path("/tmp/xenomask-fuzz"))
    options = parser.parse_args()
    good = options.out / "good"
    shutil.rmtree(good, ignore_errors=True)
    good.mkdir(parents=True)
    seeds(good)
    if options.only is not None:
        for target in options.target or TARGETS:
            print(target, run_case(target, options.only, good, options.out / "case" / target) or "well")
        return
    print(f"first case {options.first}; repeat one with: --target NAME --only NUMBER", flush=True)
    for target in options.target or TARGETS:
        row = fuzz(target, options.seconds, options.first, good, options.out)
        print(json.dumps({**row, "findings": len(row["findings"])}), flush=True)


if __name__ == "__main__":
    main()
