// Holds an AsyncAPI document against the official parser. Prints every diagnostic that is an error or a warning, and exits with 1 if there is one.
// The schemas in payloads are OpenAPI's, so its schema parser is registered: without it the parser would not look into them.
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { OpenAPISchemaParser } from '@asyncapi/openapi-schema-parser'
import { DiagnosticSeverity, Parser } from '@asyncapi/parser'

const [path] = process.argv.slice(2)
const parser = new Parser()
parser.registerSchemaParser(OpenAPISchemaParser())

const { document, diagnostics } = await parser.parse(await readFile(path, 'utf8'), { source: resolve(path) })
const faults = diagnostics.filter(({ severity }) => severity <= DiagnosticSeverity.Warning)
for (const { severity, code, message, path: place, range } of faults) {
  console.error(`${path}:${range.start.line + 1}: ${DiagnosticSeverity[severity]} ${code}: ${message} (${place.join('.')})`)
}
if (faults.length > 0 || document === undefined) {
  process.exit(1)
}
console.log(
  `${path}: AsyncAPI ${document.version()}, ${document.operations().all().length} operations, ${document.messages().all().length} messages`,
)
