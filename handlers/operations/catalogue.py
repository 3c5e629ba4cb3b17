"""Operations that list what this server can run: job types, tasks and templates."""

from __future__ import annotations

from handlers.contract.document import Contract
from handlers.representations import Answer, catalog_json, job_type_json, template_json
from jobs.service import Service


def list_job_types(service: Service, *, contract: Contract) -> Answer:
    types = [job_type_json(info, info.schema or contract.params_schema(info.type)) for info in service.job_types()]
    return Answer({"job_types": types})


def list_templates(service: Service) -> Answer:
    return Answer(catalog_json(service.templates()))


def get_template(service: Service, *, name: str) -> Answer:
    return Answer(template_json(service.template(name)))
