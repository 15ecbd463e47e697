"""Cost files: what they may say, and every fault with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.analysis.cost_file import load_costs
from profiler.errors import InputFileError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "boxes.yaml"
BOX = "  - {name: a, match: {device: x}, price_usd: 1000, %s}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "costs.yaml"
    path.write_text(text)
    return path


def faults(folder: Path, text: str) -> str:
    with pytest.raises(InputFileError) as caught:
        load_costs(written(folder, text))
    return "\n".join(caught.value.faults)


def test_the_example_can_be_read_and_lacks_nothing() -> None:
    costs = load_costs(EXAMPLE)
    assert len(costs.boxes) == 3
    assert [box.lacking for box in costs.boxes] == [(), (), ()]
    assert costs.boxes[0].ranges.keys() == {"price_usd", "utilisation", "electricity_usd_per_kwh"}


def test_common_assumptions_fill_what_a_box_does_not_say(tmp_path: Path) -> None:
    text = (
        "costs: 1\nname: t\ncommon: {utilisation: 0.4, pue: 1.2}\nboxes:\n"
        + BOX % "pue: 1.1"
        + "  - {name: b, match: {device: y}, rent_usd_per_hour: 1}\n"
    )
    first, second = load_costs(written(tmp_path, text)).boxes
    assert [first.utilisation, first.pue, second.utilisation, second.pue] == [0.4, 1.1, 0.4, 1.2]
    assert (first.common, second.common) == (frozenset({"utilisation"}), frozenset({"utilisation", "pue"}))


def test_all_cost_is_on_output_unless_a_split_is_stated(tmp_path: Path) -> None:
    text = "costs: 1\nname: t\n%sboxes:\n" + BOX % "pue: 1"
    assert load_costs(written(tmp_path, text % "")).output_share == 1
    split = "attribution: {method: stated_split, output_share: 0.7}\n"
    assert load_costs(written(tmp_path, text % split)).output_share == 0.7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("utilisation: 1", "at work in every hour of the year"),
        ("utilisation: 60", "utilisation: must be at most 1"),
        ("utilisation: 0", "utilisation: must be greater than 0"),
        ("pue: 0.9", "pue: must be at least 1"),
        ("price: 3", "unknown key; did you mean 'price_usd'?"),
        ("price_eur: 3", "unknown key"),
        ("rent_usd_per_hour: 2", "either price_usd or rent_usd_per_hour"),
        ("rent_includes_power: true", "goes with rent_usd_per_hour"),
        ("residual_value_usd: 2000", "residual_value_usd is more than price_usd"),
        ("power: measured, load_power_w: 5", "load_power_w is not used with power: measured"),
        ("rest_of_box_power_w: 5", "goes with power: measured"),
        ("electricity_usd_per_kwh: '0.15'", "must be a number"),
        ("ranges: {price_usd: [2000, 3000]}", "must be [low, high] around 1000"),
        ("ranges: {pue: [1, 2]}", "pue has a range and no value"),
        ("ranges: {colour: [1, 2]}", "'colour' is none of"),
        ("utilisation: 0.5, ranges: {utilisation: [0.1, 2]}", "is a share and at most 1"),
        ("utilisation: 0.5, ranges: {utilisation: [0, 0.6]}", "cannot be as low as 0"),
        ("depreciation_method: magic", "must be 'straight_line' or 'annuity'"),
        ("load_power_w: .inf", "numbers must be finite"),
    ],
)
def test_faults_in_a_box(tmp_path: Path, fields: str, words: str) -> None:
    said = faults(tmp_path, "costs: 1\nname: t\nboxes:\n" + BOX % fields)
    assert words in said
    assert "costs.yaml:4: boxes[0]" in said


def test_full_utilisation_is_allowed_with_a_reason(tmp_path: Path) -> None:
    text = "costs: 1\nname: t\nboxes:\n" + BOX % "utilisation: 1.0, utilisation_reason: a batch queue"
    assert load_costs(written(tmp_path, text)).boxes[0].utilisation == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("attribution: {method: stated_split}\n", "output_share goes with method: stated_split"),
        ("attribution: {method: both}\n", "must be 'all_on_output' or 'stated_split'"),
        ("attribution: {method: stated_split, output_share: 1}\n", "must be less than 1"),
        ("common: {price_usd: 5}\n", "unknown key"),
        ("api_prices: [{name: x}]\n", "usd_per_million_input_tokens: is missing"),
    ],
)
def test_faults_in_the_head(tmp_path: Path, text: str, words: str) -> None:
    assert words in faults(tmp_path, f"costs: 1\nname: t\n{text}boxes:\n" + BOX % "pue: 1")


def test_names_are_unique_and_boxes_say_what_they_match(tmp_path: Path) -> None:
    assert "'a' is there twice" in faults(tmp_path, "costs: 1\nname: t\nboxes:\n" + 2 * (BOX % "pue: 1"))
    assert "give device" in faults(tmp_path, "costs: 1\nname: t\nboxes:\n  - {name: a, match: {}}\n")
    assert "at least one entry" in faults(tmp_path, "costs: 1\nname: t\nboxes: []\n")
