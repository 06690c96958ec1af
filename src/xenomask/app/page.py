"""The web page itself: gradio's components, and what happens at which click. What is shown is made in answers.py."""
# gradio finds what to hand a function by these types, and is imported only when the page is built
# pyright: reportInvalidTypeForm=false

import html
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from xenomask.app import answers, session
from xenomask.app.answers import Drawn, Picture
from xenomask.app.files import KEPT_SECONDS, Files
from xenomask.app.guard import Guard
from xenomask.app.session import CLIPS, EXAMPLES, OWN, Seen
from xenomask.detector import Detector
from xenomask.errors import XenomaskError, unknown
from xenomask.scores import SCORES

WAITING, SESSIONS = 16, 16  # requests in the queue, sessions whose photo is kept in memory
NOTHING = "no other"
NO_PHOTO = "drop a photo first, and press Detect, or press an example scene"
STEPS = 1000  # of the threshold's slider
# labels stand above pictures, not on them; captions are whole, the chosen tab has contrast
CSS = """
#overlay > label, #overlay2 > label, #map > label, #map2 > label, #masks > label { position: static }
#masks .grid-container { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)) }
#masks .thumbnail-item { aspect-ratio: auto; height: auto }
#masks .caption-label { position: static; display: block; max-width: none; white-space: normal; text-align: left }
#downloads .filename { max-width: none }
button[role=tab].selected { color: var(--body-text-color); font-weight: 600 }
"""
DEFAULT_MIX = 0.6  # where the slider stands for a detector that has no lambda


def serve(
    detectors: dict[str, Detector], host: str, port: int | None, ready: Callable[[str], None],
    names: Sequence[str] = (),
) -> None:  # fmt: skip
    """Serves the page until SIGINT or SIGTERM; `ready` is told its address. Files lie in a folder of its own.

    `names` are host names of this server beside those that it knows, see guard.Guard.

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
        served, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, inbrowser=False,
            max_file_size=session.MAX_BYTES, state_session_capacity=SESSIONS, ssr_mode=False, pwa=False,
            mcp_server=False, enable_monitoring=False, run_history=False, footer_links=["api"], theme=_theme(gr),
            css=CSS,
        )  # fmt: skip
        # around all that gradio built, whose own outermost layer lets other origins in
        served.middleware_stack = Guard(served.middleware_stack, Path(folder), host, names)
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


def _theme(gr: Any) -> Any:
    """Gradio's own with this system's fonts, and darker where its text has a contrast of less than 4.5."""
    own = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return own.set(
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_background_fill_hover_dark="*primary_800",
        body_text_color_subdued="*neutral_600", link_text_color_dark="*secondary_300",
    )  # fmt: skip


def build(detectors: dict[str, Detector], folder: Path) -> Any:
    """The gradio Blocks; files go into `folder`, which must be gradio's own (GRADIO_TEMP_DIR)."""
    gr = _gradio()
    known = session.choices(detectors)
    with gr.Blocks(title="xenomask", analytics_enabled=False) as page:
        parts = _lay_out(gr, known)
        _connect(gr, page, parts, known, Files(folder))
    return page.queue(max_size=WAITING, default_concurrency_limit=2)


def _lay_out(gr: Any, known: dict[str, Detector]) -> SimpleNamespace:
    """What is on the page, by name."""
    p = SimpleNamespace(state=gr.State(None, time_to_live=KEPT_SECONDS))
    gr.Markdown("# xenomask\nShows what a road scene's network was never taught. Nothing leaves this server; what you "
                "drop is forgotten when you close the page.")  # fmt: skip
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            _lay_out_choices(gr, p, known)
        with gr.Column(scale=3):
            _lay_out_answers(gr, p, session.own_mix(next(iter(known.values()))))
    return p


def _lay_out_choices(gr: Any, p: SimpleNamespace, known: dict[str, Detector]) -> None:
    p.upload = gr.File(label="photo or clip", height=150, elem_id="upload")
    # gradio's own makes an empty temporary file at each call, and leaves it
    p.upload.preprocess = lambda sent: getattr(sent, "path", None)
    gr.Markdown(f"Of a clip ({' '.join(CLIPS)}) the first frame is taken. Without a photo: synthetic scenes.")
    with gr.Row():
        p.examples = [gr.Button(name, size="sm", min_width=70, elem_id=f"example-{k}")
                      for k, name in enumerate(EXAMPLES)]  # fmt: skip
    p.detector = gr.Dropdown(list(known), value=next(iter(known)), label="detector", elem_id="detector")
    p.other = gr.Dropdown([NOTHING, *known], value=NOTHING, label="compare with", elem_id="other")
    p.score = gr.Dropdown([OWN, *SCORES], value=OWN, label="score", elem_id="score")
    p.go = gr.Button("Detect", variant="primary", elem_id="detect")
    p.downloads = gr.File(label="downloads: map (HDF5), overlay, JSON", file_count="multiple", interactive=False,
                          visible=False, elem_id="downloads")  # fmt: skip


