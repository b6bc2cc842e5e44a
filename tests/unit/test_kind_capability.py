from __future__ import annotations

import pytest

from velagen.lab.kind.capability import NAMES, lacking, missing


def status(bits: int) -> str:
    return f"Name:\tx\nCapInh:\t0000000000000000\nCapBnd:\t{bits:016x}\nCapAmb:\t0000000000000000\n"


ALL = (1 << 41) - 1


def test_nothing_is_missing_from_a_full_set() -> None:
    assert missing(status(ALL), 40) == ()


@pytest.mark.parametrize("bit", range(len(NAMES)))
def test_each_bit_has_its_name(bit: int) -> None:
    assert missing(status(ALL & ~(1 << bit)), 40) == (NAMES[bit],)


def test_the_bounding_set_of_a_sandbox_without_resource_limits() -> None:
    assert missing(status(0x1FFFEFFFFFF), 40) == ("SYS_RESOURCE",)


def test_an_old_kernel_has_fewer_capabilities_to_lack() -> None:
    assert missing(status((1 << 38) - 1), 37) == ()


def test_a_newer_kernel_has_more_than_have_names() -> None:
    assert missing(status(ALL), 41) == ("41",)


def test_a_text_that_is_no_status_is_refused() -> None:
    with pytest.raises(ValueError, match="CapBnd"):
        missing("Name: x\n", 40)


def test_this_machine_answers() -> None:
    assert set(lacking()) <= set(NAMES)
