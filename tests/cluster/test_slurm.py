"""The pipeline on Slurm: its plan without one, and the real thing on a node that is started for the test."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.cli import fails, run
from helpers.places import ROOT
from xenomask.cluster.plan import Options, Step, from_json, plan, score_alone, shard_names, to_json
from xenomask.cluster.records import finished, record_path, write_manifest
from xenomask.cluster.slurm import Resources, prepare, status, submissions
from xenomask.cluster.work import run_command, run_step
from xenomask.datasets.synthetic import write_scenes
from xenomask.errors import XenomaskError
from xenomask.files import sha256
from xenomask.train import read_config

RECIPE = """
preset = "tiny"
work_dir = "unused"
seed = {seed}
save_every = {save_every}
val_every = 1000
threads = 1
[data]
dataset = "folder"
train = "{scenes}"
resize = [64, 96]
[augment]
short_edge = [48, 80]
crop = [32, 64]
[optim]
iterations = {iterations}
batch = 2
"""


def write_recipe(path: Path, scenes: Path, seed=1, iterations=2, save_every=1) -> Path:
    path.write_text(RECIPE.format(scenes=scenes, seed=seed, iterations=iterations, save_every=save_every))
    return path


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), "train-ids", 3, size=(64, 96))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("drawn"), "anomaly-track", 3, size=(64, 96))


@pytest.fixture
def recipes(tmp_path, scenes) -> dict[str, Path]:
    return {n: write_recipe(tmp_path / f"{n}.toml", scenes, seed) for n, seed in (("a", 1), ("b", 2))}


OUT, OPTIONS = Path("/runs/x"), Options("anomaly-track", Path("/data"), shards=3)


def steps_of(recipes, **changes) -> tuple[Step, ...]:
    return plan({n: read_config(p) for n, p in recipes.items()}, replace(OPTIONS, **changes), OUT)


def test_plan__each_step_waits_for_what_it_reads(recipes):
    assert {s.name: set(s.after) for s in steps_of(recipes)} == {
        "train-a": set(), "inlier-a": {"train-a"}, "outlier-a": {"inlier-a"},
        "train-b": set(), "inlier-b": {"train-b"}, "outlier-b": {"inlier-b"},
        "assemble": {"outlier-a", "outlier-b"}, "score": {"assemble"}, "evaluate": {"score"}, "heatmaps": {"score"},
    }  # fmt: skip
    seen = set()
    for step in steps_of(recipes):
        assert seen.issuperset(step.after), step.name
        seen.add(step.name)


def test_plan__commands_carry_the_options(recipes, scenes):
    steps = {s.name: s for s in steps_of(recipes, weights=(0.25, 0.75), leave_one_out=True, resize="96x64")}
    data = "--dataset anomaly-track --root /data --split val --resize 96x64"
    assert {n: " ".join(steps[n].command) for n in ("train-a", "inlier-b", "assemble", "score", "evaluate")} == {
        "train-a": "train /runs/x/configs/a.toml --work-dir /runs/x/a",
        "inlier-b": f"queries inlier --checkpoint /runs/x/b/iter_2 --dataset folder --root {scenes} --split train "
        "--resize 96x64",
        "assemble": "assemble --out /runs/x/detector --member a=/runs/x/a/iter_2 --member b=/runs/x/b/iter_2 "
        "--weight 0.25 --weight 0.75 --score maskomaly",
        "score": f"score --detector /runs/x/detector {data} --out /runs/x/maps --leave-one-out",
        "evaluate": f"evaluate --maps /runs/x/maps {data} --json /runs/x/evaluation.json",
    }
    assert [s.name for s in steps.values() if not s.gpu] == ["assemble", "evaluate", "heatmaps"]


def test_plan__impossible_wishes(recipes):
    with pytest.raises(XenomaskError, match="1 weights for 2 members"):
        steps_of(recipes, weights=(1.0,))
    for weights in ((0.5, 0.6), (1.5, -0.5), (float("nan"), 1.0)):
        with pytest.raises(XenomaskError, match="must be >= 0 and sum to 1"):
            steps_of(recipes, weights=weights)
    with pytest.raises(XenomaskError, match="'a' and 'A', which may be one folder"):
        steps_of({"a": recipes["a"], "A": recipes["b"]})
    for name in ("detector", "Maps", "a=b"):  # a member's work folder would be the run's own, or half a name
        with pytest.raises(XenomaskError, match=f"recipe {name}.toml: .* rename the recipe"):
            steps_of({name: recipes["a"]})
    for shards in (0, 10**11):
        with pytest.raises(XenomaskError, match=f"{shards} shards: 1 to 10,000"):
            steps_of(recipes, shards=shards)
    with pytest.raises(XenomaskError, match="one recipe or more"):
        steps_of({})


def test_plan__is_read_as_it_was_written(recipes, tmp_path):
    steps = steps_of(recipes)
    assert from_json(json.loads(json.dumps(to_json(steps))), tmp_path) == steps
    with pytest.raises(XenomaskError, match="is damaged"):
        from_json({"format": 1, "steps": [{"name": "a"}]}, tmp_path)
    many = to_json(steps)
    many["steps"][0]["shards"] = 10**11
    with pytest.raises(XenomaskError, match="is damaged.*in 100000000000 shards"):
        from_json(many, tmp_path)
    many["steps"][0]["shards"] = float("inf")
    with pytest.raises(XenomaskError, match="is damaged"):
        from_json(many, tmp_path)
    with pytest.raises(XenomaskError, match="20000 shards: 1 to 10,000"):
        score_alone((), tmp_path, 20_000)
    with pytest.raises(XenomaskError, match="another version of xenomask"):
        from_json({"format": 7}, tmp_path)


def leave(out: Path, step: Step, *jobs: str, state="done") -> None:
    """What a step that ran leaves behind."""
    for name in step.outputs:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("{}")
    for job in jobs or shard_names(step):
        record_path(out, job).parent.mkdir(exist_ok=True)
        record_path(out, job).write_text(json.dumps({"state": state, "exit": 0 if state == "done" else 2}))


def test_submissions__dependencies_array_and_resources(recipes):
    r = Resources(partition="gpu", cpu_partition="cpu", gres="gpu:2", time="1:00:00", cpus=4, mem="8G", warn=60,
                  extra=("--qos=long",))  # fmt: skip
    todo = {s.step.name: s for s in submissions(steps_of(recipes), OUT, r)}
    command = todo["score"].command({"assemble": "17"})
    assert command[:2] == ["sbatch", "--dependency=afterok:17"]
    assert {"--array=1,2,3", "--gres=gpu:2", "--partition=gpu", "--time=1:00:00", "--cpus-per-task=4", "--mem=8G",
            "--signal=B:USR1@60", "--requeue", "--open-mode=append", "--qos=long"} <= set(command)  # fmt: skip
    assert command[-1].startswith("--wrap=exec ") and command[-1].endswith('score --shard "$SLURM_ARRAY_TASK_ID"')
    command = todo["assemble"].command({"outlier-a": "3", "outlier-b": "6"})
    assert command[1] == "--dependency=afterok:3:6" and "--partition=cpu" in command
    assert not any(w.startswith(("--gres", "--array")) for w in command)
    assert "--dependency" not in " ".join(todo["train-a"].command({}))


def test_submissions__what_is_done_or_on_its_way_is_left_out(recipes, tmp_path):
    steps = {s.name: s for s in steps_of(recipes)}
    plan_ = tuple(steps.values())
    for name in ("train-a", "inlier-a", "outlier-a"):
        leave(tmp_path, steps[name])
    done = finished(tmp_path, plan_)
    assert done == {"train-a", "inlier-a", "outlier-a"}
    todo = {s.step.name: s for s in submissions(plan_, tmp_path, Resources(), done=done, live={"train-b"})}
    assert list(todo) == ["inlier-b", "outlier-b", "assemble", "score", "evaluate", "heatmaps"]
    assert todo["assemble"].after == ("outlier-b",) and todo["inlier-b"].after == ("train-b",)
    # all done but one shard: that shard and what reads it
    for step in plan_:
        leave(tmp_path, step)
    assert finished(tmp_path, plan_) == set(steps)
    record_path(tmp_path, "score-2of3").unlink()
    done = finished(tmp_path, plan_)
    todo = submissions(plan_, tmp_path, Resources(), done=done)
    assert [(s.step.name, s.shards) for s in todo] == [("score", (2,)), ("evaluate", (1,)), ("heatmaps", (1,))]
    assert "--array=2" in todo[0].words
    # a checkpoint that is gone: it and all that came of it
    leave(tmp_path, steps["score"])
    (tmp_path / "a/iter_2/model.safetensors").unlink()
    assert finished(tmp_path, plan_) == {"train-b", "inlier-b", "outlier-b"}


def test_prepare__another_plan_and_an_edited_recipe_are_refused(recipes, tmp_path):
    prepare(steps_of(recipes), recipes, tmp_path / "run")
    prepare(steps_of(recipes, shards=5), recipes, tmp_path / "run")  # how the work is dealt out may change
    with pytest.raises(XenomaskError, match="the run of another plan .step assemble differs"):
        prepare(steps_of(recipes, score="entropy"), recipes, tmp_path / "run")
    recipes["a"].write_text(recipes["a"].read_text().replace("seed = 1", "seed = 9"))
    with pytest.raises(XenomaskError, match="is not the recipe that"):
        prepare(steps_of(recipes), recipes, tmp_path / "run")


def test_status__names_the_failed_step_and_what_it_stopped(recipes, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no Slurm: the records alone
    prepare(steps_of(recipes, shards=1), recipes, tmp_path)
    steps = {s.name: s for s in steps_of(recipes, shards=1)}
    leave(tmp_path, steps["train-a"])
    leave(tmp_path, steps["train-b"], state="failed")
    rows = {r.name: (r.state, r.remark) for r in status(tmp_path)}
    assert rows["train-a"][0] == "done" and rows["train-b"] == ("failed", "exit code 2")
    assert rows["inlier-a"] == ("not started", "")
    for name in ("inlier-b", "assemble", "evaluate"):
        assert rows[name] == ("stopped", "waits for train-b"), name
    leave(tmp_path, steps["inlier-a"], state="running")
    assert {r.name: r.state for r in status(tmp_path)}["inlier-a"] == "lost"
    with pytest.raises(XenomaskError, match="is no run: it has no plan.json"):
        status(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "file, text", [("jobs.json", '{"a": 1}'), ("jobs.json", "[1]"), ("jobs.json", "["), ("steps/train-a.json", "[]")]
)
def test_status__a_damaged_file_of_the_run_is_one_line(recipes, tmp_path, monkeypatch, file, text):
    monkeypatch.setenv("PATH", "")
    prepare(steps_of(recipes), recipes, tmp_path)
    (tmp_path / "steps").mkdir()
    (tmp_path / file).write_text(text)
    with pytest.raises(XenomaskError, match=f"{Path(file).name} is damaged") as e:
        status(tmp_path)
    assert "\n" not in str(e.value)


def test_run_step__records_success_and_refuses_what_is_not_there(tmp_path):
    steps = (
        Step("good", ("--version",), (), ("plan.json",)),
        Step("bad", ("assemble",), (), ("x",)),
        Step("empty", ("--version",), (), ("nowhere.json",)),
        Step("many", ("--version",), (), ("plan.json",), shards=2),
    )
    prepare(steps, {}, tmp_path)
    assert run_step(tmp_path, "good") == 0
    assert finished(tmp_path, steps) == {"good"}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["steps"]["good"]["outputs"] == {"plan.json": sha256(tmp_path / "plan.json")}
    assert run_step(tmp_path, "bad") == 2  # typer's, for options that are missing
    with pytest.raises(XenomaskError, match="step empty ended without an error, but without nowhere.json"):
        run_step(tmp_path, "empty")
    with pytest.raises(XenomaskError, match="unknown step 'god'; did you mean 'good'"):
        run_step(tmp_path, "god")
    for name, shard in (("many", None), ("many", 3), ("good", 1)):
        with pytest.raises(XenomaskError, match="is none of them"):
            run_step(tmp_path, name, shard)
    assert [r.state for r in status(tmp_path)][:3] == ["done", "failed", "failed"]


def test_run_command__hands_the_warning_on(tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(60)"
    )

    def once_ready(ready: Path, number: int) -> None:
        while not ready.exists():  # the command is there, and so are both handlers: earlier the signal ends pytest
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    for number, expected in ((signal.SIGUSR1, (5, True, False)), (signal.SIGTERM, (128 + 15, False, True))):
        ready = tmp_path / str(number)
        threading.Thread(target=once_ready, args=(ready, number), daemon=True).start()
        assert run_command([sys.executable, "-c", code, str(ready)]) == expected
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_manifest__grows_and_says_only_what_the_files_say(recipes, tmp_path):
    prepare(steps_of(recipes), recipes, tmp_path)
    write_manifest(tmp_path)
    first = json.loads((tmp_path / "manifest.json").read_text())
    assert first["configs"] == {n: sha256(p) for n, p in recipes.items()}
    assert first["metrics"] is None and first["members"]["a"] == {"checkpoint": [], "queries": []}
    (tmp_path / "evaluation.json").write_text('{"exact": {"aupr_sum": 0.5}, "warnings": []}')
    write_manifest(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["metrics"] == {"exact": {"aupr_sum": 0.5}}
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(XenomaskError, match="evaluation.json is damaged"):
        write_manifest(tmp_path)


def test_pipeline__says_what_is_wrong_before_anything_is_written(recipes, drawn, tmp_path, capsys, monkeypatch):
    data = ("--dataset", "anomaly-track", "--root", drawn, "--out", tmp_path / "run")
    code, out, err = run(capsys, "slurm", "pipeline", *recipes.values(), *data, "--shards", 2, "--dry-run")
    assert code == 0 and "10 jobs; nothing was submitted or written" in out, err
    assert "sbatch" in out and "--array=1,2" in out.replace("\n", " ")
    monkeypatch.setenv("PATH", "")
    assert "no sbatch on PATH" in fails(capsys, "slurm", "pipeline", *recipes.values(), *data)
    (tmp_path / "other").mkdir()
    twin = shutil.copy(recipes["a"], tmp_path / "other/a.toml")
    assert "two recipes have one name" in fails(capsys, "slurm", "pipeline", recipes["a"], twin, *data)
    wrong = fails(capsys, "slurm", "pipeline", recipes["a"], *data, "--score", "entropi")
    assert "did you mean 'entropy'" in wrong
    assert not (tmp_path / "run").exists()


SCRIPTS = sorted((ROOT / "slurm").glob("run_*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_scripts__say_in_one_line_what_is_missing(script, tmp_path):
    environment = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, "INLIER_ROOT": "/nowhere", "ROOT": "/nowhere"}
    if "train" in script.name:
        environment["CONFIG"] = str(write_recipe(tmp_path / "c.toml", Path("/nowhere")))
    for changes, message in (({}, "/nowhere"), ({"PYTHON": "/no/python"}, "no Python at /no/python")):
        done = subprocess.run(
            ["bash", str(script), "x"], cwd=tmp_path, env=environment | changes, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert message in done.stderr and done.stderr.startswith(script.name)


# The real Slurm, from here on.


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A Slurm of one node; skips where it may not or cannot be started."""
    if missing := [p for p in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(p) is None]:
        pytest.skip(f"needs a Slurm to start (no {missing[0]}): apt-get install slurm-wlm munge")
    if os.geteuid() != 0 and os.environ.get("XENOMASK_SLURM") != "1":
        pytest.skip("slurmd wants to be root; XENOMASK_SLURM=1 tries as another user")
    folder, script = tmp_path_factory.mktemp("node"), str(ROOT / "tests/slurm_node.sh")
    started = subprocess.run([script, "start", str(folder)], capture_output=True, text=True, timeout=120)
    if started.returncode:
        pytest.fail(f"the node did not start: {started.stderr}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", started.stdout.strip().partition("=")[2])
        patch.setenv("PYTHONPATH", str(ROOT / "src"))
        patch.setenv("OMP_NUM_THREADS", "1")  # torch rounds differently with more
        yield folder
        subprocess.run([script, "stop", str(folder)], check=True, timeout=120)


