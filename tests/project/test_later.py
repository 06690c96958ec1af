import importlib

import pytest


@pytest.mark.parametrize("name", ["datasets", "export", "metrics", "models", "plots"])
def test_later__a_packages_parts_are_listed_and_found(name):
    package = importlib.import_module(f"xenomask.{name}")
    listed = dir(package)
    assert listed == sorted(listed) and {"later", "__name__"} <= set(listed)
    parts = {"datasets": "open_dataset", "export": "export_detector", "metrics": "evaluate", "models": "load"}
    part = parts.get(name, "roc")
    assert part in listed and callable(getattr(package, part))
    with pytest.raises(AttributeError, match=f"module 'xenomask.{name}' has no attribute 'nothing'"):
        getattr(package, "nothing")  # noqa: B009
