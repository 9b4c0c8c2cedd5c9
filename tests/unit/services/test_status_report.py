"""Status for a console, as any OPA tells it."""

import json
from pathlib import Path
from typing import Any

from krie.services.status_report import StatusReport
from krie.testing.patience import PATIENCE_S

from ..web import serving
from .bundle_site import until
from .console import Console, logging_agent


def test_status_in_opa_s_shape(tmp_path: Path) -> None:
    console = Console()
    with serving(console.answer) as server:
        more = {"status": {"url": server.url}}
        with logging_agent(tmp_path, server.url, **more) as (setting, agent):

            def reports() -> list[dict[str, Any]]:
                return [json.loads(each.body) for each in list(server.requests) if each.path == "/status"]

            revision = agent._in_force.policy.revision
            until(agent, lambda: any(each["bundles"]["krie"]["active_revision"] == revision for each in reports()))
            setting.rule("R2")
            agent._reload.begin()
            agent._reload.finish(PATIENCE_S)
            assert agent._in_force.policy.revision != revision
            until(agent, lambda: reports()[-1]["bundles"]["krie"]["active_revision"] == agent._in_force.policy.revision)
            report = reports()[-1]
    assert report["labels"]["app"] == "krie"
    assert report["plugins"] == {"decision_logs": {"state": "OK"}, "status": {"state": "OK"}}
    assert report["bundles"]["krie"]["name"] == "krie"
    assert report["bundles"]["krie"]["last_successful_activation"] > "2026"
    assert report["bundles"]["krie"]["last_successful_download"] == "0001-01-01T00:00:00Z"
    assert report["decision_logs"]["metrics"]["counter_decision_logs_dropped"] == 0


def test_trouble_in_status() -> None:
    status = StatusReport({}, ("bundle", "decision_logs"), lambda: 1.5)
    status.asked(7)
    status.in_force("r1")
    status.trouble("bundle", "answers 404", 404)
    status.trouble("decision_logs", "is full")
    status.count(sent=3, dropped=2)
    report: Any = status.to_json()
    assert report["bundles"]["krie"] == {
        "name": "krie",
        "active_revision": "r1",
        "last_successful_activation": "1970-01-01T00:00:01.500000Z",
        "last_successful_download": "1970-01-01T00:00:01.500000Z",
        "last_successful_request": "1970-01-01T00:00:01.500000Z",
        "last_request": "1970-01-01T00:00:01.500000Z",
        "type": "snapshot",
        "size": 7,
        "code": "bundle_error",
        "message": "answers 404",
        "http_code": "404",
    }
    assert report["decision_logs"]["code"] == "decision_log_error"
    assert report["decision_logs"]["metrics"]["counter_decision_logs_uploaded"] == 3
    assert report["plugins"]["bundle"] == {"state": "ERROR", "message": "answers 404"}
    status.trouble("bundle", "")
    assert "code" not in status.to_json()["bundles"]["krie"]  # type: ignore[index,call-overload,operator]
