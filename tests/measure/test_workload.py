"""What a model can take bounds what is run, and every bound is said."""

from __future__ import annotations

import pytest

from stages.artifacts.errors import UsageError
from stages.measure.workload import Workload, fit


def test_fit_keeps_what_the_model_can_take() -> None:
    asked = Workload(chunks=(128, 128, 8), batches=(2, 2), prompts=(10, 3), generate=5, warmup=0, runs=1)
    fitted = fit(asked, max_context=15, fixed_batch=2)
    assert fitted.workload.chunks == (128, 8) and fitted.workload.batches == (2,)
    assert fitted.workload.prompts == (10, 3)
    assert [text for text in fitted.notices if "context" in text or "holds" in text] == []
    fixed = fit(asked, max_context=14, fixed_batch=3)
    assert fixed.workload.batches == (3,) and fixed.workload.prompts == (9, 3)
    assert len(fixed.notices) == 2 and "exported for 3 tiles" in fixed.notices[1]
    with pytest.raises(UsageError, match="leaves no room"):
        fit(asked, max_context=5, fixed_batch=None)


def test_without_decoding_the_whole_context_is_read() -> None:
    asked = Workload(chunks=(8,), batches=(1,), prompts=(4, 16, 32), generate=0, warmup=0, runs=1)
    fitted = fit(asked, max_context=16, fixed_batch=None)
    assert fitted.workload.prompts == (4, 16) and len(fitted.notices) == 1