def queue() -> str:
    return subprocess.run(["squeue", "--noheader"], check=True, capture_output=True, text=True).stdout


def wait_for(condition, seconds=600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, queue()
        time.sleep(0.5)


def logs(out: Path) -> str:
    return "\n".join(f"== {p.name}\n{p.read_text()}" for p in sorted((out / "logs").glob("*.out")))


@pytest.mark.slow
def test_pipeline__gives_what_the_same_commands_give_by_hand(node, recipes, drawn, scenes, tmp_path, capsys):
    data = ("--dataset", "anomaly-track", "--root", drawn)
    out, hand = tmp_path / "run", tmp_path / "hand"
    submitting = ("slurm", "pipeline", *recipes.values(), *data, "--out", out, "--shards", 2, "--score", "eam")
    code, text, err = run(capsys, *submitting)
    assert code == 0 and "10 jobs submitted" in text, err
    code, text, _ = run(capsys, *submitting)
    assert "nothing to submit: all steps are done, waiting or running" in text
    # meanwhile, by hand
    torch.set_num_threads(1)
    for name, path in recipes.items():
        checkpoint = ("--checkpoint", hand / name / "iter_2")
        for command in (
            ("train", path, "--work-dir", hand / name),
            ("queries", "inlier", *checkpoint, "--dataset", "folder", "--root", scenes, "--resize", "96x64"),
            ("queries", "outlier", *checkpoint, *data),
        ):
            assert run(capsys, *command)[0] == 0, command
    members = [w for name in recipes for w in ("--member", f"{name}={hand / name / 'iter_2'}")]
    maps = ("--maps", hand / "maps", *data)
    for command in (
        ("assemble", "--out", hand / "detector", *members, "--score", "eam"),
        ("score", "--detector", hand / "detector", *data, "--out", hand / "maps"),
        ("evaluate", *maps, "--json", hand / "evaluation.json"),
    ):
        assert run(capsys, *command)[0] == 0, command
    wait_for(lambda: not queue())
    assert {r.state for r in status(out)} == {"done"}, logs(out)
    assert json.loads((out / "evaluation.json").read_text()) == json.loads((hand / "evaluation.json").read_text())
    assert {p.name: p.read_bytes() for p in (out / "maps").iterdir()} == {
        p.name: p.read_bytes() for p in (hand / "maps").iterdir()
    }
    manifest = json.loads((out / "manifest.json").read_text())
    for name in recipes:
        (checkpoint,) = manifest["members"][name]["checkpoint"]
        assert checkpoint["sha256"] == sha256(hand / name / "iter_2/model.safetensors")
        assert {q["sha256"] for q in manifest["members"][name]["queries"]} >= {
            sha256(out / name / "iter_2/query_analysis/queries.json")
        }
    assert manifest["metrics"]["exact"] == json.loads((hand / "evaluation.json").read_text())["exact"]
    assert len({j["job"] for j in manifest["jobs"]}) == 10
    assert all(s["started"] <= s["ended"] for s in manifest["steps"].values())
    # what is missing, and only that, is submitted again
    (out / "heatmaps/contact_sheet.jpg").unlink()
    code, text, _ = run(capsys, *submitting)
    assert code == 0 and "1 jobs submitted" in text and "heatmaps" in text
    wait_for(lambda: not queue())
    assert (out / "heatmaps/contact_sheet.jpg").is_file(), logs(out)


@pytest.mark.slow
def test_preempted_and_requeued__trainings_end_with_the_unbroken_weights(node, scenes, drawn, tmp_path, capsys):
    """One training of the pipeline and one by plain sbatch; a job of a better partition takes both nodes' place."""
    recipe = write_recipe(tmp_path / "t.toml", scenes, iterations=30)
    work = {"unbroken": tmp_path / "unbroken", "pipeline": tmp_path / "run/t", "script": tmp_path / "script"}
    steps = plan({"t": read_config(recipe)}, Options("anomaly-track", drawn), tmp_path / "run")[:1]
    prepare(steps, {"t": recipe}, tmp_path / "run")
    (one,) = submissions(steps, tmp_path / "run", Resources(partition="low"))
    small = ("--partition=low", "--cpus-per-task=1", "--mem=100M", "--parsable", "--signal=B:USR1@60")
    script = (f"--output={tmp_path}/script.out", str(ROOT / "slurm/run_train_mask2former_swin-s.sh"))
    two = ["sbatch", *small, *script, "--work-dir", str(work["script"])]
    environment = os.environ | {"CONFIG": str(recipe), "PYTHON": sys.executable}
    jobs = [
        subprocess.run(c, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path).stdout.strip()
        for c in (one.command({}), two)
    ]

    def said() -> str:
        return (tmp_path / "script.out").read_text() + logs(tmp_path / "run")

    wait_for(lambda: all((work[n] / "last_checkpoint").is_file() for n in ("pipeline", "script")))
    better = ["sbatch", "--partition=high", "--ntasks=2", "--output=/dev/null", "--wait", "--wrap", "true"]
    subprocess.run(better, check=True, capture_output=True, timeout=300)
    cut = [(work[n] / "last_checkpoint").read_text().strip() for n in ("pipeline", "script")]
    assert "iter_30" not in cut, f"nothing was preempted: {cut}\n{said()}"
    assert run(capsys, "train", recipe, "--work-dir", work["unbroken"])[0] == 0
    wait_for(lambda: all((work[n] / "iter_30/model.safetensors").is_file() for n in ("pipeline", "script")))
    wait_for(lambda: not queue())
    assert len({sha256(work[n] / "iter_30/model.safetensors") for n in work}) == 1
    for job in jobs:
        told = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
        assert "Restarts=1" in told and "JobState=COMPLETED" in told, told + said()


@pytest.mark.slow
def test_failed_step__stops_what_waits_for_it_and_status_says_so(node, drawn, scenes, tmp_path, capsys):
    broken = write_recipe(tmp_path / "broken.toml", tmp_path / "no-scenes")
    out = tmp_path / "run"
    data = ("--dataset", "anomaly-track", "--root", drawn)
    code, _, err = run(capsys, "slurm", "pipeline", broken, *data, "--out", out)
    assert code == 0, err
    wait_for(lambda: not queue())
    rows = {r.name: r for r in status(out)}
    assert (rows["train-broken"].state, rows["train-broken"].remark) == ("failed", "exit code 2"), logs(out)
    assert {r.state for n, r in rows.items() if n != "train-broken"} == {"stopped"}
    assert rows["evaluate"].remark == "waits for train-broken"
    assert "no-scenes" in (out / "logs/train-broken.out").read_text()
    code, text, _ = run(capsys, "slurm", "status", out)
    assert code == 1 and "failed" in text and "stopped" in text
