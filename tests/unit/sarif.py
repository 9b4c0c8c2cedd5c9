"""What of SARIF 2.1.0's schema concerns what is written here; nothing else is allowed.

Of run.versionControlProvenance the schema requires a repository's URI, and of run.properties nothing.
"""

from typing import Any


def obj(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


def several(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


TEXT = {"type": "string", "minLength": 1}
URI = {"type": "string", "pattern": r"^[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+$"}
MESSAGE = obj("text", text=TEXT)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
ARTIFACT = obj("uri", uri=URI, uriBaseId={"const": "SRCROOT"})
NUMBER = {"type": "integer", "minimum": 1}
LINT_RULE = "id shortDescription fullDescription help"
LINT_RESULT = "ruleId message level locations"
POLICY = obj(
    "name revision commit", name={"type": "string"}, revision=TEXT, commit={"type": ["string", "null"], "minLength": 1}
)


def log(rule: str = LINT_RULE, result: str = LINT_RESULT) -> dict[str, Any]:
    """`rule`, `result`: what these must have, which by default is what GitHub wants of a scanner."""
    return obj(
        "version runs",
        **{"$schema": URI},
        version={"const": "2.1.0"},
        runs=several(
            obj(
                "tool invocations results",
                tool=obj(
                    "driver",
                    driver=obj(
                        "name rules",
                        name=TEXT,
                        version=TEXT,
                        informationUri=URI,
                        rules=several(
                            obj(
                                rule,
                                id=TEXT,
                                shortDescription=MESSAGE,
                                fullDescription=MESSAGE,
                                help=MESSAGE,
                                helpUri=URI,
                                defaultConfiguration=obj("level", level=LEVEL),
                            )
                        ),
                    ),
                ),
                invocations=several(
                    obj(
                        "executionSuccessful",
                        executionSuccessful={"type": "boolean"},
                        toolExecutionNotifications=several(obj("message", level=LEVEL, message=MESSAGE)),
                    )
                ),
                originalUriBaseIds=obj("SRCROOT", SRCROOT=obj("uri", uri={**URI, "pattern": "^file:///.*/$"})),
                properties=obj("old new", old=POLICY, new=POLICY),
                columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                results=several(
                    obj(
                        result,
                        ruleId=TEXT,
                        ruleIndex={"type": "integer", "minimum": -1},
                        level=LEVEL,
                        message=MESSAGE,
                        locations={
                            **several(
                                obj(
                                    "physicalLocation",
                                    physicalLocation=obj(
                                        "artifactLocation",
                                        artifactLocation=ARTIFACT,
                                        region=obj("startLine", startLine=NUMBER, startColumn=NUMBER),
                                    ),
                                )
                            ),
                            "minItems": 1,
                        },
                        partialFingerprints={"type": "object", "additionalProperties": TEXT},
                    )
                ),
            )
        ),
    )
