"""OpenAI's files and batches: what is asked, a line of an input file, the objects that are shown, a line of an output file. Pure."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from services.ingress.dialects.port import Unread, refuse_unsupported
from services.ingress.problems import Problem
from shared.contracts.base import Label, Sentence
from shared.contracts.batch import BatchChanged, BatchTerms, CustomId, RefusedRow, StoredFile
from shared.contracts.bounds import check_depth
from shared.errors import InvalidInput

WINDOW = re.compile(r"([1-9][0-9]{0,2})h")
MOST_HOURS = 168
_BATCH, _FILE = "batch_", "file-"
_OUTPUT, _ERRORS = "-output", "-errors"
_ENDS = {"completed": "completed_at", "failed": "failed_at", "expired": "expired_at", "cancelled": "cancelled_at"}
_UNRUN = {"cancelled": "This request was not run: the batch was cancelled.", "expired": "This request was not run in the batch's window."}


class BatchRequest(BaseModel):
    """The body of `POST /v1/batches`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_file_id: Label
    endpoint: Label
    completion_window: Label
    metadata: dict[Label, Sentence] | None = Field(default=None, max_length=16)
    output_expires_after: Unread = None

    def window_seconds(self) -> float:
        """Raises InvalidInput."""
        refuse_unsupported(self, {"output_expires_after": ()})
        found = WINDOW.fullmatch(self.completion_window)
        if found is None or int(found[1]) > MOST_HOURS:
            raise InvalidInput(f"completion_window is 24h, or 1h to {MOST_HOURS}h", param="completion_window")
        return int(found[1]) * 3_600.0

    def terms(self, created_at: float) -> BatchTerms:
        """Raises ValidationError."""
        return BatchTerms(
            endpoint=self.endpoint,
            input_file=self.input_file_id,
            created_at=created_at,
            window=self.completion_window,
            metadata=self.metadata or {},
        )


class _AskedLine(BaseModel):
    """A line of an input file, but for its body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    custom_id: CustomId
    method: Literal["POST"]
    url: Label


def parsed(line: bytes) -> Any:
    """Raises InvalidInput."""
    check_depth(line)
    try:
        return from_json(line)
    except ValueError:
        raise InvalidInput("the line is not JSON", code="invalid_json_line") from None


def custom_id_of(found: Any) -> str | None:
    """Of a line that may be wrong otherwise."""
    name = found.get("custom_id") if isinstance(found, dict) else None
    return name if isinstance(name, str) and 1 <= len(name) <= 512 else None


def read(found: Any, endpoint: str) -> tuple[str, bytes]:
    """The line's custom_id and its body. Raises ValidationError, InvalidInput."""
    body = found.pop("body", None) if isinstance(found, dict) else None
    line = _AskedLine.model_validate(found)
    if line.url != endpoint:
        raise InvalidInput(f"the url of each line is the batch's endpoint, {endpoint}", code="invalid_url", param="url")
    if not isinstance(body, dict):
        raise InvalidInput("the body of each line is an object", param="body")
    return line.custom_id, to_json(body)


# Names: a batch's files are named after it


def file_names(batch: str) -> dict[bool, str]:
    """Of the file with its good lines, and with the others."""
    return {good: f"{_FILE}{batch.removeprefix(_BATCH)}{_OUTPUT if good else _ERRORS}" for good in (True, False)}


def batch_of_file(name: str) -> tuple[str, bool] | None:
    """The batch that this file is of, and whether it holds its good lines; None of a file that was uploaded."""
    for end in (_OUTPUT, _ERRORS):
        if name.startswith(_FILE) and name.endswith(end):
            return _BATCH + name.removeprefix(_FILE).removesuffix(end), end == _OUTPUT
    return None


def has_file(known: BatchChanged, good: bool) -> bool:
    """Whether the batch, which is over, has any line for it."""
    if known.over_at is None or known.errors:
        return False
    return known.completed > 0 if good else known.failed + known.refusals + len(known.open) + known.lines - known.next > 0


# Objects


