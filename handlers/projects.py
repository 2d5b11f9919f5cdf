"""Projects: what people work on together."""

from typing import Any

from flask import Blueprint, Response
from marshmallow import Schema, fields, validate

from db import as_of, stream
from handlers.http.auth import requires_role
from handlers.http.contract import gives, takes
from handlers.http.crud import add_crud_routes
from handlers.http.fields import IntegerParam, StrictInteger, Text, Timestamp, as_of_time
from handlers.http.responses import document
from handlers.http.schemas import Item, instant, page_query

projects = Blueprint("projects", __name__)

TREE_TIMEOUT = 60
"""Seconds that a tree may take to be found."""

SLUG = validate.Regexp(
    r"[a-z0-9]+(-[a-z0-9]+)*\Z", error="Must be small letters and digits, with single dashes between."
)


class Project(Item):
    """What people work on together."""

    name = Text(200, required=True, metadata={"example": "Row house"})
    slug = Text(
        200,
        blank=True,  # SLUG says more
        required=True,
        validate=[SLUG],
        metadata={"description": "Its name in an address.", "example": "row-house"},
    )
    description = Text(10_000, blank=True, allow_none=True, load_default=None)
    owner_id = StrictInteger(allow_none=True, load_default=None, metadata={"description": "A user."})


class NewProject(Project):
    """A project; its slug is made from its name where none is given."""

    slug = Text(200, blank=True, allow_none=True, load_default=None, validate=[SLUG])


class Person(Schema):
    """Somebody who has to do with a project."""

    id = fields.Integer()
    name = fields.String(allow_none=True)
    image = fields.String(allow_none=True)


class ProjectTree(Project):
    """A project with all below it, and the people: its owner, who is assigned, who commented."""

    milestones = fields.List(fields.Nested("Milestone"))
    userstories = fields.List(fields.Nested("UserStoryTree"))
    users = fields.List(fields.Nested(Person))


class TreeQuery(Schema):
    """When to look."""

    as_of = as_of_time()


class ProjectDiffQuery(Schema):
    """Two moments: what is otherwise at the second than at the first; it may be the earlier one."""

    since = Timestamp(required=True, data_key="from", metadata={"example": "2021-11-07T02:48:42Z"})
    until = Timestamp(data_key="to", metadata={"description": "Now, unless told.", "example": "2121-11-07T02:48:42Z"})


class ObjectChange(Schema):
    """What became of an object in between."""

    obj_type = fields.String(metadata={"example": "userstory"})
    obj_id = fields.Raw(metadata={"description": "Its key."})
    action = fields.String(metadata={"enum": ["create", "update", "delete"]})
    version = fields.Integer(metadata={"description": "Its last one in between."})
    actors = fields.List(fields.String(), metadata={"description": "Who changed it."})
    diff = fields.Raw(metadata={"description": 'As {"field": [old, new]}.'})


class ProjectDiff(Schema):
    """What became of a project between two moments."""

    changes = fields.List(fields.Nested(ObjectChange))


@projects.get("/projects/<id:id>/diff")
@requires_role("reader", of_project=True)
@takes(query=ProjectDiffQuery)
@gives(ProjectDiff)
def diff(id: int, query: dict[str, Any]) -> Response:
    """What is otherwise in a project at one moment than at another, object by object."""
    return document(stream("projects.diff", TREE_TIMEOUT, id=id, **query))


@projects.get("/projects/<id:id>/tree")
@requires_role("reader", of_project=True)
@takes(query=TreeQuery)
@gives(ProjectTree, tells_place=True)
def tree(id: int, query: dict[str, Any]) -> Response:
    """A project with its milestones, stories, tasks, comments and people, all as of one moment."""
    as_of.set(query.get("as_of", ""))
    return document(stream("projects.tree", TREE_TIMEOUT, id=id))


add_crud_routes(
    projects,
    noun="projects",
    one="a project",
    schema=Project,
    new=NewProject,
    query=page_query(
        Project,
        {"id": str, "name": str, "slug": str, "created_at": instant},
        id=IntegerParam(),
        name=Text(200),
        slug=Text(200),
        owner_id=IntegerParam(),
    ),
    of_project=True,
)
