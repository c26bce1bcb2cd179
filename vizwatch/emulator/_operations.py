"""What each operation answers: requests in, answers out, and no I/O between them."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from vizwatch.emulator import _arguments, _checks, _iam, _refusals
from vizwatch.emulator._cloud import Row
from vizwatch.emulator._faults import SERVICE
from vizwatch.emulator._options import Options
from vizwatch.emulator._refusals import Answer, Refusal
from vizwatch.emulator._world import World

_RUNNING_QUOTA: Final = 100
_COUNT_LIMIT: Final = 1_000
_SAMPLED: Final = frozenset({"ModelArts.0103", "ModelArts.0104", "ModelArts.0105"})
_DONE: Final = Answer(body={"is_success": True})


@attrs.frozen(kw_only=True)
class Call:
    """A request to one operation."""

    operation: str
    method: str
    path: str
    raw_query: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)
    project_id: str = ""
    job_id: str = ""
    region: str
    """The one whose endpoint was asked."""
    endpoints: Mapping[str, str]
    """Every region's, as the client can reach them."""
    lag: float = 0.0
    """How many seconds behind the truth a read is."""


def perform(world: World, call: Call) -> Answer:
    """Carry out an operation, or refuse it as the gateway or the service does."""
    try:
        headers = world.rate_limit.admit(world.clock.now(), world.options.speed)
    except Refusal as refusal:
        return refusal.answer
    answer = _carry_out(world, call)
    return attrs.evolve(answer, headers={**answer.headers, **headers}) if headers else answer


def _carry_out(world: World, call: Call) -> Answer:
    try:
        if call.operation in SERVICE:
            _authorize(world, call)
        return _OPERATIONS[call.operation](world, call)
    except Refusal as refusal:
        answer = refusal.answer
        if not isinstance(answer.body, str) and answer.body.get("error_code") in _SAMPLED:
            return attrs.evolve(answer, status=world.options.refusal_status)
        return answer


def _authorize(world: World, call: Call) -> None:
    options = world.options
    if not _checks.is_identifier(call.project_id):
        raise _refusals.invalid("The project id is invalid.")
    if "Authorization" in call.headers:
        _check_signature(options, call)
    else:
        token = call.headers.get("X-Auth-Token", "")
        world.tokens.check(token, options.token, call.project_id, world.clock.now())
    if world.homes.setdefault(call.project_id, call.region) != call.region:
        raise _refusals.service(401, "0207", f"The token does not contain a project of {call.region}.")


def _check_signature(options: Options, call: Call) -> None:
    signed = _iam.Signed(
        method=call.method, path=call.path, query=call.raw_query, headers=call.headers, body=call.body
    )
    # Signatures are dated by the wall clock, which steps of the cloud's clock do not move.
    wall = dt.datetime.fromtimestamp(time.time() + options.clock_skew, tz=dt.UTC)
    signed.check(options.access_key, options.secret_key, options.security_token, wall)
    # Keys are no project's own: without the header they stand for the account's main project.
    if call.headers.get("X-Project-Id", options.project_id) != call.project_id:
        raise _refusals.other_project()


def _list(world: World, call: Call) -> Answer:
    asked = _arguments.listing(call.query, world.options)
    now = world.clock.now()
    at = now - call.lag
    total, rows = world.cloud.list(call.project_id, asked, now, at)
    present = len(world.cloud.project(call.project_id, now).jobs)
    limit = _COUNT_LIMIT if world.options.quota is None else world.options.quota
    recording = world.options.recording
    body = {
        "quotas": _RUNNING_QUOTA,
        "is_success": True,
        "job_total_count": total,
        # The China document's meaning, and the samples': how many more may be created.
        "job_count_limit": max(0, limit - present),
        "jobs": [recording.row(_fields(world, row, at)) for row in rows],
    }
    past_the_end = recording.past_the_end(body) if asked.page > 1 and not rows else None
    return past_the_end or Answer(body=recording.envelope(body))


def _details(world: World, call: Call) -> Answer:
    now = world.clock.now()
    at = now - call.lag
    job_id, recording = _arguments.job_id(call.job_id), world.options.recording
    try:
        row = world.cloud.details(call.project_id, job_id, now, at)
    except Refusal:
        recorded = recording.missing(job_id)
        if recorded is None:
            raise
        return recorded
    return Answer(body=recording.details({**_fields(world, row, at), "is_success": True}))


def _fields(world: World, row: Row, at: float) -> dict[str, Any]:
    job, state = row
    fields: dict[str, Any] = {
        "job_id": job.job_id,
        "job_name": job.name,
        "status": int(state.status),
        "create_time": world.clock.milliseconds(job.created),
        "resource_id": job.resource_id,
        "duration": round(state.ran_until(at) * 1000),
        "job_desc": state.job_desc,
        "service_url": job.service_url,
        "train_url": job.spec.train_url,
        "remaining_duration": None,
    }
    if job.spec.auto_stop_hours is not None:
        hours = job.spec.auto_stop_hours
        fields["schedule"] = [{"type": "stop", "timeUnit": "HOURS", "duration": hours}]
    return fields


