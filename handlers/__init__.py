"""The routes of the service, one module a resource; what they share is in http, bulk and messages."""
