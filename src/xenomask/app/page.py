"""The web page itself: gradio's components, and what happens at which click. What is shown is made in session.py."""
# gradio finds what to hand a function by these types, and is imported only when the page is built
# pyright: reportInvalidTypeForm=false

import html
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from xenomask.app import session
from xenomask.app.session import CLIPS, OWN, Reading, Seen
from xenomask.detector import Detector
from xenomask.errors import XenomaskError, unknown
from xenomask.scores import SCORES
from xenomask.store import ENDING, write_map

WAITING, SESSIONS = 16, 16  # requests in the queue, sessions whose photo is kept in memory
KEPT_SECONDS = 3600  # files of sessions that never said goodbye (a lost connection, curl)
NOTHING = "no other"
NO_PHOTO = "drop a photo first, and press Look"


def serve(detectors: dict[str, Detector], host: str, port: int | None, ready: Callable[[str], None]) -> None:
    """Serves the page until SIGINT or SIGTERM; `ready` is told its address. Files lie in a folder of its own.

    Raises XenomaskError where gradio is missing.
    """
    with tempfile.TemporaryDirectory(prefix="xenomask-app-") as folder:
        # read once by gradio, when it is imported: its own folder, and no word to its makers
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        gr = _gradio()
        page = build(detectors, Path(folder))
        done = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: done.set())
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, inbrowser=False,
            max_file_size=session.MAX_BYTES, state_session_capacity=SESSIONS, ssr_mode=False, pwa=False,
            mcp_server=False, enable_monitoring=False, run_history=False, footer_links=["api"],
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        )  # fmt: skip
        try:
            ready(address)
            done.wait()
        finally:
            page.close(verbose=False)


def _gradio() -> Any:
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise XenomaskError("the web page needs gradio: pip install 'xenomask[app]'") from e
    return gradio


class Files:
    """The files of all sessions: a folder a session, and the uploads, which gradio names by their content."""

    def __init__(self, root: Path):
        self.root, self.lock = root, threading.Lock()
        # two users may drop the same photo, which then is one file
        self.uploads: dict[Path, set[str]] = {}

    def own(self, who: str) -> Path:
        """A session's folder; what is too old in all of them goes first."""
        for path in self.root.rglob("*"):
            try:
                if path.is_file() and time.time() - path.stat().st_mtime > KEPT_SECONDS:
                    path.unlink()
            except OSError:  # another thread was faster
                continue
        folder = self.root / f"session-{who}"
        folder.mkdir(exist_ok=True)
        return folder

    def take(self, who: str, upload: Path) -> None:
        """Notes whose upload that is; the session's one before goes."""
        with self.lock:
            self.uploads.setdefault(upload, set()).add(who)
        self._leave(who, upload)

    def forget(self, who: str) -> None:
        """Removes what a session left, uploads too unless another session has the same one."""
        shutil.rmtree(self.root / f"session-{who}", ignore_errors=True)
        self._leave(who, None)

    def _leave(self, who: str, kept: Path | None) -> None:
        with self.lock:
            for upload, users in list(self.uploads.items()):
                if upload == kept:
                    continue
                users.discard(who)
                if not users:
                    upload.unlink(missing_ok=True)
                    del self.uploads[upload]