def _lay_out_answers(gr: Any, p: SimpleNamespace, mix: float | None) -> None:
    plain = {"interactive": False, "type": "filepath", "buttons": ["fullscreen"]}  # not "share": to Hugging Face
    with gr.Row():
        p.overlay = gr.Image(label="overlay: click a pixel to ask why", elem_id="overlay", **plain)
        p.overlay2 = gr.Image(label="compared", visible=False, elem_id="overlay2", **plain)
    with gr.Row():
        p.threshold = gr.Slider(0, 1, value=0.5, label="threshold", elem_id="threshold", min_width=220)
        p.mix = gr.Slider(0, 1, value=DEFAULT_MIX if mix is None else mix, step=0.01, interactive=mix is not None,
                          label="lambda of Maskomaly", elem_id="lambda", min_width=220)  # fmt: skip
        p.smallest = gr.Slider(1, 5000, value=50, step=1, label="smallest component", elem_id="smallest", min_width=220)
    p.said = gr.Textbox(label="seen", interactive=False, lines=2, elem_id="said")
    with gr.Tabs(selected="map") as p.tabs:
        with gr.Tab("map", id="map"), gr.Row():
            p.map = gr.Image(label="map", elem_id="map", **plain)
            p.map2 = gr.Image(label="compared: map", visible=False, elem_id="map2", **plain)
        with gr.Tab("components", id="components"):
            p.rows = gr.Dataframe(headers=["no.", "mean", "largest", "pixels", "x y box"], interactive=False,
                                  label="components, the most anomalous first", elem_id="components")  # fmt: skip
        with gr.Tab("why", id="why"):
            with gr.Row():
                p.x = gr.Number(0, label="pixel x", precision=0, minimum=0, elem_id="pixel-x", min_width=90)
                p.y = gr.Number(0, label="pixel y", precision=0, minimum=0, elem_id="pixel-y", min_width=90)
                p.ask = gr.Button("Ask why", elem_id="ask", min_width=90)
            p.words = gr.Textbox(label="why", lines=5, interactive=False, elem_id="words")
            p.masks = gr.Gallery(label="masks of the queries that decided", object_fit="contain", height="auto",
                                 buttons=["fullscreen"], elem_id="masks")  # fmt: skip
            p.votes = gr.Dataframe(
                headers=["member", "part", "query", "class", "p", "m", "adds", "roles"], interactive=False,
                label="queries that decided: p its class's probability, m its mask at the pixel", elem_id="votes",
            )  # fmt: skip
    p.numbers = gr.JSON(visible=False)
    # for the HTTP API: gradio refuses what lies outside of the slider's range, which is that of the score shown last
    p.wanted = gr.Number(None, visible=False, label="threshold")
    p.again = gr.Button(visible=False)


