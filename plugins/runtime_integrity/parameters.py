"""Variables of the kernel that are watched: what each must be, and which of them KRIe watches unless told otherwise."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

NUMBER_BYTES = (1, 2, 4, 8)
_INTERFACES = ("/proc/sys/", "/sys/")


def _interface(path: str) -> str:
    if path and not (path.startswith(_INTERFACES) and ".." not in path.split("/")):
        raise ValueError("must be a path below /proc/sys or /sys: the file by which the kernel lets it be set")
    return path


class Parameter(BaseModel):
    """One variable, or a field of one, with what is expected of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    symbol: Annotated[str, Field(min_length=1, max_length=63)]
    """As /proc/kallsyms has it; `module:symbol` for a module's."""
    type: str = ""
    """The kernel's type of it, by whose BTF its size is found."""
    field: str = ""
    """Of that type: only this one is watched."""
    size: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    """Bytes; asked of BTF where neither this nor `type` is given."""
    form: Literal["number", "text", "bytes"] = "number"
    signed: bool = False
    mask: int | None = None
    """Bits of a number that count."""
    value: int | None = None
    least: int | None = None
    most: int | None = None
    text: str | None = None
    baseline: Literal["same", "not_lower", "not_higher", "set"] | None = None
    """As it was when the agent started; `set`: not 0 if it was not."""
    interface: Annotated[str, AfterValidator(_interface), Field(max_length=95)] = ""
    """The file by which the kernel lets it be set, and so be put back."""

    @model_validator(mode="after")
    def _one_expectation(self) -> Self:
        ranged = self.least is not None or self.most is not None
        given = [self.value is not None, ranged, self.text is not None, self.baseline is not None]
        if sum(given) != 1:
            raise ValueError(f"{self.name}: give one of value, least and most, text, baseline")
        if (self.text is not None) != (self.form == "text") and self.baseline is None:
            raise ValueError(f"{self.name}: text is for form text; value, least and most for form number")
        if self.form != "number" and self.baseline not in (None, "same"):
            raise ValueError(f"{self.name}: baseline {self.baseline} is for form number")
        if self.form != "number" and (self.mask is not None or self.signed):
            raise ValueError(f"{self.name}: mask and signed are for form number")
        if self.form == "number" and self.size is not None and self.size not in NUMBER_BYTES:
            raise ValueError(f"{self.name}: a number has 1, 2, 4 or 8 bytes, not {self.size}")
        if self.field and not self.type:
            raise ValueError(f"{self.name}: field needs the type that has it")
        if self.field and self.size is not None:
            raise ValueError(f"{self.name}: the size of a field is BTF's; leave size out")
        if self.form == "bytes" and self.interface:
            raise ValueError(f"{self.name}: bytes cannot be written back; leave interface out")
        return self

    @property
    def name(self) -> str:
        """The symbol, with the field."""
        return f"{self.symbol}.{self.field}" if self.field else self.symbol


def _switch(
    symbol: str, sysctl: str, baseline: Literal["not_lower", "not_higher", "set"], *, signed: bool = False
) -> Parameter:
    """An int behind a sysctl."""
    return Parameter(symbol=symbol, size=4, baseline=baseline, interface=f"/proc/sys/{sysctl}", signed=signed)


def _helper(symbol: str, sysctl: str, size: int) -> Parameter:
    """The path of a program that the kernel starts as root."""
    return Parameter(symbol=symbol, size=size, form="text", baseline="same", interface=f"/proc/sys/{sysctl}")


def _flag(symbol: str, value: int | None = None) -> Parameter:
    """A bool of one byte that nothing but the kernel's own code sets: as at start unless a value is given."""
    return Parameter(symbol=symbol, size=1, value=value, baseline="not_lower" if value is None else None)


