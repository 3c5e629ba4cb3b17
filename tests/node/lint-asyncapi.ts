// Checks an AsyncAPI document with the official parser: `node lint-asyncapi.ts DOCUMENT`. Prints each error and each warning, and exits with 1 if
// there is one. Schemas in payloads are OpenAPI schemas, so the parser for those is registered. Without it, the official parser skips them.
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { OpenAPISchemaParser } from '@asyncapi/openapi-schema-parser'
import { DiagnosticSeverity, Parser } from '@asyncapi/parser'

const [path = ''] = process.argv.slice(2)
const parser = new Parser()
parser.registerSchemaParser(OpenAPISchemaParser())

const { document, diagnostics } = await parser.parse(await readFile(path, { encoding: 'utf8' }), { source: resolve(path) })
const problems = diagnostics.filter(({ severity }) => severity <= DiagnosticSeverity.Warning)
for (const { severity, code, message, path: place, range } of problems) {
  console.error(`${path}:${range.start.line + 1}: ${DiagnosticSeverity[severity]} ${code}: ${message} (${place.join('.')})`)
}
if (problems.length > 0 || document === undefined) {
  process.exit(1)
}
console.log(
  `${path}: AsyncAPI ${document.version()}, ${document.operations().all().length} operations, ${document.messages().all().length} messages`,
)
