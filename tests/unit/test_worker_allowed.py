from __future__ import annotations

import pytest

from endpoint.worker.allowed import Allowed, by_path, check_allowed
from endpoint.worker.strategies import BY_NAME

SDK = "globus_compute_sdk.serialize."


def names(allowed: Allowed) -> set[str]:
    return {one.name for one in allowed.strategies}


def test_without_a_list_everything_is_permitted() -> None:
    for nothing in (None, [], ()):
        assert all(Allowed(nothing).permits(one) for one in BY_NAME.values())


def test_a_word_stands_for_every_strategy_of_its_kind_but_the_one_only_for_reading() -> None:
    allowed = Allowed(["globus_compute_sdk.*Code", SDK + "JSONData"])
    assert names(allowed) == {one.name for one in BY_NAME.values() if one.for_code} - {"PickleCode"} | {"JSONData"}


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([SDK + "JSONData"], "at least one for code and one for data"),
        (["globus_compute_sdk.*Data"], "at least one for code and one for data"),
        (["globus_compute_sdk.*Data", SDK + "JSONData", SDK + "DillCode"], "no single one may be named too"),
        ([SDK + "JSONDate", SDK + "DillCode"], "did you mean globus_compute_sdk.serialize.JSONData?"),
        ([SDK + "PickleCode", SDK + "JSONData"], "'globus_compute_sdk.serialize.PickleCode' is not a serialization"),
        (["JSONData", "DillCode"], "'JSONData' is not a serialization strategy"),
        ([7], "something other than import paths"),
    ],
)
def test_a_list_that_can_not_work_is_refused_with_the_reason(listed: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_allowed(listed)


def test_a_strategy_is_known_by_both_paths_that_the_sdk_has_for_it() -> None:
    assert by_path(SDK + "concretes.DillCode") is by_path(SDK + "DillCode") is BY_NAME["DillCode"]


def test_a_member_of_a_combined_strategy_must_be_listed_itself() -> None:
    # Given a list with a combined strategy and one of its members
    combined, source, dill = (BY_NAME[name] for name in ("AllCodeStrategies", "PureSourceDill", "DillCode"))
    allowed = Allowed([SDK + "AllCodeStrategies", SDK + "PureSourceDill", SDK + "JSONData"])
    # Then the other members are kept out of it
    assert allowed.permits(combined)
    assert allowed.permits(source, combined)
    assert not allowed.permits(dill, combined)


def test_a_list_of_only_combined_strategies_allows_their_members_inside_them_alone() -> None:
    combined, dill = BY_NAME["AllCodeStrategies"], BY_NAME["DillCode"]
    allowed = Allowed([SDK + "AllCodeStrategies", SDK + "AllDataStrategies"])
    assert allowed.permits(dill, combined)
    assert not allowed.permits(dill)
    assert not allowed.permits(BY_NAME["PickleCode"], combined)