def _connect(gr: Any, page: Any, p: SimpleNamespace, known: dict[str, Detector], files: Files) -> None:
    """What happens at which click."""

    def name_of(request: gr.Request) -> str:
        return "".join(c for c in str(request.session_hash or "none") if c.isalnum())[:40] or "none"

    @contextmanager
    def answering(request: gr.Request, kept: Any = None, path: Path | None = None) -> Iterator[str]:
        """Around each answer: no photo and what a user can mend are one line on the page."""
        if kept is None and path is None:
            raise gr.Error(NO_PHOTO, print_exception=False)
        try:
            with files.answer(who := name_of(request)):
                yield who
        except XenomaskError as e:
            # a path of the server says nothing to its user, and the page would take tags in a file's name for its own
            text = str(e) if path is None else str(e).replace(str(path), path.name)
            raise gr.Error(html.escape(text, quote=False), print_exception=False) from e

    def shown(who: str, kept: tuple[Seen, ...], score: str, mix, threshold, smallest, *, anew: bool) -> list[Any]:
        drawn = answers.draw(files.new(who, "map"), kept, score, mix, threshold, int(smallest))
        return _outputs(gr, drawn, anew=anew)

    def on_drop(upload: str | None, request: gr.Request) -> None:
        if upload:
            files.take(name_of(request), Path(upload))

    def on_look(upload: str | None, name: str, other: str, score: str, mix: float, smallest: float,
                request: gr.Request):  # fmt: skip
        path = Path(upload) if upload else None
        with answering(request, path=path) as who:
            assert path is not None
            chosen = chosen_of(name, other)
            files.take(who, path)
            return seen_by(who, chosen, path.name, session.read_upload(path), score, mix, smallest)

    def chosen_of(name: str, other: str) -> list[str]:
        chosen = [name] if other in (NOTHING, "", None) else [name, other]
        for c in chosen:
            if c not in known:
                raise unknown("detector", c, known)
        return chosen

    def seen_by(who: str, chosen: list[str], photo: str, image: Any, score: str, mix, smallest) -> list[Any]:
        kept = tuple(session.detect(photo, image, known[c], c) for c in chosen)
        return [kept, *shown(who, kept, score, mix, None, smallest, anew=True)]

    def on_example(scene: str, name: str, other: str, score: str, mix: float, smallest: float, request: gr.Request):
        with answering(request, scene) as who:
            return seen_by(who, chosen_of(name, other), scene, session.example(scene), score, mix, smallest)

    def on_slide(kept, score: str, mix: float, threshold: float | None, smallest: float, request: gr.Request):
        """Does not set the sliders, which their user may be moving."""
        if kept is None:  # where no photo is, there is nothing to say of a slider either
            return [gr.skip()] * len(drawn)
        with answering(request, kept) as who:
            return shown(who, kept, score, mix, threshold, smallest, anew=False)

    def on_score(kept, score: str, name: str, smallest: float, request: gr.Request):
        """Another score has another range and lambda: both sliders start anew."""
        mix = session.own_mix(session.read_by(known[name], score))
        if kept is None:
            return [_mix(gr, mix) if part is p.mix else gr.skip() for part in drawn]
        with answering(request, kept) as who:
            return shown(who, kept, score, None, None, smallest, anew=True)

    def on_read(kept, score: str, mix: float, threshold: float | None, smallest: float, request: gr.Request):
        with answering(request, kept) as who:
            return shown(who, kept, score, mix, threshold, smallest, anew=True)

    def on_ask(kept, score: str, mix: float, x: int | None, y: int | None, request: gr.Request):
        with answering(request, kept) as who:
            if x is None or y is None:  # an emptied field
                raise XenomaskError("give both x and y of the pixel")
            answer, masks = answers.ask(files.new(who, "why"), kept[0], score, mix, (int(x), int(y)))
            words, rows = session.in_words(answer), session.reasons(answer)
            return [words, rows, [(m.path, m.alt) for m in masks], int(x), int(y), gr.update(selected="why")]

    def on_click(kept, score: str, mix: float, request: gr.Request, event: gr.SelectData):
        x, y = event.index
        times = answers.enlargement(*kept[0].image.shape[:2]) if kept else 1
        return on_ask(kept, score, mix, x // times, y // times, request)

    def on_detector(name: str, score: str):
        return _mix(gr, session.own_mix(session.read_by(known[name], score)))

    def on_end(request: gr.Request) -> None:
        # gradio keeps a closed session's state for an hour; a photo is to go when its user goes
        page.state_holder.delete_state(str(request.session_hash))
        files.forget(name_of(request))

    drawn = [p.map, p.overlay, p.map2, p.overlay2, p.rows, p.said, p.downloads, p.threshold, p.mix, p.numbers]
    looked = {"concurrency_limit": 1, "concurrency_id": "network", "scroll_to_output": False}
    p.go.click(on_look, [p.upload, p.detector, p.other, p.score, p.mix, p.smallest], [p.state, *drawn],
               api_name="detect", **looked)  # fmt: skip
    for button in p.examples:
        button.click(on_example, [button, p.detector, p.other, p.score, p.mix, p.smallest], [p.state, *drawn],
                     api_visibility="private", **looked)  # fmt: skip
    # "always_last": the last place that a slider was moved to is always drawn, however long a drawing takes
    live = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    for slider in (p.threshold, p.mix, p.smallest):
        slider.input(on_slide, [p.state, p.score, p.mix, p.threshold, p.smallest], drawn, **live)
    p.score.input(on_score, [p.state, p.score, p.detector, p.smallest], drawn, api_visibility="private")
    p.detector.input(on_detector, [p.detector, p.score], p.mix, api_visibility="private")
    why = [p.words, p.votes, p.masks, p.x, p.y, p.tabs]
    p.overlay.select(on_click, [p.state, p.score, p.mix], why, api_visibility="private", trigger_mode="always_last")
    p.ask.click(on_ask, [p.state, p.score, p.mix, p.x, p.y], why, api_name="why")
    p.again.click(on_read, [p.state, p.score, p.mix, p.wanted, p.smallest], drawn, api_name="read")
    p.upload.upload(on_drop, p.upload, api_visibility="private", show_progress="hidden")
    page.unload(on_end)


def _outputs(gr: Any, d: Drawn, *, anew: bool) -> list[Any]:
    """An answer as the page's components take it, the sliders set only `anew`."""

    def image(pictures: tuple[Picture, ...], k: int) -> Any:
        if k >= len(pictures):
            return gr.update(value=None, visible=False)
        return gr.update(value=pictures[k].path, alt_text=pictures[k].alt, visible=True)

    pictures = [image(kind, k) for k in (0, 1) for kind in (d.maps, d.overlays)]
    low, high = d.reading.scale
    threshold = gr.update(minimum=low, maximum=high, step=(high - low) / STEPS, value=d.reading.threshold)
    sliders = [threshold, _mix(gr, d.reading.mix)] if anew else [gr.skip(), gr.skip()]
    return [*pictures, d.rows, d.line, gr.update(value=d.downloads, visible=True), *sliders, d.numbers]


def _mix(gr: Any, mix: float | None) -> Any:
    """The slider where it belongs; not to be moved where the score has no lambda."""
    return gr.update(interactive=False) if mix is None else gr.update(value=mix, interactive=True)
