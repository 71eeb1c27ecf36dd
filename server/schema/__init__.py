"""Descriptions of the protocol made from its one definition: AsyncAPI, TypeScript, Python."""