SHIPPED = (
    # Whether tracing, and so much of KRIe, works at all.
    Parameter(symbol="kprobes_all_disarmed", size=1, value=0, interface="/sys/kernel/debug/kprobes/enabled"),
    _switch("ftrace_enabled", "kernel/ftrace_enabled", "not_lower"),
    Parameter(symbol="ftrace_disabled", size=4, value=0),
    Parameter(
        symbol="stack_tracer_enabled", size=4, baseline="same", interface="/proc/sys/kernel/stack_tracer_enabled"
    ),
    Parameter(symbol="ftrace_dump_on_oops", size=4, baseline="same"),
    # What ordinary users may do to the kernel.
    _switch("kptr_restrict", "kernel/kptr_restrict", "not_lower"),
    _switch("dmesg_restrict", "kernel/dmesg_restrict", "not_lower"),
    _switch("randomize_va_space", "kernel/randomize_va_space", "not_lower"),
    _switch("sysctl_unprivileged_bpf_disabled", "kernel/unprivileged_bpf_disabled", "set"),  # 1 is stronger than 2
    _switch("bpf_jit_harden", "net/core/bpf_jit_harden", "not_lower"),
    _switch("sysctl_perf_event_paranoid", "kernel/perf_event_paranoid", "not_lower", signed=True),
    _switch("sysctl_io_uring_disabled", "kernel/io_uring_disabled", "not_lower"),
    _switch("sysctl_unprivileged_userfaultfd", "vm/unprivileged_userfaultfd", "not_higher"),
    _switch("unprivileged_userns_clone", "kernel/unprivileged_userns_clone", "not_higher"),
    _switch("unprivileged_userns_apparmor_policy", "kernel/unprivileged_userns_apparmor_policy", "not_lower"),
    _switch("ptrace_scope", "kernel/yama/ptrace_scope", "not_lower"),
    _switch("panic_on_oops", "kernel/panic_on_oops", "not_lower"),
    _switch("tty_ldisc_autoload", "dev/tty/ldisc_autoload", "not_higher"),
    *(
        _switch(f"sysctl_protected_{each}", f"fs/protected_{each}", "not_lower")
        for each in ("fifos", "hardlinks", "regular", "symlinks")
    ),
    Parameter(symbol="dac_mmap_min_addr", size=8, baseline="not_lower", interface="/proc/sys/vm/mmap_min_addr"),
    Parameter(symbol="mmap_min_addr", size=8, baseline="not_lower"),
    # Locks that are closed once.
    _switch("modules_disabled", "kernel/modules_disabled", "not_lower"),
    _switch("kexec_load_disabled", "kernel/kexec_load_disabled", "not_lower"),
    Parameter(symbol="kernel_locked_down", size=4, baseline="not_lower"),
    _flag("sig_enforce"),
    # Who owns the machine's own user namespace, and that its ids are what they say: capable() is judged by it.
    *(
        Parameter(symbol="init_user_ns", type="user_namespace", field=field, value=0)
        for field in ("parent", "level", "owner")
    ),
    *(
        Parameter(symbol="init_user_ns", type="user_namespace", field=field, form="bytes", baseline="same")
        for field in ("uid_map", "gid_map", "projid_map")
    ),
    # Programs that the kernel starts as root.
    _helper("modprobe_path", "kernel/modprobe", 256),
    _helper("core_pattern", "kernel/core_pattern", 128),
    _helper("poweroff_cmd", "kernel/poweroff_cmd", 256),
    _helper("uevent_helper", "kernel/hotplug", 256),
    # Security modules. Their hooks hang on lists (security_hook_heads) or, since 417c5643cd67, in a table of static
    # calls. Both are read-only once the kernel has started.
    Parameter(
        symbol="selinux_state",
        type="selinux_state",
        field="enforcing",
        baseline="not_lower",
        interface="/sys/fs/selinux/enforce",
    ),
    Parameter(symbol="selinux_state", type="selinux_state", field="initialized", baseline="not_lower"),
    Parameter(symbol="apparmor_enabled", size=4, baseline="not_lower"),
    Parameter(symbol="security_hook_heads", type="security_hook_heads", form="bytes", baseline="same"),
    Parameter(symbol="static_calls_table", type="lsm_static_calls_table", form="bytes", baseline="same"),
    Parameter(symbol="lsm_active_cnt", size=4, baseline="same"),
)
"""Those whose symbol a kernel does not have are left out there, and named in the journal."""
