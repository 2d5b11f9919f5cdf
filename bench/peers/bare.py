"""The limit: Flask that answers with a constant, on the same worker."""

from flask import Flask, Response

app = Flask(__name__)

BODY = (
    b'{"id": 1, "version": 1, "email": "ann@example.com", "name": "Ann", "address": "1 Main Street, Springfield",'
    b' "image": "https://example.com/ann.png", "text": null, "created_at": "2021-11-07T02:48:42Z",'
    b' "updated_at": "2021-11-07T02:48:42Z"}\n'
)


@app.get("/users/<int:id>")
def by_id(id: int):
    return Response(BODY, mimetype="application/json")


@app.get("/openapi.json")
def ready():
    return {}
