"""Reports: who was hired, by quarter and above the mean. A CSV download unless JSON is asked for."""

from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema, fields

from handlers.http.auth import requires_role
from handlers.http.contract import CSV, NDJSON, gives, takes
from handlers.http.fields import IntegerParam
from handlers.http.request_body import JSON
from handlers.http.responses import page
from handlers.http.schemas import TableQuery

reports = Blueprint("reports", __name__)


class YearQuery(TableQuery):
    """The year of a report."""

    year = IntegerParam(most=9999, required=True, metadata={"description": "The year, in UTC.", "example": 2021})


class Year(Schema):
    """A year in which somebody was hired."""

    year = fields.Integer(metadata={"example": 2021})


class Quarters(Schema):
    """How many were hired for a job in a department, in each quarter."""

    department = fields.String(metadata={"example": "Engineering"})
    job = fields.String(metadata={"example": "Architect"})
    Q1 = fields.Integer()
    Q2 = fields.Integer()
    Q3 = fields.Integer()
    Q4 = fields.Integer()


class Hired(Schema):
    """How many a department hired."""

    id = fields.Integer()
    department = fields.String(metadata={"example": "Engineering"})
    hired = fields.Integer()


@reports.get("/requirements/quarter")
@requires_role("reader")
@takes(query=YearQuery)
@gives(Quarters, many=True, media=(CSV, JSON, NDJSON))
def quarter(query: dict[str, Any]) -> Response:
    """How many were hired in each quarter of a year, by department and job in alphabetical order."""
    return download(page("reports.quarter", query), f"quarter-{query['year']}.csv")


@reports.get("/requirements/media")
@requires_role("reader")
@takes(query=YearQuery)
@gives(Hired, many=True, media=(CSV, JSON, NDJSON))
def media(query: dict[str, Any]) -> Response:
    """The departments that hired more people in a year than the mean over all departments, most first."""
    return download(page("reports.media", query), f"media-{query['year']}.csv")


@reports.get("/requirements/departments")
@requires_role("reader")
@takes(query=YearQuery)
@gives(Hired, many=True, media=(CSV, JSON, NDJSON))
def departments(query: dict[str, Any]) -> Response:
    """How many each department hired in a year, those that hired nobody too, most first."""
    return download(page("reports.departments", query), f"departments-{query['year']}.csv")


@reports.get("/requirements/years")
@requires_role("reader")
@takes(query=TableQuery)
@gives(Year, many=True)
def years(query: dict[str, Any]) -> Response:
    """The years in which somebody was hired, the latest first."""
    return page("reports.years", query)


def download(response: Response, filename: str) -> Response:
    """CSV as a file to keep."""
    if response.mimetype == CSV:
        response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response
