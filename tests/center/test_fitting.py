"""A payload that does not fit is found in the parent, before a worker starts."""

from typing import Any

import msgspec
import pydantic
import pytest

from dispatch import DataParallelDispatchCenter, DispatchConfig
from dispatch.center.fitting import Fitting, Misfit


class Sample(msgspec.Struct):
    """What a runner takes."""

    number: int
    sure: bool = False


class Model(pydantic.BaseModel):
    """The same of pydantic's."""

    number: int


def takes_sample(sample: Sample) -> int:
    """Its number."""
    return sample.number


def takes_model(model: Model) -> int:
    """Its number."""
    return model.number


def takes_any(payload: Any) -> Any:
    """Itself."""
    return payload


def fitting(runner: Any, **config: Any) -> Fitting:
    """What it takes."""
    return Fitting(DataParallelDispatchCenter(runner, config=DispatchConfig(**config)))


@pytest.mark.parametrize("runner", [takes_sample, takes_model])
def test_a_payload_that_fits_stays_as_it_is(runner: Any) -> None:
    """What was given comes back; what does not fit is a Misfit that says where."""
    payload = {"number": 1}
    assert fitting(runner).fit(payload) is payload
    with pytest.raises(Misfit, match="number"):
        fitting(runner).fit({"number": "x"})


def test_what_cannot_be_encoded_or_is_too_big() -> None:
    """Both are Misfits too."""
    with pytest.raises(Misfit, match="cannot be encoded"):
        fitting(takes_any).fit(object())
    with pytest.raises(Misfit, match="over max_value_bytes=10"):
        fitting(takes_any, max_value_bytes=10).fit("x" * 20)


def test_text_becomes_what_is_wanted() -> None:
    """A row of text is read as numbers and truths where the annotation wants them, and stays text elsewhere."""
    assert fitting(takes_sample).fit_text({"number": "3", "sure": "true"}) == Sample(3, sure=True)
    assert fitting(takes_model).fit_text({"number": "3"}) == Model(number=3)
    assert fitting(takes_any).fit_text({"number": "3"}) == {"number": "3"}
    with pytest.raises(Misfit, match=r"does not fit Sample: Expected `int`, got `str` - at `\$.number`"):
        fitting(takes_sample).fit_text({"number": "three"})
