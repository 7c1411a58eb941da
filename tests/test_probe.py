"""The probe's answer follows from what it measured."""

import pytest

from objectives import probe


@pytest.mark.parametrize(("gain", "expected"), [(0.02, "float32"), (1.19, "float32"), (1.21, "bfloat16")])
def test_bfloat16_is_chosen_only_where_it_is_clearly_faster(
    gain: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_seconds", lambda dtype, device: 1.0 if "float32" in str(dtype) else 1 / gain)
    precision, text = probe.choose_precision("cpu")
    assert precision == expected
    assert f"{gain:.1f} times" in text


def test_probe_runs_on_this_processor() -> None:
    precision, text = probe.choose_precision("cpu")
    assert text.startswith(precision)
