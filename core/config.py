"""krie.toml: pydantic models, and errors that name the place and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from .config_file import MODE, RUN_DIR, PluginMode, read_content
from .config_problem import KEY, worded
from .config_section import Section
from .config_values import absolute, absolute_or_empty, digest, named, power_of_two, server
from .errors import ConfigError
from .services_config import BundleConfig, DecisionLogsConfig, StatusConfig, is_url, problems


class AgentConfig(Section):
    """`[agent]`"""

    run_dir: Annotated[str, AfterValidator(absolute)] = Field(
        RUN_DIR, description="folder of the agent's lock and of its socket for `krie status` and `krie clear`"
    )
    state_dir: Annotated[str, AfterValidator(absolute)] = Field(
        "/var/lib/krie", description="directory of the heartbeat file, by which the next start detects an unclean exit"
    )
    cache_dir: Annotated[str, AfterValidator(absolute_or_empty)] = Field(
        "/var/cache/krie",
        description="directory where compiled programs are cached; empty disables the cache",
    )
    compiled_dir: Annotated[str, AfterValidator(absolute_or_empty)] = Field(
        "",
        description="directory of programs made by `krie compile`, possibly on another host; preferred to `cache_dir`",
    )
    ring_mib: Annotated[int, Field(ge=1, le=512), AfterValidator(power_of_two)] = Field(
        32, description="size of the ring buffer, MiB; a burst that it cannot hold is counted as lost"
    )
    user_burst: int = Field(
        64,
        ge=1,
        le=10_000_000,
        description="records of one kind by one user that are reported at once, of which each CPU has its part, but 16 "
        "at least; beyond that, similar ones are reported once a second, and others up to four times as many",
    )
    user_rate: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="how many of them are reported a second, in the long run; a CPU's part is 10 at least",
    )
    allow_syscall_tracepoints: bool = Field(
        False, description="allow probes that make every system call slower, where the kernel offers nothing else"
    )
    canary_interval_s: int = Field(30, ge=1, le=86400, description="how often each probe is proven alive, s")
    scan_interval_s: int = Field(
        60, ge=1, le=86400, description="how often plugins compare the kernel with their baseline, s"
    )
    roaming_interval_s: int = Field(
        300, ge=1, le=86400, description="how often probes that roam are moved to other instructions, s"
    )
    loader_timeout_s: int = Field(300, ge=1, le=3600, description="timeout for each reply from the loader process, s")
    processes: int = Field(
        65536,
        ge=1024,
        le=1 << 22,
        description="processes that the process table holds; where more live, some are forgotten, and `krie status` "
        "says how many (`evicted`)",
    )


class JournalConfig(Section):
    """`[journal]`"""

    path: str = Field("/var/log/krie/journal.jsonl", description="the journal's file; empty: none is written")
    max_mib: int = Field(64, ge=1, le=1 << 20, description="size at which the file is rotated, MiB")
    keep: int = Field(5, ge=1, le=1000, description="rotated files that are kept")
    important_max_mib: int = Field(
        16,
        ge=1,
        le=1 << 20,
        description="the same for NAME.important.jsonl beside it: what rules of severity high or critical, or with an "
        "action, say, and whatever was done; few a minute of those alike",
    )
    important_keep: int = Field(20, ge=1, le=1000, description="rotated files of it that are kept")
    min_action: Literal["allow", "log", "override", "kill"] = Field(
        "allow",
        description="least action of which a line is written; `log`: none without a rule. The agent's own events, and "
        "those about which something was done, have one in any case",
    )
    queue: int = Field(
        65536, ge=1024, le=1 << 22, description="lines that may wait for the disk; more are counted as lost"
    )


class PolicyConfig(Section):
    """`[policy]`"""

    paths: tuple[str, ...] = Field((), description="further folders with .rego rules and .json data")
    engine: Literal["embedded", "opa"] = Field(
        "embedded",
        description="who decides what user space decides: the engine in the agent, or the server of `[opa]`, for which "
        "the embedded one stands in whenever it cannot",
    )
    bundle: str = Field(
        "",
        description="URL or file of a bundle, as OPA has it, which is then all that decides; empty: the rules of KRIe, "
        "its plugins and `paths` do",
    )
    on_error: Literal["allow", "log"] = Field(
        "log", description="reaction that is added where a policy cannot be evaluated"
    )
    memo: int = Field(8192, ge=0, le=1 << 22, description="decisions that are remembered for repeated inputs; 0: none")
    check_interval_s: int = Field(2, ge=1, le=3600, description="how often changed policy files are looked for, s")
    decision_ms: int = Field(
        1000,
        ge=10,
        le=60000,
        description="timeout for one package of rules to decide one event, in milliseconds; then `on_error` decides",
    )
    load_s: int = Field(60, ge=1, le=3600, description="timeout for reading, compiling and trying a policy, in seconds")
    memory_mib: int = Field(256, ge=16, le=1 << 20, description="limit of the memory for one policy, in MiB")
    opa: str = Field(
        "", description="path of an `opa` whose checker policies must pass too; empty: the agent asks none"
    )


class OpaConfig(Section):
    """`[opa]`: the server that decides where `policy.engine` is `opa`."""

    url: Annotated[str, AfterValidator(server)] = Field(
        "", description="the server: `http://HOST:PORT`, `https://HOST:PORT` (port 8181 if not said) or `unix:///PATH`"
    )
    token: str = Field("", description="file with the bearer token that the server wants; empty: none")
    ca: str = Field("", description="file with the certificates (PEM) that vouch for the server; empty: the usual ones")
    certificate: str = Field("", description="file with the agent's own certificate (PEM), for servers that ask for it")
    key: str = Field("", description="file with the certificate's private key; empty: it is in the same file")
    timeout_ms: int = Field(
        100, ge=5, le=10000, description="timeout for one query, in milliseconds; then the embedded engine decides"
    )
    batch: int = Field(64, ge=1, le=1024, description="events that wait together and are decided by one query, at most")
    waiting_percent: int = Field(
        75,
        ge=1,
        le=100,
        description="largest share of any 10 s that the agent may spend waiting for the server, %; beyond it the "
        "embedded engine decides; 100: no limit",
    )

    @model_validator(mode="after")
    def _keeps_the_token(self) -> Self:
        host = urlsplit(self.url).hostname
        if self.token and self.url.startswith("http://") and host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("opa.token would be sent in clear; use https, or a server on this host")
        if (self.ca or self.certificate) and self.url and not self.url.startswith("https://"):
            raise ValueError("opa.ca and opa.certificate need a url with https")
        if self.key and not self.certificate:
            raise ValueError("opa.key needs opa.certificate")
        return self


class EnforcementConfig(Section):
    """`[enforcement]`: how plugins in mode `enforce` may act."""

    protected: tuple[Annotated[str, AfterValidator(absolute)], ...] = Field(
        (), description="executables whose processes are never refused, poisoned or killed"
    )
    guard: bool = Field(
        True,
        description="refuse to everybody but tgid 1 what would stop, slow or open the agent: signals, tracing, limits, "
        "priorities, its files and cgroup, descriptors of its BPF objects",
    )
    clear: Literal["root", "token", "init"] = Field(
        "root",
        description="who may `krie clear` while a plugin enforces: root, who knows the token, or `init`: tgid 1 alone",
    )
    clear_token_sha256: Annotated[str, AfterValidator(digest)] = Field(
        "", description="SHA-256 of that token, in hexadecimal digits: `openssl rand -hex 32` makes a token"
    )
    host_scope: bool = Field(
        False, description="carry out scope `host`, which binds every process but the agent and the protected ones"
    )
    poison_s: int = Field(
        600, ge=1, le=86400, description="how long poison lasts that a program in the kernel decides, s"
    )
    verdict_s: int = Field(600, ge=1, le=86400, description="how long a refusal binds a process, s")
    breaker_processes: int = Field(
        10,
        ge=1,
        le=100_000,
        description="how many one rule may kill or poison in the period before it only refuses: "
        "all processes of a user count as one, and so do those of a program of root's",
    )
    breaker_period_s: int = Field(60, ge=1, le=86400, description="that period, s")

    @model_validator(mode="after")
    def _has_token(self) -> Self:
        if self.clear == "token" and not self.clear_token_sha256:
            raise ValueError('clear = "token" needs clear_token_sha256')
        return self


class PluginConfig(Section):
    """Keys that every `[plugins.<name>]` has. Plugins add their own in a subclass."""

    mode: PluginMode = Field(
        MODE, description="`observe`: decide and journal, touch nothing; `enforce`: carry out what was decided"
    )
    required: bool = Field(
        False, description="do not start unless this plugin works and is alive, and end when it fails"
    )


class Config(Section):
    """The whole file. Relative paths are below the file's folder."""

    agent: AgentConfig = AgentConfig()
    journal: JournalConfig = JournalConfig()
    policy: PolicyConfig = PolicyConfig()
    opa: OpaConfig = OpaConfig()
    bundle: BundleConfig = BundleConfig()
    decision_logs: DecisionLogsConfig = DecisionLogsConfig()
    status: StatusConfig = StatusConfig()
    enforcement: EnforcementConfig = EnforcementConfig()
    executables: dict[Annotated[str, AfterValidator(named)], Annotated[str, AfterValidator(absolute)]] = Field(
        default_factory=dict, description="`data.executables`: names that rules give to executables"
    )
    plugins: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="the plugins that are loaded; no other one is even imported"
    )

    @model_validator(mode="after")
    def _has_a_server(self) -> Self:
        if self.policy.engine == "opa":
            if not self.opa.url:
                raise ValueError('policy.engine is "opa", and opa.url names no server')
            if self.opa.timeout_ms >= self.policy.decision_ms:
                raise ValueError("opa.timeout_ms must be less than policy.decision_ms, which is for both engines")
        return self


