"""Reports: who was hired, by quarter and above the mean. A CSV download unless JSON is asked for."""

from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema, fields

from handlers.access import needs
from handlers.answers import page
from handlers.contract import CSV, JSON, NDJSON, gives, takes
from handlers.fields import Digits

reports = Blueprint("reports", __name__)


class YearQuery(Schema):
    """The year of a report."""

    year = Digits(most=9999, required=True, metadata={"description": "The year, in UTC.", "example": 2021})


class Quarters(Schema):
    """How many were hired for a job in a department, in each quarter."""

    department = fields.String(metadata={"example": "Engineering"})
    job = fields.String(metadata={"example": "Architect"})
    Q1 = fields.Integer()
    Q2 = fields.Integer()
    Q3 = fields.Integer()
    Q4 = fields.Integer()


class AboveMean(Schema):
    """A department that hired more than the mean over all departments."""

    id = fields.Integer()
    department = fields.String(metadata={"example": "Engineering"})
    hired = fields.Integer()


@reports.get("/requirements/quarter")
@needs("reader")
@takes(query=YearQuery)
@gives(Quarters, many=True, media=(CSV, JSON, NDJSON))
def quarter(query: dict[str, Any]) -> Response:
    """How many were hired in each quarter of a year, by department and job in alphabetical order."""
    return download(page("reports.quarter", query), f"quarter-{query['year']}.csv")


@reports.get("/requirements/media")
@needs("reader")
@takes(query=YearQuery)
@gives(AboveMean, many=True, media=(CSV, JSON, NDJSON))
def media(query: dict[str, Any]) -> Response:
    """The departments that hired more people in a year than the mean over all departments, most first."""
    return download(page("reports.media", query), f"media-{query['year']}.csv")


def download(response: Response, filename: str) -> Response:
    """CSV as a file to keep."""
    if response.mimetype == CSV:
        response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response
