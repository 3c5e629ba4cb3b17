// What the contracts allow, for every message: each event is checked against it. The contracts are those that this server publishes.
//
// The schemas are interpreted, not compiled: the Content-Security-Policy of the page forbids code that is made from text.
import { type OutputUnit, type Schema, Validator } from '@cfworker/json-schema'
import { type Json, type JsonObject, objectAt } from './contracts.ts'

export interface Violation {
  /** A JSON Pointer to what is wrong, `#` for all of it. */
  readonly pointer: string
  readonly detail: string
}

/** Keywords whose errors only say that there is an error within. */
const WRAPPERS = new Set(['$ref', 'allOf', 'anyOf', 'oneOf', 'properties', 'items', 'additionalProperties', 'prefixItems'])
const MOST_VIOLATIONS = 8

export class Schemas {
  private readonly validators = new Map<string, Validator | null>()

  /** Throws an Error when the contracts lack something that this page needs. */
  constructor(asyncapi: JsonObject, openapi: JsonObject) {
    const shared = jsonSchema(objectAt(openapi, 'components', 'schemas'))
    for (const message of Object.values(objectAt(asyncapi, 'components', 'messages'))) {
      const { name, payload } = message as { name: string; payload?: { schema: Json } }
      const schema = payload && ({ ...(jsonSchema(payload.schema) as object), $defs: shared } as Schema)
      this.validators.set(name, schema ? new Validator(schema, '2020-12', false) : null)
    }
  }

  /** Where a payload breaks the contract; empty when the contract allows it. */
  violations(message: string, payload: Json | undefined): Violation[] {
    const validator = this.validators.get(message)
    if (validator === undefined) return [{ pointer: '#', detail: `The contract has no message ${message}.` }]
    if (validator === null) return payload === undefined ? [] : [{ pointer: '#', detail: 'This message carries no payload.' }]
    if (payload === undefined) return [{ pointer: '#', detail: 'The payload is missing.' }]
    const { valid, errors } = validator.validate(payload)
    return valid ? [] : violationsOf(errors)
  }
}

function violationsOf(errors: readonly OutputUnit[]): Violation[] {
  const innermost = errors.filter(({ keyword }) => !WRAPPERS.has(keyword))
  return (innermost.length ? innermost : errors).slice(0, MOST_VIOLATIONS).map(({ keyword, instanceLocation, error }) => ({
    pointer: instanceLocation,
    detail: keyword === 'false' ? 'The contract has no such field.' : error,
  }))
}

/** OpenAPI 3.0 schemas as JSON Schema: `nullable` becomes a type, and a reference into the shared schemas, from either document, one into `$defs`. */
export function jsonSchema(node: Json): Json {
  if (Array.isArray(node)) return node.map(jsonSchema)
  if (node === null || typeof node !== 'object') return node
  const { nullable, ...converted } = Object.fromEntries(
    Object.entries(node).map(([key, value]) => [key, key === '$ref' && typeof value === 'string' ? localised(value) : jsonSchema(value)]),
  )
  return nullable === true ? orNull(converted) : converted
}

function orNull(schema: JsonObject): JsonObject {
  const { type, enum: values } = schema
  // A plain type stays where it is, because references may lead through it.
  if (typeof type !== 'string') return { anyOf: [schema, { type: 'null' }] }
  return { ...schema, type: [type, 'null'], ...(Array.isArray(values) && { enum: [...new Set([...values, null])] }) }
}

function localised(reference: string): string {
  const [, pointer] = /^[^#]*#\/components\/schemas\/(.+)$/.exec(reference) ?? []
  if (pointer === undefined) throw new Error(`The contract refers to ${reference}, which is no shared schema.`)
  return `#/$defs/${pointer}`
}