def build(detectors: dict[str, Detector], folder: Path) -> Any:
    """The gradio Blocks; files go into `folder`, which must be gradio's own (GRADIO_TEMP_DIR)."""
    gr = _gradio()
    known, files = session.choices(detectors), Files(folder)
    scores = [OWN, *SCORES]

    def chosen(name: str) -> Detector:
        if name not in known:
            raise unknown("detector", name, known)
        return known[name]

    def told(e: XenomaskError, path: Path | None = None) -> Exception:
        # a path of the server says nothing to its user, and the page would take tags in a file's name for its own
        text = str(e) if path is None else str(e).replace(str(path), path.name)
        return gr.Error(html.escape(text, quote=False), print_exception=False)

    def name_of(request: gr.Request) -> str:
        hashed = str(request.session_hash or "none")
        return "".join(c for c in hashed if c.isalnum())[:40] or "none"

    def shown(kept: tuple[Seen, Seen | None], score, mix, threshold, smallest, request) -> list[Any]:
        """Everything that depends on score and sliders, as the page's outputs."""
        own = files.own(name_of(request))
        stamp = f"{time.monotonic_ns():x}"  # so that no browser shows an old picture
        out: list[Any] = []
        for k, seen in enumerate(kept):
            if seen is None:
                out += [None, None]
                continue
            # the second detector has a range of its own, and so a threshold of its own
            r = session.read(seen, score, mix, threshold if k == 0 else None)
            found = session.found_in(r, int(smallest))
            out += [write_picture(own / f"{n}{k}-{stamp}.jpg", p)
                    for n, p in zip(("map", "overlay"), session.pictures(r, found), strict=True)]  # fmt: skip
            if k == 0:
                rows, numbers, first = session.table(found), session.summary(r, found), r
        write_map(own / f"map-{stamp}{ENDING}", first.score_map)
        (own / f"components-{stamp}.json").write_text(json.dumps(numbers))
        for old in own.iterdir():
            if stamp not in old.name and not old.name.startswith("mask"):
                old.unlink(missing_ok=True)
        low, high = first.scale
        slider = gr.update(minimum=low, maximum=high, step=(high - low) / 200, value=first.threshold)
        said = (
            f"{numbers['width']}x{numbers['height']}, score {numbers['score']}: {len(numbers['components'])} components"
        )
        downloads = [str(own / f"map-{stamp}{ENDING}"), out[1], str(own / f"components-{stamp}.json")]
        return [*out, rows, slider, said, downloads, numbers]

    def on_look(upload: str | None, name: str, other: str, score: str, mix: float, smallest: float,
                request: gr.Request):  # fmt: skip
        if not upload:
            raise gr.Error(NO_PHOTO, print_exception=False)
        path, who = Path(upload), name_of(request)
        try:
            first, second = chosen(name), None if other in (NOTHING, "", None) else chosen(other)
            files.take(who, path)
            image = session.read_upload(path)
            kept = session.look(path.name, image, first), second and session.look(path.name, image, second)
            return [kept, *shown(kept, score, mix, None, smallest, request)]
        except XenomaskError as e:
            raise told(e, path) from e

    def on_slide(kept, score: str, mix: float, threshold: float | None, smallest: float, request: gr.Request):
        if kept is None:
            raise gr.Error(NO_PHOTO, print_exception=False)
        try:
            return shown(kept, score, mix, threshold, smallest, request)
        except XenomaskError as e:
            raise told(e) from e

    def on_score(kept, score: str, mix: float, smallest: float, request: gr.Request):
        """Another score has another range: its threshold starts anew."""
        return on_slide(kept, score, mix, None, smallest, request) if kept else [gr.skip()] * 9

    def reasons_at(kept, score: str, mix: float, x: int, y: int, request: gr.Request):
        if kept is None:
            raise gr.Error(NO_PHOTO, print_exception=False)
        try:
            reading: Reading = session.read(kept[0], score, mix)
            answer = session.why(reading, (int(x), int(y)))
        except XenomaskError as e:
            raise told(e) from e
        own = files.own(name_of(request))
        for old in own.glob("mask*"):
            old.unlink(missing_ok=True)
        stamp = f"{time.monotonic_ns():x}"
        masks = [(write_picture(own / f"mask{k}-{stamp}.jpg", picture), text)
                 for k, (picture, text) in enumerate(session.query_masks(reading, answer))]  # fmt: skip
        return session.in_words(answer), session.reasons(answer), masks

    def on_click(kept, score: str, mix: float, request: gr.Request, event: gr.SelectData):
        x, y = event.index
        return reasons_at(kept, score, mix, x, y, request)

    def on_end(request: gr.Request) -> None:
        who = str(request.session_hash)
        # gradio keeps a closed session's state for an hour; a photo is to go when its user goes
        page.state_holder.delete_state(who)
        files.forget(name_of(request))

    plain: dict[str, Any] = {"buttons": ["fullscreen"]}  # not "share", which would send pictures to Hugging Face
    with gr.Blocks(title="xenomask", analytics_enabled=False) as page:
        state = gr.State(None, time_to_live=KEPT_SECONDS)
        gr.Markdown("# xenomask\nWhat a road scene's network was never taught. Nothing leaves this server; what you "
                    "drop is forgotten when you close the page.")  # fmt: skip
        with gr.Row():
            with gr.Column(scale=1):
                upload = gr.File(label=f"photo, or a clip ({' '.join(CLIPS)}: its first frame)", type="filepath")
                detector = gr.Dropdown(list(known), value=next(iter(known)), label="detector")
                other = gr.Dropdown([NOTHING, *known], value=NOTHING, label="compare with")
                go = gr.Button("Look", variant="primary", elem_id="look")
                score = gr.Dropdown(scores, value=OWN, label="score")
                threshold = gr.Slider(0, 1, value=0.5, label="threshold", elem_id="threshold")
                mix = gr.Slider(0, 1, value=0.6, step=0.01, label="lambda: share of Maskomaly's rejection")
                smallest = gr.Slider(1, 5000, value=50, step=1, label="smallest component, pixels")
                downloads = gr.File(label="map (HDF5), overlay, JSON", file_count="multiple", interactive=False)
            with gr.Column(scale=3):
                said = gr.Textbox(label="seen", interactive=False)
                view = gr.Image(label="overlay: click a pixel to ask why", type="filepath", interactive=False,
                                elem_id="overlay", **plain)  # fmt: skip
                heat = gr.Image(label="map", type="filepath", interactive=False, **plain)
                with gr.Row():
                    view2 = gr.Image(label="compared: overlay", type="filepath", interactive=False, **plain)
                    heat2 = gr.Image(label="compared: map", type="filepath", interactive=False, **plain)
                rows = gr.Dataframe(headers=["no.", "mean", "largest", "pixels", "x y box"], label="components",
                                    interactive=False)  # fmt: skip
                words = gr.Textbox(label="why", lines=6, interactive=False, elem_id="why")
                voices = gr.Dataframe(
                    headers=["member", "part", "query", "class", "p", "m", "adds", "roles"],
                    label="queries that decided", interactive=False,
                )  # fmt: skip
                masks = gr.Gallery(label="their masks", columns=3, object_fit="contain", **plain)
                numbers = gr.JSON(visible=False)
        drawn = [heat, view, heat2, view2, rows, threshold, said, downloads, numbers]
        network = {"concurrency_limit": 1, "concurrency_id": "network"}
        go.click(on_look, [upload, detector, other, score, mix, smallest], [state, *drawn], api_name="look", **network)
        sliders = [state, score, mix, threshold, smallest]
        for slider in (threshold, smallest):
            slider.release(on_slide, sliders, drawn, api_visibility="private", show_progress="hidden")
        mix.release(on_slide, sliders, drawn, api_visibility="private", show_progress="hidden")
        score.input(on_score, [state, score, mix, smallest], drawn, api_visibility="private")
        view.select(on_click, [state, score, mix], [words, voices, masks], api_visibility="private")
        x, y = gr.Number(visible=False, precision=0), gr.Number(visible=False, precision=0)
        ask = gr.Button(visible=False)
        ask.click(reasons_at, [state, score, mix, x, y], [words, voices, masks], api_name="why")
        again = gr.Button(visible=False)
        # not the slider: gradio refuses what lies outside of its range, which is that of the score shown last
        wanted = gr.Number(None, visible=False, label="threshold")
        again.click(on_slide, [state, score, mix, wanted, smallest], drawn, api_name="read")
        page.unload(on_end)
    return page.queue(max_size=WAITING, default_concurrency_limit=2)


def write_picture(path: Path, picture: np.ndarray) -> str:
    """Writes RGB as JPEG into a session's folder; returns the path as gradio wants it."""
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return str(path)
