"""The API's documents."""

from aiohttp import web

from sofinance.infra.http import Endpoint


def add_documents(app: web.Application, endpoints: list[Endpoint]) -> None:
    """Serve the documents of these endpoints."""
