"""What a user may set: from Python, from a mapping, from TOML and from JSON, and each wrong field by its name."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dispatch.center.registry import RunnerType
from dispatch.terms.config import DispatchConfig, Policy, Retry
from dispatch.terms.errors import ConfigError

# As the contract has them.
DEFAULTS: dict[type, dict[str, Any]] = {
    DispatchConfig: {
        "runner_type": "data_parallel",
        "data_parallel": None,
        "work_dir": None,
        "resume": "done",
        "allow_drift": False,
        "policy": Policy(),
        "max_pending": 10_000,
        "max_pending_bytes": 64 * 1024 * 1024,
        "max_value_bytes": 256 * 1024 * 1024,
        "env": {},
        "seed": 0,
    },
    Policy: {
        "timeout": None,
        "startup_timeout": 60.0,
        "grace": 5.0,
        "cancel_grace": 0.1,
        "retry": Retry(),
        "crash_budget": 2,
        "isolation": "worker",
        "recycle_after": None,
        "memory_limit": None,
        "max_failures": None,
    },
}

TOML = """
runner_type = "local"
data_parallel = 3
seed = 7
env = { OMP_NUM_THREADS = "2" }

[policy]
timeout = 1.5
isolation = "fork"

[policy.retry]
attempts = 4
on = ["raised", "crashed"]
"""
JSON = """{"runner_type": "local", "data_parallel": 3, "seed": 7, "env": {"OMP_NUM_THREADS": "2"},
    "policy": {"timeout": 1.5, "isolation": "fork", "retry": {"attempts": 4, "on": ["raised", "crashed"]}}}"""
LOADED = DispatchConfig(
    runner_type="local",
    data_parallel=3,
    seed=7,
    env={"OMP_NUM_THREADS": "2"},
    policy=Policy(timeout=1.5, isolation="fork", retry=Retry(attempts=4, on=("raised", "crashed"))),
)


# ---------------------------------------------------------------------------------------- defaults


@pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)
def test_defaults_are_those_of_the_contract(kind: type[msgspec.Struct]) -> None:
    """Every field of the contract is there, with its default."""
    assert msgspec.structs.asdict(kind()) == DEFAULTS[kind]


def test_one_attempt_is_the_default() -> None:
    """Without being asked nothing is run twice; asked, it is for errors and timeouts."""
    assert Retry().attempts == 1
    assert set(Retry().on) == {"raised", "timed_out"}


@pytest.mark.parametrize("one", [DispatchConfig(), Policy(), Retry()], ids=lambda one: type(one).__name__)
def test_a_configuration_cannot_be_changed(one: Any) -> None:
    """It is frozen: what a centre was given is what it runs with. `msgspec.structs.replace` makes another."""
    with pytest.raises(AttributeError):
        one.seed = one.timeout = one.attempts = 5


def test_two_configurations_share_no_defaults() -> None:
    """The environment of one is not the environment of another."""
    assert DispatchConfig().env is not DispatchConfig().env


# ----------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("source", "form"),
    [(TOML, "toml"), (TOML.encode(), "toml"), (JSON, "json"), (JSON.encode(), "json")],
    ids=["toml", "toml-bytes", "json", "json-bytes"],
)
def test_text_becomes_a_configuration(source: Any, form: Any) -> None:
    """TOML and JSON, as text or as bytes, nested policies included."""
    assert DispatchConfig.load(source, format=form) == LOADED


def test_a_mapping_becomes_a_configuration() -> None:
    """Also with Structs inside, and an empty one is all defaults."""
    assert DispatchConfig.load(msgspec.json.decode(JSON)) == LOADED
    assert DispatchConfig.load({"policy": LOADED.policy}).policy == LOADED.policy
    assert DispatchConfig.load({}) == DispatchConfig.load("") == DispatchConfig()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ({"data_paralel": 2}, "data_paralel is 2: .* unknown field `data_paralel`"),
        ({"policy": {"time_out": 2}}, "policy.time_out is 2: .* unknown field `time_out`"),
        ({"policy": {"retry": {"attemps": 2}}}, "policy.retry.attemps is 2: .* unknown field `attemps`"),
        ({"seed": "seven"}, "seed is 'seven': Expected `int`, got `str`"),
        ({"seed": 1.5}, "seed is 1.5: Expected `int`, got `float`"),
        ({"env": {"A": 1}}, "env is {'A': 1}: Expected `str`, got `int`"),
        ({"policy": {"timeout": "5"}}, r"policy.timeout is '5': Expected `float \| null`, got `str`"),
        (
            {"policy": {"isolation": "docker"}},
            "policy.isolation is 'docker': Invalid enum value 'docker'",
        ),
        (
            {"policy": {"retry": {"on": ["lost"]}}},
            r"policy.retry.on\[0\] is \['lost'\]: Invalid enum value 'lost'",
        ),
        ({"policy": 3}, "policy is 3: Expected `object`, got `int`"),
        ([], r"config is \[\]: Expected `object`, got `array`"),
        ({"policy": {"timeout": 0}}, "policy.timeout is 0.0: it must be more than 0"),
        ({"policy": {"retry": {"attempts": 0}}}, "policy.retry.attempts is 0: it must be at least 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_named_when_loading(source: dict[str, Any], names: str) -> None:
    """Unknown, ill-typed or out of range: one error, with the path, from a mapping as from text."""
    with pytest.raises(ConfigError, match=f"^{names}"):
        DispatchConfig.load(msgspec.json.encode(source), format="json")
    if source:
        with pytest.raises(ConfigError, match=f"^{names}") as caught:
            DispatchConfig.load(source)
        assert names.startswith(caught.value.field.replace("[", "\\[").replace("]", "\\]"))


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("seed = ", "toml"),
        (b"seed = 1\xff", "toml"),
        ('{"seed"', "json"),
        (b'{"a": "\xff"}', "json"),
    ],
)
def test_text_that_is_no_text_of_its_kind_is_a_config_error(source: Any, form: Any) -> None:
    """A typo in a file is told like a typo in a field."""
    with pytest.raises(ConfigError, match="config is 'not valid'"):
        DispatchConfig.load(source, format=form)


# ------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("kind", "field", "value", "says"),
    [
        (Policy, "isolation", "frok", "policy.isolation is 'frok': Invalid enum value 'frok'"),
        (Policy, "timeout", "5", "policy.timeout is '5': Expected `float | null`, got `str`"),
        (Policy, "retry", {"attempts": "2"}, "policy.retry is {'attempts': '2'}: Expected `int`, got `str`"),
        (Retry, "attempts", 2.5, "policy.retry.attempts is 2.5: Expected `int`, got `float`"),
        (Retry, "on", ["lost"], "policy.retry.on is ['lost']: Invalid enum value 'lost'"),
        (DispatchConfig, "data_parallel", True, "data_parallel is True: Expected `int | null`, got `bool`"),
        (DispatchConfig, "seed", "seven", "seed is 'seven': Expected `int`, got `str`"),
        (DispatchConfig, "env", {"A": 1}, "env is {'A': 1}: Expected `str`, got `int`"),
        (DispatchConfig, "policy", None, "policy is None: Expected `object`, got `null`"),
    ],
    ids=str,
)
def test_a_field_of_another_type_is_refused_by_name(kind: Any, field: str, value: Any, says: str) -> None:
    """Also when the Struct is made in Python: a misspelt isolation is not silently none."""
    with pytest.raises(ConfigError) as raised:
        kind(**{field: value})
    assert str(raised.value).startswith(says)


def test_what_is_as_good_is_made_right() -> None:
    """A whole number of seconds, a list of causes, a path, a mapping for a policy, a member of RunnerType."""
    policy = Policy(timeout=5, retry=Retry(on=["raised"]))  # type: ignore[arg-type]  # a list will do
    assert type(policy.timeout) is float
    assert policy.retry.on == ("raised",)
    config = DispatchConfig(work_dir=Path("runs"), policy={"grace": 1}, runner_type=RunnerType.LOCAL)  # type: ignore[arg-type]  # these too
    assert (config.work_dir, config.policy, config.runner_type) == ("runs", Policy(grace=1.0), "local")


# ------------------------------------------------------------------------------------------ ranges


@pytest.mark.parametrize(
    ("kind", "field", "value", "least"),
    [
        (DispatchConfig, "data_parallel", 0, "at least 1"),
        (DispatchConfig, "data_parallel", -2, "at least 1"),
        (DispatchConfig, "max_pending", 0, "at least 1"),
        (DispatchConfig, "max_pending_bytes", 0, "at least 1"),
        (DispatchConfig, "max_value_bytes", 0, "at least 1"),
        (Policy, "timeout", 0, "more than 0"),
        (Policy, "timeout", -1.5, "more than 0"),
        (Policy, "timeout", math.nan, "more than 0"),
        (Policy, "startup_timeout", 0, "more than 0"),
        (Policy, "grace", -0.1, "at least 0"),
        (Policy, "grace", math.nan, "at least 0"),
        (Policy, "cancel_grace", -1, "at least 0"),
        (Policy, "crash_budget", 0, "at least 1"),
        (Policy, "recycle_after", 0, "at least 1"),
        (Policy, "memory_limit", 0, "at least 1"),
        (Policy, "max_failures", 0, "at least 1"),
        (Retry, "attempts", 0, "at least 1"),
        (Retry, "wait", -1, "at least 0"),
        (Retry, "factor", -1, "at least 0"),
        (Retry, "max_wait", -1, "at least 0"),
        (Retry, "jitter", math.nan, "at least 0"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_name(kind: Any, field: str, value: float, least: str) -> None:
    """The error says which field, what it is and what it may be, when the Struct is made."""
    with pytest.raises(ConfigError, match=rf"{field} is .*: it must be {least}") as raised:
        kind(**{field: value})
    assert raised.value.field.split(".")[-1] == field
    assert str(raised.value.got) == str(type(raised.value.got)(value))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (DispatchConfig, "data_parallel", 1),
        (Policy, "timeout", 0.001),
        (Policy, "timeout", math.inf),
        (Policy, "grace", 0),
        (Policy, "cancel_grace", 0),
        (Policy, "crash_budget", 10**9),
        (Retry, "attempts", 10**9),
        (Retry, "factor", 0),
    ],
)
def test_the_edges_of_what_makes_sense_are_allowed(kind: Any, field: str, value: float) -> None:
    """No grace at all, an endless budget, a timeout of a millisecond."""
    assert getattr(kind(**{field: value}), field) == value