_FILES = ("token", "ca", "certificate", "key")
"""Of `[opa]`."""
_Model = TypeVar("_Model", bound=Section)


def load_config(path: Path) -> Config:
    """Read and check the file. Raises `ConfigError`, `UntrustedFileError`."""
    config = _validate(Config, read_content(path), str(path), "")
    folder = path.resolve().parent
    update = {"paths": tuple(str(folder / each) for each in config.policy.paths)}
    opa = {"opa": str(folder / config.policy.opa)} if config.policy.opa else {}
    policy = config.policy.model_copy(update={**update, **opa})
    if policy.bundle and not is_url(policy.bundle):
        policy = policy.model_copy(update={"bundle": str(folder / policy.bundle)})
    files = {name: str(folder / value) for name in _FILES if (value := getattr(config.opa, name))}
    journal = config.journal
    if journal.path:
        journal = journal.model_copy(update={"path": str(folder / journal.path)})
    for where, problem in problems(policy.bundle, config.bundle, config.decision_logs, config.status):
        raise ConfigError(f"{path}: {where}", problem)
    services = {
        "opa": config.opa.model_copy(update=files),
        "bundle": config.bundle.below(folder),
        "decision_logs": config.decision_logs.below(folder),
        "status": config.status.below(folder),
    }
    return config.model_copy(update={"policy": policy, "journal": journal, **services})


def plugin_config(name: str, raw: Mapping[str, Any], model: type[_Model], place: str) -> _Model:
    """Check a plugin's keys against its model. Raises `ConfigError`."""
    return _validate(model, raw, place, f"plugins.{name}.")


def _validate(model: type[_Model], content: Mapping[str, Any], place: str, prefix: str) -> _Model:
    try:
        return model.model_validate(_tuples(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = prefix + ".".join(str(part) for part in first["loc"] if part not in ("", KEY))
        raise ConfigError(f"{place}: {where}" if where else place, worded(model, dict(first))) from error


def _tuples(value: Any) -> Any:
    """TOML's lists as tuples, which strict models want."""
    if isinstance(value, Mapping):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
