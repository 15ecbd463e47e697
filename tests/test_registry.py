from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from profiler import registry
from profiler.engines.fake import FakeEngine
from profiler.errors import UsageError


@pytest.mark.parametrize("group", ["backends", "engines"])
def test_every_built_in_name_loads_and_knows_its_name(group: str) -> None:
    for name in registry.BUILT_IN[group]:
        assert registry.load(group, name).name == name


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown engine 'tortch'; did you mean 'torch'"):
        registry.load("engines", "tortch")


class TestForeign:
    @pytest.fixture(autouse=True)
    def entry_points(self, monkeypatch: pytest.MonkeyPatch) -> None:
        points = [
            EntryPoint("mine", "profiler.engines.fake:FakeEngine", "aiprof.engines"),
            EntryPoint("fake", "os:getcwd", "aiprof.engines"),
            EntryPoint("broken", "no_such_module:Thing", "aiprof.engines"),
        ]
        monkeypatch.setattr(
            registry, "entry_points", lambda group: points if group == "aiprof.engines" else []
        )

    def test_other_packages_add_theirs(self) -> None:
        assert isinstance(registry.load("engines", "mine"), FakeEngine)
        assert registry.names("engines") == [*registry.BUILT_IN["engines"], "broken", "mine"]

    def test_ours_wins_on_the_same_name(self) -> None:
        assert isinstance(registry.load("engines", "fake"), FakeEngine)

    def test_one_that_cannot_be_imported_is_named(self) -> None:
        with pytest.raises(UsageError, match=r"engine 'broken' from no_such_module:Thing cannot be loaded"):
            registry.load("engines", "broken")
