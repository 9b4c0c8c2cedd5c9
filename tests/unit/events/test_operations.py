"""The declaration of guarded operations."""

from itertools import chain

from krie.enforce.containment import containment_sensor
from krie.events.operations import ALL, GUARDED, NOT_GUARDED, OPERATIONS, function_of
from krie.kernel.program import AttachType


def test_each_has_a_number_of_its_own() -> None:
    assert len(OPERATIONS) == len(ALL)
    assert not OPERATIONS.keys() & GUARDED.keys()


def test_each_hook_is_decided_about_once() -> None:
    hooks = [hook for each in ALL for hook in (each.hook, *each.further)]
    hooks += chain(*NOT_GUARDED.values())
    assert [each for each in hooks if hooks.count(each) > 1] == []


def test_each_is_attached_by_either_name_and_tells_its_own_number() -> None:
    probes = {each.name: each for each in containment_sensor().probes}
    for each in ALL:
        lsm, function = probes[each.hook].alternatives
        assert [(one.attach, one.target) for one in lsm.programs] == [
            (AttachType.LSM, hook) for hook in (each.hook, *each.further)
        ]
        assert [one.target for one in function.programs] == [function_of(hook) for hook in (each.hook, *each.further)]
        first, *further = lsm.programs
        assert (first.argument, first.optional) == (each.number, False)
        assert all((one.argument >> 8, one.optional) == (each.number, True) for one in further)


def test_names_of_functions() -> None:
    assert function_of("file_open") == "security_file_open"
    assert function_of("bprm_check_security") == "security_bprm_check"
    assert function_of("userns_create") == "security_create_user_ns"
