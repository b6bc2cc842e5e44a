"""Offline checks: objects against their OpenAPI schemas, application files, the definitions themselves."""
