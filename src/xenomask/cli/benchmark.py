"""Detector + data sets -> tables."""

from typing import Annotated

import typer

from xenomask.cli.common import (
    DatasetOption,
    DetectorOption,
    DeviceOption,
    JsonOption,
    ResizeOption,
    RootOption,
    SplitOption,
    err_console,
    load_dataset,
    load_detector,
    progress,
    write_json,
)

app = typer.Typer()


@app.command()
def benchmark(
    dataset: DatasetOption,
    root: RootOption,
    detector: DetectorOption = "nano",
    scores: Annotated[str, typer.Option(help="comma-separated names, or all")] = "all",
    split: SplitOption = "val",
    resize: ResizeOption = None,
    device: DeviceOption = None,
    json_file: JsonOption = None,
) -> None:
    """Every score's numbers for each member and the ensemble, as a Markdown table; each network looks once.

    Example: xenomask benchmark --dataset anomaly-track --root data/smiyc
    """
    from xenomask.run.benchmark import benchmark as run_benchmark
    from xenomask.scores import SCORES, get_score

    chosen = [get_score(s.strip()) for s in (SCORES if scores == "all" else scores.split(","))]
    data = load_dataset(dataset, root, split, resize).labelled()
    found = load_detector(detector, device)
    empty = [s for s in chosen if any(not getattr(m.queries, part) for m in found.members for part in s.needs)]
    for s in empty:
        err_console.print(f"left out: {s.name}, a member has no {'/'.join(s.needs)} query", style="yellow")
    with progress("benchmark", len(data.frames)) as tick:
        rows = run_benchmark(found, data, [s for s in chosen if s not in empty], tick=tick)
    print("| score | networks | outlier queries | AUPR-sum | AUPR-trapz | FPR95 | F1 | AUROC |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        n = r.numbers
        cells = (n[k] for k in ("aupr_sum", "aupr_trapz", "fpr95", "best_f1", "auroc"))
        print(f"| {r.score} | {r.member} | {r.queries} | {' | '.join(f'{v:.4f}' for v in cells)} |")
    write_json(json_file, [{"score": r.score, "networks": r.member, "queries": r.queries, **r.numbers} for r in rows])
