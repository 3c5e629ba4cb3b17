"""The HTTP operations: one file a tag of `openapi/jobs.yaml`, one function an operationId. Knows no web framework and no SQL."""
