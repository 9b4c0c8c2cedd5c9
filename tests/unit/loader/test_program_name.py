"""What programs are called in the kernel tells them apart."""

import re
from dataclasses import replace

from krie.config import Config
from krie.enforce.guard_sensor import enforcing_sensors
from krie.kernel.features import Features
from krie.kernel.program import AttachType, Program
from krie.loader.program_name import name_of
from krie.loader.source import Unit
from krie.plugin.manager import Plugins
from krie.processes.sensor import process_sensor

SHIPPED = ("cfi", "runtime_integrity", "smep_smap", "syscall_table")
EMPTY = Unit("", {}, (), (), (), (), (), ())


def test_no_two_programs_have_one_name_in_the_kernel() -> None:
    config = Config(plugins={name: {"required": True} for name in SHIPPED})
    loaded = Plugins.load(config, "test", Features(), lambda _: None).loaded
    sensors = [process_sensor(), *enforcing_sensors(), *(each.sensor for each in loaded if each.sensor)]
    assert {each.name for each in sensors} == {"process", "containment", "guard", *SHIPPED}
    programs = [
        program
        for sensor in sensors
        for probe in sensor.probes
        for alternative in probe.alternatives
        for program in alternative.programs
    ]
    unit = replace(EMPTY, programs=tuple(each.label for each in programs), sensors=tuple(x.name for x in sensors))
    names = {each.label: name_of(each, unit) for each in programs}
    assert len(set(names.values())) == len(names) > 200
    assert all(re.fullmatch(r"[a-z0-9]+_[A-Za-z0-9_]+_[0-9a-z]+", each) and len(each) <= 15 for each in names.values())


def test_a_name_says_the_sensor_and_what_it_is() -> None:
    load = Program(AttachType.LSM, "a", "kernel_watch_module_load")
    exec_ = Program(AttachType.LSM, "a", "kernel_exec", argument=3)
    unit = replace(EMPTY, programs=(*map(str, range(36)), exec_.label, load.label), sensors=("kernel", "kernel_watch"))
    assert (name_of(load, unit), name_of(exec_, unit)) == ("kw_module_lo_11", "ker_exec_10")