def file_object(file: StoredFile) -> dict[str, Any]:
    """What was uploaded."""
    said = {"filename": file.filename, "purpose": file.purpose}
    return _file(file.name, file.size, file.created_at, file.expires_at) | said


def made_file(known: BatchChanged, good: bool, kept_seconds: float) -> dict[str, Any]:
    """What a batch has made. Its bytes are not counted: it is rendered when it is read."""
    name, created = file_names(known.batch)[good], known.terms.created_at
    said = {"filename": f"{name.removeprefix(_FILE)}.jsonl", "purpose": "batch_output"}
    return _file(name, 0, known.over_at or created, created + kept_seconds) | said


def _file(name: str, size: int, created: float, expires: float) -> dict[str, Any]:
    times = {"created_at": int(created), "expires_at": int(expires)}
    return {"id": name, "object": "file", "bytes": size, "status": "processed"} | times


def deleted(name: str) -> bytes:
    """The answer of a deletion."""
    return to_json({"id": name, "object": "file", "deleted": True})


def listed(found: list[dict[str, Any]], more: bool) -> bytes:
    """A page."""
    ends = {"first_id": found[0]["id"] if found else None, "last_id": found[-1]["id"] if found else None}
    return to_json({"object": "list", "data": found, "has_more": more, **ends})


def batch_object(known: BatchChanged, status: str | None = None) -> dict[str, Any]:
    """A batch as it is; `status`: of one of which its owner has said nothing yet."""
    terms, names, status = known.terms, file_names(known.batch), status or known.status
    created, ending = int(terms.created_at), None if known.ending_at is None else int(known.ending_at)
    times: dict[str, int | None] = dict.fromkeys(("finalizing_at", "cancelling_at", *_ENDS.values()))
    if known.ending is not None:
        times["cancelling_at" if known.ending == "cancelled" else "finalizing_at"] = ending
    if known.over_at is not None:
        times[_ENDS[status]] = int(known.over_at)
    errors = [{"code": e.code, "message": e.message, "line": e.line, "param": e.param} for e in known.errors]
    return {
        "id": known.batch,
        "object": "batch",
        "endpoint": terms.endpoint,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": terms.input_file,
        "completion_window": terms.window,
        "status": status,
        "output_file_id": names[True] if has_file(known, True) else None,
        "error_file_id": names[False] if has_file(known, False) else None,
        "created_at": created,
        "in_progress_at": None if status in ("validating", "failed") else created,
        "expires_at": created + int(known.window_seconds),
        **times,
        "request_counts": {
            "total": known.lines + known.refusals,
            "completed": known.completed,
            "failed": known.failed + known.refusals,
        },
        "metadata": terms.metadata or None,
    }


# Lines of output


def good_line(custom_id: str, job: str, body: bytes) -> bytes:
    """`body`: as the endpoint would have answered."""
    return b'{"id":"batch_req_%b","custom_id":%b,"response":{"status_code":200,"request_id":%b,"body":%b},"error":null}\n' % (
        job.encode(), to_json(custom_id), to_json(job), body,
    )  # fmt: skip


def bad_line(custom_id: str | None, request: str, status: int, error: Any) -> bytes:
    """`error`: as the endpoint would have said it."""
    response = {"status_code": status, "request_id": request, "body": {"error": error}}
    return to_json({"id": f"batch_req_{request}", "custom_id": custom_id, "response": response, "error": None}) + b"\n"


def unrun_line(custom_id: str, request: str, why: str) -> bytes:
    """`why`: cancelled or expired."""
    error = {"code": f"batch_{why}", "message": _UNRUN[why]}
    return to_json({"id": f"batch_req_{request}", "custom_id": custom_id, "response": None, "error": error}) + b"\n"


def refused_row(number: int, custom_id: str | None, problem: Problem, rendered: bytes) -> RefusedRow:
    """A line that never is a job."""
    status = problem.status if 400 <= problem.status < 600 else 500
    return RefusedRow(line=number, custom_id=custom_id, status=status, error=from_json(rendered)["error"])