def _create(world: World, call: Call) -> Answer:
    spec = _arguments.new_job(call.body)
    now = world.clock.now()
    quota = world.options.quota
    if quota is not None and len(world.cloud.project(call.project_id, now).jobs) >= quota:
        raise _refusals.service(400, "0118", f"The quota of {quota} visualization jobs is used up.")
    job = world.cloud.create(call.project_id, spec, now)
    numbers = {
        "job_id": job.job_id,
        "status": int(job.state.status),
        "create_time": world.clock.milliseconds(job.created),
    }
    shown = {key: str(value) for key, value in numbers.items()} if world.options.string_numbers else numbers
    return Answer(body={**shown, "job_name": job.name, "service_url": job.service_url, "is_success": True})


def _update(world: World, call: Call) -> Answer:
    job_id, job_desc = _arguments.job_id(call.job_id), _arguments.description(call.body)
    world.cloud.update(call.project_id, job_id, job_desc, world.clock.now())
    return _DONE


def _stop(world: World, call: Call) -> Answer:
    world.cloud.stop(call.project_id, _arguments.job_id(call.job_id), world.clock.now())
    return _DONE


def _restart(world: World, call: Call) -> Answer:
    world.cloud.restart(call.project_id, _arguments.job_id(call.job_id), world.clock.now())
    return _DONE


def _delete(world: World, call: Call) -> Answer:
    world.cloud.delete(call.project_id, _arguments.job_id(call.job_id), world.clock.now())
    return _DONE


def _token(world: World, call: Call) -> Answer:
    options, now = world.options, world.clock.now()
    body = _arguments.json_object(call.body, refuse=lambda text: _refusals.iam(400, "Bad Request", text))
    known = _iam.Credentials(user=options.user, password=options.password, domain=options.domain)
    method, expires = _identified(world, body, known)
    project = _iam.scope_of(body, {options.project_name: options.project_id}, options.domain)
    token = world.tokens.issue(None if project is None else project["id"], expires)
    domain = {"id": _iam.id_of(options.domain), "name": options.domain}
    content: dict[str, Any] = {
        "methods": [method],
        "issued_at": world.clock.iso(now),
        "expires_at": world.clock.iso(expires),
        "user": {"id": _iam.id_of(options.user), "name": options.user, "domain": domain},
    }
    if project is not None:
        region = _iam.region_of(project["name"], options.regions)
        if region is not None:
            world.homes.setdefault(project["id"], region)
        content["project"] = {**project, "domain": domain}
        content["roles"] = [{"id": "0", "name": "te_admin"}]
        content["catalog"] = _catalog(call.endpoints, project["id"])
    return Answer(status=201, body={"token": content}, headers={"X-Subject-Token": token})


def _identified(world: World, body: Mapping[str, Any], known: _iam.Credentials) -> tuple[str, float]:
    """The method by which a token is asked for, and when that one expires."""
    now, options = world.clock.now(), world.options
    given = _iam.given_token(body)
    if given is None:
        known.check(body)
        return "password", now + options.token_ttl
    # A token asked for with a token lives no longer than that one.
    return "token", min(now + options.token_ttl, world.tokens.expiry(given, options.token, now))


def _versions(_: World, call: Call) -> Answer:
    """What OpenStack's clients look for before they ask for a token."""
    links = [{"rel": "self", "href": f"{call.endpoints[call.region]}/v3/"}]
    version = {"id": "v3.14", "status": "stable", "links": links, "media-types": []}
    if call.path == "/":
        return Answer(status=300, body={"versions": {"values": [version]}})
    return Answer(body={"version": version})


def _unknown(_world: World, _call: Call) -> Answer:
    raise _refusals.no_such_api()


def _catalog(endpoints: Mapping[str, str], project_id: str) -> list[dict[str, Any]]:
    paths = {
        "identity": "/v3",
        "modelarts": f"/v1/{project_id}",
        # The name under which otcextensions looks for the service.
        "modelartsv1": f"/v1/{project_id}",
    }
    return [
        {
            "id": _iam.id_of(name),
            "name": name,
            "type": name,
            "endpoints": [
                {
                    "id": _iam.id_of(f"{region} {name}"),
                    "interface": "public",
                    "region": region,
                    "region_id": region,
                    "url": endpoint + path,
                }
                for region, endpoint in endpoints.items()
            ],
        }
        for name, path in paths.items()
    ]


_OPERATIONS: Final[Mapping[str, Callable[[World, Call], Answer]]] = {
    "list": _list,
    "details": _details,
    "create": _create,
    "update": _update,
    "delete": _delete,
    "stop": _stop,
    "restart": _restart,
    "token": _token,
    "versions": _versions,
    "unknown": _unknown,
}
