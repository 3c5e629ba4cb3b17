/** Schemas of the contracts as tables: fields, types, bounds and descriptions. Says only what a schema says. Pure; draws nothing. */
import { isObject, type Json, type JsonObject, objectAt } from '../contracts.ts'

/** A part of a type in words: plain text, a literal value, or a shared type by its name. */
export type Piece = string | { code: string } | { type: string }

export interface Row {
  /** The field's name, with those of the objects around it: `log.lines`. */
  name: string
  required: boolean
  type: Piece[]
  description: string
}

/** There are no rows where the schema is not an object with properties; then `type` tells what it is. */
export interface Table {
  title: string
  type: Piece[]
  description: string
  rows: Row[]
}

/** A schema and the document that it stands in; `name` is that of the shared schema that it was referred to by. */
interface Schema {
  node: JsonObject
  home: JsonObject
  name?: string
}

const UNITS = { Length: 'character', Items: 'item', Properties: 'field' }

/** Makes tables, and notes which shared schemas they refer to. */
export class SchemaReader {
  private readonly shared = new Map<string, Schema>()

  constructor(private readonly openapi: JsonObject) {}

  /** One table for an object; one for each form where there is a choice. */
  tables(node: JsonObject, home: JsonObject): Table[] {
    const schema = this.resolved({ node, home })
    const forms = schema.node.oneOf as readonly JsonObject[] | undefined
    return (forms ?? [schema.node]).map(form => this.table(this.resolved({ node: form, home: schema.home })))
  }

  /** Every shared schema that a table refers to, those of these tables included. */
  sharedTypes(): { name: string; tables: Table[] }[] {
    // A table may add to the map; the iteration reaches what is added.
    return Array.from(this.shared, ([name, { node, home }]) => ({ name, tables: this.tables(node, home) }))
  }

  private table(schema: Schema): Table {
    const { title, description, properties } = schema.node
    const rows = isObject(properties) ? [...this.rows(schema, '')] : []
    return { title: text(title), type: rows.length > 0 ? [] : this.typeOf(schema), description: text(description), rows }
  }

  private *rows({ node, home }: Schema, prefix: string): Generator<Row> {
    const required = (node.required ?? []) as readonly string[]
    for (const [name, property] of Object.entries(objectAt(node, 'properties'))) {
      const field = this.resolved({ node: property as JsonObject, home })
      yield { name: prefix + name, required: required.includes(name), type: this.typeOf(field), description: descriptionOf(field) }
      if (!field.name && hasTable(field)) yield* this.rows(field, `${prefix}${name}.`)
    }
  }

  private typeOf(schema: Schema): Piece[] {
    const { node, home, name } = this.resolved(schema)
    const parts: Piece[][] = [this.kindOf({ node, home, ...(name !== undefined && { name }) }), ...boundsOf(node).map(bound => [bound])]
    if (node.default !== undefined) parts.push([{ code: literal(node.default) }, ' when absent'])
    const nullable = node.nullable === true && !((node.enum ?? []) as readonly Json[]).includes(null)
    return [...joined(parts, ', '), ...(nullable ? [' or null'] : [])]
  }

  private kindOf(schema: Schema): Piece[] {
    const { node, home, name } = schema
    if (name && hasTable(schema)) {
      if (!this.shared.has(name)) this.shared.set(name, schema)
      return [{ type: name }]
    }
    const choices = (node.anyOf ?? node.oneOf) as readonly JsonObject[] | undefined
    const each = (choice: JsonObject) => this.typeOf({ node: choice, home })
    if (choices) return joined(choices.map(each), ' or ')
    if (Array.isArray(node.enum))
      return joined(
        node.enum.map(value => [value === null ? 'null' : { code: literal(value) }]),
        ' or ',
      )
    if (node.type === 'array') return ['array of ', ...each(objectAt(node, 'items'))]
    const kind = text(node.type) || 'anything'
    return [typeof node.format === 'string' ? `${kind} (${node.format})` : kind]
  }

  /** The schema that is meant; what stands beside a reference in `allOf` (a description, a default) wins over what it refers to. */
  private resolved(schema: Schema): Schema {
    const { node, home } = schema
    if (typeof node.$ref === 'string') return this.resolved(this.followed(node.$ref, home))
    const { allOf, ...beside } = node
    if (!Array.isArray(allOf) || allOf.length !== 1) return schema
    const meant = this.resolved({ node: allOf[0] as JsonObject, home })
    return { ...meant, node: { ...meant.node, ...beside } }
  }

  private followed(reference: string, document: JsonObject): Schema {
    const [file, pointer = ''] = reference.split('#')
    const home = file ? this.openapi : document
    const steps = pointer.split('/').slice(1).map(unescaped)
    const shared = steps.length === 3 && steps[0] === 'components' && steps[1] === 'schemas'
    return { node: objectAt(home, ...steps), home, ...(shared && { name: steps[2] as string }) }
  }
}

const hasTable = ({ node }: Schema): boolean => isObject(node.properties)

/** The description of a shared object is shown once, with its own table. */
function descriptionOf(field: Schema): string {
  return hasTable(field) && field.name !== undefined && field.name === field.node.title ? '' : text(field.node.description)
}

function boundsOf(node: JsonObject): string[] {
  const { minimum, maximum } = node
  const bounds: string[] = []
  if (minimum !== undefined && maximum !== undefined) bounds.push(`${minimum} to ${maximum}`)
  else if (minimum !== undefined) bounds.push(`at least ${minimum}`)
  else if (maximum !== undefined) bounds.push(`at most ${maximum}`)
  for (const [suffix, unit] of Object.entries(UNITS)) {
    for (const [words, limit] of [['at least', node[`min${suffix}`]] as const, ['at most', node[`max${suffix}`]] as const]) {
      if (limit !== undefined) bounds.push(`${words} ${limit} ${unit}${limit === 1 ? '' : 's'}`)
    }
  }
  return bounds
}

function literal(value: Json): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function joined(parts: readonly (readonly Piece[])[], separator: string): Piece[] {
  return parts.flatMap((part, index) => (index === 0 ? part : [separator, ...part]))
}

const unescaped = (step: string): string => step.replaceAll('~1', '/').replaceAll('~0', '~')

function text(value: Json | undefined): string {
  return typeof value === 'string' ? value : ''
}
